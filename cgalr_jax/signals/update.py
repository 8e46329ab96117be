"""Signals that read parameters: how far they moved, relative to their size."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _leaves, _sharding
from cgalr_jax.layers import Layers
from cgalr_jax.signals.base import Signal, positive

__all__ = ["largest_share", "relative_update", "update_norm"]

# The largest number of parameters that `update_norm` looks at, and `relative_update` per matrix.
_MAX_ENTRIES, _MAX_ENTRIES_PER_MATRIX = 4096, 1024
# A matrix that moves less than this share of the one that moves most is frozen.
_FROZEN = 1e-3
# One that moves less than this share counts as this share: a mean of logarithms must not follow the slowest.
_SLOWEST = 1 / 30


def update_norm(*, set_point: float | None = None) -> Signal:
    """The relative norm of the update of all parameters: no connectome at all, the control to compare with.

    `|params_t - params_{t - every}| / |params_{t - every}|`, from a static sub-sample of at most 4096
    entries. It needs no probe and no activations. Its set-point was found on layers of some thirty units and
    does not carry over: at real size it lets the rate grow 2 to 14 times too large, see `relative_update`.
    Parameters that are frozen count in the denominator: where they are most of the tree, it says far too
    little. Where all parameters start at zero, it says far too much.

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


def relative_update(*, set_point: float | None = None) -> Signal:
    """How far the weight matrices moved, each in a unit that hardly depends on its width; their mean.

    The Frobenius norm of an update of low rank is small beside that of a random matrix of n x m with the same
    largest singular value: by up to `f = sqrt(n m) / (sqrt n + sqrt m)`, for an update of rank one. How low
    the rank of an update is, varies; half-way, on a logarithmic scale, is what carries over best. So a matrix
    moved by

    ```
    sqrt(f) |W' - W|_F / max(|W|_F, sqrt m).
    ```

    `sqrt m` is the size that an initialisation of variance 1 / n gives it. Matrices that start smaller grow
    to about that, and count by it: those that start at zero (heads, residual gates, LoRA's B), whose first
    update would be infinitely large, and those of a transformer that start at a deviation of 0.02.

    - The distance is the geometric mean over matrices, each weighted by its smaller side: by the number of
      its directions. One that moves less than a thirtieth as far as the fastest counts as a thirtieth, and
      one that moves less than a thousandth is frozen, and left out.
    - What is a matrix: an array of two axes or more, real or complex. Axes are split into inputs and outputs
      where that is most balanced: [height, width, in, out] of a convolution is (height width in) x out, [in,
      heads, dim] of an attention in x (heads dim), [heads, dim, out] (heads dim) x out. A stack of layers,
      [layers, in, out], is one matrix of (layers in) x out: at most 1.4 times what its layers would say.
    - Biases, gains and other vectors are left out, unless there is nothing else; as stacks, [layers,
      features], they weigh as little as a matrix of so many rows.
    - Of an embedding only the rows that occurred move, which makes it slow; the mean bears it.

    Read from a static sub-sample of at most 1024 entries per matrix: no copy of the parameters is kept.

    Args:
        set_point: distance that is fast enough; positive. Default: 0.5.

    Returns:
        A `Signal`; its reading is one record: a row of entries per matrix, and two numbers about its shape.

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
        # The comparison is false for NaN: a matrix that overflowed is not left out.
        weights = jnp.where(each <= _FROZEN * fastest, 0.0, after.directions)
        logarithms = jnp.log(jnp.maximum(jnp.maximum(each, _SLOWEST * fastest), jnp.finfo(jnp.float32).tiny))
        mean = jnp.sum(weights * logarithms) / jnp.maximum(jnp.sum(weights), 1.0)
        mean = jnp.where(fastest > 0, jnp.exp(mean), 0.0)
        return jnp.where(jnp.all(jnp.isfinite(each)), mean, jnp.inf)

    return Signal(read, compare, positive(set_point, 0.5), reads_activations=False, reads_params=True)


def largest_share(updates: Any, params: Any) -> jax.Array:
    """What share of its largest singular value one update may change a matrix by, at most, f32[].

    The largest, over matrices of n x m, of `|U|_F / max(|W|_F, sqrt m) * sqrt(n m) / (sqrt n + sqrt m)`:
    of an update of rank one it is the very share. Matrices are told from other arrays as in
    `relative_update`; all vectors together count as one matrix if there is nothing else. Where steps are
    scaled down to a tenth of it, squared losses that diverge within a few steps, before any measurement, do
    not.

    Args:
        updates: what is to be added to the parameters, of their form.
        params: the parameters.

    Returns:
        f32[], at least 0; 0 of a tree without parameters that train, not finite where an update is not.

    Example:
        >>> params = {"w": jnp.ones((64, 64)) / 8, "b": jnp.zeros(64)}
        >>> updates = {"w": jnp.zeros((64, 64)).at[0, 0].set(0.2), "b": jnp.ones(64)}
        >>> print(f"{largest_share(updates, params):.2f}")
        0.10
    """
    leaves, form = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
    try:
        weights = form.flatten_up_to(params)
    except ValueError:  # wrapped, as by optax.lookahead: which is whose cannot be known
        return jnp.zeros((), jnp.float32)
    pairs = [
        (jnp.asarray(u), jnp.asarray(w))
        for u, w in zip(leaves, weights, strict=True)
        if _leaves.is_inexact(w) and _leaves.is_inexact(u) and jnp.size(w) and jnp.shape(u) == jnp.shape(w)
    ]
    shares = [_share(u, w, *_sides(w.shape)) for u, w in pairs if w.ndim >= 2]
    if not shares and pairs:
        update, size = (jnp.sqrt(sum(_norm(x) ** 2 for x in each)) for each in zip(*pairs, strict=True))
        outputs = sum(w.size for _, w in pairs)
        shares = [update / jnp.maximum(size, math.sqrt(outputs))]
    return jnp.max(jnp.stack(shares)) if shares else jnp.zeros((), jnp.float32)


def _share(update: jax.Array, matrix: jax.Array, inputs: int, outputs: int) -> jax.Array:
    size = jnp.maximum(_norm(matrix), math.sqrt(outputs))
    return _rank_one(inputs, outputs) * _norm(update) / size


def _rank_one(inputs: int, outputs: int) -> float:
    """Frobenius norm of a random matrix over that of one of rank one, at the same largest singular value."""
    return math.sqrt(inputs * outputs) / (math.sqrt(inputs) + math.sqrt(outputs))


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(x).astype(jnp.float32))))


class _Matrices(NamedTuple):
    """What is kept of the matrices, in one record whatever the tree: a row for each."""

    # f32[matrices, entries], each row times sqrt(n / entries) and filled up with zeros: its norm is 1 after
    # an initialisation of variance 1 / n.
    entries: jax.Array
    factors: jax.Array  # f32[matrices], sqrt(f) with f = sqrt(n m) / (sqrt n + sqrt m)
    directions: jax.Array  # f32[matrices], min(n, m)


def _motions(before: _Matrices, after: _Matrices) -> jax.Array:
    """How far each matrix moved, f32[matrices]."""
    size = jnp.linalg.norm(before.entries, axis=1)
    moved = jnp.linalg.norm(after.entries - before.entries, axis=1)
    return after.factors * moved / jnp.maximum(size, 1.0)


def _matrices(params: Any) -> _Matrices:
    """What is kept of each matrix, in the order of the tree; of a tree without one, the vectors as one."""
    leaves = map(jnp.asarray, filter(_leaves.is_inexact, jax.tree.leaves(params)))
    matrices = [x for x in leaves if x.ndim >= 2 and x.size]
    sides = [_sides(x.shape) for x in matrices] or [(1, 1)]
    rows = [_entries(x, _MAX_ENTRIES_PER_MATRIX) for x in matrices] or [_sample_entries(params)]
    rows = [math.sqrt(inputs / row.size) * row for row, (inputs, _) in zip(rows, sides, strict=True)]
    width = max(row.size for row in rows)
    factors = [math.sqrt(_rank_one(*pair)) if matrices else 1.0 for pair in sides]
    return _Matrices(
        jnp.stack([jnp.pad(row, (0, width - row.size)) for row in rows]),
        jnp.asarray(factors, jnp.float32),
        jnp.asarray([min(pair) for pair in sides], jnp.float32),
    )


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of an array of two axes or more: the split of its axes that is most balanced."""
    splits = [(math.prod(shape[:axis]), math.prod(shape[axis:])) for axis in range(1, len(shape))]
    return max(splits, key=min)


def _sample_entries(params: Any) -> jax.Array:
    """A static sub-sample of the entries of all parameters, f32[n]."""
    leaves = [x for x in map(jnp.asarray, filter(_leaves.is_inexact, jax.tree.leaves(params))) if x.size]
    if not leaves:  # one zero that never moves: an array without entries could not be saved
        return jnp.zeros((1,), jnp.float32)
    share = _MAX_ENTRIES / sum(x.size for x in leaves)
    return jnp.concatenate([_entries(x, share * x.size) for x in leaves])


def _entries(x: jax.Array, most: float) -> jax.Array:
    """A static sub-sample of about `most` entries of an array, f32[n]; real and imaginary parts apart."""
    # An odd stride visits all columns of a matrix whose width is a power of two.
    entries = _strided(x, math.ceil(x.size / most) | 1)
    if not jnp.iscomplexobj(x):
        return entries.astype(jnp.float32)
    # The root of two keeps the mean square of an entry.
    return math.sqrt(2.0) * jnp.concatenate([entries.real, entries.imag]).astype(jnp.float32)


def _strided(x: jax.Array, stride: int) -> jax.Array:
    """Each `stride`-th entry of an array, [n]."""
    if not any(jax.typeof(x).sharding.spec):
        return jnp.ravel(x)[::stride]
    # Split over an Explicit mesh (on an Auto one the type says nothing): gathered entry by entry.
    index = np.unravel_index(np.arange(0, x.size, stride), x.shape)
    return x.at[index].get(out_sharding=_sharding.replicated(x, 1))
