"""The three models after training: what they predict, what they say of labels, and their file."""

import dataclasses
import io
import json
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dsink_jax import allocation
from dsink_jax.allocation import Allocation
from dsink_jax.data import Augmentation
from dsink_jax.errors import InputError, StorageError, check_known
from dsink_jax.estimator.inputs import InputKind, check_inputs
from dsink_jax.estimator.parts import ADJUSTED, Part, Predictor, Role, make_methods, make_model
from dsink_jax.estimator.settings import MakeModule, Settings
from dsink_jax.methods import MethodOptions, TrainingFacts
from dsink_jax.training import Preprocessing, make_predictor

_FORMAT = "dsink-jax fitted 2"
_ABOUT, _PRIOR, _SEPARATOR = "about", "class_prior", "/"
_LEAST_SHARE = np.finfo(np.float32).tiny


class FittedDSink:
    """The D-SINK target with its two auxiliary models, trained.

    Attributes:
      settings: how it was fitted.
      facts: what the methods knew of the training set.
      kind: what one example looks like.
      parts: the models by role: network, method and parameters.
      preprocessing: how inputs are standardised.
      class_prior: float32 `[C]`, f_N's mean prediction over the training set.
    """

    class_prior: np.ndarray

    def __init__(
        self,
        parts: Mapping[Role, Part],
        preprocessing: Preprocessing,
        kind: InputKind,
        facts: TrainingFacts,
        settings: Settings,
        devices: Sequence[jax.Device] | None = None,
    ):
        """See `fit` and `load`, which give it its class prior."""
        self.settings, self.facts, self.kind = settings, facts, kind
        self.parts, self.preprocessing = parts, preprocessing
        devices = jax.local_devices() if devices is None else devices
        self._predict = {
            role: make_predictor(part.model, part.method, preprocessing, devices)
            for role, part in parts.items()
        }

    @property
    def num_classes(self) -> int:
        """C."""
        return self.facts.num_classes

    def logits(self, inputs: Any, role: Predictor = "target") -> np.ndarray:
        """Logits float32 `[M, C]`, whose softmax is the prediction.

        Args:
          inputs: `[M, D]` or `[M, H, W, channels]`, as in training.
          role: `target`, `noise_robust` (f_N), `imbalance_robust` (f_L), or `noise_robust_adjusted`: f_N with
            the logarithm of its `class_prior` taken from its logits, so that all classes that were seen count
            alike.

        Raises:
          InputError: for inputs that are not like those of the training, or a role that was not trained.

        Source: the adjustment, Menon et al., ICLR 2021, arXiv 2007.07314, with f_N's own prior.
        """
        check_known("role", role, get_args(Predictor))
        if role != ADJUSTED and role not in self.parts:
            raise InputError(
                f"The {role} was not trained: `fit(target=False)` and other roles of a `DSinkClassifier` "
                f"leave it out. There are: {', '.join([*self.parts, ADJUSTED])}."
            )
        if role == ADJUSTED:
            return self.logits(inputs, "noise_robust") - self._log_prior()
        array = check_inputs(inputs, self.kind)
        if not len(array):
            return np.zeros((0, self.num_classes), np.float32)
        return self._predict[role](self.parts[role].variables, array)

    def predict_proba(self, inputs: Any, role: Predictor = "target") -> np.ndarray:
        """Probabilities float32 `[M, C]`, rows summing to 1; see `logits`."""
        return np.asarray(jax.nn.softmax(jnp.asarray(self.logits(inputs, role)), axis=-1))

    def predict(self, inputs: Any, role: Predictor = "target") -> np.ndarray:
        """Most probable classes int32 `[M]`; see `logits`."""
        return self.logits(inputs, role).argmax(-1).astype(np.int32)

    def class_marginal(self, inputs: Any) -> np.ndarray:
        """f_L's mean prediction over the inputs, float32 `[C]`; see `dsink_jax.class_marginal`."""
        return np.asarray(allocation.class_marginal(jnp.asarray(self.logits(inputs, "imbalance_robust"))))

    def surrogate_labels(self, inputs: Any) -> Allocation:
        """Q of the inputs, solved for all of them together; see `dsink_jax.surrogate_labels`."""
        target, noise_robust, imbalance_robust = (
            jnp.asarray(self.logits(inputs, role)) for role in get_args(Role)
        )
        return allocation.surrogate_labels(target, noise_robust, allocation.class_marginal(imbalance_robust))

    def save(self, path: str | pathlib.Path) -> None:
        """Writes one `.npz` file of arrays and JSON, which `load` reads.

        A network that was given as a function is not in it.

        Raises:
          StorageError: if it cannot be written.
        """
        path = pathlib.Path(path)
        try:
            with open(path, "wb") as file:
                self._write(file)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from error

    def __reduce__(self):
        """Pickled by way of the file's bytes: what was compiled cannot be."""
        file = io.BytesIO()
        self._write(file)
        model = self.settings.model
        return _from_bytes, (file.getvalue(), None if isinstance(model, str) else model)

    def _log_prior(self):
        """What adjusts f_N; 0 for a class without examples, which nothing is known of to lift it by."""
        seen = np.asarray(self.facts.observed_counts) > 0
        return np.where(seen, np.log(np.maximum(self.class_prior, _LEAST_SHARE)), np.float32(0))

    def _write(self, file):
        settings = {
            field.name: getattr(self.settings, field.name) for field in dataclasses.fields(self.settings)
        }
        settings["options"] = dataclasses.asdict(self.settings.options)
        if not isinstance(self.settings.model, str):
            settings["model"] = None
        about = {
            "format": _FORMAT,
            "settings": settings,
            "facts": self.facts._asdict(),
            "kind": self.kind._asdict(),
            "preprocessing": self.preprocessing._asdict(),
        }
        # Numbers of NumPy are as good as any.
        arrays: dict[str, Any] = {_ABOUT: np.array(json.dumps(about, default=lambda number: number.item()))}
        arrays[_PRIOR] = self.class_prior
        for role, part in self.parts.items():
            for name, leaf in flatten_dict(part.variables, sep=_SEPARATOR).items():
                arrays[f"{role}{_SEPARATOR}{name}"] = np.asarray(leaf)
        np.savez(file, **arrays)

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path | BinaryIO,
        *,
        model: MakeModule | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> Self:
        """Reads what `save` wrote.

        Args:
          path: the file, or an open one.
          model: the function that made the network, if it was not one by name.
          devices: devices to predict on; all of this process if left out.

        Raises:
          InputError: if there is no such file, or it is another or a damaged one, or `model` is missing.
        """
        about, class_prior, variables = _read(path)
        settings = about["settings"]
        if (settings["model"] is None) != (model is not None):
            raise InputError(
                f"{path}: give model=, the function that made the network: it is not in the file."
                if model is None
                else f"{path} was trained with the network {settings['model']!r}: leave out model=."
            )
        options = MethodOptions(**settings["options"])
        settings = Settings(**{**settings, "model": model or settings["model"], "options": options})
        facts = TrainingFacts(**_tuples(about["facts"]))
        kind = InputKind(**_tuples(about["kind"]))
        preprocessing = Preprocessing(**_tuples(about["preprocessing"]))
        preprocessing = preprocessing._replace(augmentation=Augmentation(*preprocessing.augmentation))
        parts = {
            role: Part(
                make_model(settings, method, facts.num_classes, kind.is_image), method, variables[role]
            )
            for role, method in make_methods(settings, facts).items()
            if variables[role]
        }
        fitted = cls(parts, preprocessing, kind, facts, settings, devices)
        fitted.class_prior = class_prior
        return fitted


def _from_bytes(content, model):
    return FittedDSink.load(io.BytesIO(content), model=model)


def _read(path):
    """Description, class prior and variables by role, from a file."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(str(arrays.pop(_ABOUT)))
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']!r}, not {_FORMAT!r}")
        class_prior = arrays.pop(_PRIOR)
        if class_prior.shape != (about["facts"]["num_classes"],):
            raise ValueError(f"its class prior has shape {list(class_prior.shape)}")
        variables: dict[str, dict[str, np.ndarray]] = {role: {} for role in get_args(Role)}
        for name, leaf in arrays.items():
            role, _, rest = name.partition(_SEPARATOR)
            variables[role][rest] = leaf
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} is not a file that a fitted model was saved in, or is damaged: {error}."
        ) from None
    parts = {role: unflatten_dict(leaves, sep=_SEPARATOR) for role, leaves in variables.items()}
    return about, class_prior, parts


def _tuples(value):
    """JSON's lists as tuples, at any depth."""
    if isinstance(value, dict):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
