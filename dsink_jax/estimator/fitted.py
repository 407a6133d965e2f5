"""The three models after training: what they predict, what they say of labels, and their file."""

import dataclasses
import io
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final, Literal, NamedTuple, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax import allocation, open_set
from dsink_jax.allocation import Allocation
from dsink_jax.atomic import replacing
from dsink_jax.errors import InputError, StorageError, check_known
from dsink_jax.estimator.descriptions import as_json, settings_as_json
from dsink_jax.estimator.inputs import InputKind, check_inputs
from dsink_jax.estimator.priors import Prior, check_prior, convert, convert_several
from dsink_jax.estimator.selection import Selection
from dsink_jax.estimator.settings import Settings
from dsink_jax.methods import TrainingFacts, build_method
from dsink_jax.multilabel import (
    MultilabelAllocation,
    multilabel_class_marginal,
    multilabel_surrogate_labels,
)
from dsink_jax.open_set import OpenSetAllocation
from dsink_jax.paths import check_local_path
from dsink_jax.training import Standardization, TrainedModel

Role = Literal["target", "noise_robust", "imbalance_robust"]
# f_N with its logits adjusted by its own class prior: no training of its own.
ADJUSTED: Final = "noise_robust_adjusted"
Predicted = Literal[Role, "noise_robust_adjusted"]

_FORMAT = "dsink-jax fitted 5"
_ABOUT, _PRIOR, _SHARES, _SEPARATOR = "about", "class_prior", "class_shares", "/"
_STANDARDIZATION, _FACTS, _OFFSET = "standardization", "facts", "offset"
_LEAST_SHARE = np.finfo(np.float32).tiny
# Settings that a file has no words for: they trained, and are not needed to predict.
_ONLY_TRAIN = ("preprocess", "optimizer")


class Known(NamedTuple):
    """Which examples of the training set were taken to be of a class.

    Attributes:
      share: how large a part of them.
      level: the energy at which an example is as likely of a class as not; see `known_probability`.
    """

    share: float
    level: float


class FittedDSink:
    """The D-SINK target with its two auxiliary models, trained.

    Where examples have several labels (`several_labels`), logits are those of a sigmoid for each label,
    shares are those of the examples with each label, and predictions are indicators.

    Attributes:
      parts: the models by role: network, method, facts, variables and the history of the training.
      standardization: of the inputs, or None.
      kind: what one example looks like.
      settings: how it was fitted.
      class_prior: float32 `[C]`, f_N's mean prediction over the training set; uniform where its method makes
        predictions that count all classes alike.
      class_shares: float32 `[C]`, estimated shares of the true classes in the training set: by labels held
        out where something was chosen by them (see `dsink_jax.noise_model`), otherwise f_N's mean prediction.
      selection: what was chosen by labels held out (`dsink_jax.estimator.selection`), or None if nothing was,
        or the models are from a file.
      offset: float64, what features lose before they become float32 (`inputs.find_offset`), or None.
      known: which training examples were taken to be of a class; None where all were.
      prior: which shares of the classes predictions are for unless a call says otherwise, see `logits`; may
        be set. Shares are kept so that they sum to 1.
    """

    def __init__(
        self,
        parts: Mapping[Role, TrainedModel],
        standardization: Standardization | None,
        kind: InputKind,
        settings: Settings,
        class_prior: np.ndarray,
        class_shares: np.ndarray,
        devices: Sequence[jax.Device] | None = None,
        prior: Any = "balanced",
        selection: Selection | None = None,
        known: Known | None = None,
        offset: np.ndarray | None = None,
    ):
        """See `fit` and `load`."""
        self.parts, self.standardization, self.kind = dict(parts), standardization, kind
        self.settings, self.class_prior, self.class_shares = settings, class_prior, class_shares
        self.prior, self.selection, self.known, self.offset = prior, selection, known, offset
        self._devices = list(jax.local_devices() if devices is None else devices)

    @property
    def facts(self) -> TrainingFacts:
        """What the methods knew of the training set."""
        return self.parts["noise_robust"].facts

    @property
    def several_labels(self) -> bool:
        """Whether an example may have several labels, or none."""
        return self.parts["noise_robust"].method.several_labels

    def _checked_prior(self, prior):
        return check_prior(prior, self.num_classes, several_labels=self.several_labels)

    @property
    def num_classes(self) -> int:
        """C."""
        return self.facts.num_classes

    @property
    def prior(self) -> Prior:
        """See the attributes of the class."""
        return self._prior

    @prior.setter
    def prior(self, prior):
        self._prior = self._checked_prior(prior)

    def logits(self, inputs: Any, role: Predicted = "target", prior: Any = None) -> np.ndarray:
        """Logits float32 `[M, C]`, whose softmax is the prediction.

        Args:
          inputs: `[M, ...]`, as in training.
          role: `target`, `noise_robust` (f_N), `imbalance_robust` (f_L), or `noise_robust_adjusted`: f_N with
            the logarithm of its `class_prior` taken from its logits, so that all classes that were seen count
            alike.
          prior: which shares of the classes the prediction is for. `balanced`: the models' own logits; by the
            default methods those of the target and f_L count all classes alike. `estimated`: `class_shares`,
            for data whose classes are as frequent as in the training set. Or shares `[C]`, at least 0, of
            which any positive multiple is as good; a class of share 0 has logit -inf and is never predicted.
            The logarithm of the shares is added to the logits, for both roles of f_N to the adjusted ones.
            None for the attribute `prior`.

        Raises:
          InputError: for inputs that are not like those of the training, a role that was not trained, or
            another prior.

        Source: the adjustment, Menon et al., ICLR 2021, arXiv 2007.07314, with f_N's own prior.
        """
        check_known("role", role, get_args(Predicted))
        prior = self.prior if prior is None else self._checked_prior(prior)
        if self.several_labels:
            balanced = self._logits(inputs, "noise_robust" if role == ADJUSTED else role)
            if isinstance(prior, str) and prior == "balanced":
                return balanced
            return convert_several(balanced, self.class_shares if isinstance(prior, str) else prior)
        if isinstance(prior, str) and prior == "balanced":
            return self._logits(inputs, role)
        balanced = self._logits(inputs, ADJUSTED if role == "noise_robust" else role)
        return convert(balanced, self.class_shares if isinstance(prior, str) else prior)

    def _logits(self, inputs, role):
        if role == ADJUSTED:
            return self._logits(inputs, "noise_robust") - self._log_prior()
        if role not in self.parts:
            raise InputError(
                f"The {role} was not trained: `fit(target=False)` and other roles of a `DSinkClassifier` "
                f"leave it out. There are: {', '.join([*self.parts, ADJUSTED])}."
            )
        array = check_inputs(
            inputs,
            self.kind,
            standardize=self.standardization is not None,
            adds_channel=isinstance(self.settings.model, str),
            offset=self.offset,
        )
        if not len(array):
            return np.zeros((0, self.num_classes), np.float32)
        return self.parts[role].logits(array, self.standardization, self._devices)

    def predict_proba(self, inputs: Any, role: Predicted = "target", prior: Any = None) -> np.ndarray:
        """Probabilities float32 `[M, C]`, rows summing to 1 unless of several labels; see `logits`."""
        logits = self.logits(inputs, role, prior)
        if self.several_labels:
            return np.asarray(jax.nn.sigmoid(logits))
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        return shifted / shifted.sum(-1, keepdims=True)

    def predict(self, inputs: Any, role: Predicted = "target", prior: Any = None) -> np.ndarray:
        """Most probable classes int32 `[M]`, of several labels 0 and 1 `[M, C]`; see `logits`."""
        logits = self.logits(inputs, role, prior)
        return (logits > 0).astype(np.int32) if self.several_labels else logits.argmax(-1).astype(np.int32)

    def class_marginal(self, inputs: Any) -> np.ndarray:
        """f_L's mean prediction over the inputs, float32 `[C]`; see `dsink_jax.class_marginal`."""
        mean = multilabel_class_marginal if self.several_labels else allocation.class_marginal
        return np.asarray(mean(jnp.asarray(self._logits(inputs, "imbalance_robust"))))

    def known_probability(self, inputs: Any) -> np.ndarray:
        """How far inputs are known to be of a class, float32 `[M]` in [0, 1], each by itself.

        sigmoid(energy - level): the energy is (logsumexp(z) + logsumexp(z_N)) / 2 of the logits z of the
        target and z_N of f_N, and the level is the one at which the mean over the training set is its known
        share. Examples of no class have low energies; the order means more than the number.

        Raises:
          InputError: for inputs that are not like those of the training, or if the models were fitted with a
            `known_share` of 1, or without the target.

        Source: energies of Liu et al., NeurIPS 2020, arXiv 2010.03759.
        """
        if self.known is None:
            raise InputError(
                "These models took all examples to be of a class. Fit with known_share below 1, or "
                "'estimated', and with the target."
            )
        found = open_set.energies(self._logits(inputs, "target"), self._logits(inputs, "noise_robust"))
        known = jax.nn.sigmoid(found - self.known.level)
        return np.asarray(known if self.known.share < 1 else jnp.ones_like(known))

    def surrogate_labels(self, inputs: Any) -> Allocation | OpenSetAllocation | MultilabelAllocation:
        """Q of the inputs, solved for all of them together; see `dsink_jax.surrogate_labels`.

        Of models that were fitted with a `known_share`, that of `dsink_jax.open_set_surrogate_labels`: the
        inputs should then hold about that share of examples of a class. Of several labels, that of
        `dsink_jax.multilabel_surrogate_labels`.
        """
        target, noise_robust, imbalance_robust = (
            jnp.asarray(self._logits(inputs, role)) for role in get_args(Role)
        )
        if self.several_labels:
            marginal = multilabel_class_marginal(imbalance_robust)
            return multilabel_surrogate_labels(target, noise_robust, marginal)
        if self.known is None:
            marginal = allocation.class_marginal(imbalance_robust)
            return allocation.surrogate_labels(target, noise_robust, marginal)
        share = self.known.share
        marginal = open_set.open_set_class_marginal(imbalance_robust, target, noise_robust, share)
        return open_set.open_set_surrogate_labels(target, noise_robust, marginal, share)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one `.npz` file of arrays and JSON, which `load` reads; whole or not at all.

        A network or a method that was given as an object of one's own is not in it.

        Raises:
          InputError: for an address, such as of a bucket.
          StorageError: if it cannot be written.
        """
        check_local_path(path, "path")
        path = pathlib.Path(path)
        try:
            with replacing(path, "wb") as file:
                self._write(file)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from error

    def __reduce__(self):
        """Pickled by way of the file's bytes: what was compiled cannot be."""
        file = io.BytesIO()
        self._write(file)
        own = {name: getattr(self.settings, name) for name in _objects(self.settings)}
        return _from_bytes, (file.getvalue(), own)

    def _log_prior(self):
        """What adjusts f_N; 0 for a class without examples, which nothing is known of to lift it by."""
        seen = np.asarray(self.facts.class_counts) > 0
        return np.where(seen, np.log(np.maximum(self.class_prior, _LEAST_SHARE)), np.float32(0))

    def _write(self, file):
        about = {
            "format": _FORMAT,
            "settings": settings_as_json(self.settings),
            "kind": self.kind._asdict(),
            "methods": {role: as_json(part.method) for role, part in self.parts.items()},
            "several_labels": self.several_labels,
            "known": None if self.known is None else self.known._asdict(),
            "prior": self.prior if isinstance(self.prior, str) else self.prior.tolist(),
        }
        # Numbers of NumPy are as good as any.
        arrays: dict[str, Any] = {_ABOUT: np.array(json.dumps(about, default=lambda number: number.item()))}
        arrays[_PRIOR], arrays[_SHARES] = self.class_prior, self.class_shares
        if self.offset is not None:
            arrays[_OFFSET] = self.offset
        for prefix, named in ((_FACTS, self.facts), (_STANDARDIZATION, self.standardization)):
            for name, value in ({} if named is None else named._asdict()).items():
                if value is not None:
                    arrays[f"{prefix}{_SEPARATOR}{name}"] = np.asarray(value)
        for role, part in self.parts.items():
            for name, leaf in _by_name(part.variables).items():
                array = np.asarray(leaf)
                # NumPy's files have no bfloat16.
                array = array.astype(np.float32) if array.dtype.kind == "V" else array
                arrays[f"{role}{_SEPARATOR}{name}"] = array
        np.savez(file, **arrays)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | BinaryIO,
        *,
        devices: Sequence[jax.Device] | None = None,
        **objects: Any,
    ) -> Self:
        """Reads what `save` wrote.

        Args:
          path: the file, or an open one.
          devices: devices to predict on; all of this process if left out.
          **objects: the settings that were objects of one's own, under their names: `model=` for a network,
            `noise_method=`, `imbalance_method=` or `base=` for a method that is none of
            `dsink_jax.methods.METHODS`.

        Raises:
          InputError: if there is no such file, or it is another or a damaged one, or one of these is missing;
            for an address, such as of a bucket.
        """
        if isinstance(path, str | os.PathLike):
            check_local_path(path, "path")
        arrays, about = _read(path)
        settings = _settings(path, about["settings"], objects)
        kind = InputKind(
            tuple(about["kind"]["shape"]), about["kind"]["dtype"], tuple(about["kind"].get("columns", ()))
        )
        named = {prefix: _taken(arrays, prefix) for prefix in (_FACTS, _STANDARDIZATION, *get_args(Role))}
        facts = TrainingFacts(**named[_FACTS])
        standardization = Standardization(**named[_STANDARDIZATION]) if named[_STANDARDIZATION] else None
        model_for = settings.model_for(facts.num_classes, kind.shape)
        parts = {}
        for spec in settings.specs(facts, target=True, several_labels=about["several_labels"]):
            if leaves := named[spec.name]:
                method = _method(about["methods"][spec.name], spec.method)
                model = model_for(method)
                variables = _variables(path, model, kind, standardization is not None, leaves)
                parts[spec.name] = TrainedModel(model, method, facts, variables)
        estimated = arrays[_PRIOR], arrays[_SHARES]
        known = None if about["known"] is None else Known(**about["known"])
        return cls(
            parts,
            standardization,
            kind,
            settings,
            *estimated,
            devices,
            about["prior"],
            known=known,
            offset=arrays.get(_OFFSET),
        )


def _objects(settings):
    """Names of the settings that a file has no words for and that are needed to predict."""
    kept = settings_as_json(settings)
    return [name for name, value in kept.items() if _is_object(value) and name not in _ONLY_TRAIN]


def _is_object(value):
    if not isinstance(value, dict) or not value.keys() & {"object", "method"}:
        return False  # options of methods are a dictionary
    if "object" in value:
        return True
    try:
        build_method(value["method"], value["options"])
    except InputError:
        return True  # a class of one's own
    return False


def _method(kept, given):
    """A method as it was trained and predicts: what was chosen by labels held out is in no settings."""
    if not _is_object(kept):
        return build_method(kept["method"], kept["options"])
    return dataclasses.replace(given, temperature=kept["options"]["temperature"]) if given.tempered else given


def _is_method(value):
    return isinstance(value, dict) and "method" in value


def _settings(path, kept, objects):
    """The settings from a file, with the objects that are not in it."""
    missing = [name for name, value in kept.items() if _is_object(value) and name not in _ONLY_TRAIN]
    for name in missing:
        if objects.get(name) is None:
            raise InputError(f"{path}: give {name}=, which was an object of your own: it is not in the file.")
    for name in objects:
        check_known("setting", name, kept)
        if name not in missing:
            raise InputError(f"{path} was trained with {name} {kept[name]!r}: leave out {name}=.")
        options = as_json(objects[name]).get("options", {}) if _is_method(kept[name]) else {}
        if _is_method(kept[name]) and options != kept[name]["options"]:
            raise InputError(f"{path}: {name}= had the options {kept[name]['options']}, and has {options}.")
    known: dict[str, Any] = {
        name: build_method(value["method"], value["options"]) if _is_method(value) else value
        for name, value in kept.items()
        if not _is_object(value)
    }
    return Settings(**known, **objects)


def _from_bytes(content, objects):
    return FittedDSink.load(io.BytesIO(content), **objects)


def _read(path):
    """Arrays by name and the description from a file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(str(arrays.pop(_ABOUT)))
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {_FORMAT!r}")
        shape = arrays[f"{_FACTS}{_SEPARATOR}class_counts"].shape
        for name in (_PRIOR, _SHARES):
            if arrays[name].shape != shape:
                raise ValueError(f"its {name} has shape {list(arrays[name].shape)}")
        check_prior(about["prior"], *shape, several_labels=about["several_labels"])
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} is not a file that a fitted model was saved in, or is damaged: {error}."
        ) from None
    return arrays, about


def _by_name(tree):
    """The arrays of a tree by the names that lead to them."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator=_SEPARATOR): leaf for path, leaf in leaves}


def _variables(path, model, kind, is_standardized, leaves):
    """Arrays by name as the variables of a network."""
    dtype = np.float32 if is_standardized else kind.dtype
    example = jax.ShapeDtypeStruct((1, *kind.shape), dtype)
    template = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)), example)
    expected = _by_name(template)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    if shapes != {name: leaf.shape for name, leaf in expected.items()}:
        raise InputError(f"{path} was trained with another network than model= is.")
    arrays = [leaves[name].astype(leaf.dtype) for name, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(template), arrays)


def _taken(arrays, prefix):
    """The arrays below a name."""
    start = f"{prefix}{_SEPARATOR}"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
