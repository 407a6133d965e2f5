"""The order of work of one run: data, corruption, auxiliary models, baselines, target, report."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dsink_jax import evaluation, report
from dsink_jax.data import batches, corruption
from dsink_jax.errors import InputError
from dsink_jax.methods import DSink, bytes_per_example
from dsink_jax.models.interface import Variables
from dsink_jax.training import (
    AuxiliaryPair,
    Checkpointer,
    Fitted,
    TrainedAuxiliary,
    TrainingDivergedError,
    TrainingStoppedError,
    first_stage_settings,
    fit,
    make_predictor,
    make_progress,
    replicate,
)
from dsink_jax.training.loop import ShouldStop, never
from dsink_jax.training.parallel import total_devices
from dsink_jax.training.processes import is_first
from experiments.config import Config
from experiments.definitions import definition, is_same
from experiments.examples import TrainingLogits, collect_examples
from experiments.plan import STUDY_TARGET, TARGET, Spec, plan
from experiments.problem import Problem, data_facts, load_problem
from experiments.run_directory import RunDirectory, known


def run(
    config: Config,
    make_plan: Callable[[Problem], list[Spec]] | None = None,
    should_stop: ShouldStop = never,
) -> dict[str, Any]:
    """Trains what is not trained yet, writes the run directory and returns the results.

    Args:
      config: the settings.
      make_plan: the models to train, auxiliaries first; `plan` if left out.
      should_stop: see `fit`; asked before each model too.

    Raises:
      InputError: for settings that do not fit the data or the machine, or a directory that cannot be used.
      TrainingStoppedError: if `should_stop` said so; what was done is saved.
      StorageError: if a file cannot be written.
    """
    devices = config.local_devices()
    batches.check_batch_size(config.batch_size, total_devices(devices))
    with RunDirectory(config) as directory:
        return _run(config, directory, devices, make_plan or plan, should_stop)


def _run(config, directory, devices, make_plan, should_stop):
    problem = load_problem(config, directory, devices)
    print(f"Run directory {directory.path}")
    print(f"{problem.data.name} from {problem.data.source}")
    print(corruption.describe(problem.drawn))
    if len(problem.validation):
        print(
            f"{len(problem.validation):,} of these images are held out to validate on, as they are labelled"
        )

    results = directory.results()
    results["data"] = data_facts(problem)
    specs = make_plan(problem)
    _check_specs(specs, problem, results)
    batches.check_length(config.epochs, len(problem.corruption.index), config.batch_size)
    directory.start(problem.drawn)
    todo = [spec for spec in specs if spec.name not in results["models"]]
    if not todo:
        print("All models are trained already.")
    trainer = Trainer(problem, directory, specs, should_stop)
    for spec in specs:
        if spec in todo:
            results["models"][spec.name] = trainer.train(spec)
            directory.save_results(results)
    planned = {spec.name: results["models"][spec.name] for spec in specs}
    results["models"] = planned | results["models"]  # in order of the plan; others are kept
    directory.save_results(results)
    results["models"] = planned
    if is_first():
        finish(directory, results)
    return results


class _Auxiliary(NamedTuple):
    """A trained auxiliary model and how to predict with it."""

    trained: TrainedAuxiliary
    predict: Callable[[Any], np.ndarray]


class Trainer:
    """Trains the models of one run, and keeps the auxiliaries for those that need them."""

    def __init__(
        self,
        problem: Problem,
        directory: RunDirectory,
        specs: Sequence[Spec],
        should_stop: ShouldStop = never,
    ):
        """Puts the images to predict for on the devices."""
        self._problem, self._directory, self._should_stop = problem, directory, should_stop
        self._specs = {spec.name: spec for spec in specs}
        self._test_images = replicate(problem.data.test.images, problem.devices)
        self._validation_images = problem.validation_images
        if not problem.streams:
            self._validation_images = replicate(self._validation_images, problem.devices)
        self._auxiliaries: dict[str, _Auxiliary] = {}

    def train(self, spec: Spec) -> dict[str, Any]:
        """Trains one model, or finishes its training, and returns its entry of results.json."""
        if not spec.is_trained:
            return self._combine(spec)
        fitted, predict = self.fit(spec)
        test, train = (
            predict(fitted.variables, images) for images in (self._test_images, self._problem.images)
        )
        entry = self._measure(spec, test, train, fitted.history, fitted.seconds)
        if spec.name in (TARGET, STUDY_TARGET) and isinstance(spec.method, DSink):
            self._keep_examples(spec, train)
            entry["confusion_matrix"] = self._confusion_matrix(test)
        return entry

    def _keep_examples(self, spec, logits):
        """Writes what the page shows of single images, before the target counts as trained."""
        auxiliaries = [one.predict(self._problem.images) for one in self._auxiliary_pair(spec)]
        logits = TrainingLogits(logits, *auxiliaries)
        self._directory.save_examples(collect_examples(self._problem, spec.method, logits))

    def _confusion_matrix(self, logits):
        data = self._problem.data
        return evaluation.confusion_matrix(logits.argmax(-1), data.test.labels, data.num_classes).tolist()

    def fit(self, spec: Spec) -> tuple[Fitted, Callable[[Variables, Any], np.ndarray]]:
        """Trains all stages, if they are not, and returns what was fitted and how to predict with it."""
        method, settings = spec.method, self._problem_of(spec).config.fit_settings
        self._announce(spec)
        first = None
        if method.first_stage is not None:
            first_settings = first_stage_settings(settings, method)
            name = f"{spec.name}_first_stage"
            first, _ = self._fit_stage(spec, name, method.first_stage, first_settings)
        fitted, predict = self._fit_stage(spec, spec.name, method, settings, first)
        if spec.role == "auxiliary":
            trained = TrainedAuxiliary(self._problem.model_for(method), method, fitted.variables)
            self._auxiliaries[spec.name] = _Auxiliary(trained, functools.partial(predict, fitted.variables))
        return fitted, predict

    def _problem_of(self, spec):
        """What a model is trained on: the run's problem, or less."""
        return self._problem if spec.weakening is None else spec.weakening(self._problem)

    def _fit_stage(self, spec, name, method, settings, first=None):
        problem = self._problem_of(spec)
        config = problem.config
        model = problem.model_for(method)
        auxiliaries = self._auxiliary_pair(spec) if method.needs_auxiliaries else None
        predict = make_predictor(model, method, problem.preprocessing, problem.devices)
        data = problem.training_set(method)
        if auxiliaries is not None:
            if isinstance(method, DSink) and method.marginal == "dataset":
                probabilities = jax.nn.softmax(auxiliaries[1].predict(problem.images), axis=-1)
                marginal = tuple(np.mean(probabilities, axis=0, dtype=float).tolist())
                method = dataclasses.replace(method, class_marginal=marginal)
            if spec.cached:
                logits = [one.predict(problem.images) for one in auxiliaries]
                data = data._replace(noise_robust_logits=logits[0], imbalance_robust_logits=logits[1])
                auxiliaries = None
            else:
                auxiliaries = AuxiliaryPair(*(one.trained for one in auxiliaries))
        with self._checkpointer(name) as checkpointer:
            fitted = fit(
                model,
                method,
                data,
                problem.preprocessing,
                settings,
                num_classes=problem.data.num_classes,
                seed=_model_seed(config.seed, spec.stream),
                devices=problem.devices,
                auxiliaries=auxiliaries,
                start_from=None if first is None else first.variables,
                evaluate=lambda variables: {
                    **self._evaluate(predict(variables, self._test_images)),
                    **self._validate(variables, predict),
                    **self._look_at_training_set(variables, predict),
                },
                checkpointer=checkpointer,
                on_record=lambda record: self._directory.log(name, record),
                should_stop=self._should_stop,
                progress=make_progress(name) if is_first() else None,
            )
        if first is not None:
            fitted = fitted._replace(seconds=fitted.seconds + first.seconds)
        return fitted, predict

    @contextlib.contextmanager
    def _checkpointer(self, name):
        """The checkpoints of a model, None on processes that do not write; raises when asked to stop."""
        if self._should_stop(0):
            raise TrainingStoppedError(f"before {name}")
        try:
            with contextlib.ExitStack() as stack:
                checkpointer = None
                if is_first():
                    checkpointer = Checkpointer(
                        self._directory.checkpoints(name),
                        keep=self._problem.config.keep_checkpoints,
                        keep_best=bool(len(self._problem.validation)),
                    )
                    stack.callback(checkpointer.close)
                    self._directory.forget_after(name, checkpointer.latest_epoch())
                yield checkpointer
        except (TrainingStoppedError, TrainingDivergedError) as error:
            raise type(error)(f"{name}: {error}") from None

    def _announce(self, spec):
        """Prints what the method keeps for the examples and takes out of them, if anything."""
        item = np.dtype(self._problem.config.state_dtype).itemsize
        each = bytes_per_example(spec.method, self._problem.data.num_classes, item)
        if each:
            examples = len(self._problem.corruption.index)
            print(
                f"  {spec.name}: {each} bytes of state an example, {each * examples / 1e6:.3g} MB in all, "
                f"on every device ({self._problem.config.state_dtype})"
            )
        if spec.method.meta_per_class:
            print(f"  {spec.name}: {_meta_set(spec.method, self._problem)}")

    def _auxiliary_pair(self, spec):
        """f_N and f_L of a model, from this process or from their last checkpoints."""
        for name in spec.auxiliaries:
            if name not in self._auxiliaries:
                self.fit(self._specs[name])
        return [self._auxiliaries[name] for name in spec.auxiliaries]

    def _combine(self, spec):
        """The entry of a model that is made of the auxiliaries."""
        pair = self._auxiliary_pair(spec)
        test = [one.predict(self._test_images) for one in pair]
        train = [one.predict(self._problem.images) for one in pair]
        test, train = (spec.method.combine(*logits, train[0]) for logits in (test, train))
        return self._measure(spec, test, train, [self._evaluate(test)], 0.0)

    def _validate(self, variables, predict):
        """Accuracy on the images that are held out, against their observed labels."""
        problem = self._problem
        if not len(problem.validation):
            return {}
        predictions = predict(variables, self._validation_images).argmax(-1)
        observed = problem.drawn.noisy_labels[problem.validation]
        return {"validation_accuracy": float(np.mean(predictions == observed))}

    def _look_at_training_set(self, variables, predict):
        """Shares of the wrong labels that are corrected and memorised, if every evaluation is to tell."""
        if not self._problem.config.evaluate_training:
            return {}
        return self._wrong_labels(predict(variables, self._problem.images).argmax(-1))

    def _wrong_labels(self, predictions):
        drawn = self._problem.corruption
        labels = predictions, drawn.noisy_labels, drawn.clean_labels
        return {
            "noisy_corrected": known(evaluation.noisy_corrected(*labels)),
            "noisy_memorised": known(evaluation.noisy_memorised(*labels)),
        }

    def _evaluate(self, logits):
        problem = self._problem
        predictions = logits.argmax(-1)
        labels, num_classes = problem.data.test.labels, problem.data.num_classes
        per_class = evaluation.per_class_accuracy(predictions, labels, num_classes)
        groups = evaluation.class_groups(problem.corruption.clean_counts)
        return {
            "accuracy": float(np.mean(predictions == labels)),
            **{
                name: known(evaluation.group_accuracy(per_class, getattr(groups, name)))
                for name in groups._fields
            },
        }

    def _measure(self, spec, test, train, history, seconds):
        """The entry of results.json, from logits on test and training images and the evaluations."""
        problem = self._problem
        curve = [record["accuracy"] for record in history]
        labels, num_classes = problem.data.test.labels, problem.data.num_classes
        per_class = evaluation.per_class_accuracy(test.argmax(-1), labels, num_classes)
        last = self._evaluate(test)
        probabilities = np.asarray(jax.nn.softmax(test, axis=-1))
        print(f"  {spec.name} ({spec.label}): accuracy {100 * curve[-1]:.1f} %, {seconds:.0f} s")
        return {
            "role": spec.role,
            "method": spec.label,
            "definition": definition(spec.method),
            **({"weakening": definition(spec.weakening)} if spec.weakening else {}),
            "accuracy": {
                "last": curve[-1],
                "mean_last_10": float(np.mean(curve[-10:])),
                "best": max(curve),
                **_at_best_validation(history),
            },
            "per_class": [known(share) for share in per_class.tolist()],
            **{name: last[name] for name in ("many", "medium", "few")},
            **self._wrong_labels(train.argmax(-1)),
            "calibration_error": evaluation.expected_calibration_error(probabilities, labels),
            "seconds": seconds,
            **(
                {"meta_set": _meta_set(spec.method, problem)}
                if spec.is_trained and spec.method.meta_per_class
                else {}
            ),
        }


def finish(directory: RunDirectory, results: dict[str, Any]) -> None:
    """Prints the table, writes TensorBoard's files and the page, each where what it needs is installed."""
    print()
    print(report.results_table(results))
    if report.write_events(directory.path) is None:
        print('No TensorBoard files: they need tensorboardX: pip install "dsink-jax[report]"')
    try:
        page = report.write_report(directory.path)
    except report.MissingMatplotlibError as error:
        print(error)
    else:
        print(f"\nReport: {page}")


def _check_specs(specs, problem, results):
    """Raises `InputError` before anything is written or trained if a model cannot be what it is to be."""
    for spec in specs:
        if spec.is_trained:
            problem.meta_set(spec.method)
        entry = results["models"].get(spec.name)
        for key, value in (("definition", spec.method), ("weakening", spec.weakening)):
            if entry is not None and not is_same(entry.get(key), value):
                raise InputError(
                    f"{spec.name} was trained as {entry.get(key)} and is now {definition(value)}.\n"
                    "Give another --run-dir."
                )


def _at_best_validation(history):
    """Test accuracy where the accuracy on held-out images was highest, if there are any."""
    if "validation_accuracy" not in history[-1]:
        return {}
    return {"at_best_validation": max(history, key=lambda record: record["validation_accuracy"])["accuracy"]}


def _meta_set(method, problem):
    """The meta set in words."""
    chosen = problem.meta_set(method)
    wrong = np.mean(problem.corruption.clean_labels[chosen["meta_index"]] != chosen["meta_labels"])
    return (
        f"meta set of {len(chosen['meta_index'])} training images, {method.meta_per_class} a class by "
        f"{method.meta_labels} labels, of which {100 * wrong:.0f} % are wrong"
    )


def _model_seed(seed, stream):
    """A seed for each stream of a training seed, as an integer of 32 bits."""
    return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])
