"""Checks at trace time of the extra arguments of `update`: the three ways to measure, and the samples."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks, _leaves, _sharding
from cgalr_jax.signals.base import Signal

__all__ = [
    "check_extra_arguments",
    "check_mapped_axes",
    "check_measure",
    "check_probe",
    "check_rate",
    "check_real",
    "check_several",
    "check_split",
    "check_state",
    "check_structure",
    "check_types",
    "cut_samples",
    "shapes_of_samples",
]

_WAYS = """There are three ways to measure, one at a time:
  paired:      tx.update(grads, opt_state, params, probe=probe, samples=batch)
               with probe(params, samples) -> activations, tx = scale_by_connectome(example, samples=batch)
  fixed probe: tx.update(grads, opt_state, params, probe=probe) with probe(params) -> activations
  given:       tx.update(grads, opt_state, params, activations=activations)"""

_CULPRITS = """If your call passes one of them, something in between drops extra arguments: flax's
TrainState.apply_gradients (use cgalr_jax.capture.TrainState), optax.MultiSteps inside optax.chain (put it
outermost), optax.lookahead, or a wrapper of your own."""


def check_extra_arguments(
    signal: Signal, stored: Any, params: Any, activations: Any, probe: Any, samples: Any
) -> None:
    """Raises a ValueError unless the arguments are those of exactly one of the three ways to measure."""
    if signal.reads_activations:
        if activations is None and probe is None:
            raise ValueError(
                f"probe or activations must be passed to update, got neither.\n{_WAYS}\n{_CULPRITS}"
            )
        if activations is not None and not (probe is None and samples is None and stored is None):
            raise ValueError(f"activations must be passed without probe and samples, got more.\n{_WAYS}")
        if (samples is None) != (stored is None):
            there = "update" if stored is None else "scale_by_connectome"
            raise ValueError(
                "samples must be passed to both scale_by_connectome and update, or to neither, got them in "
                f"{there} only.\n{_WAYS}"
            )
        if probe is not None:
            check_probe(probe, ("params",) if samples is None else ("params", "samples"))
    if params is None and (signal.reads_params or probe is not None):
        raise ValueError(
            "params must be passed to update, tx.update(grads, opt_state, params, ...), for a probe and for "
            "a signal that reads them; got None."
        )


def check_state(name: str, state: Any, kind: type) -> None:
    """Raises a ValueError unless the state has the fields of this NamedTuple, as a restored mapping does not.

    A field that is annotated as an array has to be a number, which that of a stack of states is not.
    """
    if not all(hasattr(state, field) for field in getattr(kind, "_fields", ())):
        raise ValueError(
            f"{name} must be a {kind.__name__}, as init of this transformation returns it, got "
            f"{_checks.shown(state)}."
        )
    for field, annotation in kind.__annotations__.items():
        value = getattr(state, field)
        if annotation is jax.Array and not (_leaves.is_array(value) and jnp.shape(value) == ()):
            raise ValueError(
                f"{name}.{field} must be a number, got {_checks.shown(value)}. The states of several runs "
                "are updated under jax.vmap."
            )


def check_types(name: str, state: Any, types: Mapping[str, Any]) -> None:
    """Raises a ValueError if a number of the state was cast: rounded to 16 bits, a ramp ends elsewhere."""
    for field, wanted in types.items():
        value = getattr(state, field)
        found, wanted = jnp.result_type(value), jnp.dtype(wanted)
        if found.kind != wanted.kind or found.itemsize < wanted.itemsize:
            raise ValueError(
                f"{name}.{field} must be {wanted.name}, as init returns it, got "
                f"{_checks.shown(value)}. Cast the parameters, not the state of their optimizer."
            )


def check_structure(name: str, state: Any, form: Any) -> None:
    """Raises a ValueError unless what the state holds of signal and controller is of the form of `form`."""
    for field in ("cg_before", "cg_control"):
        found, wanted = (jax.tree.structure(getattr(each, field)) for each in (state, form))
        if found != wanted:
            raise ValueError(
                f"{name}.{field} must have the structure that init returns, {_checks.shown(wanted)}, got "
                f"{_checks.shown(found)}: restore a checkpoint into the state of init."
            )


def check_real(reading: Any, before: Any) -> None:
    """Raises a ValueError if a reading is complex where that of real activations, which is kept, is not."""
    for new, old in zip(jax.tree.leaves(reading), jax.tree.leaves(before), strict=True):
        if jnp.iscomplexobj(new) and not jnp.iscomplexobj(old):
            raise ValueError(
                f"activations must be real for a signal that reads {old.dtype} from real ones, got complex "
                f"ones, read as {new.dtype}: pass absolute values, or real and imaginary parts."
            )


def check_measure(measure: Any) -> None:
    """Raises a ValueError unless it is None or a truth value that is known when the step is compiled."""
    if measure is not None and not isinstance(measure, (bool, np.bool_)):
        raise ValueError(
            f"measure must be True or False, known when the step is compiled, or None, got "
            f"{_checks.shown(measure)}. Make it a static argument of the compiled step, jax.jit(step, "
            "static_argnames='measure'), of a kind that Python knows: cgalr_jax.is_measurement_step(i)."
        )


def check_probe(probe: Any, arguments: tuple[str, ...]) -> None:
    """Raises a ValueError unless the probe takes these arguments."""
    signature = f"probe({', '.join(arguments)}) -> activations"
    if "samples" not in arguments:
        where = "to scale_by_connectome and update" if arguments else "to the schedule"
        signature += f", if no samples are passed {where}"
    for kind in type(probe).__mro__:
        if kind.__name__ == "Module" and kind.__module__.startswith("flax."):
            raise ValueError(
                f"probe must be a function, {signature}, got {_checks.shown(type(probe))}, a model: "
                "cgalr_jax.capture.nnx_probe(model), or linen_probe(model), makes one of it."
            )
    _checks.check_function("probe", probe, signature, len(arguments))


def check_several(activations: Any, axis_name: Any) -> None:
    """Raises a ValueError if a probe returns one sample: units would have no correlations, at any step.

    One sample per device is enough where a mapped axis splits them. A batch that the caller gives as
    activations may have one sample, the last of an epoch: that measurement is skipped and counted.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(activations) if _leaves.is_array(leaf)]
    if axis_name is None and shapes and max(math.prod(shape[:-1]) for shape in shapes) < 2:
        raise ValueError(
            "probe must return activations of at least 2 samples (positions count), since units are "
            f"correlated over them, got shapes {shapes}. Some 32 are enough."
        )


def check_rate(name: str, learning_rate: Any) -> Any:
    """The rate, or a ValueError unless it is a schedule, or a number that is positive and finite."""
    if not callable(learning_rate):
        allowed = "a schedule, or a number that is positive and finite: from 0 there is no way up"
        # An array is what `optax.inject_hyperparams` reads from its schedule: 0 where a warm-up begins.
        array = isinstance(learning_rate, jax.Array)
        return _checks.check(name, learning_rate, lambda x: 0 < x < math.inf or (array and x == 0), allowed)
    _checks.check_function(name, learning_rate, "a schedule, step -> learning rate", 1)

    def check(step: jax.Array) -> None:
        rate: Any = learning_rate(step)
        if not _leaves.is_array(rate) or jnp.ndim(rate) or jnp.iscomplexobj(rate):
            came = jax.typeof(rate) if isinstance(rate, jax.Array) else _checks.shown(rate)
            raise ValueError(
                f"{name} must return a number, f32[], got {came} from {_checks.shown(learning_rate)}."
            )

    _checks.shapes_of(name, check, jax.ShapeDtypeStruct((), jnp.int32), user=learning_rate)
    return learning_rate


def check_mapped_axes(reading: Any, before: Any, axis_name: Any) -> None:
    """Raises a ValueError if a `shard_map` splits the samples over an axis that `axis_name` does not name."""
    split = _varying(reading) - _varying(before)
    named = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if split and split <= set(named):
        raise ValueError(
            "params must be whole on each device in a shard_map, since all are read, got some that are split "
            f"over {' and '.join(repr(axis) for axis in sorted(split))}. Under jit with NamedSharding "
            "they may be split; or signal=signals.frobenius(), max_share=None, which read none."
        )
    if split:
        raise ValueError(
            "axis_name must name the mapped axis over which the samples are split, "
            f"{' and '.join(repr(axis) for axis in sorted(split))}: each device would measure its own "
            f"samples only; got {axis_name!r}."
        )


def check_split(samples: Any, stored: Any) -> None:
    """Raises a ValueError if a `shard_map` splits the samples, but not those in the state."""
    if axes := _varying(samples) - _varying(stored):
        names = ", ".join(repr(axis) for axis in sorted(axes))
        raise ValueError(
            f"opt_state must have its samples split as those of the batch, over {names}, got them whole: "
            "in_specs and out_specs of the state are optax.tree.set(jax.tree.map(lambda _: P(), opt_state), "
            f"cg_samples=P({names}))."
        )


def _varying(tree: Any) -> frozenset[Any]:
    """The mapped axes over which arrays differ; not known under `pmap` and `check_vma=False`."""
    # An undocumented attribute: in a JAX that renames it, this check finds nothing, and all else works.
    kinds = [getattr(jax.typeof(x), "manual_axis_type", None) for x in jax.tree.leaves(tree)]
    return frozenset().union(*(kind.varying for kind in kinds if kind is not None))


def shapes_of_samples(samples: Any) -> Any:
    """The shapes of example samples: arrays with at least one row, or `ShapeDtypeStruct`s; and numbers."""

    def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
        if not _leaves.is_array(leaf) or 0 in jnp.shape(leaf)[:1]:
            raise ValueError(
                "samples must be an example of the batches of the update, arrays or jax.ShapeDtypeStructs "
                f"with at least one row, got {_checks.shown(leaf)}."
            )
        leaf = _checks.jax_array(leaf)
        return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))

    shapes = jax.tree.map(shape_of, samples)
    # A number is no batch, nor is nothing.
    if samples is not None and not any(each.shape for each in jax.tree.leaves(shapes)):
        raise ValueError(f"samples must be an example of the batches, got {_checks.shown(samples)}.")
    return shapes


def cut_samples(samples: Any, stored: Any) -> Any:
    """The first samples, as many as are stored, in the dtype of those; a cast must not lose information."""

    def cut(sample: Any, like: jax.Array) -> jax.Array:
        if not _leaves.is_array(sample):
            raise ValueError(f"samples must be arrays, got {_checks.shown(sample)}.")
        sample = _checks.jax_array(sample)
        shape, dtype = jnp.shape(sample), jnp.result_type(sample)
        alike = len(shape) == len(like.shape) and shape[1:] == like.shape[1:]
        if not alike or shape[:1] < like.shape[:1]:
            advice = (
                "Drop the last, smaller batch of an epoch, or store fewer samples."
                if alike
                else "Only the number of rows may differ."
            )
            raise ValueError(
                f"samples must have the shape of those that the transformation was made with, {like.shape}, "
                f"or more rows; got {shape}. {advice}"
            )
        if not _keeps(dtype, like.dtype):
            raise ValueError(
                f"samples must have the dtype of those that the transformation was made with, {like.dtype}, "
                f"got {dtype}, which does not fit into it; pass an example of the batches as they are in the "
                "update."
            )
        sample = jnp.asarray(sample)
        if like.shape and _sharding.is_explicit(sample):
            # The batch is split and the state is not, whose rows need not be a multiple of the devices.
            rows = jnp.arange(like.shape[0])
            sample = sample.at[rows].get(out_sharding=jax.typeof(like).sharding)
        elif like.shape:
            sample = sample[: like.shape[0]]
        return sample if sample.dtype == like.dtype else sample.astype(like.dtype)  # a key has no astype

    if jax.tree.structure(samples) != jax.tree.structure(stored):
        raise ValueError(
            "samples must have the structure of those that the transformation was made with, "
            f"{jax.tree.structure(stored)}; got {jax.tree.structure(samples)}."
        )
    return jax.tree.map(cut, samples, stored)


def _keeps(source: Any, target: Any) -> bool:
    """Whether a cast keeps the values: to a wider kind, or between float types, which loses only digits.

    Into a float of less than 32 bits go floats of its range, and integers of one byte if it has two.
    """
    if source == target or jnp.issubdtype(target, jnp.complexfloating) or source == np.bool_:
        return True
    if not jnp.issubdtype(target, jnp.floating):
        return np.can_cast(source, target, "safe")
    if jnp.issubdtype(source, jnp.complexfloating):
        return False
    if jnp.dtype(target).itemsize >= 4:
        return True
    if jnp.issubdtype(source, jnp.integer):
        return jnp.dtype(source).itemsize < jnp.dtype(target).itemsize
    most = jnp.finfo(jnp.float32).maxexp  # float64 is float32 in JAX unless x64 is on
    return jnp.finfo(target).maxexp >= min(jnp.finfo(source).maxexp, most)
