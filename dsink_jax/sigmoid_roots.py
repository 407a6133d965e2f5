"""Shifts at which the mean of sigmoids over a batch is what it should be: one root for each column.

For scores s `[N, C]`, half the sum of two arrays of logits, and means m `[C]` this finds b `[C]` with

    mean_i sigmoid(s_ic + b_c) = m_c.

The mean rises with b_c, so there is one root, and all columns are solved at once: by Halley's steps (third
order) on the log-odds of the mean, which are close to a straight line in b_c, and by bisection where a step
leaves the bracket or does not help.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsink_jax.collectives import psum

# Rows that the first guess looks at: for the middle of the logits, and for b, with which it makes some steps.
_CENTRE_ROWS = 16
_START_ROWS = 128
_START_STEPS = 2
# A sum of sigmoids is not known better than this in float32, in parts of itself.
_ROUNDING = 3e-7
# Far beyond all logits: here a sigmoid is 1 wherever its logit is not -inf.
_FAR = 1e30


class Scores(NamedTuple):
    """What the sigmoids are of: (first_ic + second_ic) / 2 + origin_c + row_shift_i.

    Attributes:
      first: floating `[N, C]`.
      second: floating `[N, C]`.
      origin: float32 `[C]`. Where logits are far from 0, it brings them back, and b keeps its digits.
      row_shift: float32 `[N]`, or None for 0.
      valid: bool `[N]`, False for rows that take no part whatever they hold, or None.
    """

    first: jax.Array
    second: jax.Array
    origin: jax.Array
    row_shift: jax.Array | None = None
    valid: jax.Array | None = None


class Roots(NamedTuple):
    """The roots b.

    Attributes:
      shift: float32 `[C]`, b.
      mean: float32 `[C]`, the mean that the last pass found, before its step. NaN tells of NaN in the rows.
      error_allowed: float32 `[C]`, what error of the mean goes with the tolerance of b, or with rounding.
      passes: int32 `[]`, how often all rows were gone through.
      settled: bool `[]`, whether all columns were within the tolerance when the limit came.
    """

    shift: jax.Array
    mean: jax.Array
    error_allowed: jax.Array
    passes: jax.Array
    settled: jax.Array


def shifted_sigmoid(scores: Scores, shift: jax.Array) -> jax.Array:
    """sigmoid(s_ic + b_c), float32 `[N, C]`, 0 in rows that are not valid."""
    return _sigmoid(scores, jnp.float32(1), shift)


def first_guess(
    scores: Scores, means: jax.Array, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
    """A whole number and a rest, float32 `[C]`, that together are near b, by a few rows of each device."""
    few, weight = _some_rows(scores, _CENTRE_ROWS)
    centres = _shifted(few, jnp.float32(1), jnp.zeros_like(means))
    usable = jnp.isfinite(centres)
    if few.valid is not None:
        usable &= few.valid[:, None]
    centre = jnp.where(usable, centres, 0.0).sum(0) / jnp.maximum(usable.sum(0, dtype=jnp.float32), 1.0)
    total, all_weight = psum((weight * centre, weight), axis_name)
    origin = -jnp.round(total / jnp.maximum(all_weight, 1.0))
    origin = jnp.where(jnp.abs(origin) < 2.0**23, origin, 0.0)
    few, weight = _some_rows(scores._replace(origin=scores.origin + origin), _START_ROWS)

    def nearer(_, shift):
        mean, slope, curve = (each / jnp.maximum(weight, 1.0) for each in _sums(few, jnp.float32(1), shift))
        mean = jnp.clip(mean, 1e-6, 1.0 - 1e-6)
        slope = jnp.maximum(slope, 0.1 * mean * (1.0 - mean))
        _, step = _halley(mean, slope, jnp.clip(curve, -slope, slope), means)
        return shift + jnp.where(jnp.isnan(step), 0.0, jnp.clip(step, -4.0, 4.0))

    shift = jax.lax.fori_loop(0, _START_STEPS, nearer, jnp.zeros_like(means))
    total, all_weight = psum((weight * shift, weight), axis_name)
    return origin, total / jnp.maximum(all_weight, 1.0)


def solve_roots(
    scores: Scores,
    means: jax.Array,
    count: jax.Array | int,
    start: jax.Array,
    *,
    tolerance: float | jax.Array,
    max_passes: int,
    axis_name: str | None = None,
) -> Roots:
    """Finds the roots b.

    Columns whose mean is exactly 0 or 1 have no root; what b is there is not said. A mean that cannot be
    reached, because too many scores are -inf or +inf, ends with b far out.

    Args:
      scores: what the sigmoids are of.
      means: float32 `[C]` in [0, 1].
      count: valid rows of all devices.
      start: float32 `[C]`, a first guess of b.
      tolerance: how far b may be from the root, by an estimate, where the solver stops.
      max_passes: limit of passes over all rows.
      axis_name: name of a mapped axis over which the rows are split. A pass exchanges 3 numbers a column.
    """
    # The smaller of the two sides of each column: float32 knows a small mean as exactly as a large one.
    side = jnp.where(means > 0.5, -1.0, 1.0).astype(jnp.float32)
    target = jnp.where(means > 0.5, 1.0 - means, means)
    count = jnp.maximum(jnp.asarray(count, jnp.float32), 1.0)

    def look(state):
        sums = psum(_sums(scores, side, state.shift), axis_name)
        return _next(state, [each / count for each in sums], target, tolerance)

    zeros = jnp.zeros_like(target)
    first = _State(
        shift=side * start,
        low=zeros - jnp.inf,
        high=zeros + jnp.inf,
        gap=zeros + jnp.inf,
        mean=zeros,
        error_allowed=zeros,
        passes=jnp.int32(0),
        done=jnp.array(False),
    )
    last = jax.lax.while_loop(lambda state: ~state.done & (state.passes < max_passes), look, first)
    return Roots(side * last.shift, last.mean, last.error_allowed, last.passes, last.done)


class _State(NamedTuple):
    shift: jax.Array  # b, where the mean is to be looked at next
    low: jax.Array  # b above which the root is known to be
    high: jax.Array  # b below which it is
    gap: jax.Array  # at the point before: log-odds of the mean, less those wanted
    mean: jax.Array  # there
    error_allowed: jax.Array
    passes: jax.Array
    done: jax.Array


def _next(state, means, target, tolerance):
    """The state after a look at the mean of state.shift and its first two derivatives."""
    mean, slope, curve = means
    point = state.shift
    low = jnp.where(mean < target, point, state.low)
    high = jnp.where(mean > target, point, state.high)
    gap, step = _halley(mean, slope, curve, target)

    # What a step leaves is a part of its cube. Of two sigmoids far apart, the worst that is known, it is a
    # sixth.
    is_near = (jnp.abs(step) < 0.5) & (0.25 * jnp.abs(step) ** 3 <= tolerance)

    # A step that leaves the bracket, or steps that help little, are replaced by the middle of the bracket; by
    # turns the middle of the numbers and of their logarithms. Near the root rounding may turn the bracket
    # over.
    inside = (point + step >= low) & (point + step <= high) & jnp.isfinite(step)
    slow = (jnp.abs(gap) > 0.5 * jnp.abs(state.gap)) & (high - low < jnp.inf)
    middle = jnp.where(state.passes % 2 == 0, _expand((_shrink(low) + _shrink(high)) / 2), (low + high) / 2)
    middle = jnp.where(high == jnp.inf, _FAR, jnp.where(low == -jnp.inf, -_FAR, middle))
    moved = jnp.where(is_near | (inside & ~slow), point + step, middle)

    rounding = _ROUNDING * target
    is_there = jnp.abs(mean - target) <= rounding
    # Out of reach: far out and still on the wrong side.
    is_stuck = jnp.where(mean < target, point >= 0.5 * _FAR, point <= -0.5 * _FAR)
    is_fixed = ~(target > 0) | jnp.isnan(mean)
    stays = is_stuck | is_fixed | (is_there & ~is_near)
    return _State(
        shift=jnp.where(stays, point, moved),
        low=low,
        high=high,
        gap=gap,
        mean=mean,
        error_allowed=2.0 * tolerance * slope + 4.0 * rounding,
        passes=state.passes + 1,
        done=(is_there | is_stuck | is_fixed | is_near).all(),
    )


def _halley(mean, slope, curve, target):
    """How far the log-odds of the mean are above the target's, and Halley's step to there."""
    gap = jnp.log(mean / target) - jnp.log((1.0 - mean) / (1.0 - target))
    variance = mean * (1.0 - mean)
    newton = gap * variance / slope
    # The second derivative of the log-odds over the first.
    bend = curve / slope - (1.0 - 2.0 * mean) * slope / variance
    return gap, -newton / jnp.clip(1.0 - 0.5 * newton * bend, 0.5, 2.0)


def _some_rows(scores, number):
    """About so many rows at equal distances, and how many of them are valid."""
    stride = -(-scores.first.shape[0] // number)
    row_shift, valid = (None if rows is None else rows[::stride] for rows in (scores.row_shift, scores.valid))
    first, second = scores.first[::stride], scores.second[::stride]
    weight = jnp.float32(len(first)) if valid is None else valid.sum(dtype=jnp.float32)
    return Scores(first, second, scores.origin, row_shift, valid), weight


def _sums(scores, side, shift):
    """Sums over the rows of sigmoid(side_c s_ic + b_c) and of its first two derivatives: three of `[C]`.

    The CPU's compiler would write all of the sigmoids out and read them again for each sum; row by row they
    stay where they were computed. Elsewhere the sums over columns are one program.
    """

    def of_rows(first, second, row_shift, valid):
        values = _sigmoid(
            scores._replace(first=first, second=second, row_shift=row_shift, valid=valid), side, shift
        )
        slopes = values * (1.0 - values)
        return values, slopes, slopes * (1.0 - 2.0 * values)

    def row_by_row(*rows):
        def add(sums, row):
            return jax.tree.map(jnp.add, sums, of_rows(*row)), None

        zeros = jnp.zeros(scores.first.shape[1], jnp.float32)
        return jax.lax.scan(add, (zeros, zeros, zeros), rows)[0]

    def at_once(*rows):
        return jax.tree.map(lambda values: values.sum(0), of_rows(*rows))

    rows = (scores.first, scores.second, scores.row_shift, scores.valid)
    if _is_spread(scores.first):
        return at_once(*rows)
    return jax.lax.platform_dependent(*rows, cpu=row_by_row, default=at_once)


def _is_spread(array):
    """Whether the array's type says that devices share it (an explicit mesh). No loop may go over those."""
    return any(axis is not None for axis in jax.typeof(array).sharding.spec)


def _sigmoid(scores, side, shift):
    values = jax.nn.sigmoid(_shifted(scores, side, shift))
    return values if scores.valid is None else jnp.where(scores.valid[..., None], values, 0.0)


def _shifted(scores, side, shift):
    """side_c s_ic + b_c. Each half first gets half the origin, so that little is rounded far from 0."""
    first, second = scores.first.astype(jnp.float32), scores.second.astype(jnp.float32)
    half_side, half_origin = _as_rows(first, 0.5 * side, 0.5 * side * scores.origin)
    total = (half_side * first + half_origin) + (half_side * second + half_origin)
    if scores.row_shift is not None:
        total = total + _as_rows(first, side)[0] * scores.row_shift[..., None]
    return total + _as_rows(first, shift)[0]


def _as_rows(like, *numbers):
    """Numbers `[C]` or `[]` in the rank of an array, as strict promotion of ranks wants it."""
    return tuple(jnp.reshape(one, (1,) * (like.ndim - one.ndim) + one.shape) for one in numbers)


def _shrink(number):
    return jnp.sign(number) * jnp.log1p(jnp.abs(number))


def _expand(number):
    return jnp.sign(number) * jnp.expm1(jnp.abs(number))
