"""Branches and loops that are compiled where they are traced, and plain Python where they are not.

Without jit `lax.cond` and `lax.map` would be compiled anew at each call: their functions are new ones.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp

State = TypeVar("State")


def when(condition: jax.Array, then: Callable[[State], State], state: State) -> State:
    """`then(state)` if the condition holds, else `state`; decided in Python if the condition is concrete."""
    if isinstance(condition, jax.core.Tracer):
        return jax.lax.cond(condition, then, lambda state: state, state)
    return then(state) if condition else state


def each(function: Callable[[Any], Any], trees: Sequence[Any]) -> list[Any]:
    """`function` of each of these trees, which are of one form: in a loop, so that it is compiled once."""
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(trees))
    if len(trees) == 1 or not traced:
        return [function(tree) for tree in trees]
    results = jax.lax.map(function, jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees))
    return [jax.tree.map(lambda x, k=k: x[k], results) for k in range(len(trees))]
