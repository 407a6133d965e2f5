"""How heads over feature vectors are regularised, and how f_N is trained: chosen by labels held out.

On features of a frozen encoder weight decay decides more than anything else, and which noise-robust loss is
right depends on the noise. Both follow from the data: candidates are trained on two thirds of the examples
and held against the given labels of the rest, by the likelihood that `dsink_jax.noise_model` gives these
labels. No clean label is needed.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dsink_jax.errors import InputError
from dsink_jax.methods import ForwardCorrection, GeneralizedCrossEntropy, Method
from dsink_jax.methods.logit_adjustment import MIN_TEMPERATURE
from dsink_jax.noise_model import NoiseModel, fit_noise_model
from dsink_jax.recipe import IMBALANCE_ROBUST, IMBALANCE_STREAM, NOISE_ROBUST, NOISE_STREAM, ModelSpec, Recipe
from dsink_jax.training import TrainingSettings
from dsink_jax.training_set import TrainingSet

FOLDS = 3
LARGEST = 8192  # examples that are looked at
FEWEST = 100
WEIGHT_DECAYS = (0.01, 0.03, 0.1, 0.3)
# Labels are fitted less closely by robust losses, whose gradients are smaller: so is their weight decay.
ROBUST = {0.3: (0.03, 0.1), 0.7: (0.005, 0.015, 0.05)}
CORRECTED = (0.01, 0.03)
# Of the target, whose labels Q are smooth; and Q knows more than the given labels do.
TARGET_WEIGHT_DECAY, ALPHA = 0.003, 100.0
UNSELECTED_WEIGHT_DECAY = 0.01  # where there are too few examples to choose by

_SAMPLE_STREAM = 8  # of a seed


class Candidate(NamedTuple):
    """How a model may be trained.

    Attributes:
      method: what it optimises.
      weight_decay: of its parameters.
      noise: what the labels' noise is taken for by a method that corrects for it, or None.
    """

    method: Method
    weight_decay: float
    noise: NoiseModel | None = None


class Selection(NamedTuple):
    """What was chosen.

    Attributes:
      imbalance_robust: how f_L is trained.
      noise_robust: how f_N is trained.
      target_weight_decay: weight decay of the target.
      alpha: weight of its D-SINK loss, None for that of the settings.
      class_shares: float32 `[C]`, estimated shares of the true classes; None if nothing was held out.
      scores: a pair for each candidate: in words, and its score; higher is better.
    """

    imbalance_robust: Candidate
    noise_robust: Candidate
    target_weight_decay: float
    alpha: float | None
    class_shares: np.ndarray | None = None
    scores: Sequence[tuple[str, float]] = ()

    def apply(self, specs: Sequence[ModelSpec], training_set: TrainingSet) -> list[ModelSpec]:
        """The specifications with f_L, f_N and what distils them as they were chosen."""
        chosen = {IMBALANCE_ROBUST: self.imbalance_robust, NOISE_ROBUST: self.noise_robust}
        applied = []
        for spec in specs:
            if spec.name in chosen:
                applied.append(_spec(spec, chosen[spec.name], training_set))
            elif spec.term is not None:
                term = spec.term
                if self.alpha is not None:
                    term = dataclasses.replace(term, alpha=self.alpha)
                applied.append(dataclasses.replace(spec, term=term, weight_decay=self.target_weight_decay))
            else:
                applied.append(spec)
        return applied


def select(
    training_set: TrainingSet,
    specs: Sequence[ModelSpec],
    settings: TrainingSettings,
    model_for: Any,
    *,
    choose_noise_method: bool,
    weight_decay: float | None,
    alpha: float | None,
    seed: int,
    devices: Sequence[jax.Device],
) -> Selection:
    """Chooses weight decay, and the noise-robust method if that is left open.

    f_L's method is trained with each of `WEIGHT_DECAYS`. f_N, where its method is left open, is the best of
    these, of generalised cross-entropy with logit adjustment (`ROBUST`), and of cross-entropy corrected for
    the noise that the best of them finds. At most `LARGEST` examples are looked at, every class in its share;
    with fewer than `FEWEST`, or fewer than two classes that all folds have, or a method given that two thirds
    of the examples are too few for, nothing is chosen, and f_N is trained by generalised cross-entropy with
    logit adjustment, unless its method is given.

    Args:
      training_set: what is trained on.
      specs: f_L and f_N as they would be trained.
      settings: how long and in what steps.
      model_for: the network for a method.
      choose_noise_method: whether f_N's method is left open.
      weight_decay: the one to take, or None to choose it.
      alpha: weight of the D-SINK loss, or None for `ALPHA`.
      seed: decides the sample, the folds and the trainings.
      devices: to train on.
    """
    by_name = {spec.name: spec for spec in specs}
    own: dict[str, Any] = {name: by_name[name].method for name in (IMBALANCE_ROBUST, NOISE_ROBUST)}
    of_target: dict[str, Any] = {
        "target_weight_decay": TARGET_WEIGHT_DECAY if weight_decay is None else weight_decay,
        "alpha": ALPHA if alpha is None else None,
    }
    counts = np.bincount(training_set.labels, minlength=training_set.num_classes)
    if len(training_set.labels) >= FEWEST and np.sum(counts >= FOLDS) >= 2:
        sample = training_set.rows(_sample(training_set.labels, counts, seed))
        tried = _Trials(sample, settings, model_for, seed, devices)
        with contextlib.suppress(InputError):  # of a part; `fit` has seen that the whole is all right
            return _choose(tried, own, of_target, choose_noise_method, weight_decay)
    decay = UNSELECTED_WEIGHT_DECAY if weight_decay is None else weight_decay
    noise = GeneralizedCrossEntropy(tau=1.0) if choose_noise_method else own[NOISE_ROBUST]
    return Selection(Candidate(own[IMBALANCE_ROBUST], decay), Candidate(noise, decay), **of_target)


def _choose(tried, own, of_target, choose_noise_method, weight_decay):
    def fixed(several):
        return several if weight_decay is None else (weight_decay,)

    of_f_l = tried(
        [Candidate(own[IMBALANCE_ROBUST], decay) for decay in fixed(WEIGHT_DECAYS)], IMBALANCE_STREAM
    )
    f_l = max(of_f_l, key=_score)
    if choose_noise_method:
        robust = [
            Candidate(GeneralizedCrossEntropy(q, tau=1.0), decay)
            for q, each in ROBUST.items()
            for decay in fixed(each)
        ]
        of_f_n = tried(robust, NOISE_STREAM)
        corrected = [
            Candidate(ForwardCorrection("known", tau=1.0), decay, start.noise)
            for start in (f_l, max(of_f_n, key=_score))
            for decay in fixed(CORRECTED)
        ]
        of_f_n += tried(corrected, NOISE_STREAM)
        if own[IMBALANCE_ROBUST].is_balanced:
            of_f_n += of_f_l
    else:
        of_f_n = tried([Candidate(own[NOISE_ROBUST], decay) for decay in fixed(WEIGHT_DECAYS)], NOISE_STREAM)
    f_n = max(of_f_n, key=_score)
    return Selection(
        f_l.chosen,
        f_n.chosen,
        **of_target,
        class_shares=f_n.noise.class_shares,
        scores=[(one.words, _score(one)) for one in tried.all],
    )


def _score(trial):
    return trial.noise.score


class _Trial(NamedTuple):
    """A candidate and what labels it had not seen say of it."""

    candidate: Candidate
    noise: NoiseModel

    @property
    def chosen(self) -> Candidate:
        """The candidate with the temperature that was found, and noise as it finds it itself."""
        method: Any = self.candidate.method
        if method.tempered:
            # The logits have been divided by its own already.
            temperature = max(method.temperature * self.noise.score_temperature, MIN_TEMPERATURE)
            method = dataclasses.replace(method, temperature=temperature)
        noise = None if self.candidate.noise is None else self.noise
        return Candidate(method, self.candidate.weight_decay, noise)

    @property
    def words(self) -> str:
        return f"{self.candidate.method} with weight decay {self.candidate.weight_decay:g}"


class _Trials:
    """Trains candidates on parts of a sample, and keeps what came out."""

    def __init__(self, sample, settings, model_for, seed, devices):
        self.all: list[_Trial] = []
        self._sample, self._settings, self._model_for = sample, settings, model_for
        self._seed, self._devices = seed, devices

    def __call__(self, candidates, stream):
        first = len(self.all) + 1
        specs = [
            _spec(ModelSpec(f"candidate_{number}", one.method, "auxiliary", stream=stream), one, self._sample)
            for number, one in enumerate(candidates, first)
        ]
        recipe = Recipe(
            self._sample,
            specs,
            self._model_for,
            self._settings,
            seed=self._seed,
            devices=self._devices,
            folds=FOLDS,
        )
        found = recipe.out_of_fold_of([spec.name for spec in specs])
        trials = []
        for candidate, spec in zip(candidates, specs, strict=True):
            logits, _ = found[spec.name]
            noise = fit_noise_model(logits, self._sample.labels, balanced=candidate.method.is_balanced)
            trials.append(_Trial(candidate, noise))
        self.all += trials
        return trials


def _spec(spec, candidate, training_set):
    changes: dict[str, Any] = {"method": candidate.method, "weight_decay": candidate.weight_decay}
    if candidate.noise is not None:
        present = np.bincount(training_set.labels, minlength=training_set.num_classes) > 0
        counts = np.where(present, candidate.noise.class_shares * len(training_set.labels), 0)
        changes["training_set"] = dataclasses.replace(
            training_set, class_counts=counts, transition_matrix=candidate.noise.transition_matrix
        )
    return dataclasses.replace(spec, **changes)


def _sample(labels, counts, seed):
    """Positions of the examples to look at, sorted; every class in its share, rounded up."""
    if len(labels) <= LARGEST:
        return np.arange(len(labels))
    rng = np.random.default_rng((seed, _SAMPLE_STREAM))
    taken = np.ceil(counts * (LARGEST / len(labels))).astype(int)
    of_class = [rng.choice(np.flatnonzero(labels == c), size, replace=False) for c, size in enumerate(taken)]
    return np.sort(np.concatenate(of_class))
