"""Statistics of a ring buffer, whose first entries only are valid until it is full."""

import jax
import jax.numpy as jnp


def ring_median(ring: jax.Array, count: jax.Array) -> jax.Array:
    """The median of the first `count` numbers of a ring, or of all once it is full; of at least one."""
    count = jnp.clip(count, 1, ring.size)
    ordered = jnp.sort(jnp.where(jnp.arange(ring.size, dtype=jnp.int32) < count, ring, jnp.inf))
    return 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])
