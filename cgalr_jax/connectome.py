"""Activations -> units."""

import itertools
import math

import jax
import jax.numpy as jnp

from cgalr_jax._sharding import replicated


def layer_units(activation: jax.typing.ArrayLike, max_samples: int = 8192) -> jax.Array:
    """The units of one layer: its features; every position (pixel, token) of every example is a sample.

    Above `max_samples` positions every s-th is kept, with the smallest sufficient stride s that shares no
    factor with their number, so that no row or column of an image is favoured. That positions are samples is
    our choice.

    Args:
        activation: [N, ..., F], of any dtype.
        max_samples: at least 1.

    Returns:
        [rows, F] with rows <= max_samples, dtype unchanged.

    Raises:
        ValueError: if `activation` has less than two axes or `max_samples` is less than 1.

    Example:
        >>> layer_units(jnp.zeros((128, 28, 28, 16))).shape  # 100352 positions, every 13th
        (7720, 16)
    """
    activation = jnp.asarray(activation)
    if activation.ndim < 2:
        raise ValueError(f"activation must be [N, ..., F], got shape {activation.shape!r}.")
    if max_samples < 1:
        raise ValueError(f"max_samples must be at least 1, got {max_samples!r}.")
    units = activation.reshape(-1, activation.shape[-1])
    rows = units.shape[0]
    enough = -(-rows // max_samples)
    stride = next(s for s in itertools.count(enough) if math.gcd(s, rows) == 1)
    if stride == 1:
        return units
    # A gather, not a slice: a slice of sharded samples cannot say where its result lives.
    kept = jnp.arange(0, rows, stride)
    return units.at[kept].get(mode="promise_in_bounds", out_sharding=replicated(units, 2))
