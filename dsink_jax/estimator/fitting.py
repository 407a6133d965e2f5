"""The whole of D-SINK on arrays: both auxiliary models, then the target."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dsink_jax.data import draw_meta_set, steps_per_epoch
from dsink_jax.errors import InputError
from dsink_jax.estimator.fitted import FittedDSink
from dsink_jax.estimator.inputs import check_inputs, check_observed, kind_of, make_preprocessing
from dsink_jax.estimator.parts import Part, Role, make_methods, make_model
from dsink_jax.estimator.settings import Settings, changed
from dsink_jax.methods import Method, TrainingFacts
from dsink_jax.training import (
    AuxiliaryPair,
    DeviceData,
    FitSettings,
    OptimizerSettings,
    Preprocessing,
    TrainedAuxiliary,
    first_stage_settings,
    make_progress,
)
from dsink_jax.training import fit as train
from dsink_jax.training.parallel import total_devices

# Target and auxiliaries draw from streams of the seed of their own.
_STREAMS = {"target": 0, "imbalance_robust": 1, "noise_robust": 2}
_MOST_STEPS_PER_DISPATCH = 16


def fit(
    inputs: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    settings: Settings | None = None,
    target: bool = True,
    devices: Sequence[jax.Device] | None = None,
    verbose: bool = False,
    **changes: Any,
) -> FittedDSink:
    """Trains f_L, f_N and the D-SINK target on long-tailed, mislabelled data.

    Args:
      inputs: `[M, D]` vectors, such as the features of a frozen encoder, or `[M, H, W, channels]` images;
        uint8 or floating. They are standardised inside.
      labels: integers `[M]` in 0..C-1, as observed.
      num_classes: C; None for as many as there are different labels, which must then be 0..C-1 without gaps.
      settings: how; the defaults of `Settings` if left out.
      target: whether to train the target too, or only f_L and f_N.
      devices: devices to train on; all of this process if left out.
      verbose: whether to show progress.
      **changes: fields of `Settings` to change, such as `epochs=10`.

    Returns:
      The fitted models.

    Raises:
      InputError: for inputs, labels or settings that do not go.
      TrainingDivergedError: if a loss is not finite.

    Source: D-SINK, arXiv 2510.08179.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(60) % 3
    >>> features = np.eye(3)[labels] + 0.1 * rng.standard_normal((60, 3))
    >>> fitted = fit(features, labels, epochs=5, batch_size=16)
    >>> fitted.predict_proba(features).shape
    (60, 3)
    """
    settings = changed(settings, changes)
    array = check_inputs(inputs)
    labels, num_classes = check_observed(labels, len(array), num_classes)
    kind = kind_of(array, inputs)
    if not kind.is_image and (settings.crop_padding or settings.flip):
        raise InputError("crop_padding and flip are for images: vectors have nothing to crop or mirror.")
    devices = list(jax.local_devices() if devices is None else devices)
    facts = _facts(labels, num_classes, settings)
    task = _Task(
        array,
        labels,
        make_preprocessing(array, settings.crop_padding, settings.flip),
        settings,
        facts,
        devices,
        kind.is_image,
        verbose,
    )
    methods = make_methods(settings, facts)
    parts: dict[Role, Part] = {
        "imbalance_robust": task.part("imbalance_robust", methods["imbalance_robust"]),
        "noise_robust": task.part("noise_robust", methods["noise_robust"]),
    }
    if target:
        pair = AuxiliaryPair(
            TrainedAuxiliary(*parts["noise_robust"]), TrainedAuxiliary(*parts["imbalance_robust"])
        )
        parts["target"] = task.part("target", methods["target"], pair)
    fitted = FittedDSink(parts, task.preprocessing, kind, facts, settings, devices)
    # By the predictor that it has, so that it is compiled once.
    fitted.class_prior = fitted.predict_proba(inputs, "noise_robust").mean(0)
    return fitted


def _facts(labels, num_classes, settings):
    """What methods are told; nobody knows the true counts of such data."""
    observed = tuple(np.bincount(labels, minlength=num_classes).tolist())
    return TrainingFacts(num_classes, observed, observed, settings.epochs)


class _Task(NamedTuple):
    """What the three models are trained on, and how."""

    inputs: np.ndarray
    labels: np.ndarray
    preprocessing: Preprocessing
    settings: Settings
    facts: TrainingFacts
    devices: Sequence[jax.Device]
    is_image: bool
    verbose: bool

    def part(self, role: Role, method: Method, auxiliaries: AuxiliaryPair | None = None) -> Part:
        """Trains one of the models, in both stages if it has two."""
        settings, first = self._fit_settings(), None
        if method.first_stage is not None:
            first = self._train(role, method.first_stage, first_stage_settings(settings, method), auxiliaries)
        variables = self._train(role, method, settings, auxiliaries, first)
        model = make_model(self.settings, method, self.facts.num_classes, self.is_image)
        return Part(model, method, variables)

    def _train(self, role, method, settings, auxiliaries, start_from=None):
        seed = np.random.SeedSequence((self.settings.seed, _STREAMS[role])).generate_state(1)[0]
        return train(
            make_model(self.settings, method, self.facts.num_classes, self.is_image),
            method,
            DeviceData(self.inputs, self.labels, **self._meta_set(method)),
            self.preprocessing,
            settings,
            num_classes=self.facts.num_classes,
            seed=int(seed),
            devices=self.devices,
            auxiliaries=auxiliaries,
            start_from=start_from,
            progress=make_progress(role) if self.verbose else None,
        ).variables

    def _meta_set(self, method):
        if not method.meta_per_class:
            return {}
        index = draw_meta_set(self.labels, method.meta_per_class, self.facts.num_classes, self.settings.seed)
        return {"meta_index": index, "meta_labels": self.labels[index]}

    def _fit_settings(self):
        settings, number = self.settings, total_devices(self.devices)
        size = settings.batch_size
        if isinstance(size, int | np.integer) and size > 0:
            # No larger than the data, and what all devices can share.
            size = min(size, len(self.labels))
            size = max(size - size % number, number)
        optimizer = OptimizerSettings(
            settings.learning_rate, "cosine", settings.momentum, False, settings.weight_decay
        )
        made = FitSettings(settings.epochs, size, optimizer)
        if self.is_image:  # convolutions inside the loop of several steps are slow on CPU
            return made
        steps = steps_per_epoch(len(self.labels), made.batch_size)
        together = max(k for k in range(1, _MOST_STEPS_PER_DISPATCH + 1) if steps % k == 0)
        return dataclasses.replace(made, steps_per_dispatch=together)
