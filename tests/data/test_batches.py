import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsink_jax.data import batches
from dsink_jax.errors import InputError

# Examples, devices, examples a device and step.
SIZES = st.tuples(st.integers(1, 200), st.integers(1, 8), st.integers(1, 20))


@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 1000))
def test_every_example_comes_exactly_once(sizes, seed, epoch):
    examples, devices, share = sizes
    order = batches.training_order(examples, devices * share, devices, seed=seed, epoch=epoch)
    steps = math.ceil(examples / (devices * share))
    assert order.index.shape == order.where.shape == (steps, devices, share)
    assert order.index.dtype == np.int32
    assert order.where.dtype == bool
    assert sorted(order.index[order.where].tolist()) == list(range(examples))


@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_padding_is_the_start_of_the_epoch_again(sizes, seed):
    examples, devices, share = sizes
    order = batches.training_order(examples, devices * share, devices, seed=seed, epoch=0)
    index, where = order.index.ravel(), order.where.ravel()
    # All of the padding is at the end, less than a step of it.
    assert where.tolist() == [True] * examples + [False] * (len(where) - examples)
    assert len(where) - examples < devices * share
    # It goes through the epoch from its start, over and over if the set is smaller than the batch.
    expected = itertools.islice(itertools.cycle(index[:examples].tolist()), len(index))
    assert index.tolist() == list(expected)


def test_fewer_examples_than_a_batch():
    order = batches.training_order(3, 8, 2, seed=0, epoch=0)
    a, b, c = order.index.ravel()[:3]
    assert sorted([a, b, c]) == [0, 1, 2]
    assert order.index.tolist() == [[[a, b, c, a], [b, c, a, b]]]
    assert order.where.tolist() == [[[True, True, True, False], [False] * 4]]


@given(sizes=SIZES, other=st.tuples(st.integers(1, 8), st.integers(1, 20)), seed=st.integers(0, 1000))
def test_order_depends_on_seed_and_epoch_alone(sizes, other, seed):
    examples, devices, share = sizes
    state = np.random.get_state()[1].copy()
    orders = [
        batches.training_order(examples, n * size, n, seed=seed, epoch=3)
        for n, size in ((devices, share), other)
    ]
    first, second = (order.index[order.where].tolist() for order in orders)
    assert first == second
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_other_seeds_and_epochs_give_other_orders():
    orders = {
        tuple(batches.training_order(50, 10, 1, seed=seed, epoch=epoch).index.ravel().tolist())
        for seed in range(6)
        for epoch in range(6)
    }
    assert len(orders) == 36


def test_all_orders_are_equally_likely():
    epochs = 6000
    counts = dict.fromkeys(itertools.permutations(range(3)), 0)
    for epoch in range(epochs):
        order = batches.training_order(3, 1, 1, seed=0, epoch=epoch)
        counts[tuple(order.index.ravel().tolist())] += 1
    deviation = math.sqrt(epochs * (1 / 6) * (5 / 6))
    assert max(abs(count - epochs / 6) for count in counts.values()) <= 5 * deviation


@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_split_over_devices_is_a_reshape(sizes, seed):
    examples, devices, share = sizes
    many = batches.training_order(examples, devices * share, devices, seed=seed, epoch=1)
    one = batches.training_order(examples, devices * share, 1, seed=seed, epoch=1)
    for split, whole in zip(many, one, strict=True):
        assert whole.shape[1:] == (1, devices * share)
        np.testing.assert_array_equal(split.reshape(whole.shape), whole)


@pytest.mark.parametrize(
    ("examples", "batch_size", "steps"), [(10, 5, 2), (11, 5, 3), (1, 5, 1), (15, 1, 15)]
)
def test_steps_per_epoch(examples, batch_size, steps):
    assert batches.steps_per_epoch(examples, batch_size) == steps


@pytest.mark.parametrize(
    ("batch_size", "devices", "nearest"),
    [(65, 8, 64), (3, 8, 8), (7, 2, 6), (0, 1, 1), (0, 4, 4), (-8, 8, 8), (-3, 2, 2)],
)
def test_batch_size_must_split(batch_size, devices, nearest):
    words = (
        f"^Batch size {batch_size} does not split over {devices} devices.*of {devices}, such as {nearest}\\.$"
    )
    for function, options in (
        (lambda *sizes: batches.check_batch_size(*sizes[1:]), {}),
        (batches.training_order, {"seed": 0, "epoch": 0}),
    ):
        with pytest.raises(InputError, match=words):
            function(100, batch_size, devices, **options)
    batches.check_batch_size(nearest, devices)  # what it offers is good


@given(devices=st.integers(1, 64), share=st.integers(1, 64))
def test_multiples_of_the_devices_are_good(devices, share):
    batches.check_batch_size(devices * share, devices)
    if devices > 1:
        with pytest.raises(InputError):
            batches.check_batch_size(devices * share + 1, devices)


# Every class equally often.


@st.composite
def tails(draw):
    """Labels with some classes rare and some without examples."""
    counts = draw(st.lists(st.integers(0, 60), min_size=2, max_size=8).filter(any))
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(draw(st.integers(0, 1000))).permutation(labels), len(counts)


@given(tail=tails(), devices=st.integers(1, 4), share=st.integers(1, 20), epoch=st.integers(0, 100))
def test_class_balanced_order_has_every_class_equally_often(tail, devices, share, epoch):
    labels, num_classes = tail
    sizes = (devices * share, devices)
    order = batches.class_balanced_order(labels, num_classes, *sizes, seed=3, epoch=epoch)
    assert order.index.shape == (math.ceil(len(labels) / sizes[0]), devices, share)
    drawn = order.index[order.where]
    assert len(drawn) == len(labels)
    present = np.unique(labels)
    of_class = np.bincount(labels[drawn], minlength=num_classes)
    assert not of_class[np.setdiff1d(np.arange(num_classes), present)].any()
    assert np.ptp(of_class[present]) <= 1
    # Within a class every example comes equally often too, but for the last turn.
    times = np.bincount(drawn, minlength=len(labels))
    for c in present:
        assert np.ptp(times[labels == c]) <= 1
    # Any stretch of it is balanced: a class comes once in every turn of the classes.
    turns = labels[drawn][: len(drawn) // len(present) * len(present)].reshape(-1, len(present))
    np.testing.assert_array_equal(np.sort(turns, axis=1), np.tile(present, (len(turns), 1)))


def test_class_balanced_order_is_decided_by_seed_and_epoch():
    labels = np.repeat(np.arange(3), (40, 10, 5))

    def drawn(seed, epoch, devices=1):
        order = batches.class_balanced_order(labels, 3, 8, devices, seed=seed, epoch=epoch)
        return tuple(order.index[order.where].ravel().tolist())

    assert drawn(0, 0) == drawn(0, 0) == drawn(0, 0, devices=4)
    assert len({drawn(seed, epoch) for seed in range(4) for epoch in range(4)}) == 16
    with pytest.raises(InputError, match="does not split over 3 devices"):
        batches.class_balanced_order(labels, 3, 8, 3, seed=0, epoch=0)
