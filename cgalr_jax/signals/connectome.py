"""Signals that read connectomes: births, deaths, both (barcode), and the plain motion of correlations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks, topology
from cgalr_jax.signals.base import Over, Signal, from_connectomes

__all__ = ["barcode", "births", "deaths", "frobenius"]

# Our own connectomes are symmetric to the bit: the pass that mirrors a matrix is saved.
_births = functools.partial(topology.compute_births, symmetrise=False)
# Sub-samples of a layer; twice as many tell little more.
_SUB_SAMPLES = 6
# The set-point of births on sub-samples of 16 units, where nothing else is heard.
_SAMPLED = 0.3


def births(over: Over = "pooled", *, sample: int | None = None, set_point: float | None = None) -> Signal:
    """The paper's signal: the TOP distance of the births of connected components (0-dimensional persistence).

    The wider a layer, the heavier the edges of its spanning tree and the less they move: the set-point of
    whole layers was measured on some thirty units, and does not carry over. With `sample` the births are
    those of six fixed sub-samples of so many units each: trees of one size, whatever the width of the layer.

    Args:
        over: `"pooled"`, one connectome of the units of all layers (positions averaged), as in the paper;
            `"min"`, `"median"` or `"max"`, a connectome per layer (positions as samples) and the smallest,
            the median or the largest of their distances. Layers that move less than a thousandth of the
            largest distance are frozen, and left out.
        sample: units per sub-sample, at least 2; None: the whole layer. Layers with fewer units are measured
            whole.
        set_point: distance that is fast enough; positive. Default: 0.04 pooled, 0.031 for a connectome per
            layer, 0.3 for sub-samples.

    Returns:
        A `Signal`; its reading are births per connectome, f32[P - 1], or f32[6, sample - 1] of sub-samples.

    Raises:
        ValueError: if an argument is outside its range.
    """
    default = 0.04 if over == "pooled" else 0.031
    if sample is None:
        return from_connectomes(_births, topology.top_distance, over, set_point, default)
    _checks.check_integer("sample", sample, 2)

    def choose(width: int) -> np.ndarray:
        return _sub_samples(width, sample).reshape(-1)

    def summarise(connectome: jax.Array) -> jax.Array:
        size = min(sample, connectome.shape[0])
        blocks = connectome.reshape(-1, size, connectome.shape[0])
        each = [blocks[k, :, k * size : (k + 1) * size] for k in range(blocks.shape[0])]
        return jax.vmap(_births)(jnp.stack(each))

    def compare(before: jax.Array, after: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.mean((after - before) ** 2))

    return from_connectomes(summarise, compare, over, set_point, _SAMPLED, choose)


def _sub_samples(width: int, size: int) -> np.ndarray:
    """Six fixed sub-samples of the units of a layer, i64[6, size]; of a layer that is too small for two, one.

    They have no unit in common as far as there are enough.
    """
    size = min(size, width)
    count = 1 if width < 2 * size else _SUB_SAMPLES
    random = np.random.default_rng(width)
    rounds = -(-count * size // (width // size * size))
    orders = [random.permutation(width)[: width // size * size].reshape(-1, size) for _ in range(rounds)]
    return np.concatenate(orders)[:count]


def deaths(over: Over = "pooled", *, set_point: float | None = None, normalise: bool = True) -> Signal:
    """The TOP distance of the deaths of cycles: all correlations outside of the maximum spanning tree.

    They are sorted exactly, P(P-1)/2 numbers a connectome: the quantiles of `barcode(bins=)` are cheaper, but
    coarser than the set-point.

    Args:
        over: as for `births`.
        set_point: distance that is fast enough; positive. Default: 0.016; without `normalise` 1, since a sum
            grows with the number of units: a relative controller needs no set-point.
        normalise: False for the published distance, the plain L2 norm: see `topology.top_distance`.

    Returns:
        A `Signal`; its reading are deaths, f32[(P - 1)(P - 2) / 2] a connectome. Reading raises a ValueError
        if a connectome has less than three units: it has no cycles.

    Raises:
        ValueError: if an argument is outside its range.
    """

    def summarise(connectome: jax.Array) -> jax.Array:
        found = _with_cycles(connectome)
        # Edges that are not numbers count as the heaviest: the tree has them, and no death would show it.
        return jnp.where(jnp.isnan(found.births).any(), jnp.inf, found.deaths)

    _checks.check_flag("normalise", normalise)
    compare = functools.partial(topology.top_distance, normalise=normalise)
    return from_connectomes(summarise, compare, over, set_point, 0.016 if normalise else 1.0)


def barcode(over: Over = "pooled", *, set_point: float | None = None, normalise: bool = True) -> Signal:
    """The TOP distance of births and deaths together, half of the weight each (`topology.barcode_distance`).

    Args:
        over: as for `births`.
        set_point: distance that is fast enough; positive. Default: 0.028; without `normalise` 1, as `deaths`.
        normalise: False for the published distance, the plain L2 norm of births and deaths side by side.

    Returns:
        A `Signal`; its reading are a `Barcode` a connectome, f32[P(P - 1) / 2] in all. Reading raises a
        ValueError if a connectome has less than three units.

    Raises:
        ValueError: if an argument is outside its range.
    """
    _checks.check_flag("normalise", normalise)
    compare = functools.partial(topology.barcode_distance, normalise=normalise)
    return from_connectomes(_with_cycles, compare, over, set_point, 0.028 if normalise else 1.0)


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
    return from_connectomes(None, topology.frobenius_distance, over, set_point, 0.1)


def _with_cycles(connectome: jax.Array) -> topology.Barcode:
    if connectome.shape[0] < 3:
        raise ValueError(
            f"A connectome must have at least 3 units to have cycles, got {connectome.shape[0]}."
        )
    return topology.compute_barcode(connectome, symmetrise=False)
