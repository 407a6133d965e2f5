"""The order of work, written once: auxiliary models f_L and f_N, baselines, and the D-SINK target.

A `Recipe` trains models that are described by a `ModelSpec` on one `TrainingSet`: in one stage or two, with a
meta set where a method has one, from streams of the seed of their own, and, for those that distil, with their
auxiliaries run on the same augmented inputs, looked up, or trained out of fold. With a directory every
training is saved there, and the same recipe goes on where it stopped. `fit`, the audit and the experiments
all train by it.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from dsink_jax.data import batches
from dsink_jax.data.corruption import check_observed
from dsink_jax.errors import InputError
from dsink_jax.methods import AdjustedNoiseRobust, Distillation, Ensemble, Method, static_part
from dsink_jax.methods.hooks import TwoStages
from dsink_jax.models import Model, check_model
from dsink_jax.training import (
    Auxiliaries,
    Checkpointer,
    DeviceData,
    Progress,
    TrainedModel,
    TrainingDivergedError,
    TrainingSettings,
    TrainingStoppedError,
    can_train_together,
    first_stage_settings,
    train,
    train_together,
)
from dsink_jax.training.loop import ShouldStop, never
from dsink_jax.training.parallel import total_devices
from dsink_jax.training.processes import from_first
from dsink_jax.training_set import TrainingSet

Role = Literal["auxiliary", "baseline", "target"]
AuxiliaryPredictions = Literal["online", "cached", "out_of_fold"]
Record = dict[str, Any]

NOISE_ROBUST, IMBALANCE_ROBUST, TARGET = "noise_robust", "imbalance_robust", "target"
# Auxiliaries draw from streams of the seed of their own. Target and baselines share stream 0: the same
# initial parameters, order and augmentation, so that they differ by their loss alone.
COMMON_STREAM, IMBALANCE_STREAM, NOISE_STREAM = 0, 1, 2
# Logit of a class that the models of a fold have not seen, for those that look it up.
_UNSEEN = -1e9


@dataclasses.dataclass(frozen=True, eq=False)
class ModelSpec:
    """One model to train, or to put together from the auxiliaries.

    Attributes:
      name: of the model, and of its checkpoints.
      method: what it optimises, or how the auxiliaries are combined.
      role: `auxiliary`, `baseline` or `target`.
      term: the distillation beside its loss, or None.
      stream: which stream of random numbers it draws from.
      noise_robust: name of its f_N, if it has a term or combines.
      imbalance_robust: name of its f_L.
      auxiliary_predictions: whether f_N and f_L are run on the model's own augmented inputs (`online`), are
        asked once for each input as it is (`cached`), or are trained in folds and asked for what they have
        not seen (`out_of_fold`).
      training_set: what it is trained on, if that is not the recipe's.
      epochs: for how long, if not as long as the recipe says.
      average_decay: of a moving average of its parameters, or None.
      weight_decay: if not that of the recipe.
      label: its method in words.
    """

    name: str
    method: Method | Ensemble | AdjustedNoiseRobust
    role: Role = "baseline"
    term: Distillation | None = None
    stream: int = COMMON_STREAM
    noise_robust: str = NOISE_ROBUST
    imbalance_robust: str = IMBALANCE_ROBUST
    auxiliary_predictions: AuxiliaryPredictions = "online"
    training_set: TrainingSet | None = None
    epochs: int | None = None
    average_decay: float | None = None
    weight_decay: float | None = None
    label: str = ""

    @property
    def is_trained(self) -> bool:
        """Whether there is something to train."""
        return isinstance(self.method, Method)

    @property
    def auxiliaries(self) -> tuple[str, ...]:
        """Names of f_N and f_L if it needs them."""
        needs = not self.is_trained or self.term is not None
        return (self.noise_robust, self.imbalance_robust) if needs else ()


class Watching(NamedTuple):
    """Who is told of trainings, and may stop them.

    Attributes:
      evaluate: called with the specification of a model and the model as it is after an epoch; what it
        returns joins the record of the epoch.
      on_record: called with the name of a stage and each new record.
      on_start: called with the name of a stage and the whole epochs that are done already.
      on_fold: called with the name of a model, the number of the fold that it is now trained without, from 1
        on, and how many there are.
      should_stop: asked between steps and before each stage, with the number of steps done.
      progress: makes what shows the progress of a stage, by its name.
    """

    evaluate: Callable[[ModelSpec, TrainedModel], Record] = lambda spec, trained: {}
    on_record: Callable[[str, Record], None] = lambda name, record: None
    on_start: Callable[[str, int], None] = lambda name, epochs: None
    on_fold: Callable[[str, int, int], None] = lambda name, number, folds: None
    should_stop: ShouldStop = never
    progress: Callable[[str], Progress | None] = lambda name: None


class OutOfFold(NamedTuple):
    """What a model says of examples that it was not trained on.

    Attributes:
      logits: float32 `[M, C]`; minus infinity for classes that were not seen.
      seen: bool `[M]`, False where the class that is given was not seen.
    """

    logits: np.ndarray
    seen: np.ndarray


class Recipe:
    """Trains models on one training set, auxiliaries before those that need them, each once."""

    def __init__(
        self,
        training_set: TrainingSet,
        specs: Iterable[ModelSpec],
        model_for: Callable[[Method], Model],
        settings: TrainingSettings,
        *,
        seed: int,
        devices: Sequence[jax.Device],
        directory: pathlib.Path | None = None,
        keep_checkpoints: int = 2,
        keep_best: bool = False,
        folds: int = 5,
        watching: Watching | None = None,
    ):
        """Checks what can be checked before anything is trained.

        Args:
          training_set: what is trained on.
          specs: the models, with the auxiliaries that they name among them.
          model_for: the network for a method.
          settings: how long and in what steps; of a method of two stages, those of the first.
          seed: decides initial parameters, order and augmentation.
          devices: devices of this process to train on.
          directory: where the checkpoints of each model go, in a folder of its name; None to save nothing.
          keep_checkpoints: how many of the newest to keep.
          keep_best: whether to keep the one of the best validation accuracy too.
          folds: into how many parts examples are split for predictions out of fold.
          watching: who is told.

        Raises:
          InputError: for a network that does not go with a method or the inputs, a training set that a method
            cannot learn from, or labels or a batch size that do not go.
        """
        self._set, self._settings = training_set, settings
        self._specs = {spec.name: spec for spec in specs}
        self._model_for, self._seed, self._devices = model_for, seed, list(devices)
        self._directory, self._keep = directory, (keep_checkpoints, keep_best)
        self._folds, self._watching = folds, watching or Watching()
        self._trained: dict[str, TrainedModel] = {}
        self._training_logits: dict[str, np.ndarray] = {}
        self._out_of_fold: dict[str, OutOfFold] = {}
        check_observed(training_set.labels, training_set.num_classes)
        batches.check_batch_size(settings.batch_size, total_devices(self._devices))
        for spec in self._specs.values():
            self._check(spec)
            if spec.is_trained and spec.auxiliary_predictions == "out_of_fold":
                for name in spec.auxiliaries:
                    self._check_folds(self._specs[name])

    def _check(self, spec):
        for name in spec.auxiliaries:
            if name not in self._specs:
                raise InputError(f"{spec.name} needs the model {name}, which is none of the recipe's.")
            other = self._specs[name].training_set
            has_own = other is not None and other.inputs is not self._set.inputs
            if has_own and spec.auxiliary_predictions == "out_of_fold":
                raise InputError(
                    f"{name} has a training set of its own: {spec.name} cannot look it up out of fold."
                )
        if not spec.is_trained:
            return
        data, settings = self._of(spec)
        if spec.term is not None and spec.auxiliary_predictions != "online" and data is not self._set:
            raise InputError(f"{spec.name} has a training set of its own: it needs its auxiliaries online.")
        for what, static in (
            ("the options of its method", static_part(spec.method)),
            ("preprocess", settings.preprocess),
        ):
            try:
                hash(static)
            except TypeError as error:
                raise InputError(
                    f"{spec.name}: {what} must be hashable, as functions and frozen dataclasses are: {error}."
                ) from None
        self._check_labels(spec, data)
        example = data.inputs.shape[1:]
        dtype = np.dtype(np.float32) if data.standardization is not None else data.inputs.dtype
        stages = [spec.method, *([spec.method.first_stage] if isinstance(spec.method, TwoStages) else [])]
        for method in stages:
            kind = self._model_for(method).kind
            _check_model(kind, example, dtype, data.num_classes, method.classifier, method.needs)

    def _check_labels(self, spec, data):
        _, settings = self._of(spec)
        if spec.method.several_labels != (data.labels.ndim == 2):
            kind = "indicators [M, C] of several labels" if data.labels.ndim == 2 else "one label an example"
            raise InputError(f"{spec.name}: {type(spec.method).__name__} is not for {kind}.")
        try:
            spec.method.check_facts(data.facts(settings.epochs))
        except InputError as error:
            raise InputError(f"{spec.name} ({spec.label or type(spec.method).__name__}): {error}") from None
        data.meta_set(spec.method)

    def check_folds(self, *names: str) -> None:
        """Raises `InputError` if a model cannot do without one of the folds, before any is trained."""
        for name in names:
            self._check_folds(self._specs[name])

    def _check_folds(self, spec):
        """What is missing in a part of the data, before any of them is trained on."""
        data, _ = self._of(spec)
        fold = data.make_folds(self._folds, self._seed)
        for number in range(self._folds):
            kept = fold != number
            clean = None if data.clean_labels is None else data.clean_labels[kept]
            part = dataclasses.replace(data, labels=data.labels[kept], clean_labels=clean)
            try:
                self._check_labels(spec, part)
            except InputError as error:
                raise InputError(f"Without fold {number + 1} of {self._folds}: {error}") from None

    def _of(self, spec):
        """What a model is trained on, and how."""
        own: dict[str, Any] = {"epochs": spec.epochs, "average_decay": spec.average_decay}
        if spec.weight_decay is not None:
            own["optimizer"] = dataclasses.replace(self._settings.optimizer, weight_decay=spec.weight_decay)
        changes = {name: value for name, value in own.items() if value is not None}
        return spec.training_set or self._set, dataclasses.replace(self._settings, **changes)

    def change_term(self, name: str, **changes: Any) -> None:
        """Changes numbers of a model's term that only the auxiliaries could tell, before it is trained."""
        spec = self._specs[name]
        if spec.term is None:
            raise ValueError(f"{name} has no term.")
        self._specs[name] = dataclasses.replace(spec, term=dataclasses.replace(spec.term, **changes))

    def train(self, name: str) -> TrainedModel:
        """A trained model, by its name: trained now, gone on with, or read from its last checkpoint."""
        if name not in self._trained:
            self._trained[name] = self._train_stages(self._specs[name])
        return self._trained[name]

    def train_all(self) -> dict[str, TrainedModel]:
        """All models that are trained, by name."""
        return {name: self.train(name) for name, spec in self._specs.items() if spec.is_trained}

    def logits(self, name: str, inputs: Any) -> np.ndarray:
        """Logits float32 `[M, C]` of a model, also of one that combines others, for inputs `[M, ...]`."""
        spec = self._specs[name]
        if isinstance(spec.method, Method):
            return self._predict(self.train(name), inputs)
        pair = [self._predict(self.train(one), inputs) for one in spec.auxiliaries]
        training = self.training_logits(spec.noise_robust)
        facts = self._set.facts(self._settings.epochs)
        return spec.method.combine(pair[0], pair[1], training, facts)

    def training_logits(self, name: str) -> np.ndarray:
        """The same for the inputs of the training set, which are predicted for once."""
        if name not in self._training_logits:
            self._training_logits[name] = self.logits(name, self._set.inputs)
        return self._training_logits[name]

    def out_of_fold(self, name: str) -> OutOfFold:
        """What a model says of the examples of the training set when it was trained on the other folds.

        It is trained once for each fold, every class split evenly.
        """
        if name not in self._out_of_fold:
            self._out_of_fold[name] = self._train_folds(self._specs[name])
        return self._out_of_fold[name]

    def out_of_fold_of(self, names: Sequence[str]) -> dict[str, OutOfFold]:
        """The same of several models; those that differ by numbers alone are trained side by side.

        They are then trained on the first device, and nobody is told of single folds.
        """
        groups: dict[Any, list[ModelSpec]] = {}
        for name in names:
            spec = self._specs[name]
            data, settings = self._of(spec)
            shares = data.inputs is self._set.inputs and data.labels is self._set.labels
            is_left = name not in self._out_of_fold and self._directory is None and spec.term is None
            if not (shares and is_left and isinstance(spec.method, Method)):
                continue
            if can_train_together(spec.method, data.inputs, data.facts(settings.epochs)):
                kind = (static_part(spec.method), settings.optimizer.kind(), spec.stream, spec.epochs)
                groups.setdefault(kind, []).append(spec)
        for specs in groups.values():
            self._out_of_fold |= self._train_folds_together(specs)
        return {name: self.out_of_fold(name) for name in names}

    def _predict(self, trained, inputs):
        return trained.logits(inputs, self._set.standardization, self._devices)

    def _train_folds(self, spec):
        data, _ = self._of(spec)
        if spec.term is not None:
            raise InputError(f"{spec.name} learns from models that have seen every fold.")
        self._check_folds(spec)
        fold = data.make_folds(self._folds, self._seed)
        trained = []
        for number in range(self._folds):
            others = data.rows(np.flatnonzero(fold != number))
            own = dataclasses.replace(spec, name=f"{spec.name}_fold_{number + 1}", training_set=others)
            self._watching.on_fold(spec.name, number + 1, self._folds)
            trained.append(self._train_stages(own))
        return self._held_out(data, fold, trained)

    def _train_folds_together(self, specs):
        data = self._set
        for spec in specs:
            self._check_folds(spec)
        fold = data.make_folds(self._folds, self._seed)
        parts = [np.flatnonzero(fold != number) for number in range(self._folds)]
        sets, settings = zip(*(self._of(spec) for spec in specs), strict=True)
        facts = [
            [
                dataclasses.replace(own, labels=own.labels[part]).facts(how.epochs)
                for own, how in zip(sets, settings, strict=True)
            ]
            for part in parts
        ]
        trained = train_together(
            self._model_for(specs[0].method),
            [spec.method for spec in specs],
            settings,
            DeviceData(data.inputs, data.labels),
            parts,
            facts,
            seed=stream_seed(self._seed, specs[0].stream),
            device=self._devices[0],
            standardization=data.standardization,
        )
        each = zip(specs, zip(*trained, strict=True), strict=True)
        return {spec.name: self._held_out(data, fold, of_folds) for spec, of_folds in each}

    def _held_out(self, data, fold, trained):
        """What the models of all folds say of the examples that they have not seen."""
        logits = np.zeros((len(data.labels), data.num_classes), np.float32)
        seen = np.zeros(len(data.labels), bool)
        for number, model in enumerate(trained):
            held_out = np.flatnonzero(fold == number)
            others = data.labels[fold != number]
            several = others.ndim == 2
            known = others.any(0) if several else np.bincount(others, minlength=data.num_classes) > 0
            predicted = self._predict(model, data.rows(held_out).inputs)
            logits[held_out] = np.where(known, predicted, -np.inf)
            seen[held_out] = True if several else known[data.labels[held_out]]
        return OutOfFold(logits, seen)

    def _train_stages(self, spec):
        method, (_, settings) = spec.method, self._of(spec)
        if not isinstance(method, TwoStages):
            return self._train(spec, spec.name, method, settings)
        name = f"{spec.name}_first_stage"
        first = self._train(spec, name, method.first_stage, first_stage_settings(settings, method))
        second = self._train(spec, spec.name, method, settings, first)
        return second._replace(seconds=first.seconds + second.seconds)

    def _train(self, spec, name, method, settings, first=None):
        data, _ = self._of(spec)
        device_data = DeviceData(data.inputs, data.labels, **data.meta_set(method))
        auxiliaries = None
        if spec.term is not None and spec.auxiliary_predictions == "online":
            auxiliaries = Auxiliaries(*(self.train(one) for one in spec.auxiliaries))
        elif spec.term is not None:
            look_up = self._looked_up if spec.auxiliary_predictions == "out_of_fold" else self.training_logits
            tables = [look_up(one) for one in spec.auxiliaries]
            device_data = device_data._replace(
                noise_robust_logits=tables[0], imbalance_robust_logits=tables[1]
            )
        with self._checkpointer(name) as checkpointer:
            return train(
                self._model_for(method),
                method,
                device_data,
                settings,
                facts=data.facts(settings.epochs),
                seed=stream_seed(self._seed, spec.stream),
                devices=self._devices,
                standardization=data.standardization,
                term=spec.term,
                auxiliaries=auxiliaries,
                start_from=None if first is None else first.variables,
                evaluate=lambda trained: self._watching.evaluate(spec, trained),
                checkpointer=checkpointer,
                on_record=lambda record: self._watching.on_record(name, record),
                should_stop=self._watching.should_stop,
                progress=self._watching.progress(name),
            )

    def _looked_up(self, name):
        return np.maximum(self.out_of_fold(name).logits, np.float32(_UNSEEN))

    @contextlib.contextmanager
    def _checkpointer(self, name) -> Iterator[Checkpointer | None]:
        """The checkpoints of a stage, None where nothing is saved; raises when asked to stop."""
        if self._watching.should_stop(0):
            raise TrainingStoppedError(f"before {name}")
        try:
            opened: list[Checkpointer] = []  # by the first process
            with contextlib.ExitStack() as stack:
                if self._directory is not None:
                    from_first(lambda: self._open(self._directory / name, name, stack, opened))
                yield opened[0] if opened else None
        except (TrainingStoppedError, TrainingDivergedError) as error:
            raise type(error)(f"{name}: {error}") from None

    def _open(self, directory, name, stack, opened):
        keep, keep_best = self._keep
        opened.append(Checkpointer(directory, keep=keep, keep_best=keep_best))
        stack.callback(opened[0].close)
        self._watching.on_start(name, opened[0].latest_epoch())


@functools.lru_cache(maxsize=32)  # a network is traced for it
def _check_model(model, example, dtype, num_classes, classifier, needs):
    check_model(model, (2, *example), dtype, num_classes, classifier=classifier, needs=needs)


def stream_seed(seed: int, stream: int) -> int:
    """A seed for each stream of a training seed, as an integer of 32 bits."""
    return int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])


def auxiliary_specs(
    *, noise_robust: Method, imbalance_robust: Method, labels: Mapping[str, str] | None = None
) -> list[ModelSpec]:
    """f_L and f_N, in the order they are trained in."""
    labels = labels or {}
    return [
        ModelSpec(name, method, "auxiliary", stream=stream, label=labels.get(name, ""))
        for name, method, stream in (
            (IMBALANCE_ROBUST, imbalance_robust, IMBALANCE_STREAM),
            (NOISE_ROBUST, noise_robust, NOISE_STREAM),
        )
    ]
