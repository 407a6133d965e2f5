"""The models of a run that is trained, to measure them."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dsink_jax.errors import InputError
from dsink_jax.training import make_predictor
from dsink_jax.training.loop import ShouldStop, never
from experiments.config import Config
from experiments.pipeline import Trainer
from experiments.plan import Spec
from experiments.problem import Problem, load_problem
from experiments.run_directory import RunDirectory


class Trained:
    """The models of a run, from their last checkpoints.

    Attributes:
      problem: what they were trained on.
      specs: what they are, by name.
      results: the content of results.json on these models.
    """

    def __init__(self, problem: Problem, specs: Sequence[Spec], results: dict[str, Any], trainer: Trainer):
        """See `open_trained`."""
        self.problem, self.results, self._trainer = problem, results, trainer
        self.specs = {spec.name: spec for spec in specs}
        self._training_logits: dict[str, np.ndarray] = {}

    def logits(self, name: str, images: Any) -> np.ndarray:
        """float32 `[M, C]`, whose softmax is the prediction of a trained model for images."""
        fitted, predict = self._trainer.fit(self.specs[name])
        return predict(fitted.variables, images)

    def training_logits(self, name: str) -> np.ndarray:
        """The same for the training images, which are predicted for once."""
        if name not in self._training_logits:
            self._training_logits[name] = self.logits(name, self.problem.images)
        return self._training_logits[name]

    def features(self, name: str, images: Any) -> np.ndarray:
        """float32 `[M, D]`, what the last layer of a trained model is given for images.

        Raises:
          ValueError: for a model of several networks.
        """
        spec = self.specs[name]
        fitted, _ = self._trainer.fit(spec)
        model = self.problem.model_for(spec.method)
        if model.features is None:
            raise ValueError(f"{name} is several networks, which have no features in common.")
        telling = model._replace(
            apply=lambda variables, inputs, train: (model.features(variables, inputs), {})
        )
        predict = make_predictor(telling, None, self.problem.preprocessing, self.problem.devices)
        return predict(fitted.variables, images)


@contextlib.contextmanager
def open_trained(
    config: Config, make_plan: Callable[[Problem], list[Spec]], should_stop: ShouldStop = never
) -> Iterator[Trained]:
    """Opens a run whose models are all trained.

    Args:
      config: its settings.
      make_plan: its models, auxiliaries first.
      should_stop: see `pipeline.run`.

    Raises:
      InputError: if a model is not trained yet.
    """
    devices = config.local_devices()
    with RunDirectory(config) as directory:
        problem = load_problem(config, directory, devices)
        specs, results = make_plan(problem), directory.results()
        missing = [spec.name for spec in specs if spec.name not in results["models"]]
        if missing:
            raise InputError(f"{directory.path}: {', '.join(missing)} is not trained yet.")
        # Other studies may have trained more there.
        results = {**results, "models": {spec.name: results["models"][spec.name] for spec in specs}}
        yield Trained(problem, specs, results, Trainer(problem, directory, specs, should_stop))
