"""Predictions do not depend on how many rows there are, on batches, on devices or on where inputs lie."""

import jax
import numpy as np
import pytest

from dsink_jax.methods import CoTeaching, CrossEntropy, TauNormalization, make_facts, numbers_of, static_part
from dsink_jax.models import make_model
from dsink_jax.training import PredictionNumbers, Predictor, predict
from dsink_jax.training.predict import BATCH_SIZES
from tiny_training import STANDARDIZATION, Counting, some_variables, tiny_model

NUMBERS = PredictionNumbers({}, make_facts([1, 1, 1, 1], 1))
INPUTS = np.random.default_rng(0).integers(0, 255, (513, 8, 8, 1)).astype(np.uint8)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_any_number_of_rows_is_a_plain_apply(devices, cpus):
    model = tiny_model(CrossEntropy())
    variables = some_variables(CrossEntropy(), INPUTS)
    expected = model.apply(variables, (INPUTS.astype(np.float32) / 255 - 0.3) / 0.25)[0]
    predictor = Predictor(model, CrossEntropy())
    for rows in (1, 7, 8, 9, 37, 513):
        arguments = (predictor, variables, NUMBERS, STANDARDIZATION)
        got = predict(*arguments, INPUTS[:rows], cpus[:devices])
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected[:rows], atol=1e-5, rtol=0)
        source = Counting(INPUTS[:rows])
        np.testing.assert_array_equal(predict(*arguments, source, cpus[:devices]), got)
        assert set(source.read) == set(range(rows))


@pytest.mark.parametrize("method", [CrossEntropy(), CoTeaching(0.3)], ids=["one network", "two"])
def test_outputs_and_features_are_told_example_by_example(method, cpus):
    model = tiny_model(method)
    variables = some_variables(method, INPUTS)
    arguments = (Predictor(model, static_part(method)), variables, NUMBERS, None, INPUTS[:9], cpus[:2])
    logits, features = (predict(*arguments, wanted=what) for what in ("outputs", "features"))
    expected = model.features(variables, INPUTS[:9].astype(np.float32))
    if method.networks == 2:
        expected = expected.swapaxes(0, 1)
        assert features.shape[:2] == logits.shape[:2] == (9, 2)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-4)
    parameters = variables["params"]
    for k, own in enumerate(parameters.values() if method.networks == 2 else [parameters]):
        f, z = (features[:, k], logits[:, k]) if method.networks == 2 else (features, logits)
        difference = z - f @ own["classifier"]["kernel"]
        # A bias of the last layer is the same for all inputs.
        np.testing.assert_allclose(difference - difference[:1], 0, atol=2e-3)


def test_features_of_a_network_that_does_not_tell_them(cpus):
    model = tiny_model(CrossEntropy())._replace(features=None)
    variables = some_variables(CrossEntropy(), INPUTS)
    with pytest.raises(ValueError, match="Features are needed, which this model does not tell"):
        predict(Predictor(model, CrossEntropy()), variables, NUMBERS, None, INPUTS, cpus, wanted="features")


@pytest.mark.parametrize("devices", [1, 8])
def test_a_hundred_numbers_of_rows_need_no_more_programs_than_there_are_batch_sizes(devices, cpus):
    traced = []

    def apply(variables, inputs):
        traced.append(inputs.shape)
        return inputs @ variables["params"]

    model = make_model((lambda key, inputs: {"params": np.eye(4, dtype=np.float32)}, apply), 4)
    inputs = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    predictor = Predictor(model, CrossEntropy())
    for rows in range(1, 2000, 20):
        got = predict(
            *(predictor, {"params": np.eye(4, dtype=np.float32)}, NUMBERS, None, inputs[:rows]),
            cpus[:devices],
        )
        np.testing.assert_allclose(got, inputs[:rows], atol=1e-5)
    assert set(traced) <= {(size, 4) for size in BATCH_SIZES} and len(traced) <= len(BATCH_SIZES)


def test_numbers_of_a_method_that_changes_variables_are_not_compiled_for(cpus):
    """Classifier columns divided by their norms to the power tau, worked out in NumPy."""
    variables = some_variables(CrossEntropy(), INPUTS)
    classifier = variables["params"]["classifier"]
    features = tiny_model(CrossEntropy()).features(variables, INPUTS[:9].astype(np.float32))
    for tau in (0.0, 0.7, 1.0):
        method = TauNormalization(tau)
        predictor = Predictor(tiny_model(method), static_part(method))
        numbers = NUMBERS._replace(method=numbers_of(method))
        got = predict(predictor, variables, numbers, None, INPUTS[:9], cpus[:2])
        kernel = classifier["kernel"] / np.linalg.norm(classifier["kernel"], axis=0) ** tau
        difference = got - np.asarray(features) @ kernel
        # A bias of the last layer is the same for all inputs.
        np.testing.assert_allclose(difference - difference[:1], 0, atol=1e-3)
    assert jax.tree.leaves(numbers.method)
