"""Numbers whose squares leave float32: a unit in which they do not."""

import jax
import jax.numpy as jnp

__all__ = ["is_ordinary", "unit_of"]


def is_ordinary(size: jax.Array) -> jax.Array:
    """Whether the square of a number is far from both ends of float32; not for 0 and NaN."""
    return (size > 1e-15) & (size < 1e15)


def unit_of(peak: jax.Array) -> jax.Array:
    """A factor for numbers of which this is the largest size: 1 where they are ordinary, 0 or not finite."""
    as_they_are = is_ordinary(peak) | (peak == 0) | ~jnp.isfinite(peak)
    return jnp.where(as_they_are, 1.0, 1 / jnp.clip(peak, 2.0**-126, 2.0**126))
