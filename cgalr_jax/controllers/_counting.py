"""Counts that never wrap, and ring buffers, of which only the first entries are valid until they are full."""

import jax
import jax.numpy as jnp


def one_more(condition: jax.Array | bool, count: jax.Array, turn: int = 1) -> jax.Array:
    """The count i32[], with one more where the condition holds.

    Beyond 2^31 - 1 it goes back by one turn of the ring whose places it counts: the next place is the same.
    """
    full = condition & (count == jnp.iinfo(jnp.int32).max)
    count = jnp.where(full, count - turn, count)
    return count + jnp.asarray(condition, jnp.int32)


def ring_median(ring: jax.Array, count: jax.Array) -> jax.Array:
    """The median of the first `count` numbers of a ring, or of all once it is full; of at least one."""
    count = jnp.clip(count, 1, ring.size)
    ordered = jnp.sort(jnp.where(jnp.arange(ring.size, dtype=jnp.int32) < count, ring, jnp.inf))
    return 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])
