"""Trees of arrays as a few long ones: what comes back is what was there."""

import json
from typing import Any, NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.training.packing import nested, pack, structure_of, totals, unpack

TYPES = ("float32", "float16", "bfloat16", "int32", "uint32", "bool")


class Pair(NamedTuple):
    first: Any
    second: Any


@st.composite
def arrays(draw):
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    numbers = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 200, shape)
    return jnp.asarray(numbers, draw(st.sampled_from(TYPES)))


def levels(children):
    names = st.sampled_from(["a", "b", "kernel", "0"])
    return (
        st.dictionaries(names, children, max_size=3)
        | st.lists(children, max_size=3).map(tuple)
        | st.builds(Pair, children, children)
    )


trees = st.recursive(arrays(), levels, max_leaves=8)


@hypothesis.given(trees)
def test_everything_comes_back(tree):
    structure = structure_of(tree)
    assert json.loads(json.dumps(structure)) == structure
    packed = pack(tree)
    assert {kind: array.shape for kind, array in packed.items()} == {
        kind: (length,) for kind, length in totals(structure).items()
    }
    assert all(str(array.dtype) == kind for kind, array in packed.items())
    again = jax.tree.unflatten(jax.tree.structure(tree), unpack(packed, structure))
    for one, other in zip(jax.tree.leaves(tree), jax.tree.leaves(again), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert np.asarray(one).tobytes() == other.tobytes()


def test_trees_that_differ_have_another_structure():
    tree = {"a": {"b": jnp.zeros((2, 3))}, "c": jnp.zeros(6)}
    others = (
        {"a": {"b": jnp.zeros((3, 2))}, "c": jnp.zeros(6)},
        {"a": {"b": jnp.zeros((2, 3), "int32")}, "c": jnp.zeros(6)},
        {"a": {"x": jnp.zeros((2, 3))}, "c": jnp.zeros(6)},
        {"a": {"b": jnp.zeros((2, 3))}},
    )
    assert all(structure_of(other) != structure_of(tree) for other in others)


def test_named_parts_as_dictionaries():
    tree = Pair({"layer": {"kernel": jnp.ones((2, 2)), "bias": jnp.arange(2)}}, (jnp.zeros(3), jnp.ones(1)))
    structure = structure_of(tree)
    found = nested(structure, unpack(pack(tree), structure), ["first", "none of them"])
    assert found.keys() == {"first"} and found["first"]["layer"].keys() == {"kernel", "bias"}
    np.testing.assert_array_equal(found["first"]["layer"]["kernel"], np.ones((2, 2)))
    np.testing.assert_array_equal(found["first"]["layer"]["bias"], [0, 1])
