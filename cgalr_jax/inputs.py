"""What users hand in, checked as early as it can be known: example, activations, samples, extra arguments."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import signal as signals

_WAYS = """There are three ways to measure, one at a time:
  paired:      tx.update(grads, opt_state, params, probe=probe, samples=batch)
               with probe(params, samples) -> activations, tx = scale_by_connectome(example, samples=batch)
  fixed probe: tx.update(grads, opt_state, params, probe=probe) with probe(params) -> activations
  given:       tx.update(grads, opt_state, params, activations=activations)"""

_CULPRITS = """If your call has them, something between it and here drops extra arguments: flax's
TrainState.apply_gradients (use cgalr_jax.capture.TrainState), optax.MultiSteps inside optax.chain (put it
outermost), optax.lookahead, or a wrapper of your own."""


def layer_widths(example: Any) -> dict[str, int]:
    """Names of the layers and their numbers of units, from arrays, shapes or integers."""
    widths = {
        _name(path): _width(_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(example)
    }
    if not widths:
        raise ValueError(f"example must hold at least one layer, got {example!r}.")
    return widths


def _width(name: str, leaf: Any) -> int:
    if isinstance(leaf, (int, np.integer)) and not isinstance(leaf, bool):
        width = int(leaf)
    elif len(jnp.shape(leaf)) >= 2:
        width = jnp.shape(leaf)[-1]
    else:
        raise ValueError(
            "example must hold activations [N, ..., F], their jax.ShapeDtypeStruct, or numbers of units; "
            f"got {leaf!r} for layer {name!r}."
        )
    if width < 2:
        raise ValueError(
            f"example must have at least 2 units in each layer, got {width} in layer {name!r}; leave it out."
        )
    return width


def _name(path: Any) -> str:
    """The keys on the way to a leaf, joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "activations"


def choose_units(width: int, max_units: int) -> np.ndarray:
    """Indices of the units that are measured: all, or a static sub-sample that is the same in each run."""
    if width <= max_units:
        return np.arange(width)
    return np.sort(np.random.default_rng(width).choice(width, max_units, replace=False))


def measured_layers(
    activations: Any, widths: dict[str, int], chosen: dict[str, np.ndarray]
) -> dict[str, jax.Array]:
    """The measured units of each layer, [N, ..., F], after a check against the example."""
    leaves = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(activations)}
    shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
    if {name: shape[-1] if len(shape) > 1 else None for name, shape in shapes.items()} != widths:
        raise ValueError(
            f"activations must be the layers of the example, {widths} (name: units), each [N, ..., units]; "
            f"got shapes {shapes}."
        )
    return {
        name: leaf if len(chosen[name]) == widths[name] else jnp.take(leaf, chosen[name], axis=-1)
        for name, leaf in leaves.items()
    }


def check_extra_arguments(
    signal: signals.Signal, stored: Any, params: Any, activations: Any, probe: Any, samples: Any
) -> None:
    """Raises unless exactly one of the three ways is meant."""
    if signal.reads_activations:
        if activations is None and probe is None:
            raise ValueError(
                f"probe or activations must be passed to update, got neither.\n{_WAYS}\n{_CULPRITS}"
            )
        if activations is not None and not (probe is None and samples is None and stored is None):
            raise ValueError(f"activations must come alone, got probe or samples too.\n{_WAYS}")
        if probe is not None and not callable(probe):
            raise ValueError(
                f"probe must be a function of the parameters, got an object of type {type(probe).__name__}."
            )
        if (samples is None) != (stored is None):
            there = "update" if stored is None else "scale_by_connectome"
            raise ValueError(f"samples must be passed to both, got {there} only.\n{_WAYS}")
    if params is None and (signal.reads_params or probe is not None):
        raise ValueError(
            "params must be passed to update, tx.update(grads, opt_state, params, ...), for a probe and for "
            "a signal that reads them; got None."
        )


def check_checkpoint(stored: Any, opt_state: Any) -> None:
    """Raises if a checkpoint does not fit the state that it is to be restored into: call it before restoring.

    Orbax refuses arrays of other shapes by itself, but names neither layers nor units; `flax.serialization`
    restores whatever it finds. Only the states of `scale_by_connectome` are compared, and only their shapes.

    Args:
        stored: what is in the checkpoint, shapes or arrays: `checkpointer.metadata(path)`;
            `manager.item_metadata(step)` of an Orbax `CheckpointManager` made with
            `item_handlers=ocp.StandardCheckpointHandler()` (Orbax tells no shapes without);
            `flax.serialization.msgpack_restore(data)`; or a state already restored. Named tuples may have
            become dictionaries or lists, and more than the optimizer's state may be in it.
        opt_state: what it is to be restored into: `tx.init(params)` or its shapes, a flax `TrainState`, an
            `nnx.Optimizer` or its state.

    Raises:
        ValueError: if a layer, its number of units, the signal, the controller, the samples or the window
            differ, naming each; or if the two do not hold as many states, at least one.

    Example:
        >>> import jax.numpy as jnp, cgalr_jax
        >>> params = {"w": jnp.ones(3)}
        >>> stored = cgalr_jax.cgalr(0.1, {"hidden": 8}).init(params)
        >>> cgalr_jax.check_checkpoint(stored, cgalr_jax.cgalr(0.1, {"hidden": 8}).init(params))
        >>> cgalr_jax.check_checkpoint(stored, cgalr_jax.cgalr(0.1, {"hidden": 12}).init(params))
        Traceback (most recent call last):
        ...
        ValueError: stored must fit the optimizer: layer 'hidden' must have 12 units, got 8 units. Was ...
    """
    if not isinstance(stored, Mapping):  # Orbax may tell it in a record of the step
        stored = getattr(stored, "item_metadata", getattr(stored, "metadata", stored))
    if isinstance(stored, Mapping):  # several items, in a mapping that JAX does not look into
        stored = dict(stored)
    check_state("stored", stored, getattr(opt_state, "opt_state", opt_state))


def check_state(argument: str, found: Any, wanted: Any) -> None:
    """Raises if what was restored is not of the form that is measured; some restorers do not look."""
    found, wanted = (
        [
            {path: tuple(getattr(x, "shape", ())) for path, x in state.items()}
            for state in connectome_states(tree)
        ]
        for tree in (found, wanted)
    )
    if not found or len(found) != len(wanted):
        raise ValueError(
            f"{argument} must hold as many states of scale_by_connectome as the optimizer, at least one: "
            f"{len(wanted)}, got {len(found)}. An Orbax CheckpointManager tells what it stored if it is made "
            "with item_handlers=ocp.StandardCheckpointHandler()."
        )
    wrong = [
        _difference(path, here.get(path), there.get(path))
        for here, there in zip(found, wanted, strict=True)
        for path in sorted(here.keys() | there.keys())
        if here.get(path) != there.get(path)
    ]
    if wrong:
        raise ValueError(
            f"{argument} must fit the optimizer: {'; '.join(wrong)}. Was it saved by a run with other "
            "layers, numbers of units, signal, controller, samples or window?"
        )


def connectome_states(tree: Any) -> list[dict[tuple[str, ...], Any]]:
    """The leaves of each `ConnectomeState` by path, found by name: its tuples may have become mappings."""
    states: dict[tuple[str, ...], dict[tuple[str, ...], Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        keys = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
        at = next((i for i, key in enumerate(keys) if key.startswith("cg_")), None)
        if at is not None:
            states.setdefault(keys[:at], {})[keys[at:]] = leaf

    def place(keys: tuple[str, ...]) -> list[tuple[int, str]]:
        return [(int(key) if key.isdigit() else -1, key) for key in keys]

    # By place, "10" after "2" as in a tuple; in an nnx state a leaf is the value of a variable.
    return [
        {path[:-1] if ("cg_step", "value") in states[keys] else path: x for path, x in states[keys].items()}
        for keys in sorted(states, key=place)
    ]


def _difference(path: tuple[str, ...], found: Any, wanted: Any) -> str:
    """What is wrong with one array of the state: a square one in the reading is the connectome of a layer."""
    shapes = [shape for shape in (found, wanted) if shape is not None]
    if path[0] == "cg_before" and all(len(shape) == 2 and shape[0] == shape[1] for shape in shapes):
        name = f"layer {path[-1]!r}"
        found, wanted = (shape and f"{shape[0]} units" for shape in (found, wanted))
    else:
        name = "/".join(path)
        found, wanted = (shape if shape is None else f"shape {shape}" for shape in (found, wanted))
    return f"{name} must {'not be there' if wanted is None else f'have {wanted}'}, got {found or 'none'}"


def check_axes(reading: Any, before: Any, axis_name: Any) -> None:
    """Raises where a `shard_map` splits the samples and the measurement does not know."""
    split = _varying(reading) - _varying(before)
    if split:
        raise ValueError(
            "axis_name must name the mapped axis over which the samples are split, "
            f"{' and '.join(repr(axis) for axis in sorted(split))}: each device would measure its own "
            f"samples alone; got {axis_name!r}."
        )


def _varying(tree: Any) -> frozenset[Any]:
    """The mapped axes over which an array differs; they are not known under `pmap` and `check_vma=False`."""
    # Undocumented: under a JAX that calls it otherwise the error is lost, and nothing else.
    kinds = [getattr(jax.typeof(x), "manual_axis_type", None) for x in jax.tree.leaves(tree)]
    return frozenset().union(*(kind.varying for kind in kinds if kind is not None))


def cut_samples(samples: Any, stored: Any) -> Any:
    """The first samples, as many and where they are stored."""

    def cut(sample: Any, like: jax.Array) -> jax.Array:
        shape = jnp.shape(sample)
        if len(shape) != len(like.shape) or shape[1:] != like.shape[1:] or shape[:1] < like.shape[:1]:
            raise ValueError(
                f"samples must have the shape given to scale_by_connectome, {like.shape}, or more rows; "
                f"got {shape}. Drop the last, smaller batch of an epoch, or store fewer samples."
            )
        first = jnp.asarray(sample[: like.shape[0]] if like.shape else sample, like.dtype)
        # On an Explicit mesh the batch is split and the state is not: arrays of one place do not mix there.
        explicit = jax.sharding.AxisType.Explicit in jax.typeof(first).sharding.mesh.axis_types
        return jax.sharding.reshard(first, jax.typeof(like).sharding) if explicit else first

    if jax.tree.structure(samples) != jax.tree.structure(stored):
        raise ValueError(
            f"samples must have the structure given to scale_by_connectome, {stored}; got {samples}."
        )
    return jax.tree.map(cut, samples, stored)
