"""What users hand in, checked as early as it can be known: example, activations, samples, extra arguments."""

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
            raise ValueError(f"probe must be a function of the parameters, got {probe!r}.")
        if (samples is None) != (stored is None):
            there = "update" if stored is None else "scale_by_connectome"
            raise ValueError(f"samples must be passed to both, got {there} only.\n{_WAYS}")
    if params is None and (signal.reads_params or probe is not None):
        raise ValueError(
            "params must be passed to update, tx.update(grads, opt_state, params, ...), for a probe and for "
            "a signal that reads them; got None."
        )


def check_state(found: Any, wanted: Any) -> None:
    """Raises if what the state holds is not of the form that is measured; some restorers do not look."""
    found, wanted = (jax.tree.map(jnp.shape, tree) for tree in (found, wanted))
    if found != wanted:
        raise ValueError(
            f"state must hold a reading and a history of shapes {wanted}, got {found}: was it restored from a"
            " run with other layers, numbers of units, signal or window?"
        )


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
