"""The metrics of the steps of one epoch, summed, and whether they are numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class TrainingDivergedError(RuntimeError):
    """Raised when a loss, or a parameter after an epoch, is not finite."""


class EpochMetrics:
    """Reads what a dispatch returned when the next one is under way, and sums it in double precision."""

    def __init__(self, epoch: int, steps_per_epoch: int, sums: Mapping[str, Any], done: int):
        """Starts epoch number `epoch`, counted from 1, with the sums of `done` steps that came before."""
        self._epoch, self._steps = epoch, steps_per_epoch
        self._sums = {name: float(value) for name, value in sums.items()}
        self._done = self._seen = done
        self._waiting: Mapping[str, jax.Array] | None = None

    def add(self, metrics: Mapping[str, jax.Array], steps: int, last_good: Callable[[], str]) -> None:
        """Adds a dispatch of `steps` steps: scalars, or `[k]`; raises for the one before, see `check`."""
        for value in metrics.values():
            value.copy_to_host_async()
        self._read(last_good)
        self._waiting, self._done = metrics, self._done + steps

    def sums(self) -> dict[str, float]:
        """The sums over the steps that are read, after `check` all of them, to go on from."""
        return dict(self._sums)

    def means(self) -> dict[str, float]:
        """Means over the examples. Steps that were skipped have no examples, and are counted."""
        sums = self.sums()
        examples = sums.pop("examples")
        skipped = {"skipped": sums.pop("skipped")} if "skipped" in sums else {}
        return {name: value / examples for name, value in sums.items()} | skipped

    def check(self, params: Any, last_good: Callable[[], str]) -> None:
        """Raises `TrainingDivergedError` unless all that was computed so far is finite.

        Args:
          params: the present parameters.
          last_good: tells the last checkpoint in words.
        """
        self._read(last_good)
        if self._done >= self._steps and not self.sums()["examples"] > 0:
            raise self._diverged("every step's loss or gradient", self._done, {}, last_good)
        if not _all_finite(params):
            raise self._diverged("a parameter", self._done, {}, last_good)

    def _read(self, last_good):
        """Adds the dispatch that is waiting, if there is one, to the sums."""
        if self._waiting is None:
            return
        read = {name: np.atleast_1d(np.asarray(value)) for name, value in self._waiting.items()}
        bad = np.flatnonzero(~np.isfinite(read["loss"]))
        if len(bad):
            terms = {name: values[bad[0]] for name, values in read.items()}
            raise self._diverged("the loss", self._seen + int(bad[0]) + 1, terms, last_good)
        examples = read["examples"].tolist()
        # One step after the other: the same sums wherever a training was stopped in between.
        for name, values in read.items():
            counts = [1.0] * len(examples) if name in ("examples", "skipped") else examples
            total = self._sums.get(name, 0.0)
            for value, count in zip(values.tolist(), counts, strict=True):
                total += value * count if count else 0.0  # without examples there is nothing to count
            self._sums[name] = total
        self._waiting, self._seen = None, self._done

    def _diverged(self, what, step, terms, last_good):
        shown = [f"{name} {v:.4g}" for name, v in terms.items() if name not in ("examples", "accuracy")]
        # At the head what diverged, then what it is made of.
        is_distilled = "sinkhorn_iterations" in (terms or self._sums)
        terms_in_words = f" ({', '.join(sorted(shown, key=lambda text: not text.startswith('loss ')))})"
        return TrainingDivergedError(
            f"Training diverged: {what} was not finite in epoch {self._epoch}, step "
            f"{(self._epoch - 1) * self._steps + step}{terms_in_words if shown else ''}. "
            f"Last good checkpoint: {last_good()}.\n"
            f"Try a lower learning rate{' or a lower alpha' if is_distilled else ''}"
            + (', or on_nan="skip".' if step < self._steps or terms else ".")
        )


@jax.jit
def _all_finite(tree):
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
