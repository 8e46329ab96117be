"""Counts that never wrap."""

import jax
import jax.numpy as jnp


def one_more(condition: jax.Array | bool, count: jax.Array, turn: int = 1) -> jax.Array:
    """The count i32[], with one more where the condition holds.

    Beyond 2^31 - 1 it goes back by one turn of the ring whose places it counts: the next place is the same.
    """
    full = condition & (count == jnp.iinfo(jnp.int32).max)
    count = jnp.where(full, count - turn, count)
    return count + jnp.asarray(condition, jnp.int32)
