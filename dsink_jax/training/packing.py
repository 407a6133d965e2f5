"""Trees of arrays as a few long ones, and back.

What writes a checkpoint keeps memory for every array that it has written (Orbax 0.12 on TensorStore 0.1):
with one array for each type, hundreds of checkpoints take little more of it than one.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

# Of each array: the names that lead to it, its shape, and the name of its type. As JSON holds it.
Structure = list[list[Any]]


def structure_of(tree: Any) -> Structure:
    """Where every array of a tree is, its shape and type, in the order of its leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [[[_name(key) for key in path], list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves]


def pack(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree one behind the other, `[total]` for each type by its name."""
    leaves = jax.tree.leaves(tree)
    types = dict.fromkeys(str(leaf.dtype) for leaf in leaves)
    return {
        kind: np.concatenate([np.asarray(leaf).reshape(-1) for leaf in leaves if str(leaf.dtype) == kind])
        for kind in types
    }


def unpack(packed: dict[str, np.ndarray], structure: Structure) -> list[np.ndarray]:
    """The arrays of the tree that had this structure, in the order of its leaves; views of `packed`."""
    leaves, used = [], dict.fromkeys(packed, 0)
    for _, shape, kind in structure:
        start, used[kind] = used[kind], used[kind] + int(np.prod(shape))
        leaves.append(packed[kind][start : used[kind]].reshape(shape))
    return leaves


def totals(structure: Structure) -> dict[str, int]:
    """The length of each packed array."""
    lengths: dict[str, int] = {}
    for _, shape, kind in structure:
        lengths[kind] = lengths.get(kind, 0) + int(np.prod(shape))
    return lengths


def nested(structure: Structure, leaves: Iterable[np.ndarray], names: Iterable[str]) -> dict[str, Any]:
    """The parts of a tree with these names at its top, if all below are dictionaries, as dictionaries."""
    wanted = set(names)
    tree: dict[str, Any] = {}
    for (path, _, _), leaf in zip(structure, leaves, strict=True):
        if path[0] in wanted:
            place = tree
            for name in path[:-1]:
                place = place.setdefault(name, {})
            place[path[-1]] = leaf
    return tree


def _name(key):
    """What a step of a path is called: the key of a dictionary, a field's name, or a position."""
    return next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind))
