"""What a model was trained as, and what counts as the same."""

import dataclasses
import json

import pytest

from dsink_jax.methods import CrossEntropy, DSink, LogitAdjustment, NaiveDistillation
from experiments.hyperparameters import hyperparameters, is_same
from experiments.models import Spec
from experiments.weakening import Weakening

SPEC = Spec("target", LogitAdjustment(), "target", DSink(max_iterations=20), weakening=Weakening(epochs=0.5))
STORED = json.loads(json.dumps(hyperparameters(SPEC)))


def test_a_model_is_the_same_after_a_file():
    assert is_same(STORED, SPEC)
    assert STORED["method"] == {"class": "LogitAdjustment", "tau": 1.0, "temperature": 1.0}
    assert not is_same(None, SPEC) and not is_same({"method": None}, SPEC)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": LogitAdjustment(tau=0.5)},
        {"method": CrossEntropy()},
        {"term": None},
        {"term": NaiveDistillation()},
        {"term": dataclasses.replace(SPEC.term, max_iterations=30)},
        {"term": dataclasses.replace(SPEC.term, ramp_epochs=1.0)},
        {"auxiliary_predictions": "out_of_fold"},
        {"average_decay": 0.99},
        {"weakening": None},
        {"weakening": Weakening(epochs=0.5, draw=1)},
    ],
)
def test_any_other_setting_is_another_model(changes):
    assert not is_same(STORED, dataclasses.replace(SPEC, **changes))


def test_a_setting_that_came_later_had_its_default():
    before = {**STORED, "term": {name: value for name, value in STORED["term"].items() if name != "epsilon"}}
    del before["average_decay"]
    assert is_same(before, SPEC)
    assert not is_same(before, dataclasses.replace(SPEC, term=dataclasses.replace(SPEC.term, epsilon=1.0)))
    assert not is_same(before, dataclasses.replace(SPEC, average_decay=0.9))


def test_an_option_of_a_method_that_came_later_had_its_default():
    before = {**STORED, "method": {"class": "LogitAdjustment", "tau": 1.0}}
    assert is_same(before, SPEC)
    assert not is_same(before, dataclasses.replace(SPEC, method=LogitAdjustment(temperature=2.0)))


def test_a_setting_that_is_gone_is_another_model():
    assert not is_same({**STORED, "term": {**STORED["term"], "queue": 0}}, SPEC)
