"""The order of work of one run: data, corruption, auxiliary models, baselines, target, report."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dsink_jax import evaluation, report
from dsink_jax.data import batches, corruption, sources
from dsink_jax.data.augment import Augmentation
from dsink_jax.data.human_labels import load_human_labels
from dsink_jax.errors import InputError
from dsink_jax.methods import DSink, Method, NaiveDistillation, TrainingFacts, build_method
from dsink_jax.models import Model, build_model
from dsink_jax.training import (
    AXIS,
    AuxiliaryPair,
    Checkpointer,
    DeviceData,
    FitSettings,
    Preprocessing,
    TrainedAuxiliary,
    fit,
    make_predictor,
    make_progress,
    replicate,
)
from experiments.config import NAIVE, Config
from experiments.run_directory import RunDirectory

IMBALANCE_ROBUST, NOISE_ROBUST, TARGET = "imbalance_robust", "noise_robust", "target"

# Auxiliaries draw from streams of their own. Target and baselines share one: the same initial parameters,
# order and augmentation, so that they differ by their loss alone.
_STREAMS = {IMBALANCE_ROBUST: 1, NOISE_ROBUST: 2}


class Spec(NamedTuple):
    """One model to train.

    Attributes:
      name: its name in results.json.
      role: `auxiliary`, `baseline` or `target`.
      label: its method in words.
      method: what it optimises.
    """

    name: str
    role: str
    label: str
    method: Method


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """Everything the models of a run share."""

    config: Config
    data: sources.ImageData
    corruption: corruption.Corruption
    model: Model
    preprocessing: Preprocessing
    devices: Sequence[jax.Device]

    @property
    def images(self) -> np.ndarray:
        """Training images `[M, H, W, channels]` that are left."""
        return self.data.train.images[self.corruption.index]

    @property
    def facts(self) -> TrainingFacts:
        """What methods may be told."""
        return TrainingFacts(
            self.data.num_classes,
            tuple(self.corruption.noisy_counts.tolist()),
            tuple(self.corruption.clean_counts.tolist()),
        )


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
    todo = [spec for spec in specs if spec.name not in results["models"]]
    if not todo:
        print("All models are trained already.")
    trainer = Trainer(problem, directory)
    for spec in specs:
        if spec in todo:
            results["models"][spec.name] = trainer.train(spec)
            directory.save_results(results)
    results["models"] = {spec.name: results["models"][spec.name] for spec in specs}
    directory.save_results(results)
    finish(directory, results)
    return results


def load_problem(config: Config, directory: RunDirectory, devices: Sequence[jax.Device]) -> Problem:
    """Loads the data and reads or draws the corrupted set."""
    data = sources.load(config.dataset, config.data_dir, download=config.download)
    if config.limit_test is not None:
        kept = _equal_share(data.test.labels, data.num_classes, config.limit_test, "--limit-test")
        test = sources.Split(data.test.images[kept], data.test.labels[kept])
        data = dataclasses.replace(data, test=test)
    drawn = directory.corruption()
    if drawn is None:
        drawn = read_or_draw(config, data)
        directory.save_corruption(drawn)
    check_fits(drawn, data)
    model = build_model(
        config.model,
        data.num_classes,
        compute_dtype=config.compute_dtype,
        final_norm=config.final_norm,
        axis_name=AXIS,
    )
    preprocessing = Preprocessing(Augmentation(config.crop_padding, config.flip), data.mean, data.std)
    return Problem(config, data, drawn, model, preprocessing, devices)


def read_or_draw(config: Config, data: sources.ImageData) -> corruption.Corruption:
    """The corrupted set, from a file or drawn by the data seed."""
    if config.corruption_file is not None:
        return corruption.load_corruption(config.corruption_file)
    labels = data.train.labels
    human = None
    if config.noise.startswith("human_"):
        human = load_human_labels(
            config.dataset,
            config.noise.removeprefix("human_"),
            config.data_dir,
            config.human_labels,
            clean_labels=labels,
        )
    subset = np.arange(len(labels))
    if config.limit_train is not None:
        subset = _equal_share(labels, data.num_classes, config.limit_train, "--limit-train")
    drawn = corruption.corrupt(
        labels[subset],
        data.num_classes,
        imbalance_ratio=config.imbalance_ratio,
        noise=config.noise,
        noise_rate=config.synthetic_rate,
        data_seed=config.data_seed,
        map_seed=config.map_seed,
        human_labels=human,
    )
    return dataclasses.replace(drawn, index=subset[drawn.index].astype(np.int32))


def check_fits(drawn: corruption.Corruption, data: sources.ImageData) -> None:
    """Raises `InputError` unless the corrupted set is one of this data set."""
    labels = data.train.labels
    if (
        drawn.num_classes != data.num_classes
        or drawn.index.max() >= len(labels)
        or not np.array_equal(labels[drawn.index], drawn.clean_labels)
    ):
        raise InputError(
            f"The corrupted set was not drawn from {data.name}: its clean labels differ from the data's.\n"
            "Give the corruption.npz of a run on the same data set."
        )


def plan(problem: Problem) -> list[Spec]:
    """The models of a run in the order of training: auxiliaries, baselines, target."""
    config = problem.config
    return [
        *auxiliary_specs(problem),
        *(
            naive_spec(problem, config) if name == NAIVE else _named_spec(problem, name, "baseline", name)
            for name in config.baseline_names
        ),
        target_spec(problem, config),
    ]


def auxiliary_specs(problem: Problem) -> list[Spec]:
    """f_L and f_N."""
    config = problem.config
    return [
        _named_spec(problem, IMBALANCE_ROBUST, "auxiliary", config.imbalance_method),
        _named_spec(problem, NOISE_ROBUST, "auxiliary", config.noise_method),
    ]


def naive_spec(problem: Problem, config: Config, name: str = NAIVE) -> Spec:
    """Naive distillation with the settings of `config`."""
    base = build_method(config.base, problem.facts, config.method_options)
    method = NaiveDistillation(base, config.weighting(config.naive_alpha), config.naive_noise_weight)
    return Spec(name, "baseline", f"{config.base} + {config.naive_alpha:g} naive", method)


def target_spec(problem: Problem, config: Config, name: str = TARGET) -> Spec:
    """D-SINK with the settings of `config`."""
    base = build_method(config.base, problem.facts, config.method_options)
    method = DSink(base, config.weighting(config.alpha), config.threshold, config.max_iterations)
    return Spec(name, "target", f"{config.base} + {config.alpha:g} D-SINK", method)


def _named_spec(problem, name, role, method):
    built = build_method(method, problem.facts, problem.config.method_options)
    return Spec(name, role, method, built)


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
            **{name: evaluation.group_accuracy(per_class, getattr(groups, name)) for name in groups._fields},
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
            "per_class": [_known(share) for share in per_class.tolist()],
            **{name: _known(last[name]) for name in ("many", "medium", "few")},
            "noisy_corrected": _known(
                evaluation.noisy_corrected(
                    train, problem.corruption.noisy_labels, problem.corruption.clean_labels
                )
            ),
            "calibration_error": evaluation.expected_calibration_error(probabilities, labels),
            "seconds": fitted.seconds,
        }


def data_facts(problem: Problem) -> dict[str, Any]:
    """The `data` entry of results.json."""
    drawn = problem.corruption
    return {
        "name": problem.data.name,
        "source": problem.data.source,
        "num_classes": drawn.num_classes,
        "train_images": len(drawn.index),
        "test_images": len(problem.data.test.labels),
        "imbalance_ratio": drawn.imbalance_ratio,
        "noise": drawn.noise,
        "nominal_rate": _known(drawn.nominal_rate),
        "realised_rate": drawn.realised_rate,
        "counts_before": drawn.counts_before.tolist(),
        "clean_counts": drawn.clean_counts.tolist(),
        "noisy_counts": drawn.noisy_counts.tolist(),
        "class_map": drawn.class_map.tolist() if (drawn.class_map >= 0).any() else None,
        "data_seed": drawn.data_seed,
        "sha256": drawn.sha256,
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


def _known(share):
    """JSON has no NaN: a share of nothing is null."""
    return None if np.isnan(share) else share


def _model_seed(seed, name):
    """A seed for each stream of a training seed, as an integer of 32 bits."""
    return int(np.random.SeedSequence((seed, _STREAMS.get(name, 0))).generate_state(1)[0])


def _equal_share(labels, num_classes, limit, flag):
    """Positions of the first `limit // num_classes` examples of each class."""
    share = limit // num_classes
    if share < 1:
        raise InputError(f"{flag} {limit} leaves no image for each of {num_classes} classes.")
    members = [np.flatnonzero(labels == c)[:share] for c in range(num_classes)]
    return np.sort(np.concatenate(members))
