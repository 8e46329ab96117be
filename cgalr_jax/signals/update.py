"""Signals that read parameters: how far they moved, relative to their size."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _leaves, _sharding
from cgalr_jax.layers import Layers
from cgalr_jax.signals.base import Signal, positive

__all__ = ["update_norm"]

# The largest number of parameters that `update_norm` looks at.
_MAX_ENTRIES = 4096


def update_norm(*, set_point: float | None = None) -> Signal:
    """The relative norm of the update of the parameters: no connectome at all, the control to compare with.

    `|params_t - params_{t - every}| / |params_{t - every}|`, from a static sub-sample of at most 4096
    entries. It needs no probe and no activations, and cost nothing in accuracy in our experiments. Parameters
    that are frozen count in the denominator: where they are most of the tree, it says far too little. Where
    all parameters start at zero, it says far too much.

    Args:
        set_point: relative change that is fast enough; positive. Default: 0.18.

    Returns:
        A `Signal`; its reading is f32[n], the sub-sampled entries.

    Raises:
        ValueError: if the set-point is not positive.
    """

    def read(layers: Layers, params: Any) -> jax.Array:
        del layers
        return _sample_entries(params)

    def compare(before: jax.Array, after: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(before)
        return jnp.linalg.norm(after - before) / jnp.where(norm == 0, 1.0, norm)

    return Signal(read, compare, positive(set_point, 0.18), reads_activations=False, reads_params=True)


def _sample_entries(params: Any) -> jax.Array:
    """A static sub-sample of the floating entries of the parameters, f32[n]; real and imaginary parts apart."""
    leaves = [x for x in map(jnp.asarray, filter(_leaves.is_inexact, jax.tree.leaves(params))) if x.size]
    if not leaves:  # one zero that never moves: an array without entries could not be saved
        return jnp.zeros((1,), jnp.float32)
    total = sum(x.size for x in leaves)
    # An odd stride visits all columns of a matrix whose width is a power of two.
    stride = math.ceil(total / _MAX_ENTRIES) | 1
    entries = [_strided(x, stride) for x in leaves]
    parts = [part for x in entries for part in ((x.real, x.imag) if jnp.iscomplexobj(x) else (x,))]
    return jnp.concatenate([part.astype(jnp.float32) for part in parts])


def _strided(x: jax.Array, stride: int) -> jax.Array:
    """Each `stride`-th entry of an array, [n]."""
    if not any(jax.typeof(x).sharding.spec):
        return jnp.ravel(x)[::stride]
    # Split over an Explicit mesh (on an Auto one the type says nothing): gathered entry by entry.
    index = np.unravel_index(np.arange(0, x.size, stride), x.shape)
    return x.at[index].get(out_sharding=_sharding.replicated(x, 1))
