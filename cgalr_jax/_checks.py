"""Argument checks that every room uses: a ValueError that names the argument, its range and what came in."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import numpy as np


def check(name: str, value: Any, allowed: Callable[[Any], bool], interval: str) -> None:
    """Raises a ValueError unless `value` is one number for which `allowed` is true.

    Python numbers, NumPy scalars and concrete arrays without axes are all numbers. Traced values pass
    unchecked: under `optax.inject_hyperparams` nothing is known of them at trace time.
    """
    if isinstance(value, jax.core.Tracer):
        return
    try:
        good = not isinstance(value, (bool, np.bool_)) and np.ndim(value) == 0 and bool(allowed(value))
    except (TypeError, ValueError):  # no number at all, or one that cannot be compared
        good = False
    if not good:
        raise ValueError(f"{name} must be {interval}, got {shown(value)}.")


def check_integer(name: str, value: Any, least: int) -> None:
    """`check` for a whole number that is no float, of at least `least`; traced values are refused.

    What is counted decides shapes and branches, so it has to be known when the program is traced.
    """
    if isinstance(value, jax.core.Tracer):
        raise ValueError(
            f"{name} must be a static integer of at least {least}, got a traced value; under "
            f"optax.inject_hyperparams name it in static_args."
        )
    check(name, value, lambda x: operator.index(x) >= least, f"an integer of at least {least}")


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raises a ValueError unless `value` is one of our records; for a factory it says what is missing."""
    if isinstance(value, kind):
        return
    called = getattr(value, "__name__", "")
    hint = f"the function {called}; call it: {called}()" if callable(value) and called else shown(value)
    raise ValueError(f"{name} must be a cgalr_jax.{kind.__name__}, got {hint}.")


def check_function(name: str, value: Any, signature: str) -> None:
    """Raises a ValueError unless `value` can be called."""
    if not callable(value):
        raise ValueError(f"{name} must be a function, {signature}, got {shown(value)}.")


def shown(value: Any) -> str:
    """What came in, short enough to read: arrays by shape, long texts by their beginning."""
    if isinstance(value, (jax.Array, np.ndarray)) and value.ndim:
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({type(value).__name__})"
