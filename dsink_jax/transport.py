"""Entropic optimal transport between two discrete distributions: the only module that uses OTT-JAX."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsink_jax.collectives import psum

# The iteration from which updates are over-relaxed; easy problems are solved by then.
_RELAXED_FROM = 30


class Solution(NamedTuple):
    """Dual solution of a transport problem; the plan is exp((f_i + g_j - cost_ij) / epsilon).

    Attributes:
      row_potential: float32 `[N]`, f.
      column_potential: float32 `[M]`, g.
      iterations: int32 `[]`, Sinkhorn iterations run.
      converged: bool `[]`, whether the threshold was met.
    """

    row_potential: jax.Array
    column_potential: jax.Array
    iterations: jax.Array
    converged: jax.Array


@functools.partial(jax.jit, static_argnames=("max_iterations", "relaxed", "axis_name"))
def solve_transport(
    cost: jax.Array,
    row_marginal: jax.Array,
    column_marginal: jax.Array,
    *,
    epsilon: float,
    threshold: float,
    max_iterations: int,
    relaxed: bool = False,
    axis_name: str | None = None,
) -> Solution:
    """Minimises <plan, cost> - epsilon * entropy(plan) over plans with the given marginals.

    In the log domain. Each iteration fits the columns, then the rows, so the error that is left is in the
    column marginal. Differentiable by reverse mode through the iterations, also under `pmap`, where both
    marginals are positive. Jitted, because OTT's loop would otherwise be compiled anew by each call
    outside `jit`.

    Args:
      cost: float32 `[N, M]`.
      row_marginal: float32 `[N]`, summing to 1.
      column_marginal: float32 `[M]`, summing to 1.
      epsilon: weight of the entropy, positive.
      threshold: L1 error of the column marginal at which to stop; looked at every 10 iterations.
      max_iterations: limit of iterations.
      relaxed: whether updates are over-relaxed where the solution takes long, by as much as suits the rate at
        which the error has fallen so far (Lehmann, von Renesse, Sambale and Uschmajew, arXiv 2012.12562,
        eq. 5). Confident predictions that the marginal contradicts then take fewer iterations. Gradients
        become less exact.
      axis_name: name of a mapped axis over which the rows are split: each device has its rows of `cost` and
        `row_marginal` and gets its rows of the solution, all have the same `column_marginal`. An iteration
        exchanges `[M]` twice. Not differentiable.
    """
    # Imported on the first call: OTT takes four times as long to import as JAX itself. That call is
    # usually inside a trace, where module-level constants would become tracers.
    with jax.ensure_compile_time_eval():
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn

        geometry = _geometry(axis_name)

    # Strict promotion of ranks or types, where a person has it, is for their own lines and ours.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        problem = linear_problem.LinearProblem(
            geometry(cost_matrix=cost, epsilon=epsilon), a=row_marginal, b=column_marginal
        )
        # Log mode: OTT's kernel mode can report convergence on a wrong plan. Gradients are unrolled: the
        # implicit ones fail under pmap, and with a fixed number of iterations (min_iterations) are wrong.
        solver = sinkhorn.Sinkhorn(
            lse_mode=True,
            threshold=threshold,
            momentum=_momentum(_RELAXED_FROM if relaxed else 0),
            max_iterations=max_iterations,
            implicit_diff=None,
        )
        output = solver(problem)
    return Solution(output.f, output.g, jnp.asarray(output.n_iters, jnp.int32), jnp.asarray(output.converged))


def _momentum(start):
    """OTT's over-relaxation from an iteration on, for 0 never."""
    from ott.solvers.linear import acceleration

    # float32, also for those who compute in float64 otherwise.
    return acceleration.Momentum(start=start, value=np.float32(1))  # type: ignore[call-arg]


@functools.cache  # one class for each name, as JAX tells pytrees apart by their class
def _geometry(axis_name):
    """OTT's geometry; with a name, one that sums over the rows of all devices where OTT sums over rows.

    OTT's loop asks the geometry for every sum over the cost matrix: for both half steps and for the error. So
    its loop and its stopping rule stay what they are, and every device takes the same decisions, which depend
    on the columns alone.
    """
    from ott.geometry.geometry import Geometry

    if axis_name is None:
        return Geometry

    @jax.tree_util.register_pytree_node_class
    class SplitGeometry(Geometry):
        def apply_lse_kernel(self, f, g, eps, vec=None, axis=0):
            if axis == 1:  # over the columns, which are all here
                return super().apply_lse_kernel(f, g, eps, vec, axis)
            if vec is not None:
                raise NotImplementedError("Weights are not needed by the log-domain solver.")
            exponents = self._center(f, g) / eps
            largest = jax.lax.pmax(exponents.max(0), axis_name)
            largest = jnp.where(jnp.isfinite(largest), largest, 0.0)  # a column without mass has -inf
            summed = psum(jnp.exp(exponents - largest).sum(0), axis_name)
            log_sum = eps * (jnp.log(summed) + largest)
            return log_sum - jnp.where(jnp.isfinite(g), g, 0.0), jnp.ones(1, log_sum.dtype)

    return SplitGeometry
