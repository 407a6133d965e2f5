"""Whatever arrays come in: what comes out keeps its promise, or a ValueError says what was wrong."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from dsink_jax import data, dsink_loss, surrogate_labels
from dsink_jax.data import sources
from dsink_jax.data.corruption import describe
from dsink_jax.data.noise import NOISE_KINDS

IN_A_FOLDER = [hypothesis.HealthCheck.function_scoped_fixture]
FLOATS = st.floats(width=32)
NUMBERS = st.one_of(st.floats(), st.integers(-(2**70), 2**70), st.none(), st.just("a"))
SMALL = st.one_of(st.integers(-2, 5), NUMBERS)


def refused(error):
    """Two lines at most."""
    assert 1 <= len(str(error).splitlines()) <= 2, str(error)


def any_array(*, most=4, rank=4):
    dtypes = st.one_of(
        hnp.boolean_dtypes(),
        hnp.integer_dtypes(),
        hnp.unsigned_integer_dtypes(),
        hnp.floating_dtypes(),
        hnp.complex_number_dtypes(),
        hnp.unicode_string_dtypes(max_len=3),
        hnp.datetime64_dtypes(),
    )
    shapes = hnp.array_shapes(min_dims=0, max_dims=rank, min_side=0, max_side=most)
    return st.tuples(dtypes, shapes).flatmap(lambda kind: hnp.arrays(*kind))


IMAGES = st.one_of(
    any_array(),
    hnp.arrays(np.uint8, (4, 2, 2, 1)),
    hnp.arrays(np.float32, (4, 2, 2, 1), elements=FLOATS),
    hnp.arrays(np.float64, (4, 2, 2, 1)),
)
LABELS = st.one_of(
    any_array(rank=2),
    hnp.arrays(hnp.integer_dtypes() | hnp.unsigned_integer_dtypes(), 4),
    hnp.arrays(hnp.integer_dtypes() | hnp.unsigned_integer_dtypes(), 4, elements=st.integers(0, 3)),
)
DATA_SETS = st.fixed_dictionaries(
    {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": LABELS},
    optional={"class_names": any_array(rank=2)},
)


@hypothesis.settings(max_examples=200, suppress_health_check=IN_A_FOLDER)
@hypothesis.given(arrays=DATA_SETS)
def test_a_data_set_is_as_described_or_refused(arrays, tmp_path):
    path = tmp_path / "any.npz"
    np.savez(path, **arrays)
    try:
        found = sources.load(str(path))
    except ValueError as error:
        assert str(path) in str(error)
        refused(error)
        return
    for part in (found.train, found.test):
        assert part.images.dtype in (np.uint8, np.float32) and part.images.ndim == 4
        assert np.isfinite(part.images).all()
        assert part.labels.shape == part.images.shape[:1] and part.labels.dtype == np.int32
        assert 0 <= part.labels.min() <= part.labels.max() < found.num_classes
    assert np.isfinite([*found.mean, *found.std]).all() and min(found.std) > 0


@hypothesis.settings(max_examples=100, suppress_health_check=IN_A_FOLDER)
@hypothesis.given(place=st.integers(0, 1500), new=st.binary(max_size=8), cut=st.booleans())
def test_a_damaged_file_is_refused(place, new, cut, tmp_path):
    """Or is whole, where the damage is where nothing is read."""
    labels = np.arange(20) % 2
    drawn = data.corrupt(labels, 2, imbalance_ratio=1, noise="symmetric", noise_rate=0.4, data_seed=0)
    path = tmp_path / "damaged.npz"
    data.save_corruption(path, drawn)
    content = path.read_bytes()
    path.write_bytes(content[:place] + new + (b"" if cut else content[place + len(new) :]))
    for read in (data.load_corruption, sources.read_npz):
        try:
            found = read(path)
        except ValueError as error:
            refused(error)
        else:
            assert read is sources.read_npz or found.sha256 == drawn.sha256


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    labels=LABELS | hnp.arrays(np.int64, 12, elements=st.integers(0, 2)),
    num_classes=st.integers(-1, 5),
    ratio=SMALL,
    noise=st.sampled_from([*NOISE_KINDS, "pink", None, 3]),
    rate=SMALL,
    seeds=st.tuples(SMALL, SMALL),
    human=st.none() | LABELS,
)
@hypothesis.example(np.zeros(4, np.uint64), 2, 1.0, "none", 0.0, (0, 0), None)
@hypothesis.example(np.arange(4, dtype=np.uint64), 4, 1.0, "symmetric", 0.5, (0, 0), None)
@hypothesis.example(np.arange(12) % 3, 3, 2.0, "joint", 1, (0, 0), None)
def test_a_corrupted_set_is_as_described_or_refused(labels, num_classes, ratio, noise, rate, seeds, human):
    try:
        drawn = data.corrupt(
            labels,
            num_classes,
            imbalance_ratio=ratio,
            noise=noise,
            noise_rate=rate,
            data_seed=seeds[0],
            map_seed=seeds[1],
            human_labels=human,
        )
    except ValueError as error:
        refused(error)
        return
    assert (np.diff(drawn.index) > 0).all() and len(drawn.index) > 0
    np.testing.assert_array_equal(drawn.clean_labels, labels[drawn.index])
    assert 0 <= drawn.noisy_labels.min() <= drawn.noisy_labels.max() < num_classes
    assert drawn.clean_counts.min() >= 1 and len(drawn.sha256) == 64
    assert describe(drawn)


# Few shapes, because each is compiled anew.
SIDES = st.sampled_from([(3, 4), (1, 4), (3, 1), (0, 4), (3, 0), (3,), (1, 3, 4)])


def logits_of(shape):
    values = hnp.arrays(np.float32, shape, elements=FLOATS)
    return st.one_of(values, values, values, any_array(rank=2))


BATCHES = SIDES.flatmap(
    lambda shape: st.tuples(
        logits_of(shape),
        logits_of(shape),
        logits_of(shape),
        st.none() | hnp.arrays(bool, shape[:1]) | any_array(rank=1),
        hnp.arrays(np.float32, shape[-1:], elements=FLOATS) | any_array(rank=1),
    )
)


@hypothesis.settings(max_examples=200)
@hypothesis.given(batch=BATCHES)
def test_surrogate_labels_sum_to_one_or_are_all_nan_or_refused(batch):
    logits, noise_robust, _, where, marginal = batch
    try:
        found = surrogate_labels(logits, noise_robust, marginal, where=where, max_iterations=20)
    except ValueError as error:
        refused(error)
        return
    labels = np.asarray(found.labels)
    assert labels.shape == logits.shape and labels.dtype == np.float32
    if np.isnan(labels).any():
        assert np.isnan(labels).all() and not found.converged
        return
    valid = np.ones(len(labels), bool) if where is None else where
    np.testing.assert_allclose(labels.sum(1), valid, atol=1e-5)
    assert (labels >= 0).all() and 0 <= found.marginal_error <= 2 + 1e-5


@hypothesis.settings(max_examples=200)
@hypothesis.given(batch=BATCHES)
def test_the_loss_is_a_divergence_or_nan_or_refused(batch):
    logits, noise_robust, imbalance_robust, where, _ = batch
    try:
        found = np.asarray(dsink_loss(logits, noise_robust, imbalance_robust, where=where, max_iterations=20))
    except ValueError as error:
        refused(error)
        return
    assert found.shape == logits.shape[:1] and found.dtype == np.float32
    if where is not None:
        assert (found[~where] == 0).all()
    arrays = (logits, noise_robust, imbalance_robust)
    if all((np.abs(array) < 1e4).all() for array in arrays):
        assert np.isfinite(found).all()
    bound = 1e-3 + 1e-5 * max(np.abs(np.nan_to_num(logits)).max(), 1.0)
    assert (np.isnan(found) | (found >= -bound)).all()


@pytest.mark.parametrize("dtype", ["uint64", "int8", "uint8", "int32"])
def test_labels_of_every_integer_type_draw_the_same_set(dtype):
    labels = np.arange(60) % 3
    how = {"imbalance_ratio": 2, "noise": "joint", "noise_rate": 0.4, "data_seed": 0}
    assert data.corrupt(labels.astype(dtype), 3, **how).sha256 == data.corrupt(labels, 3, **how).sha256
