"""Importing the package costs little and brings little."""

import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

import dsink_jax
from allocation_references import (
    log_softmax,
    reference_labels,
)

# Importing: each in a process of its own.


def in_a_fresh_process(code, **settings):
    root = pathlib.Path(dsink_jax.__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **settings, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("first", ["jit of grad", "pmap"])
def test_first_call_may_be_inside_a_trace(first):
    # OTT is imported by the first call. Were its module-level constants made by that call's trace, a
    # later trace would meet leaked tracers.
    out = in_a_fresh_process(
        f"""
import sys
import jax, jax.numpy as jnp, numpy as np
from dsink_jax import dsink_loss, surrogate_labels

def arrays(n, c):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(2 * rng.standard_normal((n, c)), jnp.float32) for _ in range(3))

assert "ott" not in sys.modules
if {first!r} == "jit of grad":
    jax.jit(jax.grad(lambda *a: dsink_loss(*a).sum()))(*arrays(4, 2)).block_until_ready()
else:
    one = [a[None] for a in arrays(4, 2)]
    jax.pmap(lambda *a: dsink_loss(*a, axis_name="i"), axis_name="i")(*one).block_until_ready()
assert "ott" in sys.modules
print(*jax.jit(dsink_loss)(*arrays(16, 3)).tolist())
"""
    )
    rng = np.random.default_rng(0)
    logits, noise_robust, imbalance_robust = (
        (2 * rng.standard_normal((16, 3))).astype(np.float32) for _ in range(3)
    )
    labels = reference_labels(logits, noise_robust, np.exp(log_softmax(imbalance_robust)).mean(0))
    expected = (labels * (np.log(labels) - log_softmax(logits))).sum(1)
    np.testing.assert_allclose(np.array(out.split(), float), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_import_loads_nothing_heavy():
    heavy = (
        "tensorflow tensorflow_datasets matplotlib sklearn orbax ott flax rich tyro PIL pandas requests chex"
    )
    out = in_a_fresh_process(
        f"""
import sys
import dsink_jax, dsink_jax.losses
print([name for name in {heavy!r}.split() if name in sys.modules])
print(*(name for name in sys.modules if name.startswith("dsink_jax.")))
print(dsink_jax.evaluation.__name__)
try:
    dsink_jax.nothing
except AttributeError as error:
    print(error)
import experiments.digits
print("pandas" in sys.modules)
"""
    ).splitlines()
    assert out[0] == "[]"
    assert "dsink_jax.losses" in out[1].split()
    lazy = ("audit", "data", "estimator", "evaluation", "methods", "models", "report", "training")
    assert not {f"dsink_jax.{name}" for name in lazy} & set(out[1].split())
    assert out[2] == "dsink_jax.evaluation"
    assert out[3] == "module 'dsink_jax' has no attribute 'nothing'"
    assert out[4] == "False"  # tables of results are read by what draws them, not by what trains


@pytest.mark.slow
def test_import_costs_little_more_than_its_dependencies():
    def seconds(code):
        start = time.perf_counter()
        in_a_fresh_process(code)
        return time.perf_counter() - start

    ours, theirs = [], []
    for _ in range(5):  # in turns, so that other work on the machine falls on both
        ours.append(seconds("import dsink_jax"))
        theirs.append(seconds("import jax, optax, ott"))
    assert statistics.median(ours) <= 1.3 * statistics.median(theirs)
