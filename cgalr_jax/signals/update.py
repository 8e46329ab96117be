"""Signals that read parameters: how far they moved, relative to their size."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _leaves, _sharding
from cgalr_jax._units import unit_of
from cgalr_jax.layers import Layers
from cgalr_jax.signals._matrices import rank_one, sides_of
from cgalr_jax.signals.base import FROZEN, Signal, positive

__all__ = ["relative_update", "update_norm"]

# The most parameters that `update_norm` reads, and the most that `relative_update` reads per matrix.
_MAX_ENTRIES, _MAX_ENTRIES_PER_MATRIX = 4096, 1024
# A motion below this share of the fastest counts as this share: slow matrices must not dominate the mean.
_SLOWEST = 1 / 30
_LARGEST = float(np.finfo(np.float32).max)


def update_norm(*, set_point: float | None = None) -> Signal:
    """The relative norm of the update of all parameters: the baseline for comparisons, without a connectome.

    `|params_t - params_{t - every}| / |params_{t - every}|`, from a fixed sub-sample of about 4096
    entries, at least one of each array. It needs no probe and no activations. Its set-point was found on
    layers of some thirty units; that of `relative_update` depends less on the width. Frozen parameters count
    in the denominator: if most parameters are frozen, the distance is far too small. If all parameters start
    at zero, it is far too large.

    Args:
        set_point: relative change that is fast enough; positive. Default: 0.36.

    Returns:
        A `Signal`; its reading is the sub-sample, f32[n].

    Raises:
        ValueError: if the set-point is not positive.

    Example:
        >>> before = {"w": jnp.array([3.0, 0.0]), "frozen": jnp.array(4.0)}  # of norm 5
        >>> after = {"w": jnp.array([3.0, 2.0]), "frozen": jnp.array(4.0)}
        >>> signal = update_norm()
        >>> print(signal.compare(signal.read({}, before), signal.read({}, after)))
        0.4
    """

    def read(layers: Layers, params: Any) -> jax.Array:
        del layers
        return _held(_sample_entries(params))

    def compare(before: jax.Array, after: jax.Array) -> jax.Array:
        before, after = _without_masks(before, after)
        unit = _unit(before, after)
        norm = jnp.linalg.norm(before * unit)
        return jnp.linalg.norm(after * unit - before * unit) / jnp.where(norm == 0, unit[0], norm)

    return Signal(read, compare, positive(set_point, 0.36), reads_activations=False, reads_params=True)


def relative_update(*, set_point: float | None = None) -> Signal:
    """How far the weight matrices moved: a mean over matrices, in a unit that hardly depends on their width.

    At the same largest singular value, the Frobenius norm of a low-rank update is smaller than that of a
    random n x m matrix: by the factor `f = sqrt(n m) / (sqrt n + sqrt m)` for rank one, by less for higher
    ranks. The rank of updates varies; half of the correction on a logarithmic scale, the factor `sqrt(f)`,
    holds best for all widths. So the motion of a matrix is

    ```
    sqrt(f) |W' - W|_F / max(|W|_F, sqrt m).
    ```

    `sqrt m` is the Frobenius norm of a matrix initialised with variance 1 / n. Matrices that start smaller
    grow to about this norm and are measured by it: those that start at zero (heads, residual gates, LoRA's
    B), whose first relative update would be infinite, and those of transformers that start at a standard
    deviation of 0.02.

    - The distance is the geometric mean over matrices, each weighted by its smaller side, min(n, m). A motion
      below a thirtieth of the largest counts as a thirtieth of it; a matrix with less than a thousandth of
      the largest motion counts as frozen and is left out.
    - A matrix is an array of two or more axes, real or complex. The axes are split into inputs and outputs so
      that n and m are as equal as possible: [height, width, in, out] of a convolution becomes (height width
      in) x out, [in, heads, dim] of an attention in x (heads dim), [heads, dim, out] (heads dim) x out. A
      stack of layers, [layers, in, out], is one matrix of (layers in) x out: its motion is at most 1.4 times
      that of its layers.
    - Biases, gains and other vectors are left out, unless there is nothing else. A stack of vectors, [layers,
      features], is a matrix of few rows, and so has a small weight.
    - Of an embedding, only the rows of tokens that occurred move, so that its motion is small; the mean over
      all matrices is hardly affected.

    Each matrix is read by a fixed sub-sample of at most 1024 entries, two numbers each if they are complex:
    no copy of the parameters is kept.

    Args:
        set_point: distance that is fast enough; positive. Default: 0.5.

    Returns:
        A `Signal`; its reading is a NamedTuple of arrays: per matrix a row of entries and two numbers that
        depend on its shape.

    Raises:
        ValueError: if the set-point is not positive.

    Example:
        >>> before = {"w": jnp.ones((64, 64)) / 8, "b": jnp.zeros(64)}
        >>> after = {"w": 1.1 * before["w"], "b": jnp.ones(64)}
        >>> signal = relative_update()
        >>> print(f"{signal.compare(signal.read({}, before), signal.read({}, after)):.2f}")
        0.20
    """

    def read(layers: Layers, params: Any) -> _Matrices:
        del layers
        return _matrices(params)

    def compare(before: _Matrices, after: _Matrices) -> jax.Array:
        each = _motions(before, after)
        fastest = jnp.max(each)
        # The comparison is false for NaN, so that a matrix that overflowed is not left out.
        weights = jnp.where(each <= FROZEN * fastest, 0.0, after.directions)
        logarithms = jnp.log(jnp.maximum(jnp.maximum(each, _SLOWEST * fastest), jnp.finfo(jnp.float32).tiny))
        mean = jnp.sum(weights * logarithms) / jnp.maximum(jnp.sum(weights), 1.0)
        mean = jnp.where(fastest > 0, jnp.exp(mean), 0.0)
        return jnp.where(jnp.all(jnp.isfinite(each)), mean, jnp.inf)

    return Signal(read, compare, positive(set_point, 0.5), reads_activations=False, reads_params=True)


class _Matrices(NamedTuple):
    """The reading of `relative_update`: the same fields for every tree, one row per matrix."""

    # f32[matrices, entries], each row times sqrt(n / entries) and padded with zeros: its norm is 1 after an
    # initialisation of variance 1 / n.
    entries: jax.Array
    factors: jax.Array  # f32[matrices], sqrt(f) with f = sqrt(n m) / (sqrt n + sqrt m)
    directions: jax.Array  # f32[matrices], min(n, m)


def _motions(before: _Matrices, after: _Matrices) -> jax.Array:
    """How far each matrix moved, f32[matrices]."""
    old, new = _without_masks(before.entries, after.entries)
    unit = _unit(old, new)
    size = jnp.linalg.norm(old * unit, axis=1)
    moved = jnp.linalg.norm(new * unit - old * unit, axis=1)
    return after.factors * moved / jnp.maximum(size, unit[:, 0])


def _held(entries: jax.Array) -> jax.Array:
    """Entries as a reading holds them: infinite ones as the largest numbers; a reading has to be finite."""
    return jnp.clip(entries, -_LARGEST, _LARGEST)


def _without_masks(before: jax.Array, after: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Entries of two readings: those that were and are infinite as 0, those that have become so infinite.

    A mask of -inf among the parameters is nothing that moves; a matrix that overflows is.
    """
    was, is_now = (jnp.abs(entries) >= _LARGEST for entries in (before, after))
    lasting = was & is_now
    return jnp.where(lasting, 0.0, before), jnp.where(lasting, 0.0, jnp.where(is_now, jnp.inf, after))


def _unit(before: jax.Array, after: jax.Array) -> jax.Array:
    """A factor for entries whose squares would overflow or vanish, f32[..., 1]; 1 for ordinary ones."""
    peak = jnp.maximum(
        jnp.max(jnp.abs(before), -1, keepdims=True), jnp.max(jnp.abs(after), -1, keepdims=True)
    )
    return unit_of(peak)


def _matrices(params: Any) -> _Matrices:
    """The reading of all matrices, in the order of the tree; without matrices, of all vectors as one."""
    leaves = map(jnp.asarray, filter(_leaves.is_inexact, jax.tree.leaves(params)))
    matrices = [x for x in leaves if x.ndim >= 2 and x.size]
    sides = [sides_of(x.shape) for x in matrices] or [(1, 1)]
    rows = [_entries(x, _MAX_ENTRIES_PER_MATRIX) for x in matrices] or [_sample_entries(params)]
    rows = [math.sqrt(inputs / row.size) * row for row, (inputs, _) in zip(rows, sides, strict=True)]
    width = max(row.size for row in rows)
    factors = [math.sqrt(rank_one(*pair)) if matrices else 1.0 for pair in sides]
    return _Matrices(
        _held(jnp.stack([jnp.pad(row, (0, width - row.size)) for row in rows])),
        jnp.asarray(factors, jnp.float32),
        jnp.asarray([min(pair) for pair in sides], jnp.float32),
    )


def _sample_entries(params: Any) -> jax.Array:
    """A fixed sub-sample of the entries of all parameters, f32[n]."""
    leaves = [x for x in map(jnp.asarray, filter(_leaves.is_inexact, jax.tree.leaves(params))) if x.size]
    if not leaves:  # one constant zero: an array without entries could not be saved
        return jnp.zeros((1,), jnp.float32)
    share = _MAX_ENTRIES / sum(x.size for x in leaves)
    return jnp.concatenate([_entries(x, share * x.size) for x in leaves])


def _entries(x: jax.Array, most: float) -> jax.Array:
    """A fixed sub-sample of about `most` entries of an array, f32[n]; real, then imaginary parts."""
    # An odd stride visits all columns of a matrix whose width is a power of two.
    entries = _strided(x, math.ceil(x.size / most) | 1)
    if not jnp.iscomplexobj(x):
        return entries.astype(jnp.float32)
    # Twice as many numbers: the factor keeps the mean square of an entry.
    return math.sqrt(2.0) * jnp.concatenate([entries.real, entries.imag]).astype(jnp.float32)


def _strided(x: jax.Array, stride: int) -> jax.Array:
    """Every `stride`-th entry of an array, [n]."""
    if not any(jax.typeof(x).sharding.spec):
        return jnp.ravel(x)[::stride]
    # The array is split over an Explicit mesh (the type says nothing of an Auto one): gather entry by entry.
    index = np.unravel_index(np.arange(0, x.size, stride), x.shape)
    return x.at[index].get(out_sharding=_sharding.replicated(x, 1))
