"""Connectome -> maximum spanning tree, by Prim's algorithm or by Boruvka's; its weights are the births."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from cgalr_jax import _checks
from cgalr_jax.topology._weights import LOWEST, as_square, from_keys, mirrored, to_keys, varying_like

if TYPE_CHECKING:
    from jaxtyping import Array, Float32, Int, Int32

__all__ = ["Tree", "check_options", "compute_births", "spanning_tree"]

_LANES = 32
# Units up to which an accelerator takes Prim's steps, each of a few small programs; a round of Boruvka's is
# dozens. On an H200, Prim takes 0.42 and Boruvka 0.84 ms for 64 units, 1.74 and 1.38 ms for 256.
_FEW = 64
_DOUBLINGS = 3  # of a pointer's reach in one program
_METHODS = ("auto", "prim", "boruvka")


class Tree(NamedTuple):
    """A maximum spanning tree, lightest edge first.

    Attributes:
        edges: i32[P-1, 2], pairs of units, the smaller first.
        weights: f32[P-1], ascending.
    """

    edges: Int32[Array, "P-1 2"]
    weights: Float32[Array, " P-1"]


def spanning_tree(connectome: jax.typing.ArrayLike, method: str = "auto", *, symmetrise: bool = True) -> Tree:
    """The maximum spanning tree: the P - 1 edges of largest total weight that join all units without a cycle.

    Weights may be any numbers, signed correlations, too. NaN counts as heavier than any number, so that the
    tree contains a NaN if the connectome does.

    Args:
        connectome: f32[P, P], any real dtype; only i < j is read.
        method: 'prim', P - 1 sequential steps over P numbers each, the fastest on CPUs; 'boruvka',
            ceil(log2 P) rounds over the whole matrix, for accelerators; or 'auto', which chooses by the
            platform it is compiled for: 'prim' on CPUs, and on accelerators up to 64 units. All find the same
            weights; among edges of equal weight they may choose different ones.
        symmetrise: whether to mirror the weights i < j first. With False the caller promises that the
            connectome equals its transpose, as `functional_connectome` returns it. That saves a pass over
            the matrix, on CPUs most of the time that a tree takes.

    Returns:
        A `Tree` of P - 1 edges.

    Raises:
        ValueError: if `connectome` is not square or not real, or `method` unknown.

    Example:
        >>> spanning_tree(jnp.array([[0.0, 0.9, 0.2], [0.9, 0.0, 0.4], [0.2, 0.4, 0.0]])).edges
        Array([[1, 2],
               [0, 1]], dtype=int32)
    """
    connectome = _checks.square_array("connectome", connectome)
    check_options(method, symmetrise)
    return _spanning_tree(connectome, method, bool(symmetrise))


def compute_births(
    connectome: jax.typing.ArrayLike, method: str = "auto", *, symmetrise: bool = True
) -> Float32[Array, " births"]:
    """Births of the connected components: the weights of the maximum spanning tree.

    Args:
        connectome: f32[P, P], any real dtype; only i < j is read.
        method: as for `spanning_tree`; all methods return the same births, bit for bit.
        symmetrise: as for `spanning_tree`.

    Returns:
        f32[P-1], ascending, whatever the sign of the weights; the last one is NaN if any weight is.

    Raises:
        ValueError: if `connectome` is not square or not real, or `method` unknown.

    Example:
        >>> compute_births(jnp.array([[0.0, 0.9, 0.2], [0.9, 0.0, 0.4], [0.2, 0.4, 0.0]]))
        Array([0.4, 0.9], dtype=float32)
    """
    return spanning_tree(connectome, method, symmetrise=symmetrise).weights


def check_options(method: str, symmetrise: bool) -> None:
    """Raises a ValueError unless `spanning_tree` takes these two arguments."""
    _checks.check_choice("method", method, _METHODS)
    _checks.check_flag("symmetrise", symmetrise)


@functools.partial(jax.jit, static_argnames=("method", "symmetrise"))
def _spanning_tree(connectome: jax.typing.ArrayLike, method: str, symmetrise: bool) -> Tree:
    """`spanning_tree` for checked arguments, compiled as one program."""
    connectome = as_square("connectome", connectome)
    found = _edges(mirrored(connectome) if symmetrise else connectome, method)
    edges = _Edges(*jax.lax.sort(tuple(found), num_keys=1))
    return Tree(jnp.stack([edges.low, edges.high], axis=1), from_keys(edges.key))


class _Edges(NamedTuple):
    """A set of edges, in any order."""

    key: Int32[Array, " edges"]  # the weight
    low: Int32[Array, " edges"]  # the smaller unit
    high: Int32[Array, " edges"]  # the larger unit


class _Growth(NamedTuple):
    """A tree that grows from unit 0: the carry of Prim's loop."""

    new: Int32[Array, ""]  # the unit that was reached last
    link: Int32[Array, " P"]  # key of the heaviest edge from the tree to each unit; `LOWEST` for units in it
    parent: Int32[Array, " P"]  # the end of that edge in the tree
    key: Int32[Array, " P-1"]  # keys of the edges found
    child: Int32[Array, " P-1"]  # the unit that each of them reached


class _Forest(NamedTuple):
    """Trees that merge, each identified by its root: the carry of Boruvka's loop."""

    root: Int32[Array, " P"]  # root of each unit's tree
    edge: _Edges  # for each of P units, the edge by which it stopped being a root


def _edges(connectome: Float32[Array, "P P"], method: str) -> _Edges:
    """The P - 1 edges of a maximum spanning tree of a symmetric connectome."""
    if connectome.shape[0] == 1:
        none = jnp.zeros(0, jnp.int32)
        return _Edges(none, none, none)
    if method == "boruvka":
        return _boruvka(connectome)
    few = method == "prim" or connectome.shape[0] <= _FEW
    return jax.lax.platform_dependent(connectome, cpu=_prim_of_each, default=_prim if few else _boruvka)


def _prim(connectome: Float32[Array, "P P"]) -> _Edges:
    """Adds the heaviest edge that leaves the tree, P - 1 times."""
    size = connectome.shape[0]
    unit = jnp.arange(size, dtype=jnp.int32)

    def grow(step: Int[Array, ""], tree: _Growth) -> _Growth:
        row = to_keys(connectome[tree.new])
        link = tree.link.at[tree.new].set(LOWEST)
        heavier = (link != LOWEST) & (row > link)
        link = jnp.where(heavier, row, link)
        parent = jnp.where(heavier, tree.new, tree.parent)
        # XLA does not vectorise argmax on CPUs: instead, the maximum, then the first place with this value.
        key = jnp.max(_fold(jnp.maximum, link))
        new = jnp.min(_fold(jnp.minimum, jnp.where(link == key, unit, size)))
        return _Growth(new, link, parent, tree.key.at[step].set(key), tree.child.at[step].set(new))

    none = jnp.zeros(size - 1, jnp.int32)
    start = _Growth(
        new=jnp.int32(0),
        link=jnp.full(size, LOWEST + 1, jnp.int32),
        parent=jnp.zeros(size, jnp.int32),
        key=none,
        child=none,
    )
    tree = jax.lax.fori_loop(0, size - 1, grow, varying_like(connectome, start))
    parent = tree.parent[tree.child]
    return _Edges(tree.key, jnp.minimum(parent, tree.child), jnp.maximum(parent, tree.child))


# On a CPU a batched loop would gather the row of each step: slower than one matrix after the other.
_prim_of_each = jax.custom_batching.sequential_vmap(_prim)


def _boruvka(connectome: Float32[Array, "P P"]) -> _Edges:
    """Adds the heaviest edge that leaves each tree, for all trees at once, ceil(log2 P) times.

    Edges of equal weight are ordered by (low, high). So two trees hook onto each other only if both chose the
    same edge; the smaller root of the two stays.
    """
    size = connectome.shape[0]
    rounds = (size - 1).bit_length()
    unit = jnp.arange(size, dtype=jnp.int32)
    keys = to_keys(connectome)

    def merge(_: Int[Array, ""], forest: _Forest) -> _Forest:
        root = forest.root
        outgoing = root[:, None] != root[None, :]
        key = jnp.max(jnp.where(outgoing, keys, LOWEST), axis=1)
        # Within a row, edges in the order of (low, high) are in the order of their columns.
        heaviest = outgoing & (keys == key[:, None])
        other = jnp.min(jnp.where(heaviest, unit[None, :], size), axis=1)
        chosen = _heaviest_of_each(root, key, other)

        hooks = chosen.low < size  # once all units are one tree, its root has no outgoing edge
        low, high = (jnp.where(hooks, end, 0) for end in (chosen.low, chosen.high))
        hook = jnp.where(hooks, root[low] + root[high] - unit, unit)
        stays = (hook[hook] == unit) & (unit < hook)
        hook = jnp.where(stays, unit, hook)
        edge = _Edges(
            *(jnp.where(hook != unit, new, old) for new, old in zip(chosen, forest.edge, strict=True))
        )
        return _Forest(jax.lax.fori_loop(0, -(-rounds // _DOUBLINGS), _jump, hook)[root], edge)

    none = jnp.zeros(size, jnp.int32)
    start = _Forest(unit, _Edges(none, none, none))
    forest = jax.lax.fori_loop(0, rounds, merge, varying_like(connectome, start))
    last = forest.root[0]
    hooked = jnp.arange(size - 1, dtype=jnp.int32)
    hooked = hooked + (hooked >= last).astype(jnp.int32)
    return _Edges(*(part[hooked] for part in forest.edge))


def _heaviest_of_each(root: Int32[Array, " P"], key: Int32[Array, " P"], other: Int32[Array, " P"]) -> _Edges:
    """Of the edges (unit, other), one per unit, the first of the heaviest in each tree; low = P if none."""
    size = root.size
    unit = jnp.arange(size, dtype=jnp.int32)
    low, high = jnp.minimum(unit, other), jnp.maximum(unit, other)
    exists = other < size
    best = jax.ops.segment_max(key, root, size)
    ties = exists & (key == best[root])
    first = jax.ops.segment_min(jnp.where(ties, low, size), root, size)
    ties = ties & (low == first[root])
    second = jax.ops.segment_min(jnp.where(ties, high, size), root, size)
    return _Edges(best, first, second)


def _jump(_: Int[Array, ""], parent: Int32[Array, " P"]) -> Int32[Array, " P"]:
    """Pointer jumping, `_DOUBLINGS` times: each pointer reaches eight times as far up the tree.

    What an accelerator pays for is the number of programs: a walk of several steps is one of them.
    """
    reached = parent
    for _ancestor in range(2**_DOUBLINGS - 1):
        reached = parent[reached]
    return reached


def _fold(
    operation: Callable[[jax.Array, jax.Array], jax.Array], values: Int32[Array, " n"]
) -> Int32[Array, " lanes"]:
    """Maximum or minimum of the two halves of a vector, repeated until `_LANES` values are left.

    XLA vectorises this better on CPUs than a plain reduction. In an odd length, the middle value is combined
    with itself, which maximum and minimum allow.
    """
    while values.size > _LANES:
        half = (values.size + 1) // 2
        values = operation(values[:half], values[-half:])
    return values
