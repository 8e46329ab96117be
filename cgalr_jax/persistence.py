"""Connectome -> barcode: when its components are born and its cycles die, as the edges come in by weight.

Weights are compared as integers, by IEEE total order: exact where XLA flushes denormals to zero, and NaN has
a place in the order too, so that a tree is always found and the NaN weights of a unit are seen in it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

_LOWEST = jnp.iinfo(jnp.int32).min  # no edge: below the key of every number
_LANES = 32
_Carry = TypeVar("_Carry")
_METHODS = ("auto", "prim", "boruvka")


class Tree(NamedTuple):
    """A maximum spanning tree, lightest edge first.

    Attributes:
        edges: i32[P-1, 2], pairs of units, the smaller first.
        weights: f32[P-1], ascending.
    """

    edges: jax.Array
    weights: jax.Array


class Barcode(NamedTuple):
    """Persistent graph homology of a connectome: its edge weights in two parts.

    Attributes:
        births: f32[P-1], of connected components, ascending: the maximum spanning tree.
        deaths: f32[P(P-1)/2 - (P-1)], of cycles, ascending: all other edges. Or their quantile function at
            equally spaced levels, f32[bins]; see `barcode`.
    """

    births: jax.Array
    deaths: jax.Array


@functools.partial(jax.jit, static_argnames="method")
def births(connectome: jax.typing.ArrayLike, method: str = "auto") -> jax.Array:
    """Births of the connected components: the weights of the maximum spanning tree.

    Args:
        connectome: f32[P, P], symmetric; the diagonal is not read.
        method: as for `spanning_tree`; the same births bit for bit.

    Returns:
        f32[P-1], ascending.

    Raises:
        ValueError: if `connectome` is not square or `method` unknown.

    Example:
        >>> births(jnp.array([[0.0, 0.9, 0.2], [0.9, 0.0, 0.4], [0.2, 0.4, 0.0]]))
        Array([0.4, 0.9], dtype=float32)
    """
    return _from_keys(jnp.sort(_edges(_checked(connectome), method).key))


@functools.partial(jax.jit, static_argnames=("bins", "method"))
def barcode(connectome: jax.typing.ArrayLike, bins: int | None = None, method: str = "auto") -> Barcode:
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
        connectome: f32[P, P], symmetric; the diagonal is not read. With `bins`, weights in [0, 1].
        bins: None for all deaths; or 1 to 1024, 128 being enough to follow a training run (our choice). Takes
            memory for bins**2 counts.
        method: as for `spanning_tree`.

    Returns:
        Barcode, all values ascending. With `bins`, deaths are f32[bins]; none if P < 3, NaN if a birth is.

    Raises:
        ValueError: if `connectome` is not square, `bins` out of range or `method` unknown.

    Example:
        >>> connectome = jnp.array([[0.0, 0.9, 0.2], [0.9, 0.0, 0.4], [0.2, 0.4, 0.0]])
        >>> barcode(connectome).deaths
        Array([0.2], dtype=float32)
        >>> barcode(connectome, bins=2).deaths  # 0.2 lies in [0, 0.5)
        Array([0.25, 0.25], dtype=float32)
    """
    if bins is not None and not 1 <= bins <= 1024:
        raise ValueError(f"bins must be None or from 1 to 1024, got {bins!r}.")
    connectome = _checked(connectome)
    tree = _edges(connectome, method)
    born = _from_keys(jnp.sort(tree.key))
    return Barcode(born, _all_deaths(connectome, tree) if bins is None else _deaths(connectome, born, bins))


@functools.partial(jax.jit, static_argnames="method")
def spanning_tree(connectome: jax.typing.ArrayLike, method: str = "auto") -> Tree:
    """The maximum spanning tree: the P - 1 heaviest edges that join all units without a cycle.

    Args:
        connectome: f32[P, P], symmetric; the diagonal is not read.
        method: 'prim', P - 1 sequential steps over P numbers each, the fastest on CPUs; 'boruvka',
            ceil(log2 P) rounds over the whole matrix, for accelerators; or 'auto', chosen by the platform it
            is compiled for. All find the same weights; among equal weights they may choose other edges.

    Returns:
        Tree of P - 1 edges.

    Raises:
        ValueError: if `connectome` is not square or `method` unknown.

    Example:
        >>> spanning_tree(jnp.array([[0.0, 0.9, 0.2], [0.9, 0.0, 0.4], [0.2, 0.4, 0.0]])).edges
        Array([[1, 2],
               [0, 1]], dtype=int32)
    """
    edges = _Edges(*jax.lax.sort(tuple(_edges(_checked(connectome), method)), num_keys=1))
    return Tree(jnp.stack([edges.low, edges.high], axis=1), _from_keys(edges.key))


class _Edges(NamedTuple):
    """A set of edges, in any order."""

    key: jax.Array  # i32[n], the weight
    low: jax.Array  # i32[n], the smaller unit
    high: jax.Array  # i32[n], the larger unit


class _Growth(NamedTuple):
    """A tree that grows from unit 0: what Prim's loop carries."""

    new: jax.Array  # i32[], the unit that was reached last
    link: jax.Array  # i32[P], key of the heaviest edge from the tree to each unit, `_LOWEST` within
    parent: jax.Array  # i32[P], the end of that edge in the tree
    key: jax.Array  # i32[P-1], of the edges found
    child: jax.Array  # i32[P-1], the unit each of them reached


class _Forest(NamedTuple):
    """Trees that merge, each known by its root: what Boruvka's loop carries."""

    root: jax.Array  # i32[P], of the tree of each unit
    edge: _Edges  # i32[P] each, the edge by which a unit ceased to be a root


def _checked(connectome: jax.typing.ArrayLike) -> jax.Array:
    connectome = jnp.asarray(connectome)
    if connectome.ndim != 2 or connectome.shape[0] != connectome.shape[1] or connectome.size == 0:
        raise ValueError(f"connectome must be [P, P] with P at least 1, got shape {connectome.shape!r}.")
    return connectome.astype(jnp.float32)


def _edges(connectome: jax.Array, method: str) -> _Edges:
    """The P - 1 edges of a maximum spanning tree."""
    if method not in _METHODS:
        raise ValueError(f"method must be one of {_METHODS}, got {method!r}.")
    if connectome.shape[0] == 1:
        none = jnp.zeros(0, jnp.int32)
        return _Edges(none, none, none)
    if method == "auto":
        return jax.lax.platform_dependent(connectome, cpu=_prim, default=_boruvka)
    return (_prim if method == "prim" else _boruvka)(connectome)


@jax.custom_batching.sequential_vmap  # at once, the row of each step would be a gather: slower
def _prim(connectome: jax.Array) -> _Edges:
    """The heaviest edge that leaves the tree belongs to it; P - 1 times."""
    size = connectome.shape[0]
    unit = jnp.arange(size)

    def grow(step: jax.Array, tree: _Growth) -> _Growth:
        row = _keys(connectome[tree.new])
        link = tree.link.at[tree.new].set(_LOWEST)
        heavier = (link != _LOWEST) & (row > link)
        link = jnp.where(heavier, row, link)
        parent = jnp.where(heavier, tree.new, tree.parent)
        # Not argmax, which XLA does not vectorise on CPUs: the maximum, then the first place that holds it.
        key = jnp.max(_fold(jnp.maximum, link))
        new = jnp.min(_fold(jnp.minimum, jnp.where(link == key, unit, size)))
        return _Growth(new, link, parent, tree.key.at[step].set(key), tree.child.at[step].set(new))

    none = jnp.zeros(size - 1, jnp.int32)
    start = _Growth(jnp.int32(0), jnp.full(size, _LOWEST + 1), jnp.zeros(size, jnp.int32), none, none)
    tree = jax.lax.fori_loop(0, size - 1, grow, _varying_like(connectome, start))
    parent = tree.parent[tree.child]
    return _Edges(tree.key, jnp.minimum(parent, tree.child), jnp.maximum(parent, tree.child))


def _boruvka(connectome: jax.Array) -> _Edges:
    """The heaviest edge that leaves each tree belongs to the whole; all trees at once, ceil(log2 P) times.

    Equal weights are told apart by the edge, in the order of (low, high), so that only two trees that chose
    one and the same edge can hook onto each other; the smaller root of those two stays.
    """
    size = connectome.shape[0]
    rounds = (size - 1).bit_length()
    unit = jnp.arange(size)
    keys = _keys(connectome)
    # Rounding may leave a matrix product not quite symmetric; a cycle of hooks must be impossible.
    keys = jnp.where(unit[:, None] < unit[None, :], keys, keys.T)

    def merge(_: jax.Array, forest: _Forest) -> _Forest:
        root = forest.root
        outgoing = root[:, None] != root[None, :]
        key = jnp.max(jnp.where(outgoing, keys, _LOWEST), axis=1)
        # Along a row the order of the edges (low, high) is that of the columns.
        heaviest = outgoing & (keys == key[:, None])
        other = jnp.min(jnp.where(heaviest, unit[None, :], size), axis=1)
        chosen = _heaviest_of_each(root, key, other)

        hooks = chosen.low < size  # the root of all has no outgoing edge
        low, high = (jnp.where(hooks, end, 0) for end in (chosen.low, chosen.high))
        hook = jnp.where(hooks, root[low] + root[high] - unit, unit)
        stays = (hook[hook] == unit) & (unit < hook)
        hook = jnp.where(stays, unit, hook)
        edge = _Edges(
            *(jnp.where(hook != unit, new, old) for new, old in zip(chosen, forest.edge, strict=True))
        )
        return _Forest(jax.lax.fori_loop(0, rounds, _jump, hook)[root], edge)

    none = jnp.zeros(size, jnp.int32)
    start = _Forest(unit, _Edges(none, none, none))
    forest = jax.lax.fori_loop(0, rounds, merge, _varying_like(connectome, start))
    last = forest.root[0]
    hooked = jnp.arange(size - 1)
    hooked = hooked + (hooked >= last).astype(jnp.int32)
    return _Edges(*(part[hooked] for part in forest.edge))


def _heaviest_of_each(root: jax.Array, key: jax.Array, other: jax.Array) -> _Edges:
    """Of the edges (unit, other), one a unit, the first of the heaviest in each tree; low = P if none."""
    size = root.size
    unit = jnp.arange(size)
    low, high = jnp.minimum(unit, other), jnp.maximum(unit, other)
    exists = other < size
    best = jax.ops.segment_max(key, root, size)
    ties = exists & (key == best[root])
    first = jax.ops.segment_min(jnp.where(ties, low, size), root, size)
    ties = ties & (low == first[root])
    second = jax.ops.segment_min(jnp.where(ties, high, size), root, size)
    return _Edges(best, first, second)


def _jump(_: jax.Array, parent: jax.Array) -> jax.Array:
    """Pointer jumping: twice as far up the tree."""
    return parent[parent]


def _all_deaths(connectome: jax.Array, tree: _Edges) -> jax.Array:
    size = connectome.shape[0]
    keys = _keys(connectome).at[tree.low, tree.high].set(_LOWEST).at[tree.high, tree.low].set(_LOWEST)
    rows = jax.vmap(functools.partial(_row_of_edges, keys, hole=_LOWEST))(jnp.arange(size // 2))
    parts = [part.ravel() for part in (*rows, keys[-1, : (size - 1) * (size % 2)])]
    return _from_keys(jnp.sort(jnp.concatenate(parts))[size // 2 + size - 1 :])


def _deaths(connectome: jax.Array, born: jax.Array, bins: int) -> jax.Array:
    """Quantile function of all edges but the births, at the levels (0.5, 1.5, ...) / bins."""
    size = connectome.shape[0]
    total = (size - 1) * (size - 2) // 2
    if total == 0:
        return jnp.zeros(0)
    by_rows = jax.custom_batching.sequential_vmap(functools.partial(_histogram, bins=bins, by_rows=True))
    at_once = functools.partial(_histogram, bins=bins, by_rows=False)
    counts = jax.lax.platform_dependent(connectome, cpu=by_rows, default=at_once)
    up_to = jnp.cumsum(counts.at[_bin(born, bins)].add(-1))
    rank = ((2 * np.arange(bins) + 1) * total // (2 * bins)).astype(np.int32)
    index = jnp.sum((up_to[None, :] <= rank[:, None]).astype(jnp.int32), axis=1)
    centre = (index.astype(jnp.float32) + 0.5) / bins
    return jnp.where(jnp.isnan(born).any(), jnp.nan, centre)


def _histogram(connectome: jax.Array, bins: int, by_rows: bool) -> jax.Array:
    """Number of edges in each bin, i32[bins].

    Two edges at a time, in a joint histogram whose margins are then added: the scatter is what it costs. On
    CPUs `by_rows`, so that the indices stay in the cache; at once where a loop would only wait for launches.
    """
    size = connectome.shape[0]

    def index(row: jax.Array) -> jax.Array:
        first, second = _row_of_edges(connectome, row, hole=-1)
        return jnp.where(first < 0, bins, _bin(first, bins)) * bins + _bin(second, bins)

    def count(row: jax.Array, joint: jax.Array) -> jax.Array:
        return joint.at[index(row)].add(1, mode="promise_in_bounds")

    joint = jnp.zeros((bins + 1) * bins, jnp.int32)
    if by_rows:
        joint = jax.lax.fori_loop(0, size // 2, count, _varying_like(connectome, joint))
    else:
        joint = joint.at[jax.vmap(index)(jnp.arange(size // 2))].add(1, mode="promise_in_bounds")
    joint = joint.reshape(bins + 1, bins)
    counts = joint[:bins].sum(axis=1) + joint.sum(axis=0)
    return counts.at[_bin(connectome[-1, :-1], bins)].add(1) if size % 2 else counts


def _row_of_edges(matrix: jax.Array, row: jax.Array, hole: int) -> tuple[jax.Array, jax.Array]:
    """Every edge once, in P // 2 rows of 2 (P // 2): but for the last unit, when P is odd, and a hole a row.

    With A the first half of the units and B the second: the triangle within A and, below it, the triangle
    within B, the hole between them; then the edges from A to B.
    """
    half = matrix.shape[0] // 2
    unit = jnp.arange(half)
    within_a, within_b = matrix[row, :half], matrix[half + row, half : 2 * half]
    triangles = jnp.where(unit > row, within_a, within_b)
    return jnp.where(unit == row, hole, triangles), matrix[row, half : 2 * half]


def _bin(weights: jax.Array, bins: int) -> jax.Array:
    """Weights in [0, 1] -> i32 in [0, bins); anything else goes to one of the ends."""
    return jnp.clip((weights * bins).astype(jnp.int32), 0, bins - 1)


def _varying_like(connectome: jax.Array, start: _Carry) -> _Carry:
    """The integers that a loop starts from, varying over the same devices as its input, for `shard_map`."""
    nothing = 0 * _keys(connectome[0, 0])
    return jax.tree.map(lambda part: part + nothing, start)


def _fold(operation: Callable[[jax.Array, jax.Array], jax.Array], values: jax.Array) -> jax.Array:
    """Maximum or minimum of the two halves of a vector, and so on until a few lanes are left.

    XLA vectorises this better on CPUs than a plain reduction. The middle of an odd length meets itself: no
    matter to an idempotent operation.
    """
    while values.size > _LANES:
        half = (values.size + 1) // 2
        values = operation(values[:half], values[-half:])
    return values


def _keys(weights: jax.Array) -> jax.Array:
    """float32 -> int32 in the same order."""
    return _total_order(jax.lax.bitcast_convert_type(weights, jnp.int32))


def _from_keys(keys: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(_total_order(keys), jnp.float32)


def _total_order(bits: jax.Array) -> jax.Array:
    """Bits of a float32, whose negative numbers run backwards, to an ordered integer; its own inverse."""
    return bits ^ ((bits >> 31) & jnp.iinfo(jnp.int32).max)
