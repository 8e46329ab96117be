"""Where the leaves of a user's tree are: keys as text, the same in a NamedTuple and in a checkpoint."""

from collections.abc import Iterator
from typing import Any

import jax

Path = tuple[str, ...]


def keys_of(path: jax.tree_util.KeyPath) -> Path:
    """The keys of a path of JAX's, as text."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def optimizer_state(tree: Any) -> Any:
    """The Optax state of a flax `TrainState` or an `nnx.Optimizer`; anything else is one already."""
    return getattr(tree, "opt_state", tree)


def leaves_of(tree: Any) -> Iterator[tuple[Path, Any]]:
    """The keys of each leaf of an optimizer's state, and the leaf."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(optimizer_state(tree)):
        yield keys_of(path), leaf


def without_value(keys: Path) -> Path:
    """The keys of a variable: in an nnx state one more, "value", leads to what it holds."""
    return keys[:-1] if keys[-1:] == ("value",) else keys
