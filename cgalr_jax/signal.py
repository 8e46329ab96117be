"""Layers of units to a distance: which quantity says how far the network moved, and how much of it is fast.

A `Signal` is read once a measurement. Its reading stays in the state until the next one, when the two are
compared. All of them answer in their own unit; `set_point` says how much of it is the calibrated speed, so
that a controller sees 1 for 'moving as fast as it should' whichever signal it listens to.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import topology
from cgalr_jax.connectome import layer_units

Layers = Mapping[str, jax.Array]  # {name of the layer: activations [N, ..., F]}
Connect = Callable[[jax.Array], jax.Array]  # units [N, P] -> connectome f32[P, P], over all devices
Over = Literal["min", "median", "pooled"]

# The cadence at which the set-points were measured, and the largest number of parameters that `update_norm`
# looks at.
_REFERENCE_EVERY = 10
_MAX_ENTRIES = 4096
# A layer that moves less than this share of the one that moves most is frozen.
_FROZEN = 1e-3
# The weight of the update norm in the hybrid.
_SHARE = 0.7
_WHOLE = jax.sharding.PartitionSpec(None)


class Signal(NamedTuple):
    """How to tell how far a network moved between two measurements.

    Attributes:
        read: `(layers, params, connect) -> reading`: what is kept until the next measurement, a pytree of
            float32 arrays. `layers` maps names to activations [N, ..., F], `connect` turns units [N, P] into
            a connectome f32[P, P].
        compare: `(before, after) -> f32[]`: the distance of two readings; not finite where nothing could be
            measured.
        set_point: distance a measurement of a network that learns as fast as it should, for `every = 10`.
        reads_activations: whether it needs `probe` or `activations`.
        reads_params: whether it needs `params`.
    """

    read: Callable[[Layers, Any, Connect], Any]
    compare: Callable[[Any, Any], jax.Array]
    set_point: float
    reads_activations: bool = True
    reads_params: bool = False

    def set_point_at(self, every: int) -> float:
        """The set-point for measurements `every` steps apart: `set_point min(every, 10) / 10`, our choice.

        Below ten steps, the memory of a momentum of 0.9, a network moves in a straight line. Above, one
        that grows with `every` does better in runs of 600 steps; but in runs of 4000 small networks have
        learnt their data before they move that far, and break.
        """
        return self.set_point * min(every, _REFERENCE_EVERY) / _REFERENCE_EVERY


def births(over: Over = "pooled", *, set_point: float | None = None) -> Signal:
    """The paper's signal: the TOP distance of the births of connected components (0-dimensional persistence).

    Its set-point was measured on layers of some thirty units and does not carry over: layers of 64 units and
    more broke at it in our experiments, and did better at half of it.

    Args:
        over: `"pooled"`, one connectome of the units of all layers (positions averaged), as in the paper;
            `"min"` or `"median"`, a connectome a layer (positions as samples) and the smallest or the median
            of their distances. Layers that move less than a thousandth of the largest distance are frozen,
            and left out.
        set_point: distance that is fast enough; positive. Default: 0.04 pooled, 0.031 for a connectome a
            layer.

    Returns:
        A `Signal`; its reading are births, f32[P - 1] a connectome.

    Raises:
        ValueError: if an argument is outside its range.
    """
    default = 0.04 if over == "pooled" else 0.031
    return from_connectomes(topology.compute_births, topology.top_distance, over, set_point, default)


def deaths(over: Over = "pooled", *, set_point: float | None = None) -> Signal:
    """The TOP distance of the deaths of cycles: all correlations outside of the maximum spanning tree.

    They are sorted exactly, P(P-1)/2 numbers a connectome: the quantiles of `barcode(bins=)` are cheaper, but
    coarser than the set-point.

    Args:
        over: as for `births`.
        set_point: distance that is fast enough; positive. Default: 0.016.

    Returns:
        A `Signal`; its reading are deaths, f32[(P - 1)(P - 2) / 2] a connectome. Reading raises a ValueError
        if a connectome has less than three units: it has no cycles.

    Raises:
        ValueError: if an argument is outside its range.
    """

    def summarise(connectome: jax.Array) -> jax.Array:
        found = _with_cycles(connectome)
        # Edges that are not numbers count as the heaviest: the tree has them, and no death would show it.
        return jnp.where(jnp.isnan(found.births).any(), jnp.nan, found.deaths)

    return from_connectomes(summarise, topology.top_distance, over, set_point, 0.016)


def barcode(over: Over = "pooled", *, set_point: float | None = None) -> Signal:
    """The TOP distance of births and deaths together, half of the weight each (`topology.barcode_distance`).

    Args:
        over: as for `births`.
        set_point: distance that is fast enough; positive. Default: 0.028.

    Returns:
        A `Signal`; its reading are a `Barcode` a connectome, f32[P(P - 1) / 2] in all. Reading raises a
        ValueError if a connectome has less than three units.

    Raises:
        ValueError: if an argument is outside its range.
    """
    return from_connectomes(_with_cycles, topology.barcode_distance, over, set_point, 0.028)


def _with_cycles(connectome: jax.Array) -> topology.Barcode:
    if connectome.shape[0] < 3:
        raise ValueError(
            f"A connectome must have at least 3 units to have cycles, got {connectome.shape[0]}."
        )
    return topology.compute_barcode(connectome)


def frobenius(over: Over = "min", *, set_point: float | None = None) -> Signal:
    """The root mean square change of all correlations: no topology, half the noise of births.

    The minimum over the layers waits for the slowest one: a wide dense layer moves at rates at which a first
    convolution has not begun to.

    Args:
        over: `"min"` or `"median"` over the layers, or `"pooled"`: see `births`.
        set_point: root mean square change of a correlation that is fast enough; positive. Default: 0.1.

    Returns:
        A `Signal`; its reading are connectomes, f32[P, P] each.

    Raises:
        ValueError: if an argument is outside its range.
    """
    return from_connectomes(lambda connectome: connectome, topology.frobenius_distance, over, set_point, 0.1)


def update_norm(*, set_point: float | None = None) -> Signal:
    """The relative norm of the update of the parameters: no connectome at all, the control to compare with.

    `|params_t - params_{t - every}| / |params_{t - every}|`, from a static sub-sample of at most 4096
    entries. It needs no probe and no activations, and cost nothing in accuracy in our experiments. Parameters
    that are frozen count in the denominator: where they are most of the tree, it says far too little. Where
    all parameters start at zero, it says far too much.

    Args:
        set_point: relative change that is fast enough; positive. Default: 0.18.

    Returns:
        A `Signal`; its reading is f32[n], the sub-sampled entries.

    Raises:
        ValueError: if the set-point is not positive.
    """

    def read(layers: Layers, params: Any, connect: Connect) -> jax.Array:
        del layers, connect
        return _sample_entries(params)

    def compare(before: jax.Array, after: jax.Array) -> jax.Array:
        norm = jnp.linalg.norm(before)
        return jnp.linalg.norm(after - before) / jnp.where(norm == 0, 1.0, norm)

    return Signal(read, compare, _positive(set_point, 0.18), reads_activations=False, reads_params=True)


def hybrid(connectome: Signal | None = None, update: Signal | None = None) -> Signal:
    """Connectome and update norm together, the default: `weigh` of the two, each in its set-points.

    Where one is deceived the other helps: the connectome of a recurrent layer moves at rates that are far too
    small, the update norm does not see what the update does. Where one stands still (a probe of frozen
    layers) the other still ends the ramp, at twice its set-point.

    Args:
        connectome: a signal that reads activations; default `frobenius()`.
        update: a signal that reads parameters; default `update_norm()`.

    Returns:
        A `Signal` of set-point 1, in set-points of the two; its reading is the pair of readings.
    """
    first = frobenius() if connectome is None else connectome
    second = update_norm() if update is None else update

    def read(layers: Layers, params: Any, connect: Connect) -> tuple[Any, Any]:
        return first.read(layers, params, connect), second.read(layers, params, connect)

    def compare(before: tuple[Any, Any], after: tuple[Any, Any]) -> jax.Array:
        motion, change = (
            signal.compare(old, new) / signal.set_point
            for signal, old, new in zip((first, second), before, after, strict=True)
        )
        return weigh(motion, change)

    return Signal(read, compare, 1.0, reads_params=True)


def weigh(motion: jax.Array, change: jax.Array, share: float | jax.Array = _SHARE) -> jax.Array:
    """The weighted geometric mean of two motions, and at least half of the larger one.

    `max(motion^(1 - share) change^share, motion / 2, change / 2)`, our choice.

    Args:
        motion: how far the connectome moved, in its set-points; f32[], not negative.
        change: how far the parameters moved, in their set-points; f32[], not negative.
        share: the weight of `change`; in [0, 1].

    Returns:
        f32[]; not finite where one of the two is not.

    Example:
        >>> import jax.numpy as jnp
        >>> [f"{weigh(jnp.float32(x), jnp.float32(1.0)):.2f}" for x in (0.0, 0.5, 1.0)]
        ['0.50', '0.81', '1.00']
    """
    mean = motion ** (1 - share) * change**share  # a factor at a time: the product of the two could underflow
    return jnp.maximum(mean, jnp.maximum(motion, change) / 2)


def from_connectomes(
    summarise: Callable[[jax.Array], Any],
    compare: Callable[[Any, Any], jax.Array],
    over: Over,
    set_point: float | None,
    default: float,
) -> Signal:
    """A signal that keeps a summary of each connectome; the distances are reduced over the layers."""
    if over not in ("min", "median", "pooled"):
        raise ValueError(f"over must be 'min', 'median' or 'pooled', got {over!r}.")

    def read(layers: Layers, params: Any, connect: Connect) -> dict[str, Any]:
        del params
        units = (
            {"pooled": _pool(layers)} if over == "pooled" else {k: layer_units(v) for k, v in layers.items()}
        )
        return {name: summarise(connect(unit)) for name, unit in units.items()}

    def silent(summary: Any) -> jax.Array:
        return jnp.stack([jnp.all(x == 0) for x in jax.tree.leaves(summary)]).all()

    def reduce(before: dict[str, Any], after: dict[str, Any]) -> jax.Array:
        # A layer without two live units has an all-zero connectome: no motion there says anything. The
        # comparison is true for NaN, so that a layer that overflowed counts and its distance, NaN, is the
        # result.
        alive = jnp.stack([~(silent(before[name]) | silent(after[name])) for name in after])
        distances = jnp.stack([compare(before[name], after[name]) for name in after])
        broken = jnp.any(alive & jnp.isnan(distances))  # NaN sorts last: look for it apart
        moving = alive & (distances >= _FROZEN * jnp.max(jnp.where(alive, distances, 0.0)))
        ordered = jnp.sort(jnp.where(moving, distances, jnp.inf))
        middle = jnp.maximum(jnp.sum(moving) - 1, 0) // 2 if over == "median" else 0
        return jnp.where(broken, jnp.nan, ordered[middle])

    return Signal(read, reduce, _positive(set_point, default))


def _pool(layers: Layers) -> jax.Array:
    """The units of all layers side by side, [N, sum of P]: positions are averaged, one sample is one row."""
    means = [jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim - 1))) for x in layers.values()]
    if len({x.shape[0] for x in means}) > 1:
        sizes = {name: x.shape for name, x in layers.items()}
        raise ValueError(f"Pooled layers must have the same number of samples (leading axis), got {sizes}.")
    return jnp.concatenate(means, axis=1)


def _sample_entries(params: Any) -> jax.Array:
    """A static sub-sample of the floating entries of the parameters, f32[n]."""
    leaves = [x for x in jax.tree.leaves(params) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    total = sum(math.prod(jnp.shape(x)) for x in leaves)
    # An odd stride visits all columns of a matrix whose width is a power of two.
    stride = math.ceil(total / _MAX_ENTRIES) | 1
    return jnp.concatenate([_strided(x, stride).astype(jnp.float32) for x in leaves])


def _strided(x: jax.Array, stride: int) -> jax.Array:
    """Each `stride`-th entry of an array, [n]."""
    sharding = jax.typeof(x).sharding
    if not any(sharding.spec):
        return jnp.ravel(x)[::stride]
    # Split over an Explicit mesh (on an Auto one the type says nothing): gathered entry by entry.
    index = np.unravel_index(np.arange(0, x.size, stride), x.shape)
    return jnp.asarray(x).at[index].get(out_sharding=jax.sharding.NamedSharding(sharding.mesh, _WHOLE))


def _positive(set_point: float | None, default: float) -> float:
    if set_point is None:
        return default
    if not (isinstance(set_point, (int, float)) and 0 < set_point < math.inf):
        raise ValueError(f"set_point must be positive and finite, got {set_point!r}.")
    return float(set_point)
