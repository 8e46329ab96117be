"""Argument checks for all modules: a ValueError names the argument, its range and the value that came in."""

import inspect
import math
import operator
import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

# Counters are int32.
LARGEST = 2**31 - 1


def check(name: str, value: Any, allowed: Callable[[Any], bool], interval: str) -> Any:
    """The value as a Python number, or a ValueError unless it is one number for which `allowed` is true.

    Python numbers, NumPy scalars and concrete arrays without axes count as numbers. A Python number has no
    dtype that could change that of a result, and no comparison of it is traced. Traced values are returned
    unchecked: their value is not known at trace time, for instance under `optax.inject_hyperparams`.
    """
    if isinstance(value, jax.core.Tracer):
        return value
    number = None
    try:
        if _is_number(value):
            number = value.item() if isinstance(value, (np.generic, np.ndarray, jax.Array)) else value
            # A float32 is the number that it prints as: as 0.10000000149 it would lie beyond a limit of 0.1.
            number = float(str(np.float32(number))) if getattr(value, "dtype", None) == np.float32 else number
        good = number is not None and _fits_float32(number) and bool(allowed(number))
    except (
        TypeError,
        ValueError,
        OverflowError,
    ):  # a number that cannot be compared, or too large for a float
        good = False
    if not good:
        raise ValueError(f"{name} must be {interval}, got {shown(value)}.")
    return number


def check_positive(name: str, value: Any, otherwise: str = "") -> Any:
    """`check` for a number that is positive and finite; `otherwise` says what else is allowed."""
    return check(name, value, lambda x: 0 < x < math.inf, f"positive and finite{otherwise}")


def check_integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """`check` for an integer (no float) in [least, most]; traced values are refused.

    Such integers decide shapes and branches, and so have to be known when the program is traced.
    """
    interval = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    if isinstance(value, jax.core.Tracer):
        raise ValueError(
            f"{name} must be static, {interval}, got a traced value; under optax.inject_hyperparams name it "
            "in static_args."
        )
    greatest = LARGEST if most is None else most
    return check(name, value, lambda x: least <= operator.index(x) <= greatest, interval)


def check_flag(name: str, value: Any) -> None:
    """Raises a ValueError unless `value` is True or False, from Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {shown(value)}.")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises a ValueError unless `value` is one of `choices`."""
    if not (isinstance(value, str) and value in choices):
        words = ", ".join(repr(choice) for choice in choices[:-1])
        raise ValueError(f"{name} must be {words} or {choices[-1]!r}, got {shown(value)}.")


def check_hashable(name: str, value: Any, what: str) -> None:
    """Raises a ValueError unless `value` can be a static argument."""
    if not isinstance(value, Hashable):
        raise ValueError(f"{name} must be {what}, got {shown(value)}.")
    try:
        hash(value)
    except TypeError:  # a tuple of lists
        raise ValueError(f"{name} must be {what}, got {shown(value)}.") from None


def check_path(name: str, value: Any, what: str) -> None:
    """Raises a ValueError unless `value` is a path, a text that is not empty; an open file is no path."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value  # some are of bytes
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError(f"{name} must be {what}, a path, got {shown(value)}.")


def check_file(name: str, value: Any) -> None:
    """Raises a ValueError unless `value` is a path at which a file is, or can be; no folder, no pipe."""
    check_path(name, value, "a file")
    if not os.path.basename(value):  # it ends with a slash
        raise ValueError(f"{name} must be a file, got {os.fspath(value)}, which names a folder.")
    if os.path.exists(value) and not os.path.isfile(value):
        raise ValueError(f"{name} must be a file, got {os.fspath(value)}, which is something else.")


def check_folder(name: str, value: Any) -> None:
    """Raises a ValueError unless `value` is a path at which a folder is, or can be."""
    check_path(name, value, "a folder")
    if os.path.exists(value) and not os.path.isdir(value):
        raise ValueError(f"{name} must be a folder, got {os.fspath(value)}, which is no folder.")


def real_array(name: str, values: Any) -> jax.Array | np.ndarray:
    """`real_or_complex`, but complex numbers are refused: no imaginary part is dropped silently."""
    array = real_or_complex(name, values)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(
            f"{name} must be real, got {array.dtype}: pass absolute values, or real and imaginary parts."
        )
    return array


def square_array(name: str, values: Any, least: int = 1) -> jax.Array | np.ndarray:
    """`real_array` of a matrix between at least `least` units."""
    array = real_array(name, values)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] < least:
        raise ValueError(f"{name} must be [P, P] with P at least {least}, got shape {array.shape!r}.")
    return array


def real_or_complex(name: str, values: Any) -> jax.Array | np.ndarray:
    """The values as an array of numbers; an array is returned unchanged, but for NumPy's 64-bit integers."""
    array = values
    if not isinstance(values, (jax.Array, np.ndarray)):
        try:
            if isinstance(values, (str, bytes)):  # JAX would take a string for a dtype
                raise TypeError
            array = jnp.asarray(values)
        except OverflowError:  # integers of more bits than JAX's
            array = np.asarray(values)
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be an array of numbers, got {shown(values)}.") from None
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == np.bool_):
        raise ValueError(f"{name} must be an array of numbers, got dtype {array.dtype}.")
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"{name} must be an array without a mask, got one of shape {array.shape}: fill it.")
    if isinstance(array, np.ndarray) and array.dtype.kind in "iu" and array.dtype.itemsize > 4:
        return array.astype(np.float32)  # JAX would keep their lowest 32 bits only
    return jax_array(array)


def jax_array(array: Any) -> Any:
    """A NumPy array in a byte order and of a precision that JAX has; anything else is returned unchanged."""
    if not isinstance(array, np.ndarray):
        return array
    native = array.dtype.newbyteorder("=")
    if native.kind == "f" and native.itemsize > 8:  # long double
        native = np.dtype(np.float64)
    elif native.kind == "c" and native.itemsize > 16:
        native = np.dtype(np.complex128)
    return array.astype(native, copy=False)


def real_scalar(name: str, value: Any) -> jax.Array | np.ndarray:
    """`real_array` for a real number or a 0-d array of one, traced or not."""
    array = real_array(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be a number, f32[], got {shown(value)}.")
    return array


def check_kind(name: str, value: Any, kind: type, room: str = "cgalr_jax") -> None:
    """Raises a ValueError unless `value` is a `kind`; if `value` is a factory, the error says to call it."""
    if isinstance(value, kind):
        return
    hint, called = shown(value), getattr(value, "__name__", "")
    if callable(value) and called:
        hint = f"the function {called}" + (f"; call it: {called}()" if takes(value, 0) else "")
    raise ValueError(f"{name} must be a {room}.{kind.__name__}, got {hint}.")


def takes(function: Callable[..., Any], arguments: int) -> bool:
    """Whether a function can be called with this number of arguments, as far as is known."""
    try:
        check_function("function", function, "any", arguments)
    except ValueError:
        return False
    return True


def check_function(name: str, value: Any, signature: str, arguments: int | None = None) -> None:
    """Raises a ValueError unless `value` can be called, with this number of `arguments` if it is given."""
    if not callable(value):
        raise ValueError(f"{name} must be a function, {signature}, got {shown(value)}.")
    if arguments is None:
        return
    try:
        form = inspect.signature(value)
    except (TypeError, ValueError):  # a callable without a signature, written in C
        return
    try:
        form.bind(*range(arguments))
    except TypeError as error:
        called = f"{getattr(value, '__name__', type(value).__name__)}({', '.join(form.parameters)})"
        raise ValueError(
            f"{name} must take {arguments} argument{'s' * (arguments != 1)}, {signature}, got {called}: "
            f"{error}."
        ) from None


def shapes_of(name: str, function: Callable[..., Any], *arguments: Any, user: Any = None) -> Any:
    """`jax.eval_shape`; a user's function that only knows Python or NumPy numbers is a ValueError.

    `user` is the function to show where `function` is ours and calls it.
    """
    try:
        return jax.eval_shape(function, *arguments)
    except TypeError as error:
        if "is not a valid JAX type" in str(error):  # a text, for instance
            raise ValueError(
                f"{name} must return arrays of numbers, got something else from "
                f"{shown(function if user is None else user)}: {str(error).splitlines()[0]}"
            ) from error
        if not isinstance(error, jax.errors.JAXTypeError):
            raise
        raise _untraceable(name, function if user is None else user, error) from error


def called(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a user's function returns; that it only knows Python or NumPy numbers is a ValueError."""
    try:
        return function(*arguments)
    except TypeError as error:
        if not isinstance(error, jax.errors.JAXTypeError):
            raise
        raise _untraceable(name, function, error) from error


def _untraceable(name: str, function: Any, error: Exception) -> ValueError:
    """The error for a bool, an int or a NumPy array that a user's function asks of a traced value."""
    return ValueError(
        f"{name} must be a function that JAX can trace, jnp.where instead of if, jnp instead of np, got "
        f"{shown(function)}: {str(error).splitlines()[0]}"
    )


def check_pair(name: str, value: Any, pair: str) -> None:
    """Raises a ValueError unless `value`, which the function `name` has returned, is a pair."""
    if not (isinstance(value, (tuple, list)) and len(value) == 2):
        raise ValueError(f"{name} must return a pair, {pair}, got {shown(value)}.")


def shown(value: Any) -> str:
    """The value on one line, for an error message: arrays by their shape, long texts by their beginning."""
    if isinstance(value, jax.core.Tracer) or (isinstance(value, (jax.Array, np.ndarray)) and value.ndim):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:200]}... ({type(value).__name__})"


def _is_number(value: Any) -> bool:
    """Whether `value` is one real number, from Python, NumPy or JAX; booleans are no numbers."""
    if isinstance(value, (int, float)):
        return not isinstance(value, bool)
    if not isinstance(value, (np.generic, np.ndarray, jax.Array)) or value.ndim:
        return False
    if isinstance(value, np.ma.MaskedArray):  # its number may be missing
        return False
    return bool(jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer))


def _fits_float32(value: Any) -> bool:
    """Whether float32, in which everything is computed, holds `value`: it becomes neither 0 nor infinite."""
    number = abs(float(value))
    limits = np.finfo(np.float32)
    return not (0 < number < limits.tiny or limits.max < number < float("inf"))
