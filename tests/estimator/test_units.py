"""Features in other units: what is learned is the same, whatever their offset and scale."""

import numpy as np
import pytest

from dsink_jax import DSinkClassifier, FittedDSink, fit
from dsink_jax.estimator.inputs import find_offset, make_standardization

QUICK = {"epochs": 15, "batch_size": 16, "selection": False, "target": False}

UNITS = {
    "Unix time in s, over minutes": (1.75e9, 60),
    "Unix time in ns, over minutes": (1.75e18, 6e10),
    "Julian date, over hours": (2460000.5, 1 / 24),
    "coordinate in m, over cm": (4649776.0, 0.01),
    "longitude in degrees, over 1 m": (139.691711, 1e-5),
    "pressure in Pa": (101325, 0.05),
    "year": (2000, 1),
    "current in A, one channel": (0, 1e-12),
    "mass in kg, atoms": (0, 1e-26),
    "1e30": (0, 1e30),
}


@pytest.fixture(scope="module")
def plain():
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    vectors = np.array([[0, 0], [4, 0], [0, 4]])[labels] + 0.5 * rng.normal(size=(150, 2))
    return vectors, labels, fit(vectors, labels, **QUICK)


@pytest.mark.parametrize("unit", UNITS)
def test_units_change_nothing(unit, plain, tmp_path):
    vectors, labels, expected = plain
    offset, scale = UNITS[unit]
    fitted = fit(offset + scale * vectors, labels, **QUICK)
    np.testing.assert_allclose(
        fitted.logits(offset + scale * vectors, "noise_robust"),
        expected.logits(vectors, "noise_robust"),
        atol=0.05,
    )
    fitted.save(tmp_path / "model.npz")
    loaded = FittedDSink.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(
        loaded.predict(offset + scale * vectors, "noise_robust"), expected.predict(vectors, "noise_robust")
    )


def test_the_classifier_keeps_what_float64_holds(plain):
    vectors, labels, _ = plain
    offset, scale = UNITS["Unix time in s, over minutes"]
    classifier = DSinkClassifier(epochs=15, batch_size=16, selection=False, role="noise_robust")
    assert classifier.fit(offset + scale * vectors, labels).score(offset + scale * vectors, labels) == 1


def test_whole_numbers_are_kept_too(plain):
    vectors, labels, expected = plain
    stamps = (1.75e18 + 6e10 * vectors).astype(np.int64)
    fitted = fit(stamps, labels, **QUICK)
    assert (fitted.predict(stamps, "noise_robust") == expected.predict(vectors, "noise_robust")).all()


def test_only_what_needs_it_is_moved():
    vectors = np.array([[1.75e9, 1.0], [1.75e9 + 60, 3.0]])
    np.testing.assert_array_equal(find_offset(vectors), [1.75e9 + 30, 0])
    assert find_offset(vectors[:, 1:]) is None
    assert find_offset(vectors.astype(np.float32)) is None  # it is lost already
    assert find_offset(np.zeros((2, 4, 4, 3), np.uint8)) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e9, 1e-20])
def test_what_varies_by_rounding_alone_is_constant(dtype, value):
    column = np.full((100, 1), value, dtype)
    column[::3] = np.nextafter(column[::3], dtype(np.inf))
    offset = find_offset(column)
    moved = (column if offset is None else column - offset).astype(np.float32)
    assert make_standardization(moved, offset, dtype).scale == 1


@pytest.mark.parametrize("shape", [(150, 2, 1, 1), (150, 1, 2), (150, 2, 1), (150, 1, 1, 2)])
def test_axes_of_length_one_are_left_out_and_that_is_told(shape, plain):
    vectors, labels, expected = plain
    with pytest.warns(UserWarning, match=r"are taken as vectors \[150, 2\]"):
        fitted = fit(vectors.reshape(shape), labels, **QUICK)
        found = fitted.logits(vectors.reshape(shape), "noise_robust")
    np.testing.assert_array_equal(found, expected.logits(vectors, "noise_robust"))
    np.testing.assert_array_equal(fitted.logits(vectors, "noise_robust"), found)
