"""Connectome -> barcode: when its components are born and its cycles die, as the edges come in by weight.

Weights are compared as integers, by IEEE total order: exact where XLA flushes denormals to zero, and NaN has
a place in the order too, so that a tree is always found and the NaN weights of a unit are seen in it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_IN_TREE = jnp.iinfo(jnp.int32).min  # below the key of every number


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
        deaths: f32[P(P-1)/2 - (P-1)], of cycles, ascending: all other edges.
    """

    births: jax.Array
    deaths: jax.Array


def births(connectome: jax.typing.ArrayLike) -> jax.Array:
    """Births of the connected components: the weights of the maximum spanning tree.

    Args:
        connectome: f32[P, P], symmetric; the diagonal is not read.

    Returns:
        f32[P-1], ascending.

    Raises:
        ValueError: if `connectome` is not square.

    Example:
        >>> births(jnp.array([[0.0, 0.9, 0.2], [0.9, 0.0, 0.4], [0.2, 0.4, 0.0]]))
        Array([0.4, 0.9], dtype=float32)
    """
    return spanning_tree(connectome).weights


def barcode(connectome: jax.typing.ArrayLike) -> Barcode:
    """Births and deaths: every edge weight is one or the other.

    Args:
        connectome: f32[P, P], symmetric; the diagonal is not read.

    Raises:
        ValueError: if `connectome` is not square.

    Example:
        >>> barcode(jnp.array([[0.0, 0.9, 0.2], [0.9, 0.0, 0.4], [0.2, 0.4, 0.0]])).deaths
        Array([0.2], dtype=float32)
    """
    tree = spanning_tree(connectome)
    connectome = jnp.asarray(connectome)
    i, j = jnp.triu_indices(connectome.shape[0], 1)
    outside = jnp.ones(connectome.shape, bool).at[tree.edges[:, 0], tree.edges[:, 1]].set(False)
    keys = jnp.where(outside, _keys(connectome), _IN_TREE)[i, j]
    return Barcode(tree.weights, _weights(jnp.sort(keys)[tree.weights.size :]))


def spanning_tree(connectome: jax.typing.ArrayLike) -> Tree:
    """The maximum spanning tree, by Prim's algorithm on the dense matrix.

    Args:
        connectome: f32[P, P], symmetric; the diagonal is not read.

    Returns:
        Tree of P - 1 edges.

    Raises:
        ValueError: if `connectome` is not square.

    Example:
        >>> spanning_tree(jnp.array([[0.0, 0.9, 0.2], [0.9, 0.0, 0.4], [0.2, 0.4, 0.0]])).edges
        Array([[1, 2],
               [0, 1]], dtype=int32)
    """
    connectome = jnp.asarray(connectome)
    if connectome.ndim != 2 or connectome.shape[0] != connectome.shape[1] or connectome.size == 0:
        raise ValueError(f"connectome must be [P, P] with P at least 1, got shape {connectome.shape!r}.")
    keys, low, high = _prim(connectome.astype(jnp.float32))
    keys, low, high = jax.lax.sort((keys, low, high), num_keys=3)
    return Tree(jnp.stack([low, high], axis=1), _weights(keys))


class _Growth(NamedTuple):
    """A tree that grows from unit 0: what Prim's loop carries."""

    link: jax.Array  # i32[P], key of the heaviest edge from the tree to each unit, `_IN_TREE` within
    parent: jax.Array  # i32[P], the end of that edge in the tree
    keys: jax.Array  # i32[P-1], of the edges found
    child: jax.Array  # i32[P-1], the unit each of them brought in


def _prim(connectome: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The heaviest edge that leaves the tree belongs to it; P - 1 times."""
    size = connectome.shape[0]
    unit = jnp.arange(size)

    def grow(step: jax.Array, tree: _Growth) -> _Growth:
        # Not argmax, which XLA does not vectorise on CPUs: the maximum, then the first place that holds it.
        key = jnp.max(tree.link)
        new = jnp.min(jnp.where(tree.link == key, unit, size))
        row = _keys(connectome[new])
        outside = (tree.link != _IN_TREE) & (unit != new)
        return _Growth(
            link=jnp.where(outside, jnp.maximum(tree.link, row), _IN_TREE),
            parent=jnp.where(outside & (row > tree.link), new, tree.parent),
            keys=tree.keys.at[step].set(key),
            child=tree.child.at[step].set(new),
        )

    none = jnp.zeros(size - 1, jnp.int32)
    start = _Growth(jnp.where(unit == 0, _IN_TREE, _keys(connectome[0])), jnp.zeros_like(unit), none, none)
    tree = jax.lax.fori_loop(0, size - 1, grow, start) if size > 1 else start
    parent = tree.parent[tree.child]
    return tree.keys, jnp.minimum(parent, tree.child), jnp.maximum(parent, tree.child)


def _keys(weights: jax.Array) -> jax.Array:
    """float32 -> int32 in the same order; its own inverse on the bits."""
    bits = jax.lax.bitcast_convert_type(weights, jnp.int32)
    return bits ^ ((bits >> 31) & jnp.iinfo(jnp.int32).max)


def _weights(keys: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(keys ^ ((keys >> 31) & jnp.iinfo(jnp.int32).max), jnp.float32)
