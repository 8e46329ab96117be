"""What the modules of a model sowed in one forward pass -> activations, without Flax."""

import collections
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks, _leaves, _sharding
from cgalr_jax.capture import choice as choices
from cgalr_jax.capture.calls import Listener, Note, Path, is_note, join
from cgalr_jax.capture.choice import Activations, Choice

__all__ = ["collect", "without_notes"]


class _Layer(NamedTuple):
    """A layer to measure: the number of its last call, its path, and {suffix of the name: array} per call."""

    last: int
    path: Path
    calls: list[Activations]

    @property
    def name(self) -> str:
        return join(self.path)

    @property
    def width(self) -> int:
        return next(iter(self.calls[0].values())).shape[-1]


def collect(sown: Any, ranks: Mapping[Path, list[int]], listener: Listener, output: Any) -> Activations:
    """What the modules sowed -> activations, in the order of the calls.

    Args:
        sown: nested dict; under a module's path are its notes (`Note.name`) and what the model itself sows.
        ranks: {path of a module: the rank of each of its parameters, outside of every scan}.
        listener: the listener of this forward pass.
        output: what the model returned; its width tells which layer holds the logits.
    """
    notes, own = _sorted(sown, listener)
    found = _called(notes, ranks, listener)
    found = found if listener.choice.get("logits") else _without_logits(found, listener.choice, output)
    # A single unit has no connectome.
    found = [layer for layer in found if layer.width > 1 or choices.is_named(listener.choice, layer.name)]
    found += _sown(own, found, notes, ranks)
    _check_found({layer.name for layer in found}, listener, sown)

    activations: Activations = {}
    for layer in sorted(found, key=lambda layer: (layer.last, layer.name)):
        for suffix in layer.calls[0]:
            if layer.name + suffix in activations:
                raise _no_name_of_its_own(layer.name + suffix)
            values = [call[suffix] for call in layer.calls]
            activations[layer.name + suffix] = _finish(values, listener.choice)
    return activations


_Notes = Mapping[Path, list[tuple[Note, jax.Array]]]  # of each module, in the order of its calls
_Own = Mapping[Path, list[jax.Array]]  # what the model itself sows under each path, if chosen by name


def _sorted(sown: Any, listener: Listener) -> tuple[_Notes, _Own]:
    """What was sown, sorted by who sowed it; raises a ValueError if a measured layer was not reached."""
    notes: dict[Path, list[tuple[Note, jax.Array]]] = collections.defaultdict(list)
    own: dict[Path, list[jax.Array]] = {}
    for path, values in _sown_entries(sown):
        if is_note(path):
            notes[path[:-1]] += [(Note.read(path[-1]), value) for value in values]
        elif choices.is_named(listener.choice, join(path)):
            if others := [value for value in values if not _leaves.is_array(value)]:
                got = f"{join(path)!r}, which is {_checks.shown(others[0])}"
                raise ValueError(f"layers must be arrays [N, ..., F], got {got}.")
            own[path] = list(map(jnp.asarray, values))
    for path in listener.measured - notes.keys():
        others = {place for place, _ in _sown_entries(sown)} | (set(listener.paths) - {path})
        if join(path) in map(join, others):
            raise _no_name_of_its_own(join(path))
        around = listener.transforms.get(path)
        raise listener.not_reached_in(around[0]) if around else listener.not_reached(join(path))
    return notes, own


def _called(notes: _Notes, ranks: Mapping[Path, list[int]], listener: Listener) -> list[_Layer]:
    """The layers among the modules that were called."""
    found: list[_Layer] = []
    for path, heard in notes.items():
        calls = [
            (note.call, _unstack(join(path), value, note, _stacked(path, value, note, listener), ranks[path]))
            for note, value in heard
            if note.measured
        ]
        if calls:
            found.append(_Layer(max(call for call, _ in calls), path, [arrays for _, arrays in calls]))
    return found


def _sown(own: _Own, called: list[_Layer], notes: _Notes, ranks: Mapping[Path, list[int]]) -> list[_Layer]:
    """What the model itself sows as layers; values inside a measured layer are not measured."""
    found: list[_Layer] = []
    for path, values in own.items():
        module = path[:-1]
        if any(layer.path == module[: len(layer.path)] != module for layer in called):
            continue
        if module not in notes:
            raise ValueError(
                f"layers must be called, got {join(path)!r}, sown by a module that was not called."
            )
        note, marker = notes[module][0]
        extra = marker.ndim - note.rank
        outside = [note._replace(rank=value.ndim - extra) for value in values]
        arrays = [
            _unstack(join(path), *pair, extra, ranks[module]) for pair in zip(values, outside, strict=True)
        ]
        found.append(_Layer(note.call, path, arrays))
    return found


def _no_name_of_its_own(name: str) -> ValueError:
    return ValueError(
        f"layers must have different names, got two called {name!r}; rename one of them, or leave one out. A"
        " module with a '/' in its name may have the same name as one inside another module, and a sown value"
        " the same as a part of its module."
    )


def _stacked(path: Path, value: jax.Array, note: Note, listener: Listener) -> int:
    """The number of axes that scans and vmaps have put in front of a sown value."""
    extra, inside = value.ndim - note.rank, listener.shapes[note.call]
    if extra and value.shape[extra:] != inside:
        raise ValueError(
            f"layers must have the axes of scans and vmaps in front, got {join(path)!r} of shape "
            f"{value.shape}, {inside} inside its module; stack 'intermediates' or nnx.Intermediate along "
            "axis 0."
        )
    return extra


def _unstack(name: str, value: jax.Array, note: Note, extra: int, ranks: list[int]) -> dict[str, jax.Array]:
    """One sown value, with `extra` leading axes from scans and vmaps -> {suffix: array [N, ..., F]}."""
    if extra == 0:
        return {"": value}
    added = sum(ranks) - note.parameters
    if ranks and added == 0:  # shared parameters: time steps, or samples
        return {"": jnp.moveaxis(value, extra, 0) if note.rank > 1 else value}
    if ranks and added == extra * len(ranks):  # each iteration has its own parameters: layers
        return {"".join(f"/{i}" for i in index): value[index] for index in np.ndindex(*value.shape[:extra])}
    raise ValueError(
        f"layers must have known axes, got {name!r} of shape {value.shape}: its parameters do not tell"
        f" whether the {extra} leading axes, from scans or vmaps, are layers or samples; choose other layers."
    )


def _without_logits(found: list[_Layer], choice: Choice, output: Any) -> list[_Layer]:
    """Leaves out the last layer of several units if it is as wide as an output and not chosen by name."""
    # The only axis of a vector is that of the samples.
    widths = {jnp.shape(leaf)[-1] for leaf in jax.tree.leaves(output) if jnp.ndim(leaf) > 1}
    for layer in sorted(found, key=lambda layer: -layer.last):
        if choices.is_named(choice, layer.name) or (layer.width > 1 and layer.width not in widths):
            return found
        if layer.width > 1:
            return [other for other in found if other is not layer]
        # A head of one unit, such as a critic's, is no layer to measure: that of the logits may be before it.
        # Its output has no axis for the unit where the model squeezes it.
    return found


def _finish(calls: list[jax.Array], choice: Choice) -> jax.Array:
    """Activation and pooling of each call of a layer; then its calls (an unrolled loop in time) joined."""
    activation = choice.get("activation")
    if activation is not None:
        calls = [_activated(activation, call) for call in calls]
    if choice.get("pooled"):
        calls = [
            jnp.mean(call, tuple(range(1, call.ndim - 1)), dtype=_leaves.wide(call.dtype)) for call in calls
        ]
        if len({call.shape for call in calls}) == 1:
            return sum(calls[1:], calls[0]) / len(calls)
    if len({call.shape for call in calls}) > 1:
        return jnp.concatenate([_sharding.in_rows(call) for call in calls])
    return jnp.stack(calls, axis=1) if len(calls) > 1 else calls[0]


def _activated(activation: Callable[[jax.Array], jax.Array], call: jax.Array) -> jax.Array:
    """`activation` of one array, which must keep its samples."""
    activated = _checks.called("activation", activation, call)
    if not _leaves.is_array(activated) or jnp.shape(activated)[:1] != call.shape[:1]:
        raise ValueError(
            f"activation must return an array [N, ..., F] for one of shape {call.shape}, "
            f"got {_checks.shown(activated)}."
        )
    return jnp.asarray(activated)


def _check_found(found: set[str], listener: Listener, sown: Any) -> None:
    """Raises a ValueError if no layer was found, or if a name in `layers` matches none."""
    layers = listener.choice.get("layers")
    missing = [name for name in choices.patterns(listener.choice) if not fnmatch.filter(found, name)]
    if found and not missing:
        return
    own = {join(path) for path, _ in _sown_entries(sown) if not is_note(path)}
    wanted = "dense, convolutional, attention or recurrent layers other than that of the logits"
    wanted = wanted if layers is None else missing or layers
    there = sorted({*listener.names, *own})
    if not there:
        raise ValueError(
            "model must have layers inside, got a layer by itself: put it into an nnx.Sequential or a "
            "linen.Sequential, or write a probe of your own. If it is an nnx.bridge.ToNNX of a linen model, "
            "its layers are seen by capture.linen_probe(linen_model)."
        )
    raise ValueError(f"layers must match some of {there}, got no match for {wanted}.")


def without_notes(collection: Any) -> Any:
    """A collection of sown values without those that listening has added."""
    if not isinstance(collection, Mapping):
        return collection
    kept = {key: without_notes(value) for key, value in collection.items() if not is_note((key,))}
    return {key: value for key, value in kept.items() if not isinstance(value, Mapping) or value}


def _sown_entries(sown: Any, path: Path = ()) -> Iterator[tuple[Path, list[jax.Array]]]:
    """Yields (path, values) for every name sown."""
    if isinstance(sown, Mapping):
        for key, value in sown.items():
            yield from _sown_entries(value, (*path, key))
    else:
        yield path, jax.tree.leaves(sown)
