"""Vietoris-Rips persistence on the host, and the distance WD of arXiv 2510.23781.

A connectome M becomes a matrix of lengths, 1 - M or 1 / (1 + M). Its Vietoris-Rips filtration gives diagrams
of connected components (H0) and of cycles that triangles can fill (H1); WD is the Wasserstein distance of
these diagrams. H0 contains the same information as the births: its finite deaths are their lengths. H1
contains more, at a cost that grows steeply with the number of units; the host computes while the device
waits. WD is therefore an option, not the default.

The diagrams come from giotto-ph (Pérez, Hauke, Lupo, Caorsi & Dassatti, arXiv 2107.05412; it builds on
Ripser, Bauer, arXiv 1908.02518), which is AGPL-3.0 and has wheels for CPython 3.8 to 3.12 only. Only this
module imports giotto-ph, and only when a diagram is computed.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from cgalr_jax import _checks
from cgalr_jax.topology._weights import as_square

__all__ = ["check_installed", "diagram_distance", "vietoris_rips", "wasserstein_distance"]

# Two threads that call giotto-ph for the first time wait for each other without end. Each device of a
# `shard_map` has a thread of its own.
_ONE_AT_A_TIME = threading.Lock()
_NORMS = (1.0, 2.0, np.inf)
_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "correlation": lambda weights: 1 - weights,
    "reciprocal": lambda weights: 1 / (1 + weights),
}


def vietoris_rips(
    connectome: jax.typing.ArrayLike, maxdim: int = 1, *, metric: str = "correlation"
) -> list[np.ndarray]:
    """Persistence diagrams of the Vietoris-Rips filtration of a connectome.

    An edge enters at its length, 1 - M_ij or 1 / (1 + M_ij), a triangle with its last edge, and so on. Ripser
    leaves out bars of length zero. Here H0 keeps them, so that it always has the P - 1 bars of the spanning
    tree: its deaths, ascending, are the lengths of the births, descending, up to one rounding of 1. The one
    infinite bar of H0 is left out, since it is the same for every connectome.

    Args:
        connectome: f32[P, P] in [0, 1], a concrete array; only i < j is read.
        maxdim: the highest homology dimension, at least 0. The cost rises steeply; the paper uses 1.
        metric: "correlation" for 1 - M; "reciprocal" for 1 / (1 + M), the lengths in the code of the paper's
            group (topo-fcnn), which then takes shortest paths and uses H1. Shortest paths would change
            nothing here and are left out: all lengths are in [1/2, 1], so that no detour is shorter than an
            edge.

    Returns:
        maxdim + 1 arrays f32[n, 2] of (birth, death), both in [0, 1], birth <= death, sorted by birth, then
        death. H0 has P - 1 rows, all with birth 0.

    Raises:
        ImportError: if giotto-ph is not installed.
        ValueError: if the connectome is not square, not real, or has an edge weight that is NaN or outside
            [0, 1]; if `maxdim` is negative, or the metric another.

    Example:
        >>> import pytest
        >>> gph = pytest.importorskip("gph")  # giotto-ph; Python 3.13 has none
        >>> square = np.array([[0, 0.75, 0, 0.75], [0, 0, 0.75, 0], [0, 0, 0, 0.75], [0, 0, 0, 0]])
        >>> components, cycles = vietoris_rips(square)
        >>> components.tolist()  # everything is one component once the threshold falls to 0.75
        [[0.0, 0.25], [0.0, 0.25], [0.0, 0.25]]
        >>> cycles.tolist()  # the cycle of four strong edges lives until a weak one fills it
        [[0.25, 1.0]]
    """
    ripser_parallel = _ripser_parallel()
    maxdim = _check_filtration(maxdim, metric)
    if isinstance(connectome, jax.core.Tracer):
        raise ValueError("connectome must be a concrete array, because the host computes, got a traced one.")
    # A NumPy array stays one: a callback that called JAX could deadlock.
    matrix = np.asarray(_checks.square_array("connectome", connectome))
    upper = np.triu(matrix.astype(np.float32), k=1)
    if not _in_range(upper):
        raise ValueError(f"connectome must be in [0, 1], got values in [{upper.min()}, {upper.max()}].")
    lengths = _METRICS[metric](upper + upper.T)
    np.fill_diagonal(lengths, 0)
    with _ONE_AT_A_TIME:
        diagrams = ripser_parallel(lengths, maxdim=maxdim, metric="precomputed")["dgms"]
    finite = [diagram[np.isfinite(diagram[:, 1])] for diagram in diagrams]
    missing = len(lengths) - 1 - len(finite[0])
    finite[0] = np.concatenate([np.zeros((missing, 2), np.float32), finite[0]])
    return [diagram[np.lexsort((diagram[:, 1], diagram[:, 0]))] for diagram in finite]


def diagram_distance(
    diagram_a: np.ndarray, diagram_b: np.ndarray, order: float = 2.0, internal_p: float = 2.0
) -> float:
    r"""Wasserstein distance of two persistence diagrams, where any point may be matched to the diagonal.

    .. math:: \Big( \min_\gamma \sum_{x} \| x - \gamma(x) \|_q^p \Big)^{1/p}

    over the matchings of points to points or to the diagonal (Edelsbrunner & Harer, "Computational Topology",
    2010). The assignment maximises what matches save over sending both points to the diagonal: it is n x m,
    where the textbook's is (n + m) x (n + m). Exact, O(max(n, m)^3).

    Args:
        diagram_a: [n, 2] of (birth, death), finite, birth <= death; n may be 0.
        diagram_b: [m, 2].
        order: p, a finite number of at least 1.
        internal_p: q, the norm in the plane: 1, 2 or infinity.

    Returns:
        The distance, in the units of the diagrams; exactly 0 for equal diagrams, in whatever order their
        points are.

    Raises:
        ValueError: if an argument is outside its range, or a bar is infinite or NaN.

    Example:
        >>> diagram_distance(np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([[0.0, 0.5]]))
        0.5
    """
    order, internal_p = _check_norms(order, internal_p)
    a, b = _as_diagram("diagram_a", diagram_a), _as_diagram("diagram_b", diagram_b)
    if np.array_equal(a, b):
        return 0.0  # an optimal matching may swap points that differ by a rounding error, at that cost
    # In units of the longest bar: their powers neither overflow nor vanish.
    unit = max((float(np.max(x[:, 1] - x[:, 0])) for x in (a, b) if len(x)), default=0.0)
    if unit == 0:
        return 0.0
    a, b = a / unit, b / unit
    # The nearest point of the diagonal is ((birth + death) / 2, (birth + death) / 2) in every norm.
    to_diagonal_a, to_diagonal_b = (
        ((x[:, 1] - x[:, 0]) * 2.0 ** (1 / internal_p - 1)) ** order for x in (a, b)
    )
    with np.errstate(over="ignore"):  # points so far apart are not matched
        across = np.linalg.norm(a[:, None] - b[None, :], ord=internal_p, axis=-1) ** order
    saved = to_diagonal_a[:, None] + to_diagonal_b[None, :] - across
    rows, columns = scipy.optimize.linear_sum_assignment(np.maximum(saved, 0), maximize=True)
    matched = saved[rows, columns] > 0
    rows, columns = rows[matched], columns[matched]
    to_diagonal_a[rows], to_diagonal_b[columns] = 0, 0
    total = across[rows, columns].sum() + to_diagonal_a.sum() + to_diagonal_b.sum()
    return unit * float(total ** (1 / order))


def wasserstein_distance(
    connectome_a: jax.typing.ArrayLike,
    connectome_b: jax.typing.ArrayLike,
    *,
    maxdim: int = 1,
    mindim: int = 0,
    metric: str = "correlation",
    order: float = 2.0,
    internal_p: float = 2.0,
    normalise: bool = True,
) -> jax.Array:
    r"""WD: the Wasserstein distance of two connectomes' Vietoris-Rips diagrams, over several dimensions.

    .. math:: \Big( \frac{1}{P - 1} \sum_{k = \mathrm{mindim}}^{\mathrm{maxdim}}
        W_p(\mathrm{dgm}_k(a), \mathrm{dgm}_k(b))^p \Big)^{1/p}

    The mean over the P - 1 bars of H0 brings the distance to the scale of `top_distance`, which the part of
    H0 never exceeds. The code of the paper's group (topo-fcnn) takes H1 only, with other lengths:
    `mindim=1, metric="reciprocal"`.

    Works inside jit, scan, shard_map and vmap (one callback after the other). The host computes, and the
    device waits meanwhile.

    Args:
        connectome_a: f32[P, P] in [0, 1], P >= 2.
        connectome_b: f32[P', P'], P' >= 2; the mean is over the larger of P - 1 and P' - 1.
        maxdim: the highest homology dimension; static, as are the following.
        mindim: the lowest that is compared, in [0, maxdim]; 1 leaves out H0.
        metric: "correlation" or "reciprocal", see `vietoris_rips`.
        order: p.
        internal_p: q, see `diagram_distance`.
        normalise: mean over P - 1, whatever the dimensions (True), or sum (False).

    Returns:
        f32[], without a gradient. NaN if an edge weight i < j is NaN or outside [0, 1].

    Raises:
        ImportError: if giotto-ph is not installed.
        ValueError: if a connectome has fewer than two units, is not square, or is complex; if another
            argument is outside its range.

    Example:
        >>> import pytest
        >>> gph = pytest.importorskip("gph")  # giotto-ph; Python 3.13 has none
        >>> a = jnp.array([[0.0, 0.5], [0.5, 0.0]])
        >>> print(jax.jit(wasserstein_distance)(a, 0.5 * a))
        0.25
    """
    # At trace time, not in the middle of a run.
    check_installed()
    maxdim = _check_filtration(maxdim, metric)
    order, internal_p = _check_norms(order, internal_p)
    mindim = _checks.check_integer("mindim", mindim, 0, maxdim)
    _checks.check_flag("normalise", normalise)
    pair = [
        jax.lax.stop_gradient(as_square(name, connectome, least=2))
        for name, connectome in (("connectome_a", connectome_a), ("connectome_b", connectome_b))
    ]
    bars = max(c.shape[0] for c in pair) - 1 if normalise else 1

    def on_host(a: Any, b: Any) -> np.float32:
        if not all(_in_range(np.triu(np.asarray(c), k=1)) for c in (a, b)):
            return np.float32(np.nan)
        diagrams = zip(*(vietoris_rips(c, maxdim, metric=metric)[mindim:] for c in (a, b)), strict=True)
        total = sum(diagram_distance(x, y, order, internal_p) ** order for x, y in diagrams)
        return np.float32((total / bars) ** (1 / order))

    shape = jax.ShapeDtypeStruct((), jnp.float32)
    distance = jax.pure_callback(on_host, shape, *pair, vmap_method="sequential")
    # Under jit over several devices the callback runs on the first one only. Returned directly, its result
    # would stay there, and the other devices would read 0. Any operation on it makes JAX send it to all.
    return jnp.maximum(distance, 0)


def check_installed() -> None:
    """Raises an ImportError if giotto-ph is missing; it says what to install, and for which platforms.

    Example:
        >>> from unittest import mock
        >>> with mock.patch.dict("sys.modules", {"gph": None}):  # as if it were not installed
        ...     check_installed()
        Traceback (most recent call last):
        ...
        ImportError: Vietoris-Rips diagrams need giotto-ph: pip install 'cgalr-jax[giotto]'...
    """
    _ripser_parallel()


def _check_filtration(maxdim: int, metric: str) -> int:
    """The dimension, as a Python number, after a check of both."""
    _checks.check_choice("metric", metric, tuple(_METRICS))
    return _checks.check_integer("maxdim", maxdim, 0)


def _check_norms(order: float, internal_p: float) -> tuple[float, float]:
    """Both, as Python numbers, after a check."""
    return (
        _checks.check("order", order, lambda x: 1 <= x < np.inf, "in [1, infinity)"),
        _checks.check("internal_p", internal_p, lambda x: x in _NORMS, "1, 2 or infinity"),
    )


def _in_range(weights: np.ndarray) -> bool:
    return bool(np.all((weights >= 0) & (weights <= 1)))  # false for NaN, too


def _as_diagram(name: str, diagram: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    array = np.asarray(_checks.real_array(name, diagram), dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name} must have shape [n, 2], got {array.shape}.")
    if not (np.isfinite(array).all() and np.all(array[:, 0] <= array[:, 1])):
        raise ValueError(f"{name} must hold finite bars with birth <= death, got {array.tolist()}.")
    return array[np.lexsort((array[:, 1], array[:, 0]))]


def _ripser_parallel() -> Callable[..., Any]:
    try:
        from gph import ripser_parallel  # pyright: ignore[reportMissingImports], no wheel for Python 3.13
    except ImportError as error:
        raise ImportError(
            "Vietoris-Rips diagrams need giotto-ph: pip install 'cgalr-jax[giotto]'. It has wheels for Python"
            " 3.8 to 3.12 on Linux x86_64, macOS and Windows, but none for Python 3.13 or later, nor for"
            " Linux on ARM. There, signals.births() measures the same connected components without it."
        ) from error
    return ripser_parallel
