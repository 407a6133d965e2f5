"""The whole of D-SINK on arrays: both auxiliary models, then the target."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.special import expit, softmax

from dsink_jax.errors import InputError
from dsink_jax.estimator.arrays import as_columns
from dsink_jax.estimator.cautions import warn_of_hopeless
from dsink_jax.estimator.descriptions import settings_as_json
from dsink_jax.estimator.directory import checkpoint_folder, describe_data, fit_directory
from dsink_jax.estimator.fitted import FittedDSink, Known
from dsink_jax.estimator.inputs import (
    InputKind,
    check_inputs,
    check_observed,
    find_offset,
    make_standardization,
)
from dsink_jax.estimator.priors import check_prior, convert_several
from dsink_jax.estimator.selection import Selection, select
from dsink_jax.estimator.settings import Settings, changed
from dsink_jax.open_set import ESTIMATED, energies, energy_level, estimate_known_share
from dsink_jax.recipe import IMBALANCE_ROBUST, NOISE_ROBUST, TARGET, Recipe, Watching
from dsink_jax.training import make_progress
from dsink_jax.training.parallel import total_devices
from dsink_jax.training_set import TrainingSet

_SAVED_EVERY = 1.0  # minutes, where there is a directory: no more than that is lost


def fit(
    inputs: Any,
    labels: Any,
    *,
    prior: Any = None,
    num_classes: int | None = None,
    settings: Settings | None = None,
    target: bool = True,
    directory: str | os.PathLike[str] | None = None,
    devices: Sequence[jax.Device] | None = None,
    verbose: bool = False,
    **changes: Any,
) -> FittedDSink:
    """Trains f_L, f_N and the D-SINK target on long-tailed, mislabelled data.

    Another fit of inputs of about the same size, with other data or other numbers, compiles nothing, unless
    f_N turns out to be of another kind.

    Args:
      inputs: `[M, D]` vectors, such as the features of a frozen encoder, `[M, H, W, channels]` images, or
        `[M, ...]` of any rank for a network of one's own; numbers. They are standardised over the last axis
        unless `standardize=False`. `[M, H, W]` are grey images for the networks by name. A memory-mapped
        array is streamed.
      labels: integers `[M]` in 0..C-1, as observed; or 0 and 1 `[M, C]`, which of several labels each example
        has, see `FittedDSink`.
      prior: which shares of the classes predictions are for: `balanced`, all classes alike; `estimated`, the
        true shares in the training set, as found; or shares `[C]`. None is `balanced`, and for several labels
        `estimated`. It changes nothing that is trained, and may be set, or given to a prediction, later; see
        `FittedDSink.logits`.
      num_classes: C; None for as many as there are different labels, which must then be 0..C-1 without gaps.
      settings: how; the defaults of `Settings` if left out.
      target: whether to train the target too, or only f_L and f_N.
      directory: a folder where the trainings are saved as they go, so that the same call goes on where it was
        stopped, however that happened; None to save nothing.
      devices: devices to train on; all of this process if left out.
      verbose: whether to show progress.
      **changes: fields of `Settings` to change, such as `epochs=10`.

    Returns:
      The fitted models.

    Raises:
      InputError: for inputs, labels, a prior, settings or a network that do not go, or a directory of another
        fit.
      TrainingDivergedError: if a loss is not finite.
      StorageError: if the directory cannot be written.

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
    devices = list(jax.local_devices() if devices is None else devices)
    training_set, kind, offset = make_training_set(inputs, labels, num_classes, settings)
    several = training_set.labels.ndim == 2
    if several and settings.is_open_set:
        raise InputError("known_share is for one label an example: leave it out where there may be several.")
    prior = ("estimated" if several else "balanced") if prior is None else prior
    prior = check_prior(prior, training_set.num_classes, several_labels=several)
    # All that can be wrong with the call is found before the directory is touched.
    make_recipe = recipe_maker(training_set, settings, devices, verbose)
    checkpoints = checkpoint_folder(directory)
    recipe = make_recipe(target, checkpoints)

    def describe():
        return {
            **{f"setting {name}": value for name, value in settings_as_json(settings).items()},
            **describe_data(training_set.inputs, training_set.labels),
            "num_classes": training_set.num_classes,
            # What fits the devices; with another one steps and epochs would no longer go together.
            "examples a step": _batch_size(settings, len(training_set.labels), total_devices(devices)),
            "target": target,
        }

    with fit_directory(directory, describe):
        selection = select_for(training_set, settings, devices, verbose)
        if selection is not None:
            recipe = make_recipe(target, checkpoints, selection)
        known_share = _known_share(recipe, settings) if target else None
        parts = recipe.train_all()
        of_training = {role: recipe.training_logits(role) for role in (IMBALANCE_ROBUST, NOISE_ROBUST)}
        known = None
        if known_share is not None:
            energy = energies(recipe.training_logits(TARGET), of_training[NOISE_ROBUST])
            known = Known(known_share, float(energy_level(energy, known_share)))
    if several:
        prior_of_given = parts[NOISE_ROBUST].facts.class_prior
        shares = _shares_of_several(of_training[NOISE_ROBUST], prior_of_given)
        return FittedDSink(
            *(parts, training_set.standardization, kind, settings, prior_of_given, shares),
            *(devices, prior),
            offset=offset,
        )
    warn_of_hopeless(training_set.labels, of_training)
    mean_prediction = _mean_prediction(of_training[NOISE_ROBUST])
    class_shares = mean_prediction
    if selection is not None and selection.class_shares is not None:
        class_shares = selection.class_shares
    if parts[NOISE_ROBUST].method.is_balanced:  # nothing is to be adjusted
        mean_prediction = np.full_like(mean_prediction, 1 / len(mean_prediction))
    estimated = mean_prediction, class_shares
    return FittedDSink(
        *(parts, training_set.standardization, kind, settings, *estimated, devices, prior, selection, known),
        offset=offset,
    )


def make_training_set(
    inputs: Any, labels: Any, num_classes: int | None, settings: Settings
) -> tuple[TrainingSet, InputKind, np.ndarray | None]:
    """The training set of a fit, checked, what one example looks like, and `find_offset`; see `fit`."""
    inputs, columns = as_columns(inputs)
    offset = find_offset(inputs) if settings.standardize else None
    array = check_inputs(
        inputs,
        standardize=settings.standardize,
        adds_channel=isinstance(settings.model, str),
        offset=offset,
    )
    labels, num_classes = check_observed(labels, len(array), num_classes)
    kind = InputKind(array.shape[1:], str(array.dtype), columns)
    standardization = None
    if settings.standardize:
        came_in = getattr(inputs, "dtype", np.float64)
        standardization = make_standardization(array, offset, came_in)
    return (
        TrainingSet(
            array,
            labels.astype(np.int32),
            num_classes,
            standardization=standardization,
            meta_seed=settings.seed,
        ),
        kind,
        offset,
    )


def select_for(
    training_set: TrainingSet, settings: Settings, devices: Sequence[jax.Device], verbose: bool
) -> Selection | None:
    """What is chosen by labels held out; None if nothing is to be."""
    shape = training_set.inputs.shape[1:]
    if training_set.labels.ndim == 2 or not settings.selects(shape):
        return None
    if verbose:
        print("choosing by labels held out", flush=True)
    how = _how(training_set, settings, devices)
    selection = select(
        training_set,
        settings.specs(training_set.facts(how.epochs), target=False),
        how,
        settings.model_for(training_set.num_classes, shape),
        choose_noise_method=settings.leaves_noise_method_open,
        weight_decay=settings.weight_decay_of_heads,
        alpha=settings.alpha,
        seed=int(settings.seed),
        # Heads are small: over several devices each step takes longer.
        devices=devices[:1] if jax.process_count() == 1 else devices,
    )
    if verbose:
        for name, chosen in (("f_L", selection.imbalance_robust), ("f_N", selection.noise_robust)):
            print(f"{name}: {chosen.method} with weight decay {chosen.weight_decay:g}", flush=True)
    return selection


def recipe_maker(training_set: TrainingSet, settings: Settings, devices: Sequence[jax.Device], verbose: bool):
    """A function `(target, checkpoints, selection) -> Recipe` for the training set."""

    def make(target, checkpoints=None, selection=None):
        how = _how(training_set, settings, devices)
        if checkpoints is not None:
            how = dataclasses.replace(how, checkpoint_minutes=_SAVED_EVERY)
        several = training_set.labels.ndim == 2
        specs = settings.specs(training_set.facts(how.epochs), target, several_labels=several)
        return Recipe(
            training_set,
            specs if selection is None else selection.apply(specs, training_set),
            settings.model_for(training_set.num_classes, training_set.inputs.shape[1:]),
            how,
            seed=int(settings.seed),
            devices=devices,
            directory=checkpoints,
            folds=settings.folds,
            watching=Watching(progress=make_progress, on_fold=_tell_fold) if verbose else None,
        )

    return make


def _known_share(recipe, settings):
    """The share of examples that are of a class; None where all are."""
    if not settings.is_open_set:
        return None
    if settings.known_share != ESTIMATED:
        return float(settings.known_share)
    for role in (IMBALANCE_ROBUST, NOISE_ROBUST):
        recipe.train(role)
    share = estimate_known_share(*(recipe.training_logits(role) for role in (IMBALANCE_ROBUST, NOISE_ROBUST)))
    recipe.change_term(TARGET, known_share=share)
    return share


def _tell_fold(name, number, folds):
    print(f"{name}: fold {number} of {folds}", flush=True)


def _how(training_set, settings, devices):
    """How long and in what steps to train on a training set."""
    count = len(training_set.labels)
    batch_size = _batch_size(settings, count, total_devices(devices))
    are_heads = settings.trains_heads(training_set.inputs.shape[1:])
    return settings.training(batch_size, -(-count // batch_size) if are_heads else 0)


def _batch_size(settings, count, num_devices):
    """No larger than the data, in powers of two so that data of about the same size shares programs."""
    size = min(settings.batch_size, 1 << (count - 1).bit_length())
    return max(size - size % num_devices, num_devices)


def _shares_of_several(logits, given):
    """Share of the examples that truly have each label, float32 `[C]`: f_N's mean for the given shares."""
    return expit(convert_several(logits, given).astype(np.float64)).mean(0).astype(np.float32)


def _mean_prediction(logits):
    return softmax(logits, axis=-1).mean(0)  # by NumPy: nothing is compiled for a number of rows
