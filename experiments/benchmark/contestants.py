"""Solvers of the same task: from two `[N, C]` logits and a class marginal to the labels Q `[N, C]`.

All iterate in the log domain in float32 from the same start, columns first, so that after k iterations, up to
the 30th, they have the same labels but for rounding; from then on ours over-relaxes. Each has the loop its
users would write; how many iterations they make is worked out beforehand, so that all end at the same error.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax import surrogate_labels
from dsink_jax.allocation import EPSILON
from experiments.solver_accuracy import pot_labels


class Task(NamedTuple):
    """A problem and when to stop.

    Attributes:
      logits: float32 `[N, C]` of f.
      noise_robust_logits: float32 `[N, C]` of f_N.
      marginal: float32 `[C]`, positive, summing to 1.
      error: L1 error of the class marginal to reach.
      own_iterations: iterations in which ours reaches it, a multiple of 10; over-relaxed from the 30th on.
      iterations: iterations in which a plain loop does, a multiple of 10.
      pot_iterations: the same for POT, which looks at the error after 1, 11, 21, ... iterations.
    """

    logits: np.ndarray
    noise_robust_logits: np.ndarray
    marginal: np.ndarray
    error: float
    own_iterations: int
    iterations: int
    pot_iterations: int


Solve = Callable[[], object]


def ours(task: Task) -> Solve:
    """`surrogate_labels` under `jit`: OTT-JAX, which looks at the error every 10 iterations."""
    arrays = jax.device_put((task.logits, task.noise_robust_logits, task.marginal))
    solve = jax.jit(partial(surrogate_labels, threshold=task.error, max_iterations=1000))
    return lambda: jax.block_until_ready(solve(*arrays)).labels


def bare_loop(task: Task) -> Solve:
    """What one would write in JAX without a library: a fixed number of iterations."""

    @jax.jit
    def solve(logits, noise_robust_logits, marginal):
        kernel = (jax.nn.log_softmax(logits) + jax.nn.log_softmax(noise_robust_logits)) / EPSILON
        log_row, log_column = -jnp.log(len(kernel)), jnp.log(marginal)

        def body(_, potentials):
            u, _ = potentials
            v = log_column - jax.nn.logsumexp(kernel + u[:, None], axis=0)
            return log_row - jax.nn.logsumexp(kernel + v, axis=1), v

        start = jnp.zeros(len(kernel)), jnp.zeros(len(marginal))
        _, v = jax.lax.fori_loop(0, task.iterations, body, start)
        return jax.nn.softmax(kernel + v, axis=1)

    arrays = jax.device_put((task.logits, task.noise_robust_logits, task.marginal))
    return lambda: jax.block_until_ready(solve(*arrays))


def torch_loop(task: Task) -> Solve:
    """SwAV's fixed loop in PyTorch, in the log domain."""
    import torch

    from experiments.benchmark.torch_reference import surrogate_labels

    arrays = [torch.tensor(array) for array in (task.logits, task.noise_robust_logits, task.marginal)]
    return lambda: surrogate_labels(*arrays, iterations=task.iterations)


def pot(task: Task) -> Solve:
    """`ot.sinkhorn(method="sinkhorn_log")` on NumPy arrays, in float32 like the others."""
    arrays = task.logits, task.noise_robust_logits, task.marginal
    return lambda: pot_labels(*arrays, dtype=np.float32, max_iterations=task.pot_iterations, threshold=0.0)


CONTESTANTS = {"ours": ours, "bare lax loop": bare_loop, "PyTorch loop": torch_loop, "POT": pot}
