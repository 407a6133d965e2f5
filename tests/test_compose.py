"""The examples of docs/compose: each computes what it says, in its framework, and trains."""

import functools
import importlib
import os
import pathlib
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from dsink_jax import class_marginal, surrogate_labels

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "compose"
MODULES = ("plain_optax", "linen_train_state", "nnx_module", "equinox_module")


@pytest.fixture
def example(monkeypatch):
    """Imports an example as it is run, with its own folder on the path."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_every_example_is_tested():
    assert {path.stem for path in FOLDER.glob("*.py")} == {*MODULES, "sharded_step", "corrupted_digits"}


def small_batch():
    rng = np.random.default_rng(0)
    return {
        "features": rng.standard_normal((16, 64)).astype(np.float32),
        "labels": rng.integers(0, 10, 16),
        "class_prior": np.full(10, 0.1, np.float32),
    }


def network(name, module, seed):
    """Parameters, logits as a function of them, and the model as a function of them."""
    key = jax.random.key(seed)
    if name == "plain_optax":
        return module.init(key), module.apply, lambda parameters: parameters
    if name == "linen_train_state":
        variables = module.Network().init(key, jnp.zeros((1, 64)))
        apply = module.Network().apply
        return variables["params"], lambda params, x: apply({"params": params}, x), lambda params: params
    if name == "nnx_module":
        graph, state = nnx.split(module.Network(nnx.Rngs(seed)))
        return state, lambda state, x: nnx.merge(graph, state)(x), lambda state: nnx.merge(graph, state)
    arrays, rest = eqx.partition(module.network(key), eqx.is_array)
    combined = functools.partial(eqx.combine, rest)
    return arrays, lambda arrays, x: jax.vmap(combined(arrays))(x), combined


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_gradient_of_the_target_is_the_closed_form(name, example):
    module = example(name)
    batch = small_batch()
    parameters, logits_of, model_of = network(name, module, 0)
    auxiliaries = [network(name, module, seed)[0] for seed in (1, 2)]
    f_N, f_L = (logits_of(each, batch["features"]) for each in auxiliaries)
    if name == "plain_optax":
        rest = ()
        batch |= {"f_N": f_N, "f_L": f_L}
    elif name == "linen_train_state":
        rest = ([{"params": each} for each in auxiliaries],)
    else:
        rest = ([model_of(each) for each in auxiliaries],)

    gradient = jax.grad(lambda p: module.objective(model_of(p), module.target, batch, *rest))(parameters)

    logits, pull_back = jax.vjp(lambda p: logits_of(p, batch["features"]), parameters)
    q = surrogate_labels(logits, noise_robust_logits=f_N, class_marginal=class_marginal(f_L)).labels
    to_q = jax.nn.softmax(logits) - q
    to_observed = jax.nn.softmax(logits) - jax.nn.one_hot(batch["labels"], 10)
    if name == "equinox_module":
        cotangent = module.SHARE * to_q + (1 - module.SHARE) * to_observed
    else:
        cotangent = (to_observed + module.ALPHA * to_q) / ((1 + module.ALPHA) / 2)
    (expected,) = pull_back(cotangent / len(logits))
    assert jax.tree.leaves(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), gradient, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_target_is_ahead_of_cross_entropy(name, example, capsys):
    accuracies = example(name).main()
    assert accuracies["D-SINK"] > accuracies["cross-entropy"] + 0.05
    assert min(accuracies.values()) > 0.6
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(accuracies)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["shard_map", "jit"])
def test_sharded_step_equals_one_device(by, example, cpus):
    module = example("sharded_step")
    rng = np.random.default_rng(0)
    batch = {
        **{name: 2 * rng.standard_normal((40, 10)).astype(np.float32) for name in ("f_L", "f_N")},
        "features": rng.standard_normal((40, 64)).astype(np.float32),
        "labels": rng.integers(0, 10, 40),
        "where": np.arange(40) < 33,
    }
    parameters = module.init(jax.random.key(0))
    state = module.OPTIMIZER.init(parameters)
    mesh = jax.make_mesh((8,), ("batch",), devices=cpus)
    whole, split = (jax.NamedSharding(mesh, spec) for spec in (module.WHOLE, module.SPLIT))

    sharded = module.mapped_step(module.target, mesh, by)
    ours = sharded(*jax.device_put((parameters, state), whole), jax.device_put(batch, split))
    valid = {name: rows[:33] for name, rows in batch.items()}
    one = module.step(module.target, None, parameters, state, valid)

    assert jax.tree.leaves(ours)[0].sharding.device_set == set(cpus)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), ours, one)
    assert float(abs(one[0]["output"] - parameters["output"]).max()) > 1e-3  # the step went somewhere


@pytest.mark.slow
def test_sharded_training_runs_on_eight_devices():
    done = run("import runpy; runpy.run_path('sharded_step.py', run_name='__main__')")
    assert done.returncode == 0, done.stderr
    *rows, devices = done.stdout.splitlines()
    accuracies = {row.split()[0]: float(row.split()[1].rstrip("%")) for row in rows}
    assert devices == "8 devices"
    assert accuracies["D-SINK"] > accuracies["cross-entropy"] + 5


def test_missing_framework_is_named():
    done = run("import sys; sys.modules['equinox'] = None; import equinox_module")
    assert done.returncode == 2
    assert done.stderr == "Equinox is not installed: pip install equinox\n"
    assert done.stdout == ""
