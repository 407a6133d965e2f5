"""D-SINK, its parts and what else is made of them, on one natural set.

Everything is trained by `dsink_jax.fit` with its defaults, or by the recipe that `fit` itself follows.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from dsink_jax import FittedDSink, fit
from dsink_jax.audit import make_folds
from dsink_jax.data import Compose, RandomCrop, RandomFlip
from dsink_jax.estimator import Settings
from dsink_jax.estimator.fitting import make_training_set, recipe_maker
from dsink_jax.methods import CrossEntropy, NaiveDistillation
from dsink_jax.recipe import IMBALANCE_ROBUST, TARGET, ModelSpec
from experiments.natural.data import NaturalSet
from experiments.natural.measures import balanced_accuracy

DSINK, AS_PUBLISHED = "D-SINK", "D-SINK as published"
CROSS_ENTROPY, NAIVE, ENSEMBLE = "cross-entropy", "naive distillation", "ensemble"
STOPPED_EARLY = "f_L, stopped early"
ROLES = {"f_L": "imbalance_robust", "f_N, adjusted": "noise_robust_adjusted", DSINK: "target"}

PRIORS = ("balanced", "estimated")
"""What predictions are for: classes that count alike, and data with as much of each as in training."""

PUBLISHED: dict[str, Any] = {"selection": False}
"""Settings of `fit` that make it what was published, where the defaults are something else: on features."""

PUBLISHED_PARTS = {
    "f_L, weight decay 5e-4": "imbalance_robust",
    "ELR, adjusted": "noise_robust_adjusted",
}
"""Its parts, as they are where nothing is chosen by labels held out."""

IMAGES: dict[str, Any] = {
    "model": "medium_cnn",
    "epochs": 30,
    "preprocess": Compose((RandomCrop(4), RandomFlip())),
}
"""How networks are trained on images; features are trained on with the defaults."""

_EARLIER = (0.1, 0.2, 0.4, 1.0)  # of the epochs, from which f_L's are chosen
_HELD_OUT = 10  # one part of so many
_LEAST_SHARE = np.finfo(np.float32).tiny


class Found(NamedTuple):
    """What a model says of the test inputs.

    Attributes:
      model: its name.
      balanced: int `[T]`, the classes that it predicts where all count alike.
      estimated: int `[T]`, those that it predicts for data like the training set.
      chosen: what was chosen for it by labels that are given, in words.
      shares: float32 `[C]`, its estimate of the shares of the true classes, or None.
    """

    model: str
    balanced: np.ndarray
    estimated: np.ndarray
    chosen: str = ""
    shares: np.ndarray | None = None


def models_of(images: bool) -> tuple[str, ...]:
    """Names of what `train_models` trains, in order."""
    published = () if images else (AS_PUBLISHED, *PUBLISHED_PARTS)  # for images the default is that
    others = (CROSS_ENTROPY,) if images else ()
    return (DSINK, "f_L", "f_N, adjusted", "f_N", ENSEMBLE, NAIVE, STOPPED_EARLY, *others, *published)


@dataclasses.dataclass(frozen=True)
class _WithOthers(Settings):
    """Settings by which `fit` trains naive distillation beside D-SINK, and cross-entropy for images."""

    images: bool = False

    def specs(self, facts, target, *, several_labels=False):
        """See `Settings.specs`."""
        found = super().specs(facts, target, several_labels=several_labels)
        if not target:  # the choice by labels held out asks for the auxiliary models alone
            return found
        own = next(spec for spec in found if spec.name == TARGET)
        term, how = NaiveDistillation(own.term.alpha), self.auxiliary_predictions
        found.append(ModelSpec(NAIVE, own.method, "baseline", term, auxiliary_predictions=how))
        return [*found, ModelSpec(CROSS_ENTROPY, CrossEntropy())] if self.images else found


def train_models(natural: NaturalSet, seed: int) -> Iterator[Found]:
    """Trains D-SINK and what it is compared with.

    Args:
      natural: features or images.
      seed: of the trainings.
    """
    how = {**(IMAGES if natural.is_images else {}), "seed": seed}
    data = {"inputs": natural.inputs, "labels": natural.given, "num_classes": natural.num_classes}
    test = natural.test_inputs
    fitted = fit(**data, settings=_WithOthers(images=natural.is_images, **how))
    for name in (DSINK, "f_L", "f_N, adjusted"):
        both = (fitted.predict(test, ROLES[name], prior=prior) for prior in PRIORS)
        yield Found(name, *both, shares=fitted.class_shares if name == DSINK else None)
    yield _as_it_is("f_N", fitted.predict(test, "noise_robust", prior="balanced"))
    yield Found(ENSEMBLE, *(_ensemble(fitted, test, prior) for prior in PRIORS))
    yield _for_both(NAIVE, _logits(fitted, NAIVE, test), fitted.class_shares)
    epochs = choose_epochs(natural, Settings(**how))
    logits = _alone(natural, Settings(**{**how, "epochs": epochs})).logits(IMBALANCE_ROBUST, test)
    yield _for_both(STOPPED_EARLY, logits, fitted.class_shares, f"{epochs} epochs")
    if natural.is_images:
        yield _as_it_is(CROSS_ENTROPY, _logits(fitted, CROSS_ENTROPY, test).argmax(-1))
    else:
        published = fit(**data, **{**how, **PUBLISHED})
        for name, role in ((AS_PUBLISHED, "target"), *PUBLISHED_PARTS.items()):
            yield Found(name, *(published.predict(test, role, prior=prior) for prior in PRIORS))


def choose_epochs(natural: NaturalSet, settings: Settings) -> int:
    """For how many epochs f_L is best trained, by the given labels of a tenth that it does not see.

    Their balanced accuracy decides; the fewest epochs of equals.

    Args:
      natural: the set.
      settings: how f_L is trained otherwise.
    """
    held_out = make_folds(natural.given, _HELD_OUT, settings.seed) == 0
    seen, rest = natural.rows(np.flatnonzero(~held_out)), natural.rows(np.flatnonzero(held_out))
    best, found = 0, -1.0
    longest = settings.training(settings.batch_size).epochs
    for epochs in dict.fromkeys(max(round(share * longest), 1) for share in _EARLIER):
        recipe = _alone(seen, dataclasses.replace(settings, epochs=epochs))
        score = balanced_accuracy(rest.given, recipe.logits(IMBALANCE_ROBUST, rest.inputs).argmax(-1))
        if score > found:
            best, found = epochs, score
    return best


def _ensemble(fitted: FittedDSink, inputs, prior):
    """f_L and f_N, each for the same shares of the classes: the mean of the logarithms."""
    roles = (ROLES["f_L"], ROLES["f_N, adjusted"])
    both = (fitted.predict_proba(inputs, role, prior=prior) for role in roles)
    return sum(np.log(np.maximum(one, _LEAST_SHARE)) for one in both).argmax(-1)


def _for_both(name, logits, shares, chosen=""):
    """A model that counts all classes alike, as it is and for the shares that D-SINK has found."""
    log_shares = np.log(np.maximum(shares, _LEAST_SHARE))
    return Found(name, logits.argmax(-1), (logits + log_shares).argmax(-1), chosen)


def _as_it_is(name, predicted):
    """A model that is not for any shares of the classes."""
    return Found(name, predicted, predicted)


def _logits(fitted, name, inputs):
    """Those of a model that `fit` has no role for."""
    return fitted.parts[name].logits(inputs, fitted.standardization, jax.local_devices())


def _alone(natural, settings):
    """A recipe of the auxiliary models, of which only what is asked for is trained."""
    training_set, *_ = make_training_set(natural.inputs, natural.given, natural.num_classes, settings)
    return recipe_maker(training_set, settings, jax.local_devices(), False)(target=False)
