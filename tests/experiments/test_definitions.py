"""What a model was trained as, and what counts as the same."""

import dataclasses
import json

import pytest

from dsink_jax.methods import CrossEntropy, DSink, LogitAdjustment, Weighting
from experiments.definitions import definition, is_same
from experiments.weakening import Weakening

METHOD = DSink(LogitAdjustment((3, 2, 1)), Weighting(10.0), max_iterations=20)
STORED = json.loads(json.dumps(definition(METHOD)))


def test_definition_is_the_same_after_a_file():
    assert is_same(STORED, METHOD)
    assert STORED["base"] == {"class": "LogitAdjustment", "class_prior": [3, 2, 1], "tau": 1.0}
    assert (
        is_same(None, None) and not is_same(None, Weakening()) and not is_same(definition(Weakening()), None)
    )


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(METHOD, max_iterations=30),
        dataclasses.replace(METHOD, base=LogitAdjustment((3, 2, 2))),
        dataclasses.replace(METHOD, base=LogitAdjustment((3, 2, 1), tau=0.5)),
        dataclasses.replace(METHOD, base=CrossEntropy()),
        dataclasses.replace(METHOD, weighting=Weighting(10.0, ramp_epochs=1.0)),
        CrossEntropy(),
    ],
)
def test_any_other_setting_is_another_definition(other):
    assert not is_same(STORED, other)


def test_a_setting_that_is_new_had_its_default():
    before = {name: value for name, value in STORED.items() if name != "epsilon"}
    assert is_same(before, METHOD)
    assert not is_same(before, dataclasses.replace(METHOD, epsilon=1.0))
    assert not is_same({**STORED, "removed": 1}, METHOD)
