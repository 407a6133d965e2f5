"""Error of the surrogate labels against POT in float64: `python -m experiments.solver_accuracy`.

Logits are `scale` times a common normal draw plus a fifth of that for each of f and f_N; the class marginal
is long-tailed, ratio 100. Needs POT (`pip install ".[benchmark]"`).
"""

import dataclasses
import importlib.util
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax import class_marginal, surrogate_labels
from dsink_jax.allocation import DEFAULT_MAX_ITERATIONS, EPSILON
from dsink_jax.errors import InputError
from dsink_jax.flags import read_flags
from dsink_jax.report import align
from experiments.command_line import errors_for_people
from experiments.output_folder import make_output, writing_output
from experiments.provenance import device_description, versions_in_words

SHAPES = ((64, 10), (128, 10), (128, 100), (1000, 10), (1000, 100))
SCALES = (1.0, 2.0, 5.0, 10.0, 12.0)
SEEDS = 3
UNLIMITED = 100_000


def problem(key: jax.Array, shape: tuple[int, int], scale: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits of f and f_N `[N, C]` and a class marginal `[C]`."""
    common, target, noise_robust = (
        scale * jax.random.normal(key, (3, *shape)) * jnp.array([1, 0.2, 0.2])[:, None, None]
    )
    imbalance_robust = common - jnp.linspace(0.0, jnp.log(100.0), shape[1])
    return common + target, common + noise_robust, class_marginal(imbalance_robust)


def reference(logits: jax.Array, noise_robust_logits: jax.Array, marginal: jax.Array) -> np.ndarray:
    """Q in float64 by POT."""
    import ot

    def log_softmax(values):
        values = np.asarray(values, np.float64)
        values = values - values.max(1, keepdims=True)
        return values - np.log(np.exp(values).sum(1, keepdims=True))

    count = len(logits)
    marginal = np.asarray(marginal, np.float64)
    cost = -(log_softmax(logits) + log_softmax(noise_robust_logits))
    plan = ot.sinkhorn(
        np.full(count, 1 / count),
        marginal / marginal.sum(),
        cost,
        EPSILON,
        method="sinkhorn_log",
        stopThr=1e-13,
        numItermax=50_000,
        warn=False,
    )
    return count * plan


def measure(shape: tuple[int, int], scale: float) -> tuple[str, ...]:
    """One row: worst over seeds of iterations and error, unlimited and by default."""
    found = {UNLIMITED: [], DEFAULT_MAX_ITERATIONS: []}
    for seed in range(SEEDS):
        arrays = problem(jax.random.key(seed), shape, scale)
        exact = reference(*arrays)
        for limit, values in found.items():
            allocation = surrogate_labels(*arrays, max_iterations=limit)
            error = float(np.abs(np.asarray(allocation.labels) - exact).max())
            values.append((int(allocation.iterations), error))
    cells = [f"{shape[0]} x {shape[1]}", f"{scale:g}"]
    for values in found.values():
        cells += [str(max(i for i, _ in values)), f"{max(e for _, e in values):.1e}"]
    return tuple(cells)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Measures the error of the surrogate labels against POT in float64."""

    output: pathlib.Path = pathlib.Path("results/solver")
    """Where the table goes."""


def main() -> None:
    """Writes accuracy.md to the folder given."""
    with errors_for_people():
        output = read_flags(Settings, description=__doc__).output
        if importlib.util.find_spec("ot") is None:
            raise InputError("The comparison needs POT: pip install '.[benchmark]'")
        make_output(output)
        text = _table()
        with writing_output(output):
            (output / "accuracy.md").write_text(text, encoding="utf-8")
    print(text)


def _table():
    header = ("N x C", "scale", "iterations", "error", "iterations (default)", "error (default)")
    rows = [header, *(measure(shape, scale) for scale in SCALES for shape in SHAPES)]
    return (
        "# Error of the surrogate labels\n\n"
        "Largest absolute error of a label against POT's `sinkhorn_log` in float64, worst of "
        f"{SEEDS} seeds, threshold 1e-6: with iterations as many as it takes, and with the default limit of "
        f"{DEFAULT_MAX_ITERATIONS}. `scale` is the standard deviation of the logits.\n\n"
        f"```\n{align(rows, left=1)}\n```\n\n"
        f"`python -m experiments.solver_accuracy`; {device_description(jax.local_devices())}; "
        f"{versions_in_words()}; "
        f"{time.strftime('%Y-%m-%d')}.\n"
    )


if __name__ == "__main__":
    main()
