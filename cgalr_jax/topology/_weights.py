"""Edge weights as all readers of a connectome take them: checked, in float32, i < j, and as ordered integers.

Weights are compared as integers, by IEEE total order: exact where XLA flushes denormals to zero, and NaN has
a place in the order too, above all numbers, so that a tree is always found and every NaN weight is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float32, Int32

LOWEST = jnp.iinfo(jnp.int32).min
"""No edge: below the key of every number."""

_NAN = 0x7FC00000
_MINUS_INFINITY = 0x7F800000 ^ -1
_Carry = TypeVar("_Carry")


def as_real(name: str, values: jax.typing.ArrayLike) -> Float32[Array, " ..."]:
    """An array of any real dtype as float32; complex ones are refused, not robbed of their imaginary part."""
    return jnp.asarray(_checks.real_array(name, values)).astype(jnp.float32)


def check_square(name: str, connectome: jax.typing.ArrayLike, least: int = 1) -> jax.Array | np.ndarray:
    """The connectome as it came, after a check of its shape and kind: at least so many units."""
    array = _checks.real_array(name, connectome)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.shape[0] < least:
        raise ValueError(f"{name} must be [P, P] with P at least {least}, got shape {array.shape!r}.")
    return array


def as_square(name: str, connectome: jax.typing.ArrayLike, least: int = 1) -> Float32[Array, "P P"]:
    """A connectome of at least so many units as f32[P, P]."""
    return jnp.asarray(check_square(name, connectome, least)).astype(jnp.float32)


def mirrored(connectome: Float32[Array, "P P"]) -> Float32[Array, "P P"]:
    """The symmetric matrix of the weights i < j, with a zero diagonal: one pass, exact for any bits."""
    upper = jnp.triu(jax.lax.bitcast_convert_type(connectome, jnp.int32), k=1)
    return jax.lax.bitcast_convert_type(upper | upper.T, jnp.float32)


def keys_of(weights: Float32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """float32 -> int32 in the same order."""
    keys = _total_order(jax.lax.bitcast_convert_type(weights, jnp.int32))
    # A NaN with its sign bit set, the 0 / 0 of x86, lies below all numbers: up, to where the others are.
    return jnp.where(keys < _MINUS_INFINITY, _NAN, keys)


def from_keys(keys: Int32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The inverse of `keys_of`."""
    return jax.lax.bitcast_convert_type(_total_order(keys), jnp.float32)


def nan_where(condition: Bool[Array, ""], values: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """`values`, or NaN: chosen as integers, as a literal NaN would set off `jax_debug_nans` in any run."""
    return from_keys(jnp.where(condition, _NAN, keys_of(values)))


def varying_like(connectome: Float32[Array, "P P"], start: _Carry) -> _Carry:
    """The integers that a loop starts from, varying over the same devices as its input, for `shard_map`."""
    nothing = 0 * keys_of(connectome[0, 0])
    return jax.tree.map(lambda part: part + nothing, start)


def _total_order(bits: Int32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """Bits of a float32, whose negative numbers run backwards, to an ordered integer; its own inverse."""
    return bits ^ ((bits >> 31) & jnp.iinfo(jnp.int32).max)
