"""Methods and their options by name."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsink_jax import methods
from dsink_jax.errors import InputError
from dsink_jax.methods import (
    METHODS,
    DSink,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    LogitAdjustment,
    MethodOptions,
    NaiveDistillation,
    TrainingFacts,
    Weighting,
    build_method,
    bytes_per_example,
    check_method_name,
    method_options,
    unused_options,
)
from dsink_jax.methods.registry import option_help, option_name
from method_references import CLASSES, EXAMPLES, FACTS, LOGITS, TOLD, build, full_batch, prepared, rows

IMBALANCE = [
    *("logit_adjustment", "posthoc_logit_adjustment", "balanced_softmax", "ldam_drw", "class_balanced"),
    *("focal", "crt", "tau_norm", "ot_reweighting"),
]
NOISE = [
    *("elr", "gce", "truncated_gce", "sce", "label_smoothing", "mixup", "soft_bootstrapping"),
    *("hard_bootstrapping", "forward_correction", "coteaching", "dividemix"),
]


def test_names_and_roles():
    assert list(METHODS) == ["cross_entropy", *IMBALANCE, *NOISE]
    for role, names in (("nothing", ["cross_entropy"]), ("imbalance", IMBALANCE), ("noise", NOISE)):
        assert [name for name, entry in METHODS.items() if entry.robust_to == role] == names
    # A class has one name, and every paper is named.
    assert len({entry.method for entry in METHODS.values()}) == 21
    assert all("arXiv" in entry.source for name, entry in METHODS.items() if name != "cross_entropy")
    assert all(getattr(methods, entry.method.__name__) is entry.method for entry in METHODS.values())


def test_built_from_the_options():
    facts = FACTS._replace(prior="clean")
    built = {
        "logit_adjustment": build("logit_adjustment", facts, logit_adjustment_tau=0.5),
        "gce": build("gce", facts, gce_q=0.3),
        "elr": build("elr", facts, elr_weight=7.0, elr_momentum=0.9),
    }
    assert built == {
        "logit_adjustment": LogitAdjustment((0.7, 0.2, 0.1), 0.5),
        "gce": GeneralizedCrossEntropy(0.3),
        "elr": EarlyLearningRegularization(7.0, 0.9),
    }


# A value that is not the default, where that is not a number between 0 and 1.
OTHER = {
    "ot_reweighting_meta_per_class": 3,
    "ot_reweighting_meta_labels": "clean",
    "ot_reweighting_cost": "label",
    "ot_reweighting_meta_set": "whole",
    "ot_reweighting_trains": "network",
    "ot_reweighting_cuts_first": True,
    "truncated_gce_every": 3,
    "forward_correction_matrix": "known",
    "dividemix_penalty": "none",
}


@pytest.mark.parametrize("name", METHODS)
def test_every_option_reaches_its_method_and_no_other(name):
    for option in method_options(name):
        full = option_name(name, option)
        value = OTHER.get(full, 0.625)
        assert getattr(build(name), option) != value
        changed = build(name, **{full: value})
        assert getattr(changed, option) == value
        others = set(method_options(name)) - {option}
        assert all(getattr(changed, one) == getattr(build(name), one) for one in others)
    another = next(one for one in METHODS if one != name)
    assert all(
        build(another, **{option_name(name, option): OTHER.get(option_name(name, option), 0.625)})
        == build(another)
        for option in method_options(name)
    )


def test_published_defaults():
    defaults = {
        "logit_adjustment_tau": 1.0,
        "posthoc_logit_adjustment_tau": 1.0,
        "ldam_drw_max_margin": 0.5,
        "ldam_drw_scale": 30.0,
        "ldam_drw_deferral": 0.8,
        "ldam_drw_beta": 0.9999,
        "class_balanced_beta": 0.9999,
        "focal_gamma": 2.0,
        "tau_norm_tau": 1.0,
        "elr_weight": 3.0,
        "elr_momentum": 0.7,
        "gce_q": 0.7,
        "truncated_gce_q": 0.7,
        "truncated_gce_bound": 0.5,
        "truncated_gce_every": 10,
        "sce_alpha": 0.1,
        "sce_beta": 1.0,
        "mixup_alpha": 1.0,
        "soft_bootstrapping_beta": 0.95,
        "dividemix_temperature": 0.5,
        "dividemix_mix_alpha": 4.0,
        "coteaching_ramp": 0.05,
    }
    assert {name: getattr(MethodOptions(), name) for name in defaults} == defaults
    # What has no default is exactly what has to be told.
    undecided = {f.name for f in dataclasses.fields(MethodOptions) if f.default is None}
    assert undecided == set(TOLD)


@pytest.mark.parametrize("name", METHODS)
def test_every_attribute_is_documented(name):
    documented = option_help(name)
    method = METHODS[name].method
    inherited = {"tau"} if name == "balanced_softmax" else set()
    assert set(documented) | inherited == {field.name for field in dataclasses.fields(method)}
    for option in method_options(name):
        assert documented[option].endswith(".") and "\n" not in documented[option]
        assert ("to be told" in documented[option]) == (option in method.told and name == "ot_reweighting"), (
            option
        )


def test_balanced_softmax_has_no_options():
    assert not method_options("balanced_softmax")
    assert not hasattr(MethodOptions(), "balanced_softmax_tau")


def distilled(base, **options):
    weighting = Weighting(2.0, **options)
    return [DSink(base, weighting), NaiveDistillation(base, weighting)]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_static_argument(name):
    base, twin = build(name), build(name)
    logits = jnp.asarray(LOGITS if base.networks == 1 else np.stack([LOGITS, rows(5)]))
    for method, same in zip([base, *distilled(base)], [twin, *distilled(twin)], strict=True):
        assert method == same
        assert hash(method) == hash(same)
        # Traced once for equal methods.
        traces = []

        @functools.partial(jax.jit, static_argnums=0)
        def predict(method, logits, traces=traces):
            traces.append(method)
            return method.predict(logits)

        results = [predict(one, logits) for one in (method, same)]
        np.testing.assert_array_equal(*results)
        assert results[0].shape == (EXAMPLES, CLASSES)
        assert traces == [method]
    assert len({base, *distilled(base)}) == 3


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"ldam_drw", "posthoc_logit_adjustment"}))
def test_predictions_are_the_outputs_or_their_mean(name):
    method = build(name)
    logits = LOGITS if method.networks == 1 else np.stack([LOGITS, rows(5)])
    expected = LOGITS if method.networks == 1 else (LOGITS + rows(5)) / 2
    np.testing.assert_allclose(method.predict(jnp.asarray(logits)), expected, rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_only_distillation_needs_auxiliaries(name):
    base = build(name)
    assert not base.needs_auxiliaries
    assert all(method.needs_auxiliaries for method in distilled(base))
    # So a base does without their logits, from the first to the last step.
    alone = full_batch()._replace(noise_robust_logits=None, imbalance_robust_logits=None)
    alone = prepared(base, alone)
    count = EXAMPLES if alone.inputs is None else len(jax.tree.leaves(alone.inputs)[0])
    logits = rows(3, count=base.networks * count).reshape(base.networks, count, CLASSES)
    logits = jnp.asarray(logits[0] if base.networks == 1 else logits)
    state = base.init(EXAMPLES, CLASSES)
    output = base.loss(logits, alone, state, epoch=jnp.float32(5), axis_name=None)
    assert output.values.shape == (EXAMPLES,)
    assert output.values.dtype == jnp.float32
    assert np.isfinite(output.values).all()
    assert jax.tree.structure(output.example_state) == jax.tree.structure(state)
    assert all(len(leaf) == EXAMPLES for leaf in jax.tree.leaves(output.example_state))


@pytest.mark.parametrize("name", METHODS)
def test_bytes_per_example_are_those_of_the_state(name):
    method = build(name)
    state = method.init(7, CLASSES)
    assert all(len(leaf) == 7 and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    assert 7 * bytes_per_example(method, CLASSES) == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert 2 * bytes_per_example(method, CLASSES, 2) == bytes_per_example(method, CLASSES)
    numbers = {"elr": CLASSES, "truncated_gce": 1, "dividemix": 2, "ot_reweighting": 2}.get(name, 0)
    assert bytes_per_example(method, CLASSES) == 4 * numbers


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cross-entropy", "Unknown method 'cross-entropy'. Did you mean 'cross_entropy'\\?"),
        ("logit_adjusted", "Did you mean 'logit_adjustment'\\?"),
        ("ELR", "Unknown method 'ELR'. Did you mean 'elr'\\?"),
        ("elr+", "Did you mean 'elr'\\?"),
        ("", "Unknown method ''. Known methods: cross_entropy, logit_adjustment,"),
    ],
)
def test_unknown_names_are_refused(name, words):
    for refuse in (check_method_name, lambda name: build_method(name, FACTS)):
        with pytest.raises(InputError, match=words):
            refuse(name)


NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = {
    "logit_adjustment": {"tau": (-0.1, NAN, INF)},
    "posthoc_logit_adjustment": {"tau": (-0.1, NAN, INF)},
    "ldam_drw": {
        "max_margin": (-0.1, INF),
        "scale": (0.0, NAN, INF),
        "deferral": (-0.1, 1.1),
        "beta": (-0.1, 1.0),
    },
    "class_balanced": {"beta": (-0.1, 1.0, NAN)},
    "focal": {"gamma": (-1.0, NAN, INF)},
    "crt": {"share": (0.0, 1.1), "learning_rate_factor": (0.0, INF, NAN)},
    "tau_norm": {"tau": (-0.5, INF)},
    "ot_reweighting": {
        "meta_per_class": (0, -1),
        "meta_labels": ("true",),
        "cost": ("both",),
        "meta_set": ("all",),
        "trains": ("nothing",),
        "cuts_first": ("yes",),
        "share": (0.0, 1.5),
        "learning_rate_factor": (0.0, INF),
        "meta_weight": (-1.0, INF),
        "weight_rate": (-0.1, NAN),
        "weight_momentum": (-0.1, 1.0),
        "weight_decay": (-1e-3, INF),
        "epsilon": (0.0, NAN, INF),
        "beta": (-0.1, 1.0),
    },
    "elr": {"weight": (-1.0, INF), "momentum": (-0.1, 1.5)},
    "gce": {"q": (0.0, 1.1, NAN)},
    "truncated_gce": {"q": (0.0, 1.1), "bound": (-0.1, 1.1), "start_share": (-0.1, 1.0), "every": (0, -3)},
    "sce": {"alpha": (-0.1, INF), "beta": (-0.1, INF)},
    "label_smoothing": {"amount": (-0.1, 1.1)},
    "mixup": {"alpha": (0.0, -1.0, NAN, INF)},
    "soft_bootstrapping": {"beta": (-0.1, 1.1, NAN)},
    "hard_bootstrapping": {"beta": (-0.1, 1.1, NAN)},
    "forward_correction": {"matrix": ("unknown",), "estimate_after": (0.0, 1.0)},
    "coteaching": {"noise_rate": (-0.1, 1.0, NAN, "guessed"), "ramp": (0.0, 1.0)},
    "dividemix": {
        "warmup": (0.0, 1.0),
        "lambda_u": (-1.0, INF),
        "temperature": (0.0, NAN),
        "mix_alpha": (0.0, INF),
        "clean_bound": (-0.1, 1.1),
        "ramp": (0.0, 1.1),
        "penalty": ("observed",),
    },
}


def test_every_option_has_a_range_that_is_tested():
    assert {name: set(options) for name, options in OUT_OF_RANGE.items()} == {
        name: set(method_options(name)) for name in METHODS if method_options(name)
    }


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_options_out_of_range_are_refused(name):
    for option, values in OUT_OF_RANGE[name].items():
        for value in values:
            with pytest.raises(InputError, match=f"^{name}: {option} must be .*got '?{value}") as refused:
                build(name, **{option_name(name, option): value})
            assert len(str(refused.value).splitlines()) == 1


def test_options_at_the_ends_of_their_ranges():
    for name, options in {
        "logit_adjustment": {"tau": 0},
        "ldam_drw": {"max_margin": 0, "deferral": 1, "beta": 0},
        "gce": {"q": 1},
        "elr": {"weight": 0, "momentum": 1},
        "truncated_gce": {"bound": 1, "start_share": 0, "every": 1},
        "coteaching": {"noise_rate": 0, "ramp": 0.999},
        "dividemix": {"lambda_u": 0, "clean_bound": 1, "ramp": 1},
        "ot_reweighting": {"meta_per_class": 1, "weight_decay": 0, "meta_weight": 0, "share": 1},
    }.items():
        built = build(name, **{option_name(name, option): value for option, value in options.items()})
        assert {option: getattr(built, option) for option in options} == options


@pytest.mark.parametrize("option", TOLD)
def test_what_must_be_told_is_asked_for(option):
    name = option.rsplit("_", 2)[0] if "noise_rate" in option else "ot_reweighting"
    flag = "--" + option.replace("_", "-")
    with pytest.raises(InputError, match=f"^{name} must be told its .*: {flag}, such as {flag} ") as refused:
        build(name, **{option: None})
    lines = str(refused.value).splitlines()
    assert len(lines) == 2 and lines[1].startswith("Meaning: ")
    # Following the advice helps.
    example = lines[0].removesuffix(".").rsplit(" ", 1)[1]
    build(name, **{option: int(example) if example.isdigit() else example})


NEED_EVERY_CLASS = ["posthoc_logit_adjustment", "ldam_drw", "class_balanced", "ot_reweighting"]


@pytest.mark.parametrize("name", METHODS)
def test_a_class_without_examples(name):
    facts = FACTS._replace(observed_counts=(50, 0, 20))
    if name not in NEED_EVERY_CLASS:
        assert build(name, facts) == build(name, facts)
        return
    with pytest.raises(InputError, match=f"^{name}: needs examples of every class, but class 1 has none"):
        build(name, facts)
    # Counts that methods may not use do not matter.
    assert build(name, facts._replace(prior="clean")) is not None
    assert build(name, facts._replace(prior="uniform")) is not None


def test_unused_options():
    changed = MethodOptions(gce_q=0.3, elr_weight=7.0, mixup_alpha=1.0)  # the last is the default
    assert unused_options(changed, {"cross_entropy"}) == [("elr_weight", "elr"), ("gce_q", "gce")]
    assert unused_options(changed, {"elr"}) == [("gce_q", "gce")]
    assert unused_options(changed, {"elr", "gce", "crt"}) == []
    assert unused_options(MethodOptions(), set()) == []


def test_class_priors_by_hand():
    assert FACTS.class_prior == (0.5, 0.3, 0.2)
    assert FACTS._replace(prior="clean").class_prior == (0.7, 0.2, 0.1)
    assert FACTS._replace(prior="uniform").class_prior == (1 / 3,) * 3
    assert FACTS.class_counts == (50, 30, 20)
    assert FACTS._replace(prior="clean").class_counts == (70, 20, 10)
    assert FACTS._replace(prior="uniform").class_counts == (1, 1, 1)


@given(counts=st.lists(st.integers(1, 5000), min_size=2, max_size=100))
def test_class_priors_are_distributions(counts):
    facts = TrainingFacts(len(counts), tuple(counts), tuple(counts[::-1]))
    for prior in ("observed", "clean", "uniform"):
        values = facts._replace(prior=prior).class_prior
        assert len(values) == len(counts)
        assert sum(values) == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(facts.class_prior, np.array(counts) / sum(counts), rtol=1e-12)
