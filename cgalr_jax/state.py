"""The state of the transformation: its fields, how to find it in any tree, and its metrics.

A state is found by the names of all its fields together. The type does not do: in an nnx state, a checkpoint
or a restored tree, NamedTuples have become mappings or lists. Nor does one name: a user's parameter may be
called `cg_scale`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cgalr_jax import _paths
from cgalr_jax._paths import Path

__all__ = ["NUMBERS", "ConnectomeState", "check_checkpoint", "check_form", "find_states", "metrics"]


class ConnectomeState(NamedTuple):
    """State of `scale_by_connectome`.

    Field names are unique among Optax's, so that `optax.tree.get(opt_state, "cg_scale")` works.
    """

    cg_step: jax.Array  # i32[], optimizer steps taken
    cg_scale: jax.Array  # f32[], the factor of the updates in the last step
    cg_distance: jax.Array  # f32[], last distance, in the unit of the signal; 0 before the first
    cg_motion: jax.Array  # f32[], that distance in set-points of the steps that it spans; 0 before the first
    cg_measurements: jax.Array  # i32[], number of distances that were measured
    cg_skipped: jax.Array  # i32[], number of readings and distances that were not usable
    cg_valid: jax.Array  # bool[], whether cg_before holds a reading
    cg_cut: jax.Array  # i32[], optimizer steps that were cut to `max_share`
    cg_moves: jax.Array  # i32[], optimizer steps since cg_before was read whose updates were not all 0
    cg_cut_moves: jax.Array  # i32[], how many of these were cut
    cg_layers: Any  # {name of a layer: bool[F]}, which of its units are measured
    cg_before: Any  # what the signal read at the last measurement
    cg_samples: Any  # paired: the samples that cg_before was read from; otherwise empty
    cg_rate: Any  # f32[], learning rate of the last step if the transformation knows it; otherwise empty
    cg_control: Any  # state of the controller


# The fields that always hold a number, and its type: a record with all of them is a state, NamedTuple or not.
NUMBERS = {
    "cg_step": jnp.int32,
    "cg_scale": jnp.float32,
    "cg_distance": jnp.float32,
    "cg_motion": jnp.float32,
    "cg_measurements": jnp.int32,
    "cg_skipped": jnp.int32,
    "cg_valid": jnp.bool_,
    "cg_cut": jnp.int32,
    "cg_moves": jnp.int32,
    "cg_cut_moves": jnp.int32,
}
_ALWAYS = tuple(NUMBERS)
# The fields that `metrics` shows, of the state itself and of the states of controllers, nested or not.
_OF_THE_STATE = ("scale", "distance", "motion", "measurements", "skipped", "cut", "step")
_OF_THE_CONTROLLER = ("phase", "anchor", "ended", "z")


def find_states(tree: Any, fields: tuple[str, ...]) -> list[dict[Path, Any]]:
    """The leaves of each record in a tree that has all of these fields.

    Args:
        tree: an Optax state (nested or not), a flax `TrainState`, an `nnx.Optimizer`, its `nnx.state`, the
            pure dict of that, or the content of a checkpoint.
        fields: names of fields that hold arrays; the first one holds a single array.

    Returns:
        A dictionary per record, {path of keys within the record: leaf}, in the order of the tree: "10" comes
        after "2".
    """
    leaves = dict(_paths.leaves_of(tree))
    first = fields[0]
    roots = {keys[: keys.index(first)] for keys in leaves if first in keys}
    roots = {root for root in roots if all(_has(leaves, (*root, field)) for field in fields)}

    def place(keys: Path) -> list[tuple[int, str]]:
        return [(int(key) if key.isdigit() else -1, key) for key in keys]

    found = []
    for root in sorted(roots, key=place):
        record = {keys[len(root) :]: leaf for keys, leaf in leaves.items() if keys[: len(root)] == root}
        are_variables = (first, "value") in record  # an nnx state
        found.append(
            {_paths.without_value(keys) if are_variables else keys: leaf for keys, leaf in record.items()}
        )
    return found


def _has(leaves: Mapping[Path, Any], path: Path) -> bool:
    return any(keys[: len(path)] == path for keys in leaves)


def metrics(opt_state: Any) -> dict[str, jax.Array]:
    """The scalars worth logging, from any optimizer state that contains a `ConnectomeState`.

    `cgalr/motion` says how fast the network moves: the last distance in set-points of the steps that it
    spans. The ramp of `calibrated` looks for the rate at which it is `target`, 1 by default.

    `cgalr/learning_rate` is the learning rate that was applied; a step that was cut to `max_share` was
    smaller than this rate says. The rate is known with `cgalr`, with `connectome_schedule`, and if
    `opt_state` also contains a state of `optax.inject_hyperparams` with a `learning_rate`. Otherwise it is
    the base schedule at this step times the scale:
    `schedule(metrics["cgalr/step"] - 1) * metrics["cgalr/scale"]`.

    Args:
        opt_state: an Optax state (nested or not), a flax `TrainState`, an `nnx.Optimizer`, its `nnx.state` or
            the pure dict of that.

    Returns:
        A flat dict of scalars on the device, which does not wait for them: `cgalr/scale`, `cgalr/distance`
        (in the unit of the signal), `cgalr/motion` (in set-points), `cgalr/measurements`, `cgalr/skipped`
        (readings and distances that were not usable), `cgalr/refused` (values of a controller, its schedule
        or its bounds that were not used), `cgalr/cut` (steps that were cut to `max_share`), `cgalr/step`;
        `cgalr/phase`, `cgalr/anchor`, `cgalr/ended` and `cgalr/z` if the controller has them;
        `cgalr/learning_rate` if it is known. With several states: `cgalr/0/scale`, `cgalr/1/scale`, ...

    Raises:
        ValueError: if `opt_state` contains no `ConnectomeState`.

    Example:
        >>> import jax.numpy as jnp, optax, cgalr_jax
        >>> tx = optax.chain(optax.adam(1e-3), cgalr_jax.scale_by_connectome({"hidden": 8}))
        >>> sorted(cgalr_jax.metrics(tx.init({"w": jnp.ones(3)})))[:3]
        ['cgalr/anchor', 'cgalr/cut', 'cgalr/distance']
    """
    states = find_states(opt_state, _ALWAYS)
    if not states:
        raise _none_in(opt_state)
    shown = {}
    for number, state in enumerate(states):
        prefix = "cgalr" if len(states) == 1 else f"cgalr/{number}"
        shown |= {f"{prefix}/{name}": value for name, value in _shown(state).items()}
    if len(states) == 1 and "cgalr/learning_rate" not in shown:
        shown |= _injected_rate(opt_state, shown["cgalr/scale"])
    return shown


def _shown(state: Mapping[Path, Any]) -> dict[str, Any]:
    values = {name: state[f"cg_{name}",] for name in _OF_THE_STATE}
    if ("cg_rate",) in state:
        values["learning_rate"] = state["cg_rate",]
    refused = []
    for path, leaf in state.items():
        # One number for each run, as the step counter has: a state may be one of many, under vmap.
        if path[0] != "cg_control" or jnp.shape(leaf) != jnp.shape(state["cg_step",]):
            continue
        if path[-1] == "refused":
            refused.append(leaf)
        elif path[-1] in _OF_THE_CONTROLLER:
            values[path[-1]] = leaf
    return values | ({"refused": sum(refused[1:], refused[0])} if refused else {})


def _injected_rate(opt_state: Any, scale: jax.Array) -> dict[str, Any]:
    """The rate in the state of `optax.inject_hyperparams`, times the scale, if there is exactly one."""
    rates = [
        leaf
        for keys, leaf in _paths.leaves_of(opt_state)
        if "learning_rate" in keys and keys[keys.index("learning_rate") - 1] == "hyperparams"
    ]
    return {"cgalr/learning_rate": rates[0] * scale} if len(rates) == 1 else {}


def check_checkpoint(stored: Any, opt_state: Any) -> None:
    """Raises a ValueError if a checkpoint does not fit the optimizer; call it before you restore.

    Orbax refuses arrays of other shapes, but its errors do not name layers or units; `flax.serialization`
    restores arrays of any shape. Only states of `scale_by_connectome` are compared, and only their shapes.

    Args:
        stored: the content of the checkpoint, as shapes or arrays: `checkpointer.metadata(path)`;
            `manager.item_metadata(step)` of an Orbax `CheckpointManager` made with
            `item_handlers=ocp.StandardCheckpointHandler()` (without it, Orbax returns no shapes);
            `flax.serialization.msgpack_restore(data)`; or a state already restored. NamedTuples may have
            become dictionaries or lists, and the checkpoint may hold more than the optimizer's state.
        opt_state: the state to restore into: `tx.init(params)` or its shapes, a flax `TrainState`, an
            `nnx.Optimizer` or its state.

    Raises:
        ValueError: if layers, numbers of units, signal, controller or samples differ; the message names each
            difference. Also if the numbers of states differ, or there is no state.

    Example:
        >>> import jax.numpy as jnp, cgalr_jax
        >>> params = {"w": jnp.ones(3)}
        >>> stored = cgalr_jax.cgalr(0.1, {"hidden": 8}).init(params)
        >>> cgalr_jax.check_checkpoint(stored, cgalr_jax.cgalr(0.1, {"hidden": 8}).init(params))
        >>> cgalr_jax.check_checkpoint(stored, cgalr_jax.cgalr(0.1, {"hidden": 12}).init(params))
        Traceback (most recent call last):
        ...
        ValueError: stored must fit the optimizer: layer 'hidden' must have 12 units, got 8 units...
    """
    if not isinstance(stored, Mapping):  # Orbax may wrap the shapes in an object for the step
        stored = getattr(stored, "item_metadata", getattr(stored, "metadata", stored))
    if isinstance(stored, Mapping):  # a mapping of several items, which may be no pytree for JAX
        stored = dict(stored)
    check_form("stored", stored, opt_state)


def _none_in(opt_state: Any) -> ValueError:
    return ValueError(
        "opt_state must contain the state of scale_by_connectome, cgalr or connectome_schedule, got one "
        f"without it: {type(opt_state).__name__}."
    )


def check_form(argument: str, stored: Any, opt_state: Any) -> None:
    """Raises a ValueError if the states in `stored` do not have the shapes of those in `opt_state`."""
    found, wanted = (
        [
            {path: tuple(getattr(x, "shape", ())) for path, x in state.items()}
            for state in find_states(tree, _ALWAYS)
        ]
        for tree in (stored, opt_state)
    )
    if not wanted:
        raise _none_in(opt_state)
    if not found and (partial := find_states(stored, _ALWAYS[:2])):
        lacking = [field for field in _ALWAYS if (field,) not in partial[0]]
        raise ValueError(
            f"{argument} must have all fields of a state of scale_by_connectome, got one without {lacking}. "
            "Was it saved by another release?"
        )
    if not found or len(found) != len(wanted):
        raise ValueError(
            f"{argument} must hold as many states of scale_by_connectome as the optimizer, {len(wanted)}, "
            f"got {len(found)}. Is there a checkpoint at this path? An Orbax CheckpointManager returns the "
            "shapes that it stored only if it is made with item_handlers=ocp.StandardCheckpointHandler()."
        )
    wrong = dict.fromkeys(  # without duplicates: a layer of another width differs in its connectome, too
        _difference(path, here.get(path), there.get(path))
        for here, there in zip(found, wanted, strict=True)
        for path in sorted(here.keys() | there.keys(), key=lambda path: (path[0] != "cg_layers", path))
        if here.get(path) != there.get(path)
    )
    if wrong:
        raise ValueError(
            f"{argument} must fit the optimizer: {'; '.join(wrong)}. Is it of a run with other layers, "
            "parameters, numbers of units, signal, controller or samples? After a matrix was added or taken "
            "away, opt_state = tx.init(params). Or does a signal of your own return readings whose shapes "
            "depend on the number of samples, which may differ from call to call?"
        )


def _difference(path: Path, found: Any, wanted: Any) -> str:
    """How one array of the state differs, in words; a square array in the reading is a layer's connectome."""
    shapes = [shape for shape in (found, wanted) if shape is not None]
    is_connectome = path[0] == "cg_before" and all(
        len(shape) == 2 and shape[0] == shape[1] for shape in shapes
    )
    if path[0] == "cg_layers" or is_connectome:
        name = f"layer {path[-1]!r}"
        found, wanted = (shape and f"{shape[0]} units" for shape in (found, wanted))
    else:
        name = "/".join(path)
        found, wanted = (shape if shape is None else f"shape {shape}" for shape in (found, wanted))
    return f"{name} must {'not be there' if wanted is None else f'have {wanted}'}, got {found or 'none'}"
