"""Units -> moments: what has to be kept of samples that come in batches, or that lie on several devices.

Units are centred twice before they are multiplied, so that a large offset costs no digits in float32: the
mean is subtracted first, then the mean of the result, which is the rounding error of the first mean.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks
from cgalr_jax._sharding import replicated
from cgalr_jax.topology._weights import as_real

if TYPE_CHECKING:
    from jaxtyping import Array, Float32

__all__ = [
    "Moments",
    "as_moments",
    "centre",
    "check_axis_name",
    "gather_moments",
    "gram",
    "init_moments",
    "merge_moments",
    "update_moments",
]


class Moments(NamedTuple):
    """First and second moments of `P` units, which can be merged over batches and devices.

    Attributes:
        count: f32[], samples seen; exact up to 2**24, then rounded like any float32.
        mean: f32[P].
        comoment: f32[P, P], the sum over samples of the outer product of the centred units with themselves.
            It neither underflows nor overflows for standard deviations between about 1e-18 and 1e18.

    As the mean is rounded to float32, correlations after a merge are off by up to about 6e-8 |mean| / std.
    """

    count: Float32[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride], as in Optax's own states
    mean: Float32[Array, " P"]
    comoment: Float32[Array, "P P"]


def init_moments(units: int) -> Moments:
    """The moments of no samples at all: the neutral element of `merge_moments`.

    Args:
        units: P, at least 1.

    Returns:
        `Moments` of P units, all zero.

    Raises:
        ValueError: if `units` is no integer of at least 1.

    Example:
        >>> init_moments(2).comoment.shape
        (2, 2)
    """
    units = _checks.check_integer("units", units, 1)
    return Moments(
        count=jnp.zeros((), jnp.float32),
        mean=jnp.zeros((units,), jnp.float32),
        comoment=jnp.zeros((units, units), jnp.float32),
    )


def update_moments(moments: Moments, units: jax.typing.ArrayLike) -> Moments:
    """Adds a batch of samples to the moments.

    Args:
        moments: of P units.
        units: [N, P], as for `functional_connectome`.

    Returns:
        The moments of all samples so far.

    Raises:
        ValueError: if `units` is not [N, P] with N at least 1 and the P of `moments`, or complex.

    Example:
        >>> units = jnp.arange(12.0).reshape(6, 2) ** 2
        >>> moments = update_moments(update_moments(init_moments(2), units[:2]), units[2:])
        >>> bool(jnp.allclose(moments.mean, units.mean(axis=0)))
        True
    """
    moments = as_moments("moments", moments)
    return _update_moments(moments, _checks.real_array("units", units))


@jax.jit
def _update_moments(moments: Moments, units: jax.typing.ArrayLike) -> Moments:
    """`update_moments` for checked arguments, compiled as one program."""
    mean, centred = centre(units)
    if mean.shape != moments.mean.shape:
        raise ValueError(
            f"units must be [N, {moments.mean.shape[0]}] like moments, got {jnp.shape(units)!r}."
        )
    return merge_moments(moments, Moments(jnp.float32(centred.shape[0]), mean, gram(centred)))


def merge_moments(a: Moments, b: Moments) -> Moments:
    r"""The moments of the samples of `a` and `b` together (Chan, Golub & LeVeque, 1979).

    With `n = n_a + n_b` and `d = mean_b - mean_a`,

    .. math:: mean = mean_a + d n_b / n, \quad C = C_a + C_b + d d^T n_a n_b / n

    which never subtracts two large numbers of nearly the same size. Associative up to rounding.

    Args:
        a: of P units.
        b: of P units.

    Returns:
        Their `Moments`, of P units.

    Raises:
        ValueError: if `a` and `b` are not `Moments` of the same number of units.

    Example:
        >>> a, b = (update_moments(init_moments(1), jnp.array([[x]])) for x in (1.0, 3.0))
        >>> merge_moments(a, b)
        Moments(count=Array(2., dtype=float32), mean=Array([2.], dtype=float32),
                comoment=Array([[2.]], dtype=float32))
    """
    a, b = as_moments("a", a), as_moments("b", b)
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"b must be of as many units as a, {a.mean.shape[0]}, got {b.mean.shape[0]}.")
    count = a.count + b.count
    share = b.count / jnp.maximum(count, 1)
    delta = b.mean - a.mean
    return Moments(
        count=count,
        mean=a.mean + share * delta,
        comoment=a.comoment + b.comoment + a.count * share * _outer(delta),
    )


def gather_moments(moments: Moments, axis_name: Hashable | Sequence[Hashable]) -> Moments:
    """Merges the moments of all devices along `axis_name`, inside `shard_map`, `pmap` or `vmap`.

    This is `merge_moments` for many at once: the common mean (again in two passes), then the sum of the
    co-moments, each shifted to that mean. It takes two `psum` of P floats and one of P x P.

    Args:
        moments: those of this device.
        axis_name: the mapped axis or axes.

    Returns:
        The moments of all samples, the same on every device.

    Raises:
        ValueError: if `moments` are no `Moments`, or there is no mapped axis of this name.

    Example:
        >>> units = jnp.arange(12.0).reshape(3, 4, 1)
        >>> local = lambda units: gather_moments(update_moments(init_moments(1), units), "data")
        >>> jax.vmap(local, axis_name="data")(units).mean[:, 0]
        Array([5.5, 5.5, 5.5], dtype=float32)
    """
    moments = as_moments("moments", moments)
    check_axis_name(axis_name)
    try:
        count = jax.lax.psum(moments.count, axis_name)
    except NameError as error:
        raise ValueError(
            "axis_name must be an axis of the surrounding shard_map, pmap or vmap, or None under plain jit, "
            f"got {axis_name!r}: {error}."
        ) from error
    weight = moments.count / jnp.maximum(count, 1)
    mean = jax.lax.psum(weight * moments.mean, axis_name)
    mean = mean + jax.lax.psum(weight * (moments.mean - mean), axis_name)
    moved = moments.comoment + moments.count * _outer(moments.mean - mean)
    return Moments(count, mean, jax.lax.psum(moved, axis_name))


def check_axis_name(axis_name: Any) -> None:
    """Raises a ValueError unless it can name mapped axes."""
    what = "the name of a mapped axis, a tuple of names, or None"
    _checks.check_hashable("axis_name", axis_name, what)
    # JAX takes an integer for the place of an axis in each array, whatever is mapped.
    if any(isinstance(name, (int, np.integer)) for name in jax.tree.leaves(axis_name)):
        raise ValueError(f"axis_name must be {what}, no integers, got {_checks.shown(axis_name)}.")


def as_moments(name: str, moments: Any) -> Moments:
    """The moments as float32 arrays, after a check that they are moments of some units."""
    _checks.check_kind(name, moments, Moments, "cgalr_jax.topology")
    arrays = Moments(*(as_real(f"{name}.{field}", x) for field, x in moments._asdict().items()))
    shapes = tuple(x.shape for x in arrays)
    units = shapes[1][:1]
    if shapes != ((), units, units * 2) or not units:
        raise ValueError(f"{name} must have shapes [], [P] and [P, P], got {shapes}.")
    return arrays


def centre(units: jax.typing.ArrayLike) -> tuple[Float32[Array, " P"], Float32[Array, "N P"]]:
    """The mean of the units, and the units minus their mean."""
    real = as_real("units", units)
    if real.ndim != 2 or 0 in real.shape:
        raise ValueError(f"units must be [N, P] with N and P at least 1, got shape {real.shape!r}.")
    # Without this barrier XLA may recompute the units (a gather, say) in each of the passes over them.
    real = jax.lax.optimization_barrier(real)
    mean = jnp.mean(real, axis=0)
    centred = real - mean[None, :]
    error = jnp.mean(centred, axis=0)
    return mean + error, centred - error[None, :]


def gram(x: Float32[Array, "N P"]) -> Float32[Array, "P P"]:
    """x^T x."""
    return jnp.einsum("ni,nj->ij", x, x, precision=jax.lax.Precision.HIGHEST, out_sharding=replicated(x, 2))


def _outer(x: Float32[Array, " P"]) -> Float32[Array, "P P"]:
    return x[:, None] * x[None, :]
