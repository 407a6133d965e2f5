"""The metrics of the steps of one epoch, summed on the devices, and whether they are numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class TrainingDivergedError(RuntimeError):
    """Raised when a loss, or a parameter after an epoch, is not finite."""


class EpochMetrics:
    """Sums what the steps return, and looks at each dispatch when the next one is under way."""

    def __init__(self, epoch: int, steps_per_epoch: int, sums: Mapping[str, Any], done: int):
        """Starts epoch number `epoch`, counted from 1, with the sums of `done` steps that came before."""
        self._epoch, self._steps = epoch, steps_per_epoch
        self._sums: Mapping[str, Any] | None = dict(sums) or None
        self._done = self._seen = done
        self._waiting: Mapping[str, jax.Array] | None = None

    def add(self, metrics: Mapping[str, jax.Array], steps: int, last_good: Callable[[], str]) -> None:
        """Adds a dispatch of `steps` steps: scalars, or `[k]`; raises for the one before, see `check`."""
        self._sums = _summed(metrics) if self._sums is None else _added(self._sums, metrics)
        self._look(last_good)
        self._waiting, self._done = metrics, self._done + steps

    def sums(self) -> dict[str, np.ndarray]:
        """The sums so far, to go on from; waits for the devices."""
        return jax.device_get(dict(self._sums or {}))

    def means(self) -> dict[str, float]:
        """Means over the examples. Steps that were skipped have no examples, and are counted."""
        sums = self.sums()
        examples = sums.pop("examples")
        skipped = {"skipped": float(sums.pop("skipped"))} if "skipped" in sums else {}
        return {name: float(value / examples) for name, value in sums.items()} | skipped

    def check(self, params: Any, last_good: Callable[[], str]) -> None:
        """Raises `TrainingDivergedError` unless all that was computed so far is finite.

        Args:
          params: the present parameters.
          last_good: tells the last checkpoint in words.
        """
        self._look(last_good)
        if self._done >= self._steps and not self.sums()["examples"] > 0:
            raise self._diverged("every step's loss or gradient", self._done, {}, last_good)
        if not _all_finite(params):
            raise self._diverged("a parameter", self._done, {}, last_good)

    def _look(self, last_good):
        """Reads the losses of the dispatch that is waiting, if there is one."""
        if self._waiting is None:
            return
        losses = np.atleast_1d(self._waiting["loss"])
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            terms = {name: np.atleast_1d(value)[bad[0]] for name, value in self._waiting.items()}
            raise self._diverged("the loss", self._seen + int(bad[0]) + 1, terms, last_good)
        self._waiting, self._seen = None, self._done

    def _diverged(self, what, step, terms, last_good):
        shown = [f"{name} {v:.4g}" for name, v in terms.items() if name not in ("examples", "accuracy")]
        # At the head what diverged, then what it is made of.
        terms_in_words = f" ({', '.join(sorted(shown, key=lambda text: not text.startswith('loss ')))})"
        names = self._sums or {}
        return TrainingDivergedError(
            f"Training diverged: {what} was not finite in epoch {self._epoch}, step "
            f"{(self._epoch - 1) * self._steps + step}{terms_in_words if shown else ''}. "
            f"Last good checkpoint: {last_good()}.\n"
            f"Try a lower learning rate{' or a lower alpha' if 'sinkhorn_iterations' in names else ''}, "
            'or on_nan="skip".'
        )


def _summed(metrics):
    """Sums over the examples of a dispatch; `examples` and `skipped` are counts already."""
    return _jitted_sums(dict.fromkeys(metrics, np.float32(0)), metrics)


def _added(sums, metrics):
    return _jitted_sums(sums, metrics)


@jax.jit
def _jitted_sums(sums, metrics):
    examples = metrics["examples"]
    # A step without examples has no loss to count, whatever its loss is.
    weighted = {
        name: value if name in ("examples", "skipped") else jnp.where(examples > 0, value * examples, 0.0)
        for name, value in metrics.items()
    }
    return {name: sums[name] + value.sum() for name, value in weighted.items()}


@jax.jit
def _all_finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
