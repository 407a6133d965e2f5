"""Error of the surrogate labels against POT in float64: `python -m experiments.solver_accuracy`.

Logits are `scale` times a common normal draw plus a fifth of that for each of f and f_N; the class marginal
is long-tailed, ratio 100. Needs POT (`pip install ".[experiments]"`).
"""

import dataclasses
import importlib.util
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from dsink_jax import class_marginal, surrogate_labels
from dsink_jax.allocation import DEFAULT_MAX_ITERATIONS, EPSILON
from dsink_jax.errors import InputError
from dsink_jax.flags import read_flags
from dsink_jax.report import align
from experiments.command_line import errors_for_people
from experiments.environments import COLUMN, environment_here, environments_in_words, identify, remember
from experiments.kept_rows import read_measured, write_rows
from experiments.output_folder import make_output, writing_output

FIELDS = ("examples", "classes", "scale", "seed", "limit", "iterations", "error", COLUMN)
SHAPES = ((64, 10), (128, 10), (128, 100), (1000, 10), (1000, 100))
SCALES = (1.0, 2.0, 5.0, 10.0, 12.0)
SEEDS = 3
UNLIMITED = 100_000
_FILE = "accuracy.csv"


def problem(key: jax.Array, shape: tuple[int, int], scale: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits of f and f_N `[N, C]` and a class marginal `[C]`."""
    common, target, noise_robust = (
        scale * jax.random.normal(key, (3, *shape)) * jnp.array([1, 0.2, 0.2])[:, None, None]
    )
    imbalance_robust = common - jnp.linspace(0.0, jnp.log(100.0), shape[1])
    return common + target, common + noise_robust, class_marginal(imbalance_robust)


def pot_labels(
    logits, noise_robust_logits, marginal, *, dtype=np.float64, max_iterations=50_000, threshold=1e-13
) -> np.ndarray:
    """Q `[N, C]` by POT's `sinkhorn_log`, in the type given."""
    import ot

    def log_softmax(values):
        values = np.asarray(values, dtype)
        values = values - values.max(1, keepdims=True)
        return values - np.log(np.exp(values).sum(1, keepdims=True))

    count, marginal = len(logits), np.asarray(marginal, dtype)
    plan = ot.sinkhorn(
        np.full(count, 1 / count, dtype),
        marginal / marginal.sum(),
        -(log_softmax(logits) + log_softmax(noise_robust_logits)),
        EPSILON,
        method="sinkhorn_log",
        stopThr=threshold,
        numItermax=max_iterations,
        warn=False,
    )
    return count * plan


def measure(shape: tuple[int, int], scale: float) -> Iterator[dict[str, object]]:
    """Rows of each seed: iterations and largest error of a label, unlimited and by default."""
    for seed in range(SEEDS):
        arrays = problem(jax.random.key(seed), shape, scale)
        exact = pot_labels(*arrays)
        for limit in (UNLIMITED, DEFAULT_MAX_ITERATIONS):
            allocation = surrogate_labels(*arrays, max_iterations=limit)
            yield {
                **dict(zip(("examples", "classes"), shape, strict=True)),
                **{"scale": scale, "seed": seed, "limit": limit},
                "iterations": int(allocation.iterations),
                "error": float(np.abs(np.asarray(allocation.labels) - exact).max()),
            }


def render(folder: pathlib.Path) -> None:
    """Writes accuracy.md from accuracy.csv.

    Raises:
      InputError: if there is no accuracy.csv, or it is of something else.
    """
    rows = read_measured(folder / _FILE, FIELDS)
    table = [("N x C", "scale", "iterations", "error", "iterations (default)", "error (default)")]
    for (examples, classes, scale), here in rows.groupby(["examples", "classes", "scale"], sort=False):
        worst = here.groupby("limit").max().loc[[UNLIMITED, DEFAULT_MAX_ITERATIONS]]
        pairs = zip(worst["iterations"], worst["error"], strict=True)
        cells = (cell for limit, error in pairs for cell in (str(limit), f"{error:.1e}"))
        table.append((f"{examples} x {classes}", f"{scale:g}", *cells))
    text = (
        "# Error of the surrogate labels\n\n"
        "Largest absolute error of a label against POT's `sinkhorn_log` in float64, worst of "
        f"{rows['seed'].nunique()} seeds, threshold 1e-6: with iterations as many as it takes, and with the "
        f"default limit of {DEFAULT_MAX_ITERATIONS}. `scale` is the standard deviation of the logits.\n\n"
        f"```\n{align(table, left=1)}\n```\n\n"
        f"`python -m experiments.solver_accuracy`; {environments_in_words(folder, rows[COLUMN])}.\n"
    )
    (folder / "accuracy.md").write_text(text, encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Measures the error of the surrogate labels against POT in float64."""

    output: pathlib.Path = pathlib.Path("results/solver-accuracy")
    """Where accuracy.csv and accuracy.md go."""
    steps: Literal["all", "render"] = "all"
    """render: only write the table, from accuracy.csv."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures from the command line.

    Args:
      arguments: the flags; those of this process if left out.
    """
    with errors_for_people():
        settings = read_flags(Settings, arguments, description=__doc__)
        folder = settings.output
        if settings.steps == "all" and importlib.util.find_spec("ot") is None:
            raise InputError('The comparison needs POT: pip install ".[experiments]"')
        make_output(folder)
        environment = environment_here("POT")
        rows = []
        for scale, shape in itertools.product(SCALES, SHAPES) if settings.steps == "all" else ():
            rows += measure(shape, scale)
            print(f"{shape[0]} x {shape[1]}, scale {scale:g}: {float(rows[-1]['error']):.1e}", flush=True)
        with writing_output(folder):
            if rows:
                remember(folder, [environment])
                write_rows(folder / _FILE, pd.DataFrame(rows).assign(**{COLUMN: identify(environment)}))
            render(folder)
        print(folder / "accuracy.md")


if __name__ == "__main__":
    main()
