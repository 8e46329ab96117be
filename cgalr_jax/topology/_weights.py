"""Edge weights as the rooms of this wing read them: checked, in float32, and as integers in the same order.

Weights are compared as integers, by IEEE total order: exact where XLA flushes denormals to zero, and NaN has
a place in the order too, so that a tree is always found and the NaN weights of a unit are seen in it.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp

LOWEST = jnp.iinfo(jnp.int32).min
"""No edge: below the key of every number."""

_Carry = TypeVar("_Carry")


def as_square(connectome: jax.typing.ArrayLike) -> jax.Array:
    """A connectome as f32[P, P], after a check of its shape."""
    connectome = jnp.asarray(connectome)
    if connectome.ndim != 2 or connectome.shape[0] != connectome.shape[1] or connectome.size == 0:
        raise ValueError(f"connectome must be [P, P] with P at least 1, got shape {connectome.shape!r}.")
    return connectome.astype(jnp.float32)


def keys_of(weights: jax.Array) -> jax.Array:
    """float32 -> int32 in the same order."""
    return _total_order(jax.lax.bitcast_convert_type(weights, jnp.int32))


def from_keys(keys: jax.Array) -> jax.Array:
    """The inverse of `keys_of`."""
    return jax.lax.bitcast_convert_type(_total_order(keys), jnp.float32)


def varying_like(connectome: jax.Array, start: _Carry) -> _Carry:
    """The integers that a loop starts from, varying over the same devices as its input, for `shard_map`."""
    nothing = 0 * keys_of(connectome[0, 0])
    return jax.tree.map(lambda part: part + nothing, start)


def _total_order(bits: jax.Array) -> jax.Array:
    """Bits of a float32, whose negative numbers run backwards, to an ordered integer; its own inverse."""
    return bits ^ ((bits >> 31) & jnp.iinfo(jnp.int32).max)
