"""All studies, as data: what is asked, on which corrupted sets, with which models."""

import dataclasses

from dsink_jax.methods import METHODS
from experiments.models import STUDY_TARGET
from experiments.study.budgets import Setting, setting
from experiments.study.models import (
    DEFAULT_BASE,
    Declared,
    adjusted,
    alone,
    dsink,
    ensemble,
    imbalance_robust,
    naive,
    noise_robust,
)
from experiments.weakening import Weakening


@dataclasses.dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
      title: of its page.
      question: what it is to answer.
      settings: corrupted sets by budget; a budget that is not there cannot be had.
      models: what is trained on each of them.
      target: the model that the others are compared with.
      others_ahead: whether it is told how far the others are ahead of it, instead of it of them.
      measure: what is compared: `last`, the accuracy after the last epoch, or `few`, that on rare classes.
      figures: names of the figures to draw, of `drawings.FIGURES`.
      beside: names of models, and of those that each is to improve on; none to compare all with `target`.
      measurements: names of what is measured on the trained models, of `measurements.MEASUREMENTS`.
    """

    title: str
    question: str
    settings: dict[str, tuple[Setting, ...]]
    models: tuple[Declared, ...]
    target: str = STUDY_TARGET
    others_ahead: bool = False
    measure: str = "last"
    figures: tuple[str, ...] = ()
    beside: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    measurements: tuple[str, ...] = ()


_TUNED_NAIVE = naive(noise_weight=0.7)
# f_L alone, with the whole schedule in 30 % of the epochs: before it learns wrong labels by heart.
_STOPPED_EARLY = imbalance_robust(weakening=Weakening(epochs=0.3))
# All that D-SINK is held against wherever the strongest rival is named.
_PARTS = (
    *(alone("cross_entropy"), imbalance_robust(), noise_robust(), _TUNED_NAIVE, ensemble(), adjusted()),
    _STOPPED_EARLY,
)

_DEFAULT = {
    "small": (setting("digits", 10),),
    "cpu": (setting("cifar10", 10),),
    "paper": (setting("cifar10", 10),),
}
CIFAR_ON_CPU = (setting("cifar10", 10), setting("cifar10", 100), setting("cifar10", 10, "human_worse"))
_SYNTHETIC = [("symmetric", 0.4), ("symmetric", 0.6), ("asymmetric", 0.2), ("asymmetric", 0.4)]
_HUMAN = {"cifar10": ("human_aggre", "human_random1", "human_worse"), "cifar100": ("human_noisy",)}


def _paper_settings():
    """The claimed settings first, then the rest."""
    first = [setting("cifar10", 10), setting("cifar10", 100)]
    synthetic = [
        setting(dataset, ratio, noise, rate)
        for dataset in _HUMAN
        for ratio in (10, 100)
        for noise, rate in _SYNTHETIC
    ]
    human = [
        setting(dataset, ratio, noise)
        for dataset, kinds in _HUMAN.items()
        for noise in kinds
        for ratio in (10, 100, 1)
    ]
    return tuple({one.name: one for one in (*first, *synthetic, *human)}.values())


def _beside_auxiliaries(models, *others):
    """D-SINK is to be ahead of f_L and f_N, and of others."""
    made = (model for model in models if model.name.startswith(STUDY_TARGET))
    return {model.name: (*(need.name for need in reversed(model.needs)), *others) for model in made}


def _robust_to(what):
    return [name for name, entry in METHODS.items() if entry.robust_to == what]


# Each way to fail at three strengths.
_WORSE = (
    *(Weakening(epochs=share) for share in (0.3, 0.1, 0.03)),
    *(Weakening(data=share) for share in (0.5, 0.25, 0.1)),
    *(Weakening(noise=share) for share in (0.25, 0.5, 0.75)),
)
# Both at once: each on images or labels of its own, and both on the same.
_WORSE_TOGETHER = (
    *((one, one) for one in _WORSE[:3]),
    *((one, dataclasses.replace(one, draw=draw)) for one in _WORSE[3:] for draw in (0, 1)),
)

_QUALITIES = (
    dsink(),
    *(dsink(f_N=noise_robust(weakening=one)) for one in _WORSE),
    *(dsink(f_L=imbalance_robust(weakening=one)) for one in _WORSE),
    *(
        dsink(f_L=imbalance_robust(weakening=one), f_N=noise_robust(weakening=other))
        for one, other in _WORSE_TOGETHER
    ),
)
_PAIRS = tuple(
    dsink(f_L=imbalance_robust(one), f_N=noise_robust(other))
    for one in ("logit_adjustment", "posthoc_logit_adjustment", "ldam_drw", "crt", "ot_reweighting")
    for other in ("elr", "gce", "truncated_gce", "sce", "mixup", "coteaching", "dividemix")
)
_BASES = (
    *("cross_entropy", "logit_adjustment", "ldam_drw", "class_balanced"),
    *("elr", "gce", "mixup", "coteaching", "dividemix", "tabasco"),
)

STUDIES: dict[str, Study] = {
    "main": Study(
        "D-SINK beside its parts",
        "Is D-SINK ahead of cross-entropy, of each auxiliary model, of f_L stopped early, of the simple ways "
        "to join the two, and of a method made for both troubles?",
        {
            "small": tuple(setting("digits", ratio, *noise) for ratio in (10, 30) for noise in _SYNTHETIC),
            "cpu": (*CIFAR_ON_CPU, setting("cifar100", 10)),
            "paper": _paper_settings(),
        },
        (*_PARTS, alone("tabasco"), dsink()),
        figures=("accuracy", "curves"),
    ),
    "naive": Study(
        "Naive distillation in all its weightings",
        "Does any fixed mixture of the two auxiliary models do what D-SINK's allocation does?",
        _DEFAULT,
        (
            *(naive(noise_weight=weight) for weight in (0.0, 0.3, 0.5, 0.7, 1.0)),
            *(naive(alpha=alpha, noise_weight=0.7) for alpha in (1.0, 3.0, 30.0)),
            naive(alpha=100.0, noise_weight=0.7),
            *(
                naive(base=base, alpha=alpha, noise_weight=0.7)
                for base in ("cross_entropy", "elr")
                for alpha in (1.0, 3.0, 10.0, 30.0, 100.0)
            ),
            # The weights anew where alpha was best.
            *(
                naive(base="cross_entropy", alpha=30.0, noise_weight=weight)
                for weight in (0.0, 0.3, 0.5, 0.9, 1.0)
            ),
            *_PARTS,
            dsink(),
        ),
        figures=("accuracy",),
    ),
    "alpha": Study(
        "The weight of the D-SINK loss",
        "How much does alpha matter, with the sum bounded and as published?",
        _DEFAULT,
        (
            alone("logit_adjustment"),
            *(dsink(alpha=alpha) for alpha in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)),
            *(dsink(alpha=alpha, loss_scale="sum") for alpha in (3.0, 10.0)),
            *(dsink(base="cross_entropy", alpha=alpha) for alpha in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)),
        ),
        figures=("alpha",),
    ),
    "bases": Study(
        "D-SINK on top of other bases",
        "Does D-SINK add to a base that is already robust?",
        _DEFAULT,
        tuple(model for base in _BASES for model in (alone(base), dsink(base=base))),
        figures=("bases",),
        beside={dsink(base=base).name: (base,) for base in _BASES},
    ),
    "tabasco": Study(
        "D-SINK on top of TABASCO",
        "Does D-SINK add to a base that is made for both troubles, as in the paper's Table 6?",
        _DEFAULT,
        (alone("tabasco"), dsink(base="tabasco"), dsink()),
        figures=("bases",),
        beside={dsink(base="tabasco").name: ("tabasco",)},
    ),
    "auxiliaries": Study(
        "D-SINK for pairs of auxiliary methods",
        "Does any pair of an imbalance-robust and a noise-robust model do?",
        {
            "small": _DEFAULT["small"],
            "cpu": (setting("cifar10", 10),),
            "paper": (setting("cifar100", 10), setting("cifar10", 10)),
        },
        _PAIRS,
        figures=("pairs",),
        beside=_beside_auxiliaries(_PAIRS),
    ),
    "correction": Study(
        "Wrong labels corrected over the training",
        "How many of the wrong training labels does each model see through, and does it unlearn that?",
        {
            budget: tuple(
                setting(data, 10, *noise)
                for noise in (("symmetric", 0.2), *_SYNTHETIC[:2], ("symmetric", 0.8), *_SYNTHETIC[2:])
            )
            for budget, data in (("small", "digits"), ("cpu", "cifar10"), ("paper", "cifar10"))
        },
        (alone("cross_entropy"), imbalance_robust(), noise_robust(), dsink()),
        figures=("correction",),
    ),
    "asymmetric": Study(
        "Asymmetric noise, where D-SINK is not ahead",
        "Is it the base that learns the wrong labels, alpha, f_L or the solver?",
        {
            budget: (setting(data, 10, "asymmetric", 0.2), setting(data, 10, "asymmetric", 0.4))
            for budget, data in (("small", "digits"), ("cpu", "cifar10"), ("paper", "cifar10"))
        },
        (
            *_PARTS,
            dsink(),
            *(dsink(alpha=alpha) for alpha in (30.0, 100.0)),
            *(dsink(base=base) for base in ("cross_entropy", "elr")),
            dsink(f_L=imbalance_robust("posthoc_logit_adjustment")),
            dsink(max_iterations=50),
        ),
        figures=("accuracy",),
    ),
    "early-stopping": Study(
        "Training for fewer epochs",
        "Does f_L alone, trained for 30 % of the epochs before it learns wrong labels by heart, do as well?",
        dict.fromkeys(("cpu", "paper"), CIFAR_ON_CPU),
        (*_PARTS, dsink()),
        figures=("accuracy",),
    ),
    "long-tail": Study(
        "Imbalance ratio 100, where D-SINK is ahead by less",
        "Is it the class marginal, an f_L that has learned wrong labels by heart, f_N, alpha or the base?",
        {budget: (setting("cifar10", 100),) for budget in ("cpu", "paper")},
        (
            *_PARTS,
            dsink(),
            dsink(f_L=_STOPPED_EARLY),
            dsink(f_L=imbalance_robust("cross_entropy")),
            dsink(alpha=30.0),
            dsink(base="cross_entropy"),
            dsink(f_N=noise_robust("mixup")),
        ),
        figures=("accuracy", "class-shares"),
        measurements=("class-shares",),
    ),
    "features": Study(
        "What the features look like",
        "Do the features of D-SINK keep the classes apart better than those of the best model without it?",
        _DEFAULT,
        (alone("cross_entropy"), noise_robust("mixup"), _TUNED_NAIVE, alone("tabasco"), dsink()),
        figures=("features",),
        measurements=("features",),
    ),
    "solver": Study(
        "The solver's settings",
        "How exactly must Q be solved for, does epsilon matter, and how large must a batch be?",
        {
            budget: tuple(
                one if size == batch_size else one.with_batches_of(size) for size in (16, batch_size, 256)
            )
            for budget, one, batch_size in (
                ("small", setting("digits", 10), 64),
                ("cpu", setting("cifar10", 10), 64),
                ("paper", setting("cifar10", 10), 64),
            )
        },
        (
            *_PARTS,
            dsink(),
            *(dsink(max_iterations=limit) for limit in (10, 20, 50)),
            *(dsink(threshold=threshold) for threshold in (1e-3, 1e-1)),
            *(dsink(epsilon=epsilon) for epsilon in (0.5, 1.0, 4.0, 8.0)),
        ),
        figures=("accuracy", "allocation", "exactness"),
        measurements=("allocation", "exactness"),
    ),
    "choices": Study(
        "What the paper leaves open",
        "Does it matter when the D-SINK loss begins, and whether f_L and f_N see the images as augmented?",
        {"small": _DEFAULT["small"]},  # of its 250 epochs; at cpu they are looked up anyway
        (
            *_PARTS,
            dsink(),
            *(dsink(warmup_epochs=epochs) for epochs in (25.0, 125.0)),
            *(dsink(ramp_epochs=epochs) for epochs in (25.0, 125.0)),
            dsink(auxiliary_predictions="cached"),
        ),
        figures=("accuracy",),
    ),
    "teacher-quality": Study(
        "How good must the auxiliary models be?",
        "Where does D-SINK stop helping when its auxiliary models get worse, apart or together?",
        _DEFAULT,
        (alone("cross_entropy"), alone("logit_adjustment"), *_QUALITIES),
        figures=("quality",),
        # Where it is behind its own base it does harm, whatever its auxiliaries are.
        beside=_beside_auxiliaries(_QUALITIES, DEFAULT_BASE),
    ),
    "imbalance": Study(
        "Imbalance-robust methods alone, without label noise",
        "Is each ahead of cross-entropy on the rare classes?",
        {"small": (setting("digits", 30, "none"),)},
        (alone("cross_entropy"), *map(alone, _robust_to("imbalance"))),
        "cross_entropy",
        others_ahead=True,
        measure="few",
        figures=("accuracy",),
    ),
    "noise": Study(
        "Noise-robust methods alone, without imbalance",
        "Is each ahead of cross-entropy?",
        {
            "small": (setting("digits", 1),),
            "cpu": (setting("cifar10", 1),),
            "paper": (setting("cifar10", 1),),
        },
        (
            alone("cross_entropy"),
            *map(alone, _robust_to("noise")),
            *(alone("soft_bootstrapping", beta=beta) for beta in (0.8, 0.5)),
        ),
        "cross_entropy",
        others_ahead=True,
        figures=("accuracy",),
    ),
    "reweighting": Study(
        "Re-weighting by optimal transport, without label noise",
        "Is it ahead of cross-entropy and of class-balanced weights, and does learning the weights help?",
        {"small": (setting("digits", 20, "none"),)},
        (
            *map(alone, ("cross_entropy", "class_balanced", "logit_adjustment", "crt", "ot_reweighting")),
            alone("ot_reweighting", cost="feature"),
            alone("ot_reweighting", cost="label"),
            alone("ot_reweighting", meta_set="whole"),
            alone("ot_reweighting", trains="network"),
            alone("ot_reweighting", weight_rate=0.0, weight_decay=0.0),
            alone("ot_reweighting", weight_rate=10.0),
            # Stages as published, with the rate and weight that did best on other digits.
            alone("ot_reweighting", share=0.36, cuts_first=True, learning_rate_factor=0.3, meta_weight=1.0),
        ),
        "class_balanced",
        others_ahead=True,
        figures=("accuracy",),
    ),
}
