"""Signals that read connectomes: births, deaths, both (barcode), and the plain change of correlations."""

import functools
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks, topology
from cgalr_jax.signals.base import Over, Signal, from_connectomes

__all__ = ["barcode", "births", "deaths", "frobenius"]

# `functional_connectome` returns exactly symmetric matrices: the pass that mirrors one is not needed.
_births = functools.partial(topology.compute_births, symmetrise=False)
# Sub-samples per layer; twice as many improve the distance little.
_SUB_SAMPLES = 6


def births(over: Over = "pooled", *, sample: int | None = None, set_point: float | None = None) -> Signal:
    """The TOP distance of the births of connected components (0-dimensional persistence).

    The wider a layer, the heavier the edges of its spanning tree, and the less their weights change. The
    set-point of whole layers was measured on some thirty units and does not hold for wider layers. With
    `sample`, births are taken from six fixed sub-samples of each layer instead, so that all trees have one
    size, whatever the width of the layer.

    Args:
        over: `"pooled"`, one connectome of the units of all layers (positions averaged), as in the paper;
            `"min"`, `"median"` or `"max"`, one connectome per layer (positions as samples) and the smallest,
            the median or the largest of their distances. Layers whose distance is less than a thousandth of
            the largest count as frozen and are left out.
        sample: units per sub-sample, at least 2; None for the whole layer. A layer with less than twice as
            many units has one sub-sample, of at most all its units.
        set_point: distance that is fast enough; positive. Default: 0.22 pooled, 0.17 for a connectome per
            layer, 0.3 for sub-samples.

    Returns:
        A `Signal`; its reading holds the births of each connectome, f32[P - 1], or of its sub-samples,
        f32[6, sample - 1].

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        The births [1, 1] become [0.6, 1].

        >>> from cgalr_jax.layers import Layers
        >>> x, y = jnp.array([1.0, -1.0, -1.0, 1.0]), jnp.array([1.4, 0.2, -1.4, -0.2])  # correlated by 0.6
        >>> before, after = (Layers({"hidden": jnp.stack(units, axis=1)}) for units in ((x, x, x), (x, x, y)))
        >>> signal = births()
        >>> print(f"{signal.compare(signal.read(before, None), signal.read(after, None)):.2f}")
        0.28
    """
    _checks.check_choice("over", over, get_args(Over))
    default = 0.22 if over == "pooled" else 0.17
    if sample is None:
        return from_connectomes(_births, topology.top_distance, over, set_point, default)
    sample = _checks.check_integer("sample", sample, 2)
    return _of_sub_samples(_births, over, sample, set_point, 0.3)


def _of_sub_samples(
    summarise: Callable[[jax.Array], Any], over: Over, sample: int, set_point: float | None, default: float
) -> Signal:
    """A signal that keeps a summary of each sub-sample; the default set-points are those of 16 units."""

    def choose(width: int) -> np.ndarray:
        return _sub_samples(width, sample).reshape(-1)

    def summaries(connectome: jax.Array) -> Any:
        size = min(sample, connectome.shape[0])
        blocks = connectome.reshape(-1, size, connectome.shape[0])
        each = [blocks[k, :, k * size : (k + 1) * size] for k in range(blocks.shape[0])]
        return jax.vmap(summarise)(jnp.stack(each))

    def compare(before: Any, after: Any) -> jax.Array:
        # The mean over the sub-samples, too: of births, of deaths, or with half of the weight of both.
        squares = jax.tree.map(lambda old, new: jnp.mean((new - old) ** 2), before, after)
        return jnp.sqrt(jnp.mean(jnp.stack(jax.tree.leaves(squares))))

    return from_connectomes(summaries, compare, over, set_point, default, choose)


def _sub_samples(width: int, size: int) -> np.ndarray:
    """Six fixed sub-samples of the units of a layer, i64[6, size]; one if the layer is too small for two.

    They share no units as long as the layer has enough of them.
    """
    size = min(size, width)
    count = 1 if width < 2 * size else _SUB_SAMPLES
    random = np.random.default_rng(width)
    rounds = -(-count * size // (width // size * size))
    orders = [random.permutation(width)[: width // size * size].reshape(-1, size) for _ in range(rounds)]
    return np.concatenate(orders)[:count]


def deaths(
    over: Over = "pooled",
    *,
    sample: int | None = None,
    set_point: float | None = None,
    normalise: bool = True,
) -> Signal:
    """The TOP distance of the deaths of cycles: of all correlations outside of the maximum spanning tree.

    Deaths are sorted exactly, P(P-1)/2 numbers per connectome, since the distance that is published is of
    these; those of sub-samples, or the quantiles of `topology.compute_barcode(bins=)`, are cheaper.

    Args:
        over: as for `births`.
        sample: units per sub-sample, as for `births`, but at least 3.
        set_point: distance that is fast enough; positive. Default: 0.09, of sub-samples 0.3. If `normalise`
            is False, the distance grows with the number of units and the default is 1: use a relative
            controller, which needs no set-point.
        normalise: False for the published distance, the L2 norm, see `topology.top_distance`; of whole
            connectomes only.

    Returns:
        A `Signal`; its reading holds the deaths of each connectome, f32[(P - 1)(P - 2) / 2], or of its
        sub-samples, f32[6, (sample - 1)(sample - 2) / 2]. Its `read` raises a ValueError if a connectome has
        less than three units, and so no cycles.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        The only death, 1, becomes 0.6.

        >>> from cgalr_jax.layers import Layers
        >>> x, y = jnp.array([1.0, -1.0, -1.0, 1.0]), jnp.array([1.4, 0.2, -1.4, -0.2])  # correlated by 0.6
        >>> before, after = (Layers({"hidden": jnp.stack(units, axis=1)}) for units in ((x, x, x), (x, x, y)))
        >>> signal = deaths()
        >>> print(f"{signal.compare(signal.read(before, None), signal.read(after, None)):.2f}")
        0.40
    """

    def summarise(connectome: jax.Array) -> jax.Array:
        found = _with_cycles(connectome)
        # NaN weights count as the heaviest, so that they are births: without this the deaths would hide them.
        return jnp.where(jnp.isnan(found.births).any(), jnp.inf, found.deaths)

    sample = _check_mean(sample, normalise)
    if sample is not None:
        return _of_sub_samples(summarise, over, sample, set_point, 0.3)
    compare = functools.partial(topology.top_distance, normalise=normalise)
    return from_connectomes(summarise, compare, over, set_point, 0.09 if normalise else 1.0)


def barcode(
    over: Over = "pooled",
    *,
    sample: int | None = None,
    set_point: float | None = None,
    normalise: bool = True,
) -> Signal:
    """The TOP distance of births and deaths together, with half of the weight each.

    See `topology.barcode_distance`.

    Args:
        over: as for `births`.
        sample: units per sub-sample, as for `births`, but at least 3.
        set_point: distance that is fast enough; positive. Default: 0.16, of sub-samples 0.35; if `normalise`
            is False 1, as for `deaths`.
        normalise: False for the published distance, the L2 norm of births and deaths together; of whole
            connectomes only.

    Returns:
        A `Signal`; its reading holds a `Barcode` per connectome, P(P - 1) / 2 numbers in all, or those of its
        six sub-samples. Its `read` raises a ValueError if a connectome has less than three units.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        The births [1, 1] become [0.6, 1], and the death 1 becomes 0.6.

        >>> from cgalr_jax.layers import Layers
        >>> x, y = jnp.array([1.0, -1.0, -1.0, 1.0]), jnp.array([1.4, 0.2, -1.4, -0.2])  # correlated by 0.6
        >>> before, after = (Layers({"hidden": jnp.stack(units, axis=1)}) for units in ((x, x, x), (x, x, y)))
        >>> signal = barcode()
        >>> print(f"{signal.compare(signal.read(before, None), signal.read(after, None)):.2f}")
        0.35
    """
    sample = _check_mean(sample, normalise)
    if sample is not None:
        return _of_sub_samples(_with_cycles, over, sample, set_point, 0.35)
    compare = functools.partial(topology.barcode_distance, normalise=normalise)
    return from_connectomes(_with_cycles, compare, over, set_point, 0.16 if normalise else 1.0)


def frobenius(over: Over = "min", *, set_point: float | None = None) -> Signal:
    """The root mean square change of all correlations: no topology.

    The minimum over the layers is the distance of the slowest layer: a wide dense layer moves at rates at
    which a first convolution hardly does.

    Args:
        over: as for `births`.
        set_point: root mean square change of a correlation that is fast enough; positive. Default: 0.4.

    Returns:
        A `Signal`; its reading holds connectomes, f32[P, P] each.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        Other units are correlated, as strongly as before: the barcode is the same, the connectome is not.

        >>> from cgalr_jax.layers import Layers
        >>> x, y = jnp.array([1.0, -1.0, -1.0, 1.0]), jnp.array([1.0, 1.0, -1.0, -1.0])
        >>> before, after = (Layers({"hidden": jnp.stack(units, axis=1)}) for units in ((x, x, y), (x, y, y)))
        >>> for signal in (frobenius(), barcode()):
        ...     print(f"{signal.compare(signal.read(before, None), signal.read(after, None)):.2f}")
        0.82
        0.00
    """
    return from_connectomes(None, topology.frobenius_distance, over, set_point, 0.4)


def _check_mean(sample: int | None, normalise: bool) -> int | None:
    """The units per sub-sample with cycles, after a check of both; of sub-samples there is a mean only."""
    _checks.check_flag("normalise", normalise)
    if sample is None:
        return None
    if not normalise:
        raise ValueError("normalise must be True with sample, the distance of which is a mean, got False.")
    return _checks.check_integer("sample", sample, 3)


def _with_cycles(connectome: jax.Array) -> topology.Barcode:
    if connectome.shape[0] < 3:
        raise ValueError(
            "example must have at least 3 units per connectome for a signal that reads deaths, got "
            f"{connectome.shape[0]}."
        )
    return topology.compute_barcode(connectome, symmetrise=False)
