"""Predictions of examples by models that have not seen them."""

from typing import Any, NamedTuple

import jax
import numpy as np

from dsink_jax.audit.label_errors import LabelErrors, find_label_errors
from dsink_jax.audit.several_labels import MultilabelErrors, find_multilabel_errors
from dsink_jax.estimator import Settings
from dsink_jax.estimator.arrays import as_labels
from dsink_jax.estimator.fitting import make_training_set, recipe_maker, select_for
from dsink_jax.estimator.settings import changed
from dsink_jax.recipe import IMBALANCE_ROBUST, NOISE_ROBUST


class OutOfSample(NamedTuple):
    """What models say that have not seen the example. Minus infinity for classes that they have not seen.

    Attributes:
      noise_robust: float32 `[M, C]`, f_N's.
      imbalance_robust: float32 `[M, C]`, f_L's.
      judged: bool `[M]`, False where they have not seen the class that is given.
      others: the same of further models: where f_N was chosen by labels held out, of one trained by ELR.
    """

    noise_robust: np.ndarray
    imbalance_robust: np.ndarray
    judged: np.ndarray
    others: tuple[np.ndarray, ...] = ()


def out_of_sample_logits(
    inputs: Any,
    labels: Any,
    *,
    num_classes: int | None = None,
    folds: int | None = None,
    settings: Settings | None = None,
    verbose: bool = False,
    **changes: Any,
) -> OutOfSample:
    """Trains f_L and f_N once for each fold, on the other folds, and predicts for it.

    Args:
      inputs: `[M, D]` or `[M, H, W, channels]`; see `dsink_jax.fit`.
      labels: integers `[M]` in 0..C-1, as given.
      num_classes: C; None for as many as there are different labels, which must then be 0..C-1 without gaps.
      folds: into how many the examples are split, every class evenly; at least 2. None for those of the
        settings.
      settings: how to train; see `dsink_jax.fit`. For feature vectors weight decay and f_N's method are
        chosen once, by labels held out, unless they are given; where f_N's method is, another one by ELR
        joins it. Two that err differently tell more together.
      verbose: whether to show progress.
      **changes: fields of `Settings` to change.

    Raises:
      InputError: as `dsink_jax.fit`, or for a number of folds that does not go.
    """
    settings = changed(settings, changes if folds is None else {**changes, "folds": folds})
    training_set, *_ = make_training_set(inputs, labels, num_classes, settings)
    training_set.make_folds(settings.folds, settings.seed)  # says what is wrong before any training
    devices = jax.local_devices()
    make_recipe = recipe_maker(training_set, settings, devices, verbose)
    recipe = make_recipe(target=False)  # says what is wrong with the methods
    recipe.check_folds(NOISE_ROBUST, IMBALANCE_ROBUST)
    selection = select_for(training_set, settings, devices, verbose)
    others: tuple[np.ndarray, ...] = ()
    if selection is not None:
        if settings.leaves_noise_method_open:
            others = (recipe.out_of_fold(NOISE_ROBUST).logits,)
        recipe = make_recipe(target=False, selection=selection)
    found = {role: recipe.out_of_fold(role) for role in (NOISE_ROBUST, IMBALANCE_ROBUST)}
    of_f_n = found[NOISE_ROBUST]
    return OutOfSample(of_f_n.logits, found[IMBALANCE_ROBUST].logits, of_f_n.seen, others)


def audit_labels(inputs: Any, labels: Any, **how: Any) -> LabelErrors | MultilabelErrors:
    """Finds labels that are probably wrong, from the examples themselves.

    Args:
      inputs: `[M, D]` or `[M, H, W, channels]`; see `dsink_jax.fit`.
      labels: integers `[M]` in 0..C-1, as given; or 0 and 1 `[M, C]`, several labels an example, for which
        `find_multilabel_errors` tells what is missing and what is spurious.
      **how: see `out_of_sample_logits`; with a `known_share` below 1, or `estimated`, examples of no class
        are told from wrong labels, see `find_label_errors`.

    Raises:
      InputError: as `out_of_sample_logits`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(90) % 3
    >>> features = np.eye(3)[labels] + 0.1 * rng.standard_normal((90, 3))
    >>> labels[0] = 1  # was 0
    >>> found = audit_labels(features, labels, folds=2, epochs=10, batch_size=16)
    >>> found.ranking[0].item(), found.proposed[0].item()
    (0, 0)
    """
    labels = as_labels(labels)
    found = out_of_sample_logits(inputs, labels, **how)
    if labels.ndim == 2:
        return find_multilabel_errors(labels, found.noise_robust, found.imbalance_robust)
    models = found.noise_robust, found.imbalance_robust, found.others
    own = how.get("settings") or Settings()
    share = how.get("known_share", own.known_share)
    return find_label_errors(labels, *models, judged=found.judged, known_share=share)
