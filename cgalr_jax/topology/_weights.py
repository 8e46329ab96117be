"""Edge weights of a connectome for the code that reads them: checked, float32, i < j, as ordered integers.

Weights are compared as integers, by IEEE total order. This is exact where XLA flushes denormals to zero, and
NaN has a place in the order, above all numbers: a tree is always found, and a NaN weight always shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp

from cgalr_jax import _checks

if TYPE_CHECKING:
    from jaxtyping import Array, Bool, Float32, Int32

LOWEST = jnp.iinfo(jnp.int32).min
"""The key of no edge, below the key of every number."""

_NAN = 0x7FC00000
_MINUS_INFINITY = 0x7F800000 ^ -1
_Carry = TypeVar("_Carry")


def as_real(name: str, values: jax.typing.ArrayLike) -> Float32[Array, " ..."]:
    """An array of any real dtype as float32; complex arrays are refused."""
    return jnp.asarray(_checks.real_array(name, values), jnp.float32)


def as_square(name: str, connectome: jax.typing.ArrayLike, least: int = 1) -> Float32[Array, "P P"]:
    """A connectome of at least `least` units as f32[P, P]."""
    return jnp.asarray(_checks.square_array(name, connectome, least)).astype(jnp.float32)


def mirrored(connectome: Float32[Array, "P P"]) -> Float32[Array, "P P"]:
    """The symmetric matrix of the weights i < j, with a zero diagonal: one pass, exact for NaN as well."""
    upper = jnp.triu(jax.lax.bitcast_convert_type(connectome, jnp.int32), k=1)
    return jax.lax.bitcast_convert_type(upper | upper.T, jnp.float32)


def to_keys(weights: Float32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """float32 -> int32 keys, in the same order as the weights."""
    keys = _total_order(jax.lax.bitcast_convert_type(weights, jnp.int32))
    # A NaN with its sign bit set, such as the 0 / 0 of x86, lies below all numbers: it gets the key of NaN.
    return jnp.where(keys < _MINUS_INFINITY, _NAN, keys)


def from_keys(keys: Int32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """The inverse of `to_keys`."""
    return jax.lax.bitcast_convert_type(_total_order(keys), jnp.float32)


def nan_where(condition: Bool[Array, ""], values: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    """`values`, or NaN where the condition holds; as integers, since a literal NaN trips `jax_debug_nans`."""
    return from_keys(jnp.where(condition, _NAN, to_keys(values)))


def varying_like(connectome: Float32[Array, "P P"], start: _Carry) -> _Carry:
    """The integers `start` of a loop, marked for `shard_map` as varying over the devices of its input."""
    nothing = 0 * to_keys(connectome[0, 0])
    return jax.tree.map(lambda part: part + nothing, start)


def _total_order(bits: Int32[Array, "*shape"]) -> Int32[Array, "*shape"]:
    """The bits of a float32, in which negative numbers run backwards, as an ordered integer; self-inverse."""
    return bits ^ ((bits >> 31) & jnp.iinfo(jnp.int32).max)
