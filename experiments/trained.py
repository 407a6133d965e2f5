"""The models of a run that is trained, to measure them."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dsink_jax.errors import InputError
from dsink_jax.training import predict
from dsink_jax.training.loop import ShouldStop, never
from experiments.config import Config
from experiments.dataset import Dataset, load_dataset
from experiments.models import Spec
from experiments.run import RunModels
from experiments.run_directory import RunDirectory


class Trained:
    """The models of a run, from their last checkpoints.

    Attributes:
      dataset: what they were trained on.
      specs: what they are, by name.
      results: the content of results.json on these models.
    """

    def __init__(self, dataset: Dataset, specs: Sequence[Spec], results: dict[str, Any], models: RunModels):
        """See `open_trained`."""
        self.dataset, self.results, self._recipe = dataset, results, models.recipe
        self.specs = {spec.name: spec for spec in specs}

    def logits(self, name: str, images: Any) -> np.ndarray:
        """float32 `[M, C]`, whose softmax is the prediction of a trained model for images."""
        return self._recipe.logits(name, images)

    def training_logits(self, name: str) -> np.ndarray:
        """The same for the training images, which are predicted for once."""
        return self._recipe.training_logits(name)

    def features(self, name: str, images: Any) -> np.ndarray:
        """float32 `[M, D]`, what the last layer of a trained model is given for images.

        Of several networks, whose logits are averaged, it is those of all of them side by side.
        """
        trained = self._recipe.train(name)
        found = predict(
            trained.predictor,
            trained.variables,
            trained.numbers,
            self.dataset.training_set.standardization,
            images,
            self.dataset.devices,
            wanted="features",
        )
        return found.reshape(len(found), -1)


@contextlib.contextmanager
def open_trained(
    config: Config, make_specs: Callable[[Dataset], list[Spec]], should_stop: ShouldStop = never
) -> Iterator[Trained]:
    """Opens a run whose models are all trained.

    Args:
      config: its settings.
      make_specs: its models, auxiliaries first.
      should_stop: see `run`.

    Raises:
      InputError: if a model is not trained yet.
    """
    devices = config.local_devices()
    with RunDirectory(config) as directory:
        dataset = load_dataset(config, directory, devices)
        specs, results = make_specs(dataset), directory.results()
        missing = [spec.name for spec in specs if spec.name not in results["models"]]
        if missing:
            raise InputError(f"{directory.path}: {', '.join(missing)} is not trained yet.")
        # Other studies may have trained more there.
        results = {**results, "models": {spec.name: results["models"][spec.name] for spec in specs}}
        yield Trained(dataset, specs, results, RunModels(dataset, directory, specs, should_stop))
