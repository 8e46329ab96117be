"""How far two barcodes, or two connectomes, are apart.

Between two barcodes the 2-Wasserstein distance of persistent graph homology has a closed form: the births of
one connectome are paired with the births of the other in sorted order, and the deaths likewise
(Songdechakraiwut & Chung, "Topological learning for brain networks", arXiv 2012.00675; the distance TOP of
arXiv 2510.23781). In one dimension, pairing in sorted order is optimal transport. Arrays of different lengths
are compared by their quantile functions, exactly.

Everything here is computed in float32, without gradients: the learning rate is no part of the function that
is differentiated. Equal inputs are exactly 0 apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks, _control_flow
from cgalr_jax._units import is_ordinary, unit_of
from cgalr_jax.topology._weights import as_real, as_square
from cgalr_jax.topology.barcode import Barcode

if TYPE_CHECKING:
    from jaxtyping import Array, Float32

__all__ = ["barcode_distance", "frobenius_distance", "top_distance"]

_ORDERS = (1.0, 2.0, np.inf)


def top_distance(
    births_a: jax.typing.ArrayLike,
    births_b: jax.typing.ArrayLike,
    *,
    order: float = 2.0,
    normalise: bool = True,
) -> Float32[Array, ""]:
    r"""Wasserstein distance of two sorted arrays of births, or of two sorted arrays of deaths.

    With the quantile functions :math:`Q_a, Q_b : (0, 1) \to \mathbb{R}`, step functions that take the sorted
    values on steps of equal width,

    .. math:: d_p(a, b) = \Big( \int_0^1 |Q_a(q) - Q_b(q)|^p \, dq \Big)^{1/p}

    For equal lengths this is a mean over the sorted pairs: the root mean square for order 2, the mean
    absolute difference for order 1, the largest difference for order infinity. The mean does not grow with
    the number of values. With `normalise=False` it becomes a sum, and order 2 the L2 norm of the sorted
    differences: TOP as the code of the paper's group computes it (topo-fcnn, topo-clustering), there for
    births and deaths together, see `barcode_distance`. Births (P - 1 values, the spanning tree) are cheap;
    deaths (all other edges) show changes within the components.

    Stability: no value of a sorted array moves by more than the largest change of an edge weight, so each
    normalised distance of two connectomes' births or deaths is at most `max |M_a - M_b|`.

    Args:
        births_a: f32[n], ascending (not checked), n >= 1; or deaths. Any real dtype.
        births_b: f32[m], ascending (not checked), m >= 1. If m differs from n, the integral is the exact sum
            over their at most n + m - 1 common steps.
        order: 1, 2 or infinity; a static number.
        normalise: mean over the pairs (True) or sum over them (False, equal lengths only). Without effect for
            order infinity.

    Returns:
        f32[], dimensionless; if normalised, in [0, 1] for births and deaths of connectomes. NaN if a value is
        not finite, or the distance too large for a float32.

    Raises:
        ValueError: if an array is empty, not one-dimensional or complex, if the order is another, or if a sum
            is asked of arrays of different lengths.

    Example:
        >>> a, b = jnp.array([0.1, 0.5, 0.9]), jnp.array([0.1, 0.5, 0.6])
        >>> print(f"{top_distance(a, b, order=1):.2f}", f"{top_distance(a, b, order=jnp.inf):.2f}")
        0.10 0.30
        >>> print(top_distance(a, jnp.repeat(a, 4)))  # the same distribution, four times the units
        0.0
    """
    order = _check_options(order, normalise)
    a, b = _as_sorted_array("births_a", births_a), _as_sorted_array("births_b", births_b)
    index = None
    if a.size == b.size:
        weights = jnp.full(a.shape, 1.0 / a.size if normalise else 1.0, dtype=jnp.float32)
    elif normalise or order == np.inf:
        *index, widths = _common_steps(a.size, b.size)
        weights = jnp.asarray(widths, dtype=jnp.float32)
    else:
        raise ValueError(
            f"normalise must be True for arrays of different lengths {a.size} and {b.size}, got False."
        )

    def gaps(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.abs(a - b if index is None else a[index[0]] - b[index[1]])

    if order == np.inf:
        return _or_nan(jnp.max(gaps(a, b)))
    return _mean_of(gaps, lambda gaps: _root(jnp.sum(weights * gaps ** int(order)), order), a, b)


def barcode_distance(
    barcode_a: Barcode,
    barcode_b: Barcode,
    *,
    order: float = 2.0,
    normalise: bool = True,
) -> Float32[Array, ""]:
    r"""The distance TOP of births and deaths together: births are paired with births, deaths with deaths.

    .. math:: d_p^p = w_0 \, d_p(\mathrm{births})^p + w_1 \, d_p(\mathrm{deaths})^p

    With `normalise=False` both weights are 1, and order 2 is the published TOP: the L2 norm of the
    differences of births and deaths, as in the code of the paper's group (topo-fcnn, topo-clustering), where
    births are the sorted weights of the maximum spanning tree and deaths the sorted rest. It is the
    2-Wasserstein distance of the whole barcode (Songdechakraiwut & Chung, arXiv 2012.00675).

    Normalised, both weights are 1/2: there are P/2 - 1 times as many deaths as births, so that births would
    hardly count in a mean over all edges. For order infinity, the larger of the two distances is returned.
    Use this distance if cycles matter, too; its barcodes cost the sort of all P(P-1)/2 edges.

    Args:
        barcode_a: births f32[P - 1] and deaths f32[(P - 1)(P - 2) / 2], ascending. If normalised, deaths may
            also be quantiles (`bins` of `compute_barcode`).
        barcode_b: the same, of P' units; P' other than P needs `normalise`.
        order: 1, 2 or infinity; a static number.
        normalise: see above.

    Returns:
        f32[], dimensionless; NaN as for `top_distance`. Two units have no deaths: only their births count.

    Raises:
        ValueError: if one barcode has deaths and the other has none; otherwise as `top_distance`.

    Example:
        >>> a = Barcode(births=jnp.array([0.2, 0.4]), deaths=jnp.array([0.1]))
        >>> b = Barcode(births=jnp.array([0.2, 0.7]), deaths=jnp.array([0.5]))
        >>> print(f"{barcode_distance(a, b, normalise=False):.2f}")
        0.50
    """
    _checks.check_kind("barcode_a", barcode_a, Barcode, "cgalr_jax.topology")
    _checks.check_kind("barcode_b", barcode_b, Barcode, "cgalr_jax.topology")
    of_births = top_distance(barcode_a.births, barcode_b.births, order=order, normalise=normalise)
    if jnp.size(barcode_a.deaths) == 0 and jnp.size(barcode_b.deaths) == 0:
        return of_births
    of_deaths = top_distance(barcode_a.deaths, barcode_b.deaths, order=order, normalise=normalise)
    if order == np.inf:
        return jnp.maximum(of_births, of_deaths)
    weight = 0.5 if normalise else 1.0
    unit = unit_of(jnp.maximum(of_births, of_deaths))
    total = weight * ((of_births * unit) ** int(order) + (of_deaths * unit) ** int(order))
    return _or_nan(_root(total, order) / unit)


def frobenius_distance(
    connectome_a: jax.typing.ArrayLike, connectome_b: jax.typing.ArrayLike
) -> Float32[Array, ""]:
    r"""Root mean square difference of the edge weights of two connectomes.

    .. math:: \Big( \frac{2}{P(P-1)} \sum_{i<j} (A_{ij} - B_{ij})^2 \Big)^{1/2}

    It compares each edge with itself, whereas distances of barcodes compare sorted weights: it is never
    smaller than the root mean square difference of all sorted weights. Use it where the units keep their
    identity, as they do within one run.

    Args:
        connectome_a: f32[P, P], P >= 2, any real dtype; only i < j is read.
        connectome_b: f32[P, P].

    Returns:
        f32[], dimensionless, in [0, 1] for weights in [0, 1]; NaN if an edge weight i < j is not finite.
        Squares are taken in float32 as they are: it is NaN if they add up to more than 3e38, and a difference
        below 1.1e-19 counts as 0.

    Raises:
        ValueError: if the shapes differ or are not square, or the weights are complex or of fewer than two
            units.

    Example:
        >>> connectome = jnp.array([[0.0, 0.5], [0.5, 0.0]])
        >>> print(frobenius_distance(connectome, 0.5 * connectome))
        0.25
    """
    a = jax.lax.stop_gradient(as_square("connectome_a", connectome_a, least=2))
    b = jax.lax.stop_gradient(as_real("connectome_b", connectome_b))
    if b.shape != a.shape:
        raise ValueError(f"connectome_b must have connectome_a's shape {a.shape}, got {b.shape}.")
    edges = a.shape[0] * (a.shape[0] - 1) / 2
    # As it is, without a unit: with one, or a branch for it, XLA fuses the sum otherwise, to other last bits.
    return _or_nan(jnp.sqrt(jnp.sum(jnp.triu(a - b, k=1) ** 2) / edges))


def _mean_of(
    gaps: Callable[[jax.Array, jax.Array], jax.Array],
    mean: Callable[[jax.Array], jax.Array],
    a: jax.Array,
    b: jax.Array,
) -> Float32[Array, ""]:
    """`mean(gaps(a, b))`, again and in another unit where it is not ordinary; NaN if it is not finite."""
    plain = mean(gaps(a, b))
    # A factor in the ordinary mean would cost a pass, and XLA might sum in another order: not the same bits.
    # The barrier keeps the two apart under `vmap` as well, where both are computed.
    a, b = jax.lax.optimization_barrier((a, b))

    def in_their_unit(_: jax.Array) -> jax.Array:
        unit = unit_of(jnp.max(gaps(a, b)))
        return mean(gaps(a, b) * unit) / unit

    return _or_nan(_control_flow.when(~is_ordinary(plain), in_their_unit, plain))


def _or_nan(distance: jax.Array) -> jax.Array:
    """NaN for what is not finite, as the distance from an infinite value is: 0 times infinity is NaN."""
    return distance + 0 * distance


def _check_options(order: float, normalise: bool) -> float:
    """The order, as a Python number, after a check of both."""
    if isinstance(order, jax.core.Tracer):
        raise ValueError("order must be 1, 2 or infinity, a static number, got a traced value.")
    _checks.check_flag("normalise", normalise)
    return _checks.check("order", order, lambda x: x in _ORDERS, "1, 2 or infinity")


def _as_sorted_array(name: str, values: jax.typing.ArrayLike) -> Float32[Array, " n"]:
    array = jax.lax.stop_gradient(as_real(name, values))
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must have shape [n] with n >= 1, got {array.shape}.")
    return array


def _common_steps(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The steps on which both quantile functions are constant: index into each array, and width.

    Breakpoints are multiples of 1/(nm). They are kept as integers, so that common ones are exactly equal.
    """
    breaks = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    left = breaks[:-1]
    return left // m, left // n, np.diff(breaks) / (n * m)


def _root(total: Float32[Array, ""], order: float) -> Float32[Array, ""]:
    return jnp.sqrt(total) if order == 2.0 else total
