"""What a signal is, and how the distances of several layers become one."""

import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks, _control_flow, _leaves, _sharding, topology
from cgalr_jax._warnings import warn_deprecated
from cgalr_jax.layers import Layers, check_layers, layer_units, pooled_units

__all__ = ["FROZEN", "Over", "Signal", "check_signal", "from_connectomes", "positive", "shapes_of_reading"]

Over = Literal["min", "median", "max", "pooled"]

# Optimizer steps between measurements for which the set-points were found.
_REFERENCE_EVERY = 10
# A layer whose distance is less than this share of the largest distance counts as frozen.
FROZEN = 1e-3
# A layer that varies less than this share of the one that varies most has no connectome yet. Small, because
# the first layer varies a hundred times as much as those behind a normalisation if the inputs are not scaled.
_SMALLEST_SIZE = 1e-3


class Signal(NamedTuple):
    """How to compute the distance that a network moved between two measurements.

    Attributes:
        read: `(layers, params) -> reading`: the reading is kept until the next measurement; it is a pytree of
            arrays whose shapes depend on the shapes of the arguments only. `layers` is a
            `cgalr_jax.layers.Layers`, a mapping of names to activations [N, ..., P].
        compare: `(before, after) -> f32[]`: the distance of two readings, at least 0; not finite if nothing
            could be measured.
        set_point: the distance of a network that learns as fast as it should, for measurements every 10
            optimizer steps; positive.
        reads_activations: whether the signal needs `probe` or `activations`.
        reads_params: whether the signal needs `params`.

    Example:
        A custom signal: how far the mean activation of each layer moved.

        >>> def read(layers, params):
        ...     return {name: jnp.mean(x) for name, x in layers.items()}
        >>> def compare(before, after):
        ...     return sum(abs(after[name] - before[name]) for name in after)
        >>> mean_activation = Signal(read, compare, set_point=0.1)
        >>> before, after = (Layers({"hidden": x * jnp.ones((4, 3))}) for x in (1.0, 1.5))
        >>> print(mean_activation.compare(mean_activation.read(before, None), read(after, None)))
        0.5
    """

    read: Callable[[Layers, Any], Any]
    compare: Callable[[Any, Any], jax.Array]
    set_point: float
    reads_activations: bool = True
    reads_params: bool = False

    def set_point_at(self, every: int | jax.Array | np.ndarray) -> jax.Array:
        """The set-point for measurements `every` steps apart, f32[]: `set_point min(every, 10) / 10`.

        Over fewer than ten steps, the memory of a momentum of 0.9, a network moves in a straight line. Beyond
        ten steps, a set-point that grows with `every` does better in runs of 600 steps; but in runs of 4000
        steps, small networks have learnt their data before they move that far, and training diverges.
        Raises a ValueError unless `every` is an integer of at least 1, or an array of integers, traced or
        not.
        """
        if not (isinstance(every, (jax.Array, np.ndarray)) and jnp.issubdtype(every.dtype, jnp.integer)):
            every = _checks.check_integer("every", every, 1)
        elif not isinstance(every, jax.core.Tracer) and np.any(np.asarray(every) < 1):
            raise ValueError(f"every must be at least 1, got {_checks.shown(every)}.")
        # NumPy's before JAX's: of 64 bits JAX would keep 32.
        smaller = np.minimum if isinstance(every, np.ndarray) else jnp.minimum
        steps = jnp.asarray(smaller(every, _REFERENCE_EVERY), jnp.float32)
        return self.set_point / _REFERENCE_EVERY * steps


def check_signal(name: str, signal: Any) -> Signal:
    """The signal, after a check; a ValueError says what is wrong with it."""
    _checks.check_kind(name, signal, Signal)
    signal = _of_the_first_edition(signal)
    _checks.check_function(f"{name}.read", signal.read, "(layers, params) -> reading", 2)
    _checks.check_function(f"{name}.compare", signal.compare, "(before, after) -> distance", 2)
    set_point = _checks.check_positive(f"{name}.set_point", signal.set_point)
    _checks.check_flag(f"{name}.reads_activations", signal.reads_activations)
    _checks.check_flag(f"{name}.reads_params", signal.reads_params)
    return signal._replace(set_point=set_point)


def shapes_of_reading(name: str, signal: Signal, read: Callable[..., Any], *arguments: Any) -> Any:
    """The shapes of what `read`, which calls that of the signal, returns for these arguments.

    Raises a ValueError unless the signal compares two readings of these shapes to a distance.
    """
    reading = _checks.shapes_of(f"{name}.read", read, *arguments, user=signal.read)
    if not jax.tree.leaves(reading):
        raise ValueError(f"{name}.read must return arrays, got {_checks.shown(reading)}.")
    try:
        distance = _checks.shapes_of(f"{name}.compare", signal.compare, reading, reading)
    except NameError:  # it reduces over a mapped axis, which does not exist outside of the mapped function
        return reading
    if getattr(distance, "shape", None) != () or jnp.issubdtype(distance.dtype, jnp.complexfloating):
        raise ValueError(f"{name}.compare must return a distance, f32[], got {_checks.shown(distance)}.")
    return reading


def from_connectomes(
    summarise: Callable[[jax.Array], Any] | None,
    compare: Callable[[Any, Any], jax.Array],
    over: Over,
    set_point: float | None,
    default: float,
    choose: Callable[[int], np.ndarray] | None = None,
) -> Signal:
    """A signal that keeps a summary of each connectome and reduces the distances over the layers.

    A layer whose units vary, by the mean of their absolute deviations, less than a thousandth of those of the
    layer that varies most is left out until it has grown: a connectome knows no sizes, and that of a layer
    that starts at zero moves at any rate.

    Args:
        summarise: connectome f32[P, P] -> the part of it that is kept, a pytree of arrays. All zeros mean a
            layer without two live units. None: the connectome itself is kept.
        compare: two summaries -> distance f32[].
        over: `"pooled"`, `"min"`, `"median"` or `"max"`, see `births`.
        set_point: positive; None for the default.
        default: the set-point to use if `set_point` is None.
        choose: number of units -> the indices of those that are measured; None for all.

    Returns:
        A `Signal`; its reading is `{name of the layer: summary}`, with the only name 'pooled' if all layers
        form one connectome.

    Raises:
        ValueError: if `over` or `set_point` is outside its range.

    Example:
        A custom signal: how much the strongest correlation changed.

        >>> strongest = from_connectomes(jnp.max, lambda a, b: jnp.abs(b - a), "pooled", None, default=0.1)
        >>> x, y = jnp.array([1.0, -1.0, -1.0, 1.0]), jnp.array([1.4, 0.2, -1.4, -0.2])  # correlated by 0.6
        >>> before, after = (Layers({"hidden": jnp.stack(units, axis=1)}) for units in ((x, x), (x, y)))
        >>> print(f"{strongest.compare(strongest.read(before, None), strongest.read(after, None)):.2f}")
        0.40
    """
    if summarise is not None:
        _checks.check_function("summarise", summarise, "connectome -> summary, or None", 1)
    _checks.check_function("compare", compare, "(before, after) -> distance", 2)
    _checks.check_choice("over", over, get_args(Over))
    if choose is not None:
        _checks.check_function("choose", choose, "number of units -> indices", 1)
    default = _checks.check_positive("default", default)

    def read(layers: Layers, params: Any) -> dict[str, Any]:
        del params
        check_layers(layers)
        axis_name = getattr(layers, "axis_name", None)  # a plain mapping of arrays is accepted, too
        if over == "pooled":
            borders = np.cumsum([np.shape(x)[-1] for x in layers.values()])[:-1]
            parts = jnp.split(pooled_units(layers), borders, axis=1)
            units = {"pooled": jnp.concatenate(_without_small(parts, axis_name), axis=1)}
        else:
            each = _without_small([layer_units(x) for x in layers.values()], axis_name)
            units = dict(zip(layers, each, strict=True))
        if choose is not None:
            units = {
                name: x.at[:, _chosen(choose, x.shape[1])].get(out_sharding=_sharding.replicated(x, 2))
                for name, x in units.items()
            }
        connectomes = {
            name: topology.functional_connectome(x, axis_name=axis_name) for name, x in units.items()
        }
        return connectomes if summarise is None else _summaries(summarise, connectomes)

    def silent(summary: Any) -> jax.Array:
        return jnp.stack([jnp.all(x == 0) for x in jax.tree.leaves(summary)]).all()

    def reduce(before: Mapping[str, Any], after: Mapping[str, Any]) -> jax.Array:
        # A layer without two live units has an all-zero connectome, and no motion to measure. A layer that
        # overflowed is not all zeros: it counts, and its distance, NaN, makes the result infinite.
        alive = jnp.stack([~(silent(before[name]) | silent(after[name])) for name in after])
        distances = jnp.stack([compare(before[name], after[name]) for name in after])
        not_finite = jnp.any(alive & jnp.isnan(distances))  # apart, since NaN would fail the next comparison
        moving = alive & (distances >= FROZEN * jnp.max(jnp.where(alive, distances, 0.0)))
        ordered = jnp.sort(jnp.where(moving, distances, jnp.inf))
        last = jnp.maximum(jnp.sum(moving, dtype=jnp.int32) - 1, 0)
        place = {"median": last // 2, "max": last}.get(over, 0)
        return jnp.where(not_finite, jnp.inf, ordered[place])

    return Signal(read, reduce, positive(set_point, default))


def _without_small(layers: list[jax.Array], axis_name: Hashable | None) -> list[jax.Array]:
    """The units of each layer, with zeros in the place of those that hardly vary beside the others.

    A connectome knows no sizes: that of a layer that starts at zero (LoRA's B, the last layer of a residual
    branch) moves at any rate, however small, until the layer has grown.
    """
    if len(layers) < 2:
        return layers

    def mean(x: jax.Array, axis: int | None = None) -> jax.Array:
        local = jnp.mean(x, axis)
        return local if axis_name is None else jax.lax.pmean(local, axis_name)

    sizes = []
    for units in layers:
        values = units.astype(_leaves.wide(units.dtype))
        sizes.append(mean(jnp.abs(values - mean(values, 0)[None, :])).astype(jnp.float32))
    smallest = _SMALLEST_SIZE * jnp.max(jnp.stack(sizes))
    # The comparison is false for NaN: a layer that overflowed has to be seen.
    return [
        jnp.where(size < smallest, jnp.zeros_like(units), units)
        for size, units in zip(sizes, layers, strict=True)
    ]


def _chosen(choose: Callable[[int], np.ndarray], width: int) -> np.ndarray:
    """The units that `choose` chooses of this many; JAX would take the last one for any index beyond."""
    with jax.ensure_compile_time_eval():  # `choose` may use JAX where all else is traced
        chosen = np.asarray(choose(width))
    if not (chosen.ndim == 1 and chosen.size >= 2 and chosen.dtype.kind in "iu"):
        raise ValueError(f"choose must return at least 2 indices, i32[n], got {_checks.shown(chosen)}.")
    if chosen.min() < 0 or chosen.max() >= width:
        raise ValueError(
            f"choose must return indices in [0, {width}) for {width} units, got {chosen.tolist()}."
        )
    return chosen


def _summaries(summarise: Callable[[jax.Array], Any], connectomes: Mapping[str, jax.Array]) -> dict[str, Any]:
    """The summary of each connectome; those of one shape are summarised by one program."""
    found = {}
    for shape in {x.shape for x in connectomes.values()}:
        alike = {name: x for name, x in connectomes.items() if x.shape == shape}
        summaries = _control_flow.each(summarise, list(alike.values()))
        found |= dict(zip(alike, summaries, strict=True))
    return {name: found[name] for name in connectomes}


def positive(set_point: float | None, default: float) -> float:
    """The set-point after a check, or its default."""
    if set_point is None:
        return default
    return _checks.check_positive("set_point", set_point)


def _of_the_first_edition(signal: Signal) -> Signal:
    """Accepts, for one release, a `read` of the API before 0.1.0, which took a third argument."""
    try:
        arguments = inspect.signature(signal.read).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature
        return signal
    required = [
        argument
        for argument in arguments
        if argument.default is argument.empty
        and argument.kind in (argument.POSITIONAL_ONLY, argument.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) != 3:
        return signal
    warn_deprecated(
        "Signal.read is called with (layers, params) now; compute connectomes by "
        "cgalr_jax.topology.functional_connectome(units, axis_name=layers.axis_name). A read of three "
        "arguments will be refused in the next release.",
    )
    read: Callable[..., Any] = signal.read

    def with_connect(layers: Layers, params: Any) -> Any:
        return read(layers, params, lambda x: topology.functional_connectome(x, axis_name=layers.axis_name))

    return signal._replace(read=with_connect)
