"""Trace-time checks shared by the losses.

A number that a person tunes may be traced, so that another one compiles nothing anew. Its range cannot be
looked at then, and what would be a branch in Python has to be arithmetic.
"""

import math

import jax
import jax.numpy as jnp

from dsink_jax.array_checks import check_arrays


def check_logits(logits, **others):
    """Raises `ValueError` unless `logits` is floating `[N, C]` and every other array has its shape."""
    check_arrays(logits=logits)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"logits must have shape [N, C], got {list(logits.shape)}.")
    _check_alike(logits, others)


def check_pointwise_logits(logits, where=None, **others):
    """Raises `ValueError` unless logits and the others are floating `[..., C]`, `where` bool `[...]`."""
    check_arrays(logits=logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits must have shape [..., C], got {list(logits.shape)}.")
    _check_alike(logits, others)
    if where is None:
        return
    check_arrays(where=where)
    if where.shape != logits.shape[:-1] or where.dtype != bool:
        raise ValueError(
            f"where must be bool {list(logits.shape[:-1])}, the shape of logits without classes, got "
            f"{where.dtype} {list(where.shape)}."
        )


def _check_alike(logits, others):
    check_arrays(**others)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"logits must be floating point, got {logits.dtype}.")
    for name, value in others.items():
        if value.shape != logits.shape:
            raise ValueError(
                f"{name} must have the shape of logits, {list(logits.shape)}, got {list(value.shape)}."
            )
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating point, got {value.dtype}.")


def check_labels(labels, logits, where=None):
    """Raises `ValueError` unless `labels` is integer `[...]` for `logits` `[..., C]`."""
    check_pointwise_logits(logits, where)
    check_arrays(labels=labels)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels must have the shape of logits without classes, {list(logits.shape[:-1])}, got "
            f"{list(labels.shape)}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}.")


def check_several_labels(labels, logits, where=None):
    """Raises `ValueError` unless `labels` is floating, integer or bool `[..., C]`, the shape of `logits`."""
    check_pointwise_logits(logits, where)
    check_arrays(labels=labels)
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels must have the shape of logits, {list(logits.shape)}, got {list(labels.shape)}."
        )
    if labels.dtype != bool and not any(
        jnp.issubdtype(labels.dtype, kind) for kind in (jnp.floating, jnp.integer)
    ):
        raise ValueError(f"labels must be floating point, integers or bool, got {labels.dtype}.")


def check_per_class(values, logits, name):
    """Raises `ValueError` unless `values` is `[C]` for `logits` `[..., C]`."""
    check_arrays(**{name: values})
    if values.shape != logits.shape[-1:]:
        raise ValueError(f"{name} must have shape [C] = [{logits.shape[-1]}], got {list(values.shape)}.")


def for_each_class(values, logits):
    """`values` `[C]` in the rank of `logits`, as those want it who have strict promotion of ranks."""
    return jnp.reshape(values, (1,) * (logits.ndim - 1) + (-1,))


def is_traced(value):
    """Whether the value is known only when the compiled program runs."""
    return isinstance(value, jax.core.Tracer)


def check_number(value, name):
    """The number to compute with: Python's `int` or `float`, or a traced float32 `[]`.

    Raises `ValueError` unless the value is one real number; NaN and infinity are.
    """
    if is_traced(value):
        if value.ndim == 0 and any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            return value.astype(jnp.float32)
        raise ValueError(f"{name} must be a number, got {value.dtype} {list(value.shape)}.")
    try:
        is_number = not isinstance(value, str | bytes)
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        is_number = False
    if not is_number:
        raise ValueError(f"{name} must be a number, got {value!r}.")
    return value if type(value) is int else number


def check_at_least(value, name, low):
    """As `check_number`; raises `ValueError`, too, for a known number that is infinite or below `low`."""
    number = check_number(value, name)
    if not is_traced(number) and not (number >= low and math.isfinite(number)):
        raise ValueError(f"{name} must be at least {low} and finite, got {value}.")
    return number


def check_range(value, name, low, high, *, low_open=False, high_open=False):
    """As `check_number`; raises `ValueError`, too, for a known number out of bounds, in unless open."""
    number = check_number(value, name)
    if is_traced(number):
        return number
    above = low < number if low_open else low <= number
    below = number < high if high_open else number <= high
    if not (above and below):
        interval = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
        raise ValueError(f"{name} must be in {interval}, got {value}.")
    return number
