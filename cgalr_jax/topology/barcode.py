"""Connectome -> barcode: the weights at which components are born and cycles die as a threshold rises."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks
from cgalr_jax.topology._weights import (
    LOWEST,
    as_square,
    from_keys,
    mirrored,
    nan_where,
    to_keys,
    varying_like,
)
from cgalr_jax.topology.spanning_tree import check_options, spanning_tree

if TYPE_CHECKING:
    from jaxtyping import Array, Float32, Int, Int32, Shaped

__all__ = ["Barcode", "compute_barcode"]


class Barcode(NamedTuple):
    """Persistent graph homology of a connectome: its edge weights in two parts.

    Attributes:
        births: f32[P-1], ascending: births of connected components, the weights of the maximum spanning tree.
        deaths: f32[P(P-1)/2 - (P-1)], ascending: deaths of cycles, the weights of all other edges; or their
            quantile function at equally spaced levels, f32[bins], see `compute_barcode`.
    """

    births: Float32[Array, " births"]
    deaths: Float32[Array, " deaths"]


def compute_barcode(
    connectome: jax.typing.ArrayLike,
    bins: int | None = None,
    method: str = "auto",
    *,
    symmetrise: bool = True,
) -> Barcode:
    r"""Births and deaths of a connectome; each edge weight is one or the other.

    Without `bins`, all deaths are computed, by a sort. With `bins`, a histogram gives the quantile function Q
    of the deaths at the middles of `bins` equal steps, at about the cost of the births. Each death is
    replaced by the centre of its bin, of width 1 / bins, so that each value is within 1 / (2 bins) of the
    exact Q. Within a step in which the monotone Q rises by r, it differs from its value at the middle by at
    most r, and by at most r / 2 in the mean; all rises add up to at most 1. Hence, by the triangle
    inequality, the distance of two such arrays (`top_distance`) differs

    - from the distance of the exact quantiles at the same levels by at most 1 / bins, at every order;
    - from the distance of all deaths, at order 1, by at most 2 / bins;
    - from the distance of all deaths, at order 2 and for b bins, by at most
      :math:`(1 + \sqrt{2 \omega b}) / b`, where :math:`\omega` is the largest rise of either Q in one step:
      of order 1 / b if there are no gaps between the deaths.

    Args:
        connectome: f32[P, P], any real dtype; only i < j is read. With `bins`, weights in [0, 1]; without,
            any numbers.
        bins: None for all deaths; or 1 to 1024: 128 are enough to follow a training run. Takes memory for
            bins**2 counts.
        method: as for `spanning_tree`.
        symmetrise: as for `spanning_tree`.

    Returns:
        A `Barcode`, all values ascending. With `bins`, deaths are f32[bins], or f32[0] if P < 3; all are NaN
        if a weight is NaN or outside [0, 1].

    Raises:
        ValueError: if `connectome` is not square or not real, `bins` out of range or `method` unknown.

    Example:
        >>> connectome = jnp.array([[0.0, 0.9, 0.2], [0.9, 0.0, 0.4], [0.2, 0.4, 0.0]])
        >>> compute_barcode(connectome).deaths
        Array([0.2], dtype=float32)
        >>> compute_barcode(connectome, bins=2).deaths  # 0.2 lies in [0, 0.5)
        Array([0.25, 0.25], dtype=float32)
    """
    connectome = _checks.square_array("connectome", connectome)
    if bins is not None:
        bins = _checks.check_integer("bins", bins, 1, 1024)
    check_options(method, symmetrise)
    return _compute_barcode(connectome, bins, method, bool(symmetrise))


@functools.partial(jax.jit, static_argnames=("bins", "method", "symmetrise"))
def _compute_barcode(
    connectome: jax.typing.ArrayLike, bins: int | None, method: str, symmetrise: bool
) -> Barcode:
    """`compute_barcode` for checked arguments, compiled as one program."""
    connectome = as_square("connectome", connectome)
    if symmetrise:
        connectome = mirrored(connectome)
    tree = spanning_tree(connectome, method, symmetrise=False)
    if bins is None:
        return Barcode(tree.weights, _all_deaths(connectome, tree.edges))
    return Barcode(tree.weights, _quantiles(connectome, tree.weights, bins))


def _all_deaths(
    connectome: Float32[Array, "P P"], tree: Int32[Array, "P-1 2"]
) -> Float32[Array, " (P-1)*(P-2)//2"]:
    """The sorted weights of all edges outside of the tree."""
    size = connectome.shape[0]
    low, high = tree[:, 0], tree[:, 1]
    keys = jnp.where(jnp.eye(size, dtype=bool), LOWEST, to_keys(connectome))  # the holes of `_row_of_edges`
    keys = keys.at[low, high].set(LOWEST).at[high, low].set(LOWEST)
    rows = jax.vmap(functools.partial(_row_of_edges, keys))(jnp.arange(size // 2, dtype=jnp.int32))
    parts = [part.ravel() for part in (*rows, keys[-1, : (size - 1) * (size % 2)])]
    return from_keys(jnp.sort(jnp.concatenate(parts))[size // 2 + size - 1 :])


def _quantiles(
    connectome: Float32[Array, "P P"], born: Float32[Array, " P-1"], bins: int
) -> Float32[Array, " levels"]:
    """Quantile function of the deaths, at the levels (0.5, 1.5, ...) / bins."""
    size = connectome.shape[0]
    total = (size - 1) * (size - 2) // 2
    if total == 0:
        return jnp.zeros(0, jnp.float32)
    by_rows = jax.custom_batching.sequential_vmap(functools.partial(_histogram, bins=bins, by_rows=True))
    at_once = functools.partial(_histogram, bins=bins, by_rows=False)
    counts = jax.lax.platform_dependent(connectome, cpu=by_rows, default=at_once)
    up_to = jnp.cumsum(counts.at[_bin(born, bins)].add(-1)[1:], dtype=jnp.int32)
    rank = ((2 * np.arange(bins) + 1) * total // (2 * bins)).astype(np.int32)
    index = jnp.sum((up_to[None, :] <= rank[:, None]).astype(jnp.int32), axis=1, dtype=jnp.int32)
    centre = (index.astype(jnp.float32) + 0.5) / bins
    # The heaviest edge is the last birth: it is NaN if any weight is, and no comparison with NaN is true.
    in_range = (counts[0] == 0) & (born[-1] <= 1)
    return nan_where(~in_range, centre)


def _histogram(connectome: Float32[Array, "P P"], bins: int, by_rows: bool) -> Int32[Array, " 1+{bins}"]:
    """Number of edges with a weight below 0, followed by the number of edges in each bin.

    Two edges at a time go into a joint histogram, whose margins are then added: the cost is in the scatter.
    `by_rows` is for CPUs: the indices stay in the cache. Without it, one scatter does all: on accelerators a
    loop would wait for kernel launches.
    """
    size = connectome.shape[0]
    unit = jnp.arange(size // 2, dtype=jnp.int32)
    holes = bins + 1  # a row of the joint histogram that is not added

    def index(row: Int[Array, ""]) -> Int32[Array, " half"]:
        first, second = (_bin(weights, bins) for weights in _row_of_edges(connectome, row))
        return jnp.where(unit == row, holes, first) * (bins + 1) + second

    def count(row: Int[Array, ""], joint: Int32[Array, " bins"]) -> Int32[Array, " bins"]:
        return joint.at[index(row)].add(1, mode="promise_in_bounds")

    joint = jnp.zeros((bins + 2) * (bins + 1), jnp.int32)
    if by_rows:
        joint = jax.lax.fori_loop(0, size // 2, count, varying_like(connectome, joint))
    else:
        joint = joint.at[jax.vmap(index)(unit)].add(1, mode="promise_in_bounds")
    joint = joint.reshape(bins + 2, bins + 1)
    counts = joint[:holes].sum(axis=1, dtype=jnp.int32) + joint.sum(axis=0, dtype=jnp.int32)
    return counts.at[_bin(connectome[-1, :-1], bins)].add(1) if size % 2 else counts


def _row_of_edges(
    matrix: Shaped[Array, "P P"], row: Int[Array, ""]
) -> tuple[Shaped[Array, " P//2"], Shaped[Array, " P//2"]]:
    """One of P // 2 rows of 2 (P // 2) weights, which together hold each edge once, and one hole per row.

    If P is odd, the edges of the last unit are left out. Let A be the first half of the units and B the
    second. The first part of a row holds edges within B before place `row`, edges within A after it, and at
    `row` the hole, an entry of the diagonal. The second part holds edges from A to B.
    """
    half = matrix.shape[0] // 2
    unit = jnp.arange(half, dtype=jnp.int32)
    within_a, within_b = matrix[row, :half], matrix[half + row, half : 2 * half]
    return jnp.where(unit > row, within_a, within_b), matrix[row, half : 2 * half]


def _bin(weights: Float32[Array, "*shape"], bins: int) -> Int32[Array, "*shape"]:
    """Weights -> i32: 0 below 0, 1 to `bins` within [0, 1]; above 1, and for NaN, any of them."""
    # As bits, above those of -0: compared as floats, XLA takes a negative denormal for 0.
    negative = jax.lax.bitcast_convert_type(weights, jnp.uint32) > jnp.uint32(1 << 31)
    return jnp.where(negative, 0, 1 + jnp.clip((weights * bins).astype(jnp.int32), 0, bins - 1))
