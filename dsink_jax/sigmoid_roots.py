"""Shifts at which the mean of sigmoids over a batch is what it should be: one root for each column.

For scores s `[N, C]`, half the sum of two arrays of logits, and means m `[C]` this finds b `[C]` with

    mean_i sigmoid(s_ic + b_c) = m_c.

The mean rises with b_c, so there is one root, and all columns are solved at once. Newton's method on the
log-odds of the mean, which are close to a straight line in b_c, and from the second pass on the cubic through
the last two points and their slopes. Bisection where a step leaves the bracket or does not help.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsink_jax.collectives import psum

# Rows from which the first guess is made.
_START_ROWS = 64
_START_PASSES = 4
# A sum of sigmoids is not known better than this in float32, in parts of itself.
_ROUNDING = 3e-7
# Far beyond all logits: here a sigmoid is 1 wherever its logit is not -inf.
_FAR = 1e30


class Shift(NamedTuple):
    """Numbers as sums of two float32, so that a shift by 10,000 keeps what comes after the point."""

    coarse: jax.Array
    fine: jax.Array


class Scores(NamedTuple):
    """What the sigmoids are of: (first_ic + second_ic) / 2 + row_shift_i.

    Attributes:
      first: floating `[N, C]`.
      second: floating `[N, C]`.
      valid: bool `[N]`, False for rows that take no part whatever they hold, or None.
      row_shift: `Shift` `[N]`, or None.
    """

    first: jax.Array
    second: jax.Array
    valid: jax.Array | None = None
    row_shift: Shift | None = None


class Roots(NamedTuple):
    """The roots b.

    Attributes:
      shift: `Shift` `[C]`, b.
      mean: float32 `[C]`, the mean that the last pass found, before its step. NaN tells of NaN in the rows.
      error_allowed: float32 `[C]`, what error of the mean goes with the tolerance of b, or with rounding.
      passes: int32 `[]`, how often all rows were gone through.
      settled: bool `[]`, whether all columns were within the tolerance when the limit came.
    """

    shift: Shift
    mean: jax.Array
    error_allowed: jax.Array
    passes: jax.Array
    settled: jax.Array


def shifted_sigmoid(scores: Scores, shift: Shift) -> jax.Array:
    """sigmoid(s_ic + b_c), float32 `[N, C]`, 0 in rows that are not valid."""
    values = jax.nn.sigmoid(_shifted(scores, jnp.float32(1), shift))
    return values if scores.valid is None else jnp.where(scores.valid[:, None], values, 0.0)


def solve_roots(
    scores: Scores,
    means: jax.Array,
    count: jax.Array | int,
    *,
    tolerance: float | jax.Array,
    max_passes: int,
    start: Shift | None = None,
    axis_name: str | None = None,
) -> Roots:
    """Finds the roots b.

    Columns whose mean is exactly 0 or 1 have no root; what b is there is not said. A mean that cannot be
    reached, because too many scores are -inf or +inf, ends with b far out.

    Args:
      scores: what the sigmoids are of.
      means: float32 `[C]` in [0, 1].
      count: valid rows of all devices.
      tolerance: how far b may be from the root, by an estimate, where the solver stops.
      max_passes: limit of passes over all rows.
      start: a first guess; otherwise one is made from a few of the rows.
      axis_name: name of a mapped axis over which the rows are split. A pass exchanges 2 numbers a column.
    """
    # The smaller of the two sides of each column: float32 knows a small mean as exactly as a large one.
    side = jnp.where(means > 0.5, -1.0, 1.0).astype(jnp.float32)
    target = jnp.where(means > 0.5, 1.0 - means, means)
    count = jnp.maximum(count, 1)

    def mean_and_slope(shift):
        sums = psum(_sums(scores, side, shift), axis_name)
        return sums[0] / count, sums[1] / count

    if start is None:
        start = _start(scores, side, target, axis_name)
    else:
        start = Shift(side * start.coarse, side * start.fine)
    zeros = jnp.zeros_like(target)
    first = _State(
        shift=start,
        low=zeros - jnp.inf,
        high=zeros + jnp.inf,
        log_odds=zeros - jnp.inf,
        slope=zeros,
        move=zeros + jnp.inf,
        mean=zeros,
        error_allowed=zeros,
        passes=jnp.int32(0),
        done=jnp.array(False),
    )

    def look(state):
        mean, slope = mean_and_slope(state.shift)
        return _next(state, mean, slope, target, tolerance)

    last = jax.lax.while_loop(lambda state: ~state.done & (state.passes < max_passes), look, first)
    shift = Shift(side * last.shift.coarse, side * last.shift.fine)
    return Roots(shift, last.mean, last.error_allowed, last.passes, last.done)


class _State(NamedTuple):
    shift: Shift  # b, where the mean is to be looked at next
    low: jax.Array  # b above which the root is known to be
    high: jax.Array  # b below which it is
    log_odds: jax.Array  # at the point before: of the mean, less those wanted
    slope: jax.Array  # there, of the log-odds
    move: jax.Array  # from there to b
    mean: jax.Array  # there
    error_allowed: jax.Array
    passes: jax.Array
    done: jax.Array


def _next(state, mean, mean_slope, target, tolerance):
    """The state after a look at the mean of state.shift."""
    point = state.shift.coarse + state.shift.fine
    below = mean < target
    low = jnp.where(below, point, state.low)
    high = jnp.where(mean > target, point, state.high)
    log_odds = jnp.log(mean / target) - jnp.log((1.0 - mean) / (1.0 - target))
    slope = mean_slope / (mean * (1.0 - mean))

    # Newton's step, and with the point before as well: the inverse function's quadratic and cubic.
    newton = -log_odds / slope
    distance = state.log_odds - log_odds
    chord = -state.move / distance
    bend = (chord - 1.0 / slope) / distance
    twist = ((1.0 / state.slope - chord) / distance - bend) / distance
    quadratic = newton + bend * log_odds**2
    cubic = quadratic - twist * log_odds**2 * state.log_odds
    # With points too far or too close together there is nothing to be had from the other one.
    sane = (jnp.abs(state.move) < 8.0) & (jnp.abs(cubic - newton) <= 0.5 * jnp.abs(newton))
    move = jnp.where(sane, cubic, newton)
    # No derivative of a sigmoid is larger than the one before it, which bounds what Newton's step leaves.
    left = jnp.where(sane, jnp.minimum(jnp.abs(cubic - quadratic), newton**2), newton**2)

    # A step that leaves the bracket, or steps that help little, are replaced by the middle of the bracket; by
    # turns the middle of the numbers and of their logarithms.
    inside = (point + move >= low) & (point + move <= high) & jnp.isfinite(move)
    slow = (jnp.abs(log_odds) > 0.5 * jnp.abs(state.log_odds)) & (high - low > 1.0) & (high - low < jnp.inf)
    middle = jnp.where(state.passes % 2 == 0, _expand((_shrink(low) + _shrink(high)) / 2), (low + high) / 2)
    middle = jnp.where(high == jnp.inf, _FAR, jnp.where(low == -jnp.inf, -_FAR, middle))
    steps = inside & ~slow
    move = jnp.where(steps, move, middle - point)

    allowed = _ROUNDING * target
    is_there = jnp.abs(mean - target) <= allowed
    # Out of reach: far out and still on the wrong side.
    is_stuck = jnp.where(below, point >= 0.5 * _FAR, point <= -0.5 * _FAR)
    is_fixed = (target == 0) | jnp.isnan(mean)
    move = jnp.where(is_there | is_stuck | is_fixed, 0.0, move)
    settled = is_there | is_stuck | is_fixed | (steps & (jnp.abs(move) < 1.0) & (left <= tolerance))
    coarse = jnp.where(steps, state.shift.coarse, middle)
    fine = jnp.where(steps, state.shift.fine + move, 0.0)
    keep = move == 0
    coarse, fine = jnp.where(keep, state.shift.coarse, coarse), jnp.where(keep, state.shift.fine, fine)
    return _State(
        shift=_normal(coarse, fine),
        low=low,
        high=high,
        log_odds=log_odds,
        slope=slope,
        move=move,
        mean=mean,
        error_allowed=2.0 * tolerance * mean_slope + 4.0 * allowed,
        passes=state.passes + 1,
        done=settled.all(),
    )


def _start(scores, side, target, axis_name):
    """A first guess of b from a few rows, some of each device."""
    stride = -(-scores.first.shape[0] // _START_ROWS)
    few = jax.tree.map(lambda rows: rows[::stride], scores)
    zeros = jnp.zeros_like(target)
    centres = _shifted(few, side, Shift(zeros, zeros))
    counts = jnp.isfinite(centres)
    if few.valid is not None:
        counts &= few.valid[:, None]
    coarse = -jnp.where(counts, centres, 0.0).sum(0) / jnp.maximum(counts.sum(0), 1)
    weight = jnp.float32(len(centres)) if few.valid is None else few.valid.sum().astype(jnp.float32)
    share = 1.0 / jnp.maximum(weight, 1.0)
    wanted = jnp.log(target) - jnp.log1p(-target)

    def nearer(_, shift):
        mean, slope = (share * each for each in _sums(few, side, shift))
        mean = jnp.clip(mean, 1e-6, 1.0 - 1e-6)
        step = (wanted - jnp.log(mean) + jnp.log1p(-mean)) * (mean * (1.0 - mean))
        step = jnp.clip(step / jnp.maximum(slope, 0.1 * mean * (1.0 - mean)), -4.0, 4.0)
        return Shift(shift.coarse, shift.fine + jnp.where(jnp.isnan(step), 0.0, step))

    start = jax.lax.fori_loop(0, _START_PASSES, nearer, _normal(coarse, zeros))
    if axis_name is not None:
        total, weight = psum((weight * (start.coarse + start.fine), weight), axis_name)
        start = Shift(total / jnp.maximum(weight, 1.0), zeros)
    return _normal(*start)


def _sums(scores, side, shift):
    """Sums over the rows of sigmoid(side_c s_ic + b_c) and of its slope, a pair of float32 `[C]`.

    The CPU's compiler would write all of the sigmoids out and read them again for each sum; row by row they
    stay where they were computed. Elsewhere two sums over columns are one program.
    """

    def of_rows(rows):
        sigmoids = jax.nn.sigmoid(_shifted(rows, side, shift))
        if rows.valid is not None:
            sigmoids = jnp.where(rows.valid[..., None], sigmoids, 0.0)
        return sigmoids, sigmoids * (1.0 - sigmoids)

    def row_by_row(scores):
        def add(sums, row):
            return jax.tree.map(jnp.add, sums, of_rows(row)), None

        zeros = jnp.zeros(scores.first.shape[1], jnp.float32)
        return jax.lax.scan(add, (zeros, zeros), scores, unroll=4)[0]

    def at_once(scores):
        return jax.tree.map(lambda values: values.sum(0), of_rows(scores))

    return jax.lax.platform_dependent(scores, cpu=row_by_row, default=at_once)


def _shifted(scores, side, shift):
    """side_c s_ic + b_c; exact where logits are far from 0 and b brings them back, as halves are."""
    first, second, _, row_shift = scores
    half_side, half_shift = 0.5 * side, 0.5 * shift.coarse
    first, second, rest = first.astype(jnp.float32), second.astype(jnp.float32), shift.fine
    if row_shift is not None:
        first, second = first + row_shift.coarse[..., None], second + row_shift.coarse[..., None]
        rest = rest + side * row_shift.fine[..., None]
    return (half_side * first + half_shift) + (half_side * second + half_shift) + rest


def _normal(coarse, fine):
    """The same sum with an even number as its coarse part, which adds to logits without rounding."""
    even = 2.0 * jnp.round(0.5 * (coarse + fine))
    return Shift(even, (coarse - even) + fine)


def _shrink(number):
    return jnp.sign(number) * jnp.log1p(jnp.abs(number))


def _expand(number):
    return jnp.sign(number) * jnp.expm1(jnp.abs(number))
