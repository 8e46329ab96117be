"""Units, or their moments -> connectome: how strongly each pair of units co-activates."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from cgalr_jax import _checks
from cgalr_jax.topology.moments import (
    Moments,
    as_moments,
    centre,
    check_axis_name,
    gather_moments,
    gram,
)

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float32

__all__ = ["DEAD", "connectome_from_moments", "functional_connectome"]

DEAD = 1e-6
"""A unit is dead if its standard deviation is at most this fraction of its mean: 8 ulps of float32."""


def functional_connectome(
    units: jax.typing.ArrayLike, axis_name: Hashable | None = None
) -> Float32[Array, "P P"]:
    r"""Absolute Pearson correlation of every pair of units, with a zero diagonal.

    .. math:: M_{ij} = |corr(x_i, x_j)|, \quad M_{ii} = 0

    as in He & Songdechakraiwut, arXiv 2510.23781. It is one matrix product of the standardised units, in
    float32 at `Precision.HIGHEST` on every platform: the default precision of TPUs and recent GPUs would
    leave about three digits.

    Args:
        units: [N, P], N samples of P units, any real dtype; computed in float32. The absolute values of a
            unit's samples must add up to less than 1e38, and the standard deviation of one that lives be at
            least 1e-33: see Returns. The samples may be sharded over an Auto or an Explicit mesh; the result
            is then replicated.
        axis_name: the mapped axis (or a tuple of them) over which the samples are split, inside `shard_map`,
            `pmap` or `vmap`; the result is the connectome of the samples of all devices, from gathered
            moments, so that squares of the units must be normal numbers (1e-18 to 1e18). None under plain
            `jit`, where arrays are global. Static.

    Returns:
        f32[P, P] in [0, 1], symmetric. The row and column of a dead unit, which does not vary (standard
        deviation at most `DEAD` times its mean), are 0; for N = 1 all entries are 0. The row and column of a
        unit with a non-finite sample are NaN off the diagonal, and so may be those of one whose sum is beyond
        1e38. Of a unit that varies by less than 1e-33, differences from the mean below 1.2e-38 count as 0, so
        that its correlations are off by up to a thousandth at 1e-36, and by anything at 1e-38. It has a
        gradient, which is 0 for a dead unit.

    Raises:
        ValueError: if `units` is not [N, P] with N and P at least 1, or complex.

    Example:
        >>> units = jnp.array([[1.0, 2.0, 7.0], [2.0, 4.0, 7.0], [3.0, 6.0, 7.0]])
        >>> functional_connectome(units).round(3)  # the third unit is dead
        Array([[0., 1., 0.],
               [1., 0., 0.],
               [0., 0., 0.]], dtype=float32)
    """
    units = _checks.real_array("units", units)
    check_axis_name(axis_name)
    return _functional_connectome(units, axis_name)


@functools.partial(jax.jit, static_argnames="axis_name")
def _functional_connectome(units: jax.typing.ArrayLike, axis_name: Hashable | None) -> Float32[Array, "P P"]:
    """`functional_connectome` for checked arguments, compiled as one program."""
    mean, centred = centre(units)
    if axis_name is not None:
        local = Moments(jnp.float32(centred.shape[0]), mean, gram(centred))
        return _connectome_from_moments(gather_moments(local, axis_name))
    # Each unit is first scaled to a peak of about 1, so that its squares neither underflow nor overflow. The
    # reciprocal of more than 2^126, as which XLA may compute the quotient, would be flushed to 0. No
    # correlation depends on this scale, and so no gradient.
    peak = jax.lax.stop_gradient(jnp.minimum(jnp.max(jnp.abs(centred), axis=0), 2.0**126))
    scaled = centred / jnp.where(peak == 0, 1, peak)[None, :]
    norm = _root(jnp.sum(scaled * scaled, axis=0))
    std = peak * (norm / math.sqrt(centred.shape[0]))
    return _bounded(gram(scaled * _reciprocal(norm, _dead(mean, std))[None, :]))


def connectome_from_moments(moments: Moments) -> Float32[Array, "P P"]:
    """The functional connectome of all samples that went into the moments.

    Args:
        moments: of P units; also those of no samples.

    Returns:
        f32[P, P], as from `functional_connectome`.

    Raises:
        ValueError: if `moments` are no `Moments`.

    Example:
        >>> from cgalr_jax.topology import init_moments, update_moments
        >>> units = jnp.arange(12.0).reshape(6, 2) ** 2
        >>> moments = update_moments(update_moments(init_moments(2), units[:2]), units[2:])
        >>> bool(jnp.allclose(connectome_from_moments(moments), functional_connectome(units)))
        True
    """
    return _connectome_from_moments(as_moments("moments", moments))


@jax.jit
def _connectome_from_moments(moments: Moments) -> Float32[Array, "P P"]:
    """`connectome_from_moments` for a checked argument, compiled as one program."""
    norm = _root(jnp.diagonal(moments.comoment))
    inverse = _reciprocal(norm, _dead(moments.mean, norm / jnp.sqrt(jnp.maximum(moments.count, 1))))
    return _bounded(moments.comoment * inverse[:, None] * inverse[None, :])


def _root(squares: Float32[Array, " P"]) -> Float32[Array, " P"]:
    """The square root, whose gradient at 0 is 0 here: that of a unit which does not vary."""
    still = squares == 0
    return jnp.where(still, 0, jnp.sqrt(jnp.where(still, 1, squares)))


def _dead(mean: Float32[Array, " P"], std: Float32[Array, " P"]) -> Bool[Array, " P"]:
    """Whether a unit does not vary; False for NaN, which has to show in the connectome."""
    return std <= DEAD * jnp.abs(mean)


def _reciprocal(norm: Float32[Array, " P"], dead: Bool[Array, " P"]) -> Float32[Array, " P"]:
    return jnp.where(dead, 0, 1 / jnp.where(dead, 1, norm))


def _bounded(correlation: Float32[Array, "P P"]) -> Float32[Array, "P P"]:
    """Correlations -> connectome: absolute, symmetric, at most 1 in spite of rounding, 0 on the diagonal."""
    # Some matrix products round (i, j) and (j, i) differently at the edges of their blocks.
    correlation = (correlation + correlation.T) / 2
    self_edge = jnp.eye(correlation.shape[0], dtype=bool)
    return jnp.where(self_edge, 0, jnp.minimum(jnp.abs(correlation), 1))
