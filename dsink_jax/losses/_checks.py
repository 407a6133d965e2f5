"""Trace-time checks shared by the losses."""

import math

import jax.numpy as jnp

from dsink_jax.array_checks import check_arrays


def check_logits(logits, **others):
    """Raises `ValueError` unless `logits` is floating `[N, C]` and every other array has its shape."""
    check_arrays(logits=logits, **others)
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise ValueError(f"logits must have shape [N, C], got {list(logits.shape)}.")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"logits must be floating point, got {logits.dtype}.")
    for name, value in others.items():
        if value.shape != logits.shape:
            raise ValueError(
                f"{name} must have the shape of logits, {list(logits.shape)}, got {list(value.shape)}."
            )
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating point, got {value.dtype}.")


def check_labels(labels, logits):
    """Raises `ValueError` unless `labels` is integer `[N]` for `logits` `[N, C]`."""
    check_logits(logits)
    check_arrays(labels=labels)
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must have shape [N] = [{logits.shape[0]}], got {list(labels.shape)}.")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}.")


def check_per_class(values, logits, name):
    """Raises `ValueError` unless `values` is `[C]` for `logits` `[N, C]`."""
    check_arrays(**{name: values})
    if values.shape != logits.shape[1:]:
        raise ValueError(f"{name} must have shape [C] = [{logits.shape[1]}], got {list(values.shape)}.")


def check_number(value, name):
    """Raises `ValueError` unless the value is one real number; NaN and infinity are."""
    try:
        is_number = not isinstance(value, str | bytes)
        float(value)
    except (TypeError, ValueError, OverflowError):
        is_number = False
    if not is_number:
        raise ValueError(f"{name} must be a number, got {value!r}.")


def check_at_least(value, name, low):
    """Raises `ValueError` unless the Python number is finite and at least `low`."""
    check_number(value, name)
    if not (value >= low and math.isfinite(value)):
        raise ValueError(f"{name} must be at least {low} and finite, got {value}.")


def check_range(value, name, low, high, *, low_open=False, high_open=False):
    """Raises `ValueError` unless the Python number lies between the bounds, included unless open."""
    check_number(value, name)
    above = low < value if low_open else low <= value
    below = value < high if high_open else value <= high
    if not (above and below):
        interval = f"{'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
        raise ValueError(f"{name} must be in {interval}, got {value}.")
