"""Connectome -> barcode: when its components are born and its cycles die, as the edges come in by weight."""

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
    check_square,
    from_keys,
    keys_of,
    mirrored,
    nan_where,
    varying_like,
)
from cgalr_jax.topology.spanning_tree import check_options, spanning_tree

if TYPE_CHECKING:
    from jaxtyping import Array, Float32, Int, Int32, Shaped

__all__ = ["Barcode", "compute_barcode"]


class Barcode(NamedTuple):
    """Persistent graph homology of a connectome: its edge weights in two parts.

    Attributes:
        births: f32[P-1], of connected components, ascending: the maximum spanning tree.
        deaths: f32[P(P-1)/2 - (P-1)], of cycles, ascending: all other edges. Or their quantile function at
            equally spaced levels, f32[bins]; see `compute_barcode`.
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
    r"""Births and deaths: every edge weight is one or the other.

    All deaths by a sort, or by a histogram, for about the price of the births, their quantile function Q at
    the middles of `bins` equal steps. A death then lies in a bin of width 1 / bins and is taken for its
    centre, so each value is within 1 / (2 bins) of the exact Q there. Within a step Q, being monotone, strays
    from its middle by at most its rise there, r, and in the mean by r / 2; and all rises add up to at most 1.
    Hence, by the triangle inequality for two arrays, their distance (`distance.top_distance`) differs

    - from that of the exact quantiles at the same levels by at most 1 / bins, at every order;
    - from that of all deaths, at order 1, by at most 2 / bins;
    - at order 2, for b bins, by at most :math:`(1 + \sqrt{2 \omega b}) / b`, where :math:`\omega` is the
      largest rise of either Q in one step: of order 1 / b where the deaths leave no gaps.

    Args:
        connectome: f32[P, P], any real dtype; only i < j is read. With `bins`, weights in [0, 1]; without,
            any numbers.
        bins: None for all deaths; or 1 to 1024, 128 being enough to follow a training run (our choice). Takes
            memory for bins**2 counts.
        method: as for `spanning_tree`.
        symmetrise: as for `spanning_tree`.

    Returns:
        Barcode, all values ascending. With `bins`, deaths are f32[bins]: none if P < 3, and all of them NaN
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
    connectome = check_square("connectome", connectome)
    if bins is not None:
        _checks.check_integer("bins", bins, 1, 1024)
        bins = int(bins)
    check_options(method, symmetrise)
    return _compute_barcode(connectome, bins, method, bool(symmetrise))


@functools.partial(jax.jit, static_argnames=("bins", "method", "symmetrise"))
def _compute_barcode(
    connectome: jax.typing.ArrayLike, bins: int | None, method: str, symmetrise: bool
) -> Barcode:
    """`compute_barcode` of checked arguments, compiled as one."""
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
    """The sorted weights of all edges but those of the tree."""
    size = connectome.shape[0]
    low, high = tree[:, 0], tree[:, 1]
    keys = jnp.where(jnp.eye(size, dtype=bool), LOWEST, keys_of(connectome))  # the holes of `_row_of_edges`
    keys = keys.at[low, high].set(LOWEST).at[high, low].set(LOWEST)
    rows = jax.vmap(functools.partial(_row_of_edges, keys))(jnp.arange(size // 2, dtype=jnp.int32))
    parts = [part.ravel() for part in (*rows, keys[-1, : (size - 1) * (size % 2)])]
    return from_keys(jnp.sort(jnp.concatenate(parts))[size // 2 + size - 1 :])


def _quantiles(
    connectome: Float32[Array, "P P"], born: Float32[Array, " P-1"], bins: int
) -> Float32[Array, " levels"]:
    """Quantile function of all edges but the births, at the levels (0.5, 1.5, ...) / bins."""
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
    # The heaviest edge is the last birth, so that it shows NaN, too: no comparison is true for it.
    in_range = (counts[0] == 0) & (born[-1] <= 1)
    return nan_where(~in_range, centre)


def _histogram(connectome: Float32[Array, "P P"], bins: int, by_rows: bool) -> Int32[Array, " 1+{bins}"]:
    """Number of edges below 0, then of those in each bin.

    Two edges at a time, in a joint histogram whose margins are then added: the scatter is what it costs. On
    CPUs `by_rows`, so that the indices stay in the cache; at once where a loop would only wait for launches.
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
    """Every edge once, in P // 2 rows of 2 (P // 2): but for the last unit, when P is odd, and a hole a row.

    With A the first half of the units and B the second: the triangle within A and, below it, the triangle
    within B, the hole between them, at place `row`, where the diagonal is; then the edges from A to B.
    """
    half = matrix.shape[0] // 2
    unit = jnp.arange(half, dtype=jnp.int32)
    within_a, within_b = matrix[row, :half], matrix[half + row, half : 2 * half]
    return jnp.where(unit > row, within_a, within_b), matrix[row, half : 2 * half]


def _bin(weights: Float32[Array, "*shape"], bins: int) -> Int32[Array, "*shape"]:
    """Weights -> i32: 0 below 0, then 1 to `bins` for [0, 1]; anything else goes to one of the ends."""
    return jnp.where(weights < 0, 0, 1 + jnp.clip((weights * bins).astype(jnp.int32), 0, bins - 1))
