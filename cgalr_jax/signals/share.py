"""How far one update moves the parameters: what bounds a step of the optimizer."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from cgalr_jax import _checks, _leaves
from cgalr_jax.signals._matrices import rank_one, sides_of

__all__ = ["largest_share", "share_if_alike"]


def largest_share(updates: Any, params: Any) -> jax.Array:
    """The largest change of an array by an update, relative to the size of the array.

    Of a matrix of n x m it is estimated, from norms, relative to the largest singular value:
    `|U|_F / max(|W|_F, sqrt m) * sqrt(n m) / (sqrt n + sqrt m)`. For an update of rank one this is the share
    itself. `relative_update` says which arrays are matrices. Any other array, a bias, a gain, or the weights
    of a single output, is relative to its norm: `|u| / max(|w|, sqrt m)` of m entries. `max_share` of
    `scale_by_connectome` limits each step by the largest of these: without a limit, training with a squared
    loss can diverge within a few steps, before any measurement.

    Args:
        updates: what is to be added to the parameters, of the same tree structure and shapes; None in the
            place of what gets none.
        params: the parameters, arrays where there are updates.

    Returns:
        f32[], at least 0; 0 for a tree without parameters that train, infinite if the square of the update's
        norm is, NaN if the update is.

    Raises:
        ValueError: if the two differ in structure or shapes, or a leaf is no array.

    Example:
        >>> params = {"w": jnp.ones((64, 64)) / 8, "b": jnp.zeros(64)}
        >>> updates = {"w": jnp.zeros((64, 64)).at[0, 0].set(0.2), "b": jnp.full(64, 0.01)}
        >>> print(f"{largest_share(updates, params):.2f}")
        0.10
    """
    pairs = _pairs(updates, params)
    if pairs is None:
        raise ValueError(
            "updates must have the structure and shapes of params, "
            f"{_checks.shown(jax.tree.structure(params))}, got {_checks.shown(jax.tree.structure(updates))}."
        )
    for path, update, weight in pairs:
        arrays = _leaves.is_array(update) and _leaves.is_array(weight)
        if update is not None and not (arrays and jnp.shape(update) == jnp.shape(weight)):
            raise ValueError(
                f"updates must be arrays with the shapes of params, got {_checks.shown(update)} for "
                f"{_checks.shown(weight)} at updates{jax.tree_util.keystr(path)}."
            )
    return _largest(_that_train(pairs))


def share_if_alike(updates: Any, params: Any) -> jax.Array | None:
    """`largest_share` of any two trees: what cannot be matched, or is no array, counts for nothing.

    None if that leaves nothing.
    """
    pairs = _that_train(_pairs(updates, params) or [])
    return _largest(pairs) if pairs else None


_Pairs = list[tuple[jax.tree_util.KeyPath, Any, Any]]
_Matched = list[tuple[jax.Array, jax.Array]]


def _pairs(updates: Any, params: Any) -> _Pairs | None:
    """Where each update is, the update, its parameter; None for other trees, as with optax.lookahead."""
    leaves, form = jax.tree_util.tree_flatten_with_path(updates, is_leaf=lambda x: x is None)
    try:
        weights = form.flatten_up_to(params)
    except ValueError:
        return None
    return [(*leaf, weight) for leaf, weight in zip(leaves, weights, strict=True)]


def _that_train(pairs: _Pairs) -> _Matched:
    """The pairs of numbers that train."""
    return [
        (jnp.asarray(u), jnp.asarray(w))
        for _, u, w in pairs
        if _leaves.is_inexact(w) and _leaves.is_inexact(u) and jnp.size(w) and jnp.shape(u) == jnp.shape(w)
    ]


def _largest(pairs: _Matched) -> jax.Array:
    """`largest_share` of these pairs."""
    return jnp.max(jnp.stack([_share(*pair) for pair in pairs])) if pairs else jnp.zeros((), jnp.float32)


def _share(update: jax.Array, weight: jax.Array) -> jax.Array:
    if weight.ndim < 2:
        return _norm(update) / _at_least(_norm(weight), weight.size)
    inputs, outputs = sides_of(weight.shape)
    return rank_one(inputs, outputs) * _norm(update) / _at_least(_norm(weight), outputs)


def _at_least(size: jax.Array, outputs: int) -> jax.Array:
    """What a change is divided by: the norm, or sqrt(outputs) if that is larger or the norm is not finite."""
    # Not finite is the norm of a mask of -inf, for instance.
    return jnp.maximum(jnp.where(size < jnp.inf, size, 0.0), math.sqrt(outputs))


def _norm(x: jax.Array) -> jax.Array:
    # One use of x: with a second one XLA writes it, and each step of a large MLP takes a fifth longer.
    return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(x).astype(jnp.float32))))
