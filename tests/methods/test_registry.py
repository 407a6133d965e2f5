"""Methods and their options by name."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsink_jax import methods
from dsink_jax.errors import InputError
from dsink_jax.methods import METHODS, build_method, check_method_name, make_facts, method_options
from dsink_jax.methods.registry import all_options
from method_references import FACTS, build


def test_every_entry_is_public_and_has_a_source():
    assert len({entry.method for entry in METHODS.values()}) == len(METHODS) == 22  # a class has one name
    assert all(getattr(methods, entry.method.__name__) is entry.method for entry in METHODS.values())
    roles = [entry.robust_to for entry in METHODS.values()]
    assert [roles.count(role) for role in ("nothing", "imbalance", "noise")] == [1, 9, 12]
    assert all("arXiv" in entry.source for name, entry in METHODS.items() if name != "cross_entropy")


def test_published_defaults():
    defaults = {
        "logit_adjustment": {"tau": 1.0, "temperature": 1.0},
        "posthoc_logit_adjustment": {"tau": 1.0, "temperature": 1.0},
        "balanced_softmax": {"temperature": 1.0},
        "ldam_drw": {"max_margin": 0.5, "scale": 30.0, "deferral": 0.8, "beta": 0.9999},
        "class_balanced": {"beta": 0.9999},
        "focal": {"gamma": 2.0},
        "tau_norm": {"tau": 1.0},
        "elr": {"weight": 3.0, "momentum": 0.7},
        "gce": {"q": 0.7, "tau": 0.0, "temperature": 1.0},
        "forward_correction": {
            **{"matrix": "estimated", "estimate_after": 0.1},
            **{"tau": 0.0, "temperature": 1.0},
        },
        "truncated_gce": {"q": 0.7, "bound": 0.5, "start_share": 1 / 3, "every": 10},
        "sce": {"alpha": 0.1, "beta": 1.0},
        "mixup": {"alpha": 1.0},
        "soft_bootstrapping": {"beta": 0.95},
        "coteaching": {"noise_rate": 0.4, "ramp": 0.05},
    }
    assert {name: build(name).get_params() for name in defaults} == defaults
    assert {"temperature": 0.5, "mix_alpha": 4.0}.items() <= build("dividemix").get_params().items()


def test_names_of_all_options():
    """Those of all methods differ, as fields of one configuration have to."""
    options = list(all_options())
    assert [o.full_name for o in options if o.method == "elr"] == [
        "elr_weight",
        "elr_momentum",
    ]
    assert len({option.full_name for option in options}) == len(options)
    assert [option.name for option in options if option.method == "gce"] == list(method_options("gce"))


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
    for refuse in (check_method_name, build_method):
        with pytest.raises(InputError, match=words):
            refuse(name)


NAN, INF = float("nan"), float("inf")
ADJUSTMENT = {"tau": (-0.1, NAN, INF), "temperature": (0.0, -1.0, NAN, INF)}
MIX_MATCH = {
    "warmup": (0.0, 1.0),
    "lambda_u": (-1.0, INF),
    "temperature": (0.0, NAN),
    "mix_alpha": (0.0, INF),
    "clean_bound": (-0.1, 1.1),
    "ramp": (0.0, 1.1),
    "penalty": ("observed",),
}
OUT_OF_RANGE = {
    "logit_adjustment": ADJUSTMENT,
    "balanced_softmax": {"temperature": ADJUSTMENT["temperature"]},
    "posthoc_logit_adjustment": ADJUSTMENT,
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
    "gce": {"q": (0.0, 1.1, NAN)} | ADJUSTMENT,
    "truncated_gce": {"q": (0.0, 1.1), "bound": (-0.1, 1.1), "start_share": (-0.1, 1.0), "every": (0, -3)},
    "sce": {"alpha": (-0.1, INF), "beta": (-0.1, INF)},
    "label_smoothing": {"amount": (-0.1, 1.1)},
    "mixup": {"alpha": (0.0, -1.0, NAN, INF)},
    "soft_bootstrapping": {"beta": (-0.1, 1.1, NAN)},
    "hard_bootstrapping": {"beta": (-0.1, 1.1, NAN)},
    "forward_correction": {"matrix": ("unknown",), "estimate_after": (0.0, 1.0)} | ADJUSTMENT,
    "coteaching": {"noise_rate": (-0.1, 1.0, NAN, "guessed"), "ramp": (0.0, 1.0)},
    "dividemix": MIX_MATCH,
    "tabasco": MIX_MATCH,
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
                build(name, **{option: value})
            assert len(str(refused.value).splitlines()) == 1


def test_options_at_the_ends_of_their_ranges():
    for name, options in {
        "logit_adjustment": {"tau": 0, "temperature": 0.002},
        "ldam_drw": {"max_margin": 0, "deferral": 1, "beta": 0},
        "gce": {"q": 1, "tau": 0},
        "elr": {"weight": 0, "momentum": 1},
        "truncated_gce": {"bound": 1, "start_share": 0, "every": 1},
        "coteaching": {"noise_rate": 0, "ramp": 0.999},
        "dividemix": {"lambda_u": 0, "clean_bound": 1, "ramp": 1},
        "ot_reweighting": {"meta_per_class": 1, "weight_decay": 0, "meta_weight": 0, "share": 1},
    }.items():
        assert options.items() <= build(name, **options).get_params().items()


def test_options_of_other_methods_are_refused():
    with pytest.raises(InputError, match=r"^Unknown option of gce 'weight'") as refused:
        build_method("gce", {"weight": 1.0})
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("made", [3, None, lambda facts: "elr"])
def test_what_is_no_method_is_refused(made):
    with pytest.raises(InputError, match=r"^A method must be a name, a dsink_jax.methods.Method, or a func"):
        build_method(made, facts=FACTS)


def test_the_class_of_a_method_is_no_method():
    with pytest.raises(InputError, match=r"give CrossEntropy\(\)"):
        build_method(methods.CrossEntropy, facts=FACTS)


def test_a_function_is_given_the_facts():
    built = build_method(lambda facts: methods.LogitAdjustment(float(facts.class_counts[0])), facts=FACTS)
    assert built == methods.LogitAdjustment(50.0)


@given(counts=st.lists(st.integers(1, 5000), min_size=2, max_size=100))
def test_class_priors_are_shares(counts):
    facts = make_facts(counts, 7, np.eye(len(counts)))
    assert all(array.dtype == np.float32 for array in facts)
    assert (facts.num_classes, facts.epochs) == (len(counts), 7)
    np.testing.assert_array_equal(facts.class_counts, counts)
    np.testing.assert_allclose(facts.class_prior, np.array(counts) / sum(counts), rtol=1e-6)
    assert make_facts(counts, 7).transition_matrix is None
