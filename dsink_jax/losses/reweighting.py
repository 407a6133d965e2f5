"""The transport problem that weights examples against a balanced meta set."""

import math

import jax
import jax.numpy as jnp

from dsink_jax.array_checks import check_arrays, check_where
from dsink_jax.losses._checks import check_number, is_traced
from dsink_jax.transport import solve_transport

# What an example outside the problem weighs in place of 0, whose gradient OTT does not have.
_NO_MASS = 1e-9


def transport_distance(
    weights: jax.Array,
    cost: jax.Array,
    *,
    where: jax.Array | None = None,
    epsilon: float | jax.Array = 0.1,
    threshold: float | jax.Array = 1e-4,
    max_iterations: int = 200,
) -> jax.Array:
    """Transport cost <plan, cost> between a weighted batch and a balanced meta set, smooth in the weights.

    The batch's marginal is softmax(weights), the meta set's is uniform; the plan is the entropic one. The
    gradient with respect to `weights` goes through the Sinkhorn iterations, also under `pmap`; none goes to
    `cost`.

    Args:
      weights: floating `[N]`, the batch's example weights.
      cost: floating `[N, M]`, cost of moving an example to a member of the meta set; see `feature_cost` and
        `label_cost`.
      where: bool `[N]`, False for padding: such examples have next to no mass, and gradient 0.
      epsilon: weight of the entropy, positive.
      threshold: L1 error of the meta set's marginal at which the solver stops.
      max_iterations: limit of Sinkhorn iterations.

    Returns:
      float32 `[]`.

    Raises:
      ValueError: for wrong ranks or shapes, an epsilon or threshold that is not positive, or a limit below 1.

    Source: Guo et al., Learning to Re-weight Examples with Optimal Transport for Imbalanced Classification,
    NeurIPS 2022, arXiv 2208.02951; epsilon and the limit as in its code.

    >>> import jax
    >>> import jax.numpy as jnp
    >>> import numpy as np
    >>> cost = jnp.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    >>> uphill = jax.grad(transport_distance)(jnp.zeros(3), cost)
    >>> bool(uphill[2] < 0 < uphill[0])  # the only example of the second class is to gain weight
    True
    """
    check_arrays(weights=weights, cost=cost)
    if cost.ndim != 2 or cost.size == 0 or weights.shape != cost.shape[:1]:
        raise ValueError(
            f"weights must have shape [N] for cost [N, M], got {list(weights.shape)} and {list(cost.shape)}."
        )
    epsilon = _check_positive(epsilon, "epsilon")
    threshold = _check_positive(threshold, "threshold")
    if not isinstance(max_iterations, int) or not 1 <= max_iterations < 2**31:
        raise ValueError(f"max_iterations must be an integer of at least 1, got {max_iterations!r}.")
    check_where(where, cost)
    # float32; in JAX's 64-bit mode float64, because OTT's derivative mixes the two there.
    dtype = jax.dtypes.canonicalize_dtype(float)
    cost = jax.lax.stop_gradient(cost.astype(dtype))
    weights = weights.astype(dtype)
    if where is not None:
        cost = jnp.where(where[:, None], cost, 0.0)
        # A batch without a valid example is left as it is: any finite value will do.
        weights = jnp.where(where | ~where.any(), weights, -jnp.inf)
    marginal = jnp.maximum(jax.nn.softmax(weights), _NO_MASS)
    marginal = marginal / marginal.sum()
    members = cost.shape[1]
    solution = solve_transport(
        cost,
        marginal,
        jnp.full((members,), 1.0 / members, dtype),
        epsilon=epsilon,
        threshold=threshold,
        max_iterations=max_iterations,
    )
    potentials = solution.row_potential[:, None] + solution.column_potential[None]
    plan = jnp.exp((potentials - cost) / epsilon)
    return (plan * cost).sum().astype(jnp.float32)


def feature_cost(features: jax.Array, meta_features: jax.Array) -> jax.Array:
    """1 - cosine of the features: float32 `[N, M]` in [0, 2], from `[N, D]` and `[M, D]`.

    Raises:
      ValueError: for other shapes.

    >>> import jax.numpy as jnp
    >>> print(feature_cost(jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 3.0]])))
    [[0. 1.]]
    """
    check_arrays(features=features, meta_features=meta_features)
    if features.ndim != 2 or meta_features.ndim != 2 or features.shape[1] != meta_features.shape[1]:
        raise ValueError(
            f"features and meta_features must have shapes [N, D] and [M, D], got {list(features.shape)} "
            f"and {list(meta_features.shape)}."
        )
    cosines = jnp.matmul(_unit(features), _unit(meta_features).T, precision=jax.lax.Precision.HIGHEST)
    return 1.0 - cosines


def label_cost(labels: jax.Array, meta_labels: jax.Array, num_classes: int) -> jax.Array:
    """Mean squared difference of one-hot labels: float32 `[N, M]`, 0 for the same class, else 2 / C.

    Raises:
      ValueError: for labels that are not `[N]` and `[M]`, or no class.

    >>> import jax.numpy as jnp
    >>> print(label_cost(jnp.array([0]), jnp.array([0, 1]), num_classes=10))
    [[0.  0.2]]
    """
    check_arrays(labels=labels, meta_labels=meta_labels)
    if labels.ndim != 1 or meta_labels.ndim != 1 or num_classes < 1:
        raise ValueError(
            f"labels and meta_labels must have shapes [N] and [M] for C of at least 1, got "
            f"{list(labels.shape)}, {list(meta_labels.shape)} and {num_classes}."
        )
    return jnp.where(labels[:, None] == meta_labels[None], 0.0, 2.0 / num_classes).astype(jnp.float32)


def _check_positive(value, name):
    number = check_number(value, name)
    if not is_traced(number) and not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive, got {value}.")
    return number


def _unit(features):
    features = features.astype(jnp.float32)
    norm = jnp.sqrt((features * features).sum(-1, keepdims=True))
    return features / jnp.maximum(norm, 1e-12)
