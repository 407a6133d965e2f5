"""The metrics of the steps of one epoch, and whether they are numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class TrainingDivergedError(RuntimeError):
    """Raised when a loss, or a parameter after an epoch, is not finite."""


class EpochMetrics:
    """Collects what the steps return and does not wait for the devices until it is asked."""

    def __init__(self, epoch: int, before: dict[str, list[float]]):
        """Starts epoch number `epoch`, counted from 1, with the metrics of steps that were done before."""
        self._epoch = epoch
        done = {name: np.asarray(values, np.float32) for name, values in before.items()}
        self._parts: list[Mapping[str, np.ndarray | jax.Array]] = [done] if done else []

    def add(self, metrics: dict[str, jax.Array]) -> None:
        """Adds a dispatch: scalars, or `[k]` for k steps."""
        self._parts.append(metrics)

    def columns(self) -> dict[str, np.ndarray]:
        """All values so far by name; waits for the devices."""
        host = jax.device_get(self._parts)
        done = {name: np.concatenate([np.atleast_1d(p[name]) for p in host]) for name in host[0]}
        self._parts = [done]
        return done

    def lists(self) -> dict[str, list[float]]:
        """The same as JSON holds it, without loss of precision."""
        return {name: values.tolist() for name, values in self.columns().items()}

    def means(self) -> dict[str, float]:
        """Means over the examples. Steps that were skipped have no examples, and are counted."""
        columns = dict(self.columns())
        examples = columns.pop("examples")
        means = {name: float(np.average(values, weights=examples)) for name, values in columns.items()}
        return means | ({"skipped": float(columns["skipped"].sum())} if "skipped" in columns else {})

    def check(self, params: Any, steps_per_epoch: int, last_good: Callable[[], str]) -> None:
        """Raises `TrainingDivergedError` unless all that was computed so far is finite.

        Args:
          params: the present parameters.
          steps_per_epoch: to count steps from the start of the training.
          last_good: tells the last checkpoint in words.
        """
        columns = self.columns()
        bad = np.flatnonzero(~np.isfinite(columns["loss"]))
        if len(bad):
            at, what = bad[0], "the loss"
        elif len(columns["loss"]) >= steps_per_epoch and not columns["examples"].any():
            at, what = len(columns["loss"]) - 1, "every step's loss or gradient"
        elif not _all_finite(params):
            at, what = len(columns["loss"]) - 1, "a parameter"
        else:
            return
        names = ("loss", *(name for name in columns if name not in ("loss", "examples", "accuracy")))
        terms = {name: columns[name][at] for name in names}
        step = (self._epoch - 1) * steps_per_epoch + int(at) + 1
        raise TrainingDivergedError(
            f"Training diverged: {what} was not finite in epoch {self._epoch}, step {step} "
            f"({', '.join(f'{name} {value:.4g}' for name, value in terms.items())}). "
            f"Last good checkpoint: {last_good()}.\n"
            f"Try a lower learning rate{' or a lower alpha' if 'sinkhorn_iterations' in names else ''}; "
            "experiments also have --on-nan skip."
        )


@jax.jit
def _all_finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
