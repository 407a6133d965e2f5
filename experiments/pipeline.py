"""The order of work of one run: data, corruption, auxiliary models, baselines, target, report."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dsink_jax import evaluation, report
from dsink_jax.data import batches, corruption
from dsink_jax.training import (
    AuxiliaryPair,
    Checkpointer,
    DeviceData,
    FitSettings,
    TrainedAuxiliary,
    fit,
    make_predictor,
    make_progress,
    replicate,
)
from experiments.config import Config
from experiments.plan import IMBALANCE_ROBUST, NOISE_ROBUST, Spec, auxiliary_specs, plan
from experiments.problem import Problem, data_facts, load_problem
from experiments.run_directory import RunDirectory, known

# Auxiliaries draw from streams of their own. Target and baselines share one: the same initial parameters,
# order and augmentation, so that they differ by their loss alone.
_STREAMS = {IMBALANCE_ROBUST: 1, NOISE_ROBUST: 2}


def run(config: Config, make_plan: Callable[[Problem], list[Spec]] | None = None) -> dict[str, Any]:
    """Trains what is not trained yet, writes the run directory and returns the results.

    Args:
      config: the settings.
      make_plan: the models to train, auxiliaries first; `plan` if left out.

    Raises:
      InputError: for settings that do not fit the data or the machine, or a directory that cannot be used.
    """
    devices = config.local_devices()
    batches.check_batch_size(config.batch_size, len(devices))
    directory = RunDirectory(config)
    problem = load_problem(config, directory, devices)
    print(f"Run directory {directory.path}")
    print(f"{problem.data.name} from {problem.data.source}")
    print(corruption.describe(problem.corruption))

    results = directory.results()
    results["data"] = data_facts(problem)
    specs = (make_plan or plan)(problem)
    directory.start(problem.corruption)
    todo = [spec for spec in specs if spec.name not in results["models"]]
    if not todo:
        print("All models are trained already.")
    trainer = Trainer(problem, directory)
    for spec in specs:
        if spec in todo:
            results["models"][spec.name] = trainer.train(spec)
            directory.save_results(results)
    planned = {spec.name: results["models"][spec.name] for spec in specs}
    results["models"] = planned | results["models"]  # in order of the plan; others are kept
    directory.save_results(results)
    results["models"] = planned
    finish(directory, results)
    return results


class Trainer:
    """Trains the models of one run, and keeps the auxiliaries for those that need them."""

    def __init__(self, problem: Problem, directory: RunDirectory):
        """Puts the test images on the devices."""
        self._problem, self._directory = problem, directory
        self._test_images = replicate(problem.data.test.images, problem.devices)
        self._auxiliaries: dict[str, TrainedAuxiliary] = {}

    def train(self, spec: Spec) -> dict[str, Any]:
        """Trains one model, or finishes its training, and returns its entry of results.json."""
        return self._measure(spec, *self._fit(spec))

    def _fit(self, spec):
        problem, config = self._problem, self._problem.config
        auxiliaries = self._auxiliary_pair() if spec.method.needs_auxiliaries else None
        predict = make_predictor(problem.model, spec.method, problem.preprocessing, problem.devices)
        data = DeviceData(problem.images, problem.corruption.noisy_labels)
        if auxiliaries is not None and config.auxiliary_predictions == "cached":
            data, auxiliaries = data._replace(**self._cached_logits(auxiliaries)), None
        checkpointer = Checkpointer(self._directory.checkpoints(spec.name))
        self._directory.forget_after(spec.name, checkpointer.latest_epoch())
        try:
            fitted = fit(
                problem.model,
                spec.method,
                data,
                problem.preprocessing,
                FitSettings(
                    config.epochs,
                    config.batch_size,
                    config.optimizer,
                    config.evaluate_every,
                    config.checkpoint_every,
                    config.steps_per_dispatch,
                ),
                num_classes=problem.data.num_classes,
                seed=_model_seed(config.seed, spec.name),
                devices=problem.devices,
                auxiliaries=auxiliaries,
                evaluate=lambda variables: self._evaluate(predict(variables, self._test_images)),
                checkpointer=checkpointer,
                on_record=lambda record: self._directory.log(spec.name, record),
                progress=make_progress(spec.name),
            )
        finally:
            checkpointer.close()
        if spec.name in _STREAMS:
            self._auxiliaries[spec.name] = TrainedAuxiliary(problem.model, spec.method, fitted.variables)
        return fitted, predict

    def _auxiliary_pair(self):
        """f_N and f_L, from this process or from their last checkpoints."""
        specs = {spec.name: spec for spec in auxiliary_specs(self._problem)}
        for name in _STREAMS:
            if name not in self._auxiliaries:
                self._fit(specs[name])
        return AuxiliaryPair(self._auxiliaries[NOISE_ROBUST], self._auxiliaries[IMBALANCE_ROBUST])

    def _cached_logits(self, auxiliaries):
        problem = self._problem
        fields = {"noise_robust_logits": auxiliaries[0], "imbalance_robust_logits": auxiliaries[1]}
        return {
            name: make_predictor(model, method, problem.preprocessing, problem.devices)(
                variables, problem.images
            )
            for name, (model, method, variables) in fields.items()
        }

    def _evaluate(self, logits):
        problem = self._problem
        labels = problem.data.test.labels
        predictions = logits.argmax(-1)
        per_class = evaluation.per_class_accuracy(predictions, labels, problem.data.num_classes)
        groups = evaluation.class_groups(problem.corruption.clean_counts)
        return {
            "accuracy": float(np.mean(predictions == labels)),
            **{
                name: known(evaluation.group_accuracy(per_class, getattr(groups, name)))
                for name in groups._fields
            },
        }

    def _measure(self, spec, fitted, predict):
        problem = self._problem
        labels = problem.data.test.labels
        test = predict(fitted.variables, self._test_images)
        train = predict(fitted.variables, problem.images).argmax(-1)
        per_class = evaluation.per_class_accuracy(test.argmax(-1), labels, problem.data.num_classes)
        curve = [record["accuracy"] for record in fitted.history]
        last = self._evaluate(test)
        probabilities = np.asarray(jax.nn.softmax(test, axis=-1))
        print(
            f"  {spec.name} ({spec.label}): accuracy {100 * curve[-1]:.1f} % after "
            f"{problem.config.epochs} epochs, {fitted.seconds:.0f} s"
        )
        return {
            "role": spec.role,
            "method": spec.label,
            "accuracy": {
                "last": curve[-1],
                "mean_last_10": float(np.mean(curve[-10:])),
                "best": max(curve),
            },
            "per_class": [known(share) for share in per_class.tolist()],
            **{name: last[name] for name in ("many", "medium", "few")},
            "noisy_corrected": known(
                evaluation.noisy_corrected(
                    train, problem.corruption.noisy_labels, problem.corruption.clean_labels
                )
            ),
            "calibration_error": evaluation.expected_calibration_error(probabilities, labels),
            "seconds": fitted.seconds,
        }


def finish(directory: RunDirectory, results: dict[str, Any]) -> None:
    """Prints the table and, where matplotlib is installed, draws the figures and the page."""
    print()
    print(report.results_table(results))
    try:
        page = report.write_report(directory.path)
    except report.MissingMatplotlibError as error:
        print(error)
    else:
        print(f"\nReport: {page}")


def _model_seed(seed, name):
    """A seed for each stream of a training seed, as an integer of 32 bits."""
    return int(np.random.SeedSequence((seed, _STREAMS.get(name, 0))).generate_state(1)[0])
