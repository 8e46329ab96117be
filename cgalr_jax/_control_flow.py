"""Branches and loops that are compiled where they are traced, and plain Python where they are not.

Without jit `lax.cond` and `lax.map` would be compiled anew at each call: their functions are new ones.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.core
import jax.numpy as jnp
import optax

State = TypeVar("State")


def within_jit() -> bool:
    """Whether a program is traced: there a new array is traced, too; in a `vmap` or `grad` it is not."""
    return isinstance(jnp.zeros(()), jax.core.Tracer)


@jax.custom_batching.custom_vmap
def _of_any(condition: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether a condition holds in any run of a surrounding `vmap`, and whether it does in this run.

    Without a `vmap` there is one run only: then the second is true where the first is.
    """
    return condition, jnp.ones_like(condition)


@_of_any.def_vmap
def _of_any_run(axis_size: int, in_batched: list[bool], condition: jax.Array) -> tuple[Any, Any]:
    del axis_size, in_batched
    return (_of_any(jnp.any(condition, axis=0))[0], condition), (False, True)


def when(condition: jax.Array, then: Callable[[State], State], state: State) -> State:
    """`then(state)` if the condition holds, else `state`; decided in Python where the condition is known.

    Under `vmap` a branch is taken if the condition holds in any run, and leaves the others as they are: a
    condition that differs between runs would make `lax.cond` take both branches at each step.

    XLA copies each array that a branch hands through, at each step, and on a GPU a copy is a program. So all
    numbers of a type travel as one array.
    """
    if not isinstance(condition, jax.core.Tracer):
        return then(state) if condition else state
    some, this = _of_any(condition)
    if not isinstance(some, jax.core.Tracer):  # a vmap without jit
        return optax.tree.where(this, then(state), state) if some else state
    leaves, structure = jax.tree.flatten(state)
    kinds = [_kind(leaf) for leaf in leaves]
    groups = [kind for kind in dict.fromkeys(kinds) if kind is not None]

    def packed(leaves: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        of_kind = {kind: [x for x, each in zip(leaves, kinds, strict=True) if each == kind] for kind in kinds}
        return [jnp.stack(of_kind[kind]) for kind in groups], of_kind.get(None, [])

    def unpacked(numbers: Sequence[Any], arrays: Sequence[Any]) -> State:
        of_kind = dict(zip(groups, map(jnp.unstack, numbers), strict=True)) | {None: arrays}
        left = {kind: iter(of_kind[kind]) for kind in of_kind}
        return structure.unflatten([next(left[kind]) for kind in kinds])

    def branch(numbers: list[Any], arrays: list[Any]) -> tuple[list[Any], list[Any]]:
        after = packed(jax.tree.leaves(then(unpacked(numbers, arrays))))
        return jax.tree.map(functools.partial(jnp.where, this), after, (numbers, arrays))

    return unpacked(*jax.lax.cond(some, branch, lambda *same: same, *packed(leaves)))


def _kind(leaf: Any) -> str | None:
    """The type of a number, which under `shard_map` tells how it varies; None of an array."""
    kind = jax.typeof(leaf)
    return None if kind.shape else str(kind)


def each(function: Callable[[Any], Any], trees: Sequence[Any]) -> list[Any]:
    """`function` of each of these trees, which are of one form: in a loop, so that it is compiled once."""
    if len(trees) == 1 or not within_jit():
        return [function(tree) for tree in trees]
    results = jax.lax.map(function, jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees))
    return [jax.tree.map(lambda x, k=k: x[k], results) for k in range(len(trees))]
