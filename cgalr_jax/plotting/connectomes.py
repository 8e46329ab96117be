"""Connectomes as matrices: one, or several side by side."""

from collections.abc import Iterable, Mapping, Sequence

import jax.typing
import numpy as np
from matplotlib.axes import Axes

from cgalr_jax import _checks, topology
from cgalr_jax.plotting import _inputs
from cgalr_jax.plotting._style import COLOR_MAP, ORANGE, SMALL
from cgalr_jax.plotting.trees import tree_order

__all__ = ["plot_connectome", "plot_film"]


def plot_connectome(
    ax: Axes,
    matrix: jax.typing.ArrayLike,
    *,
    layers: Mapping[str, int] | None = None,
    order: jax.typing.ArrayLike | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draws a connectome as a matrix, its units ordered by the spanning tree and its layers marked.

    Args:
        ax: where to draw.
        matrix: f32[P, P] in [0, 1]; white is 0, dark is 1.
        layers: names and numbers of units, in the order of the units; they stay apart, and each is ordered in
            itself.
        order: i64[P], an order to use instead of the tree's, to compare several connectomes.
        colorbar: whether to draw the scale beside it.

    Returns:
        The Axes.

    Raises:
        ValueError: if the matrix is not square or leaves [0, 1], the layers do not have P units together, or
            the order is no permutation of the units.

    Example:
        >>> import matplotlib.figure
        >>> matrix = np.array([[0.0, 0.1, 0.9], [0.1, 0.0, 0.2], [0.9, 0.2, 0.0]])
        >>> ax = plot_connectome(matplotlib.figure.Figure().subplots(), matrix)
        >>> ax.images[0].get_array().tolist()  # units 1, 2, 0: the strongest pair side by side
        [[0.0, 0.2, 0.1], [0.2, 0.0, 0.9], [0.1, 0.9, 0.0]]
    """
    _inputs.check_axes("ax", ax)
    _checks.check_flag("colorbar", colorbar)
    matrix = _inputs.as_matrix("matrix", matrix)
    layers = _inputs.as_layers(layers, len(matrix))
    order = _order(matrix, layers, order)
    image = ax.imshow(matrix[np.ix_(order, order)], cmap=COLOR_MAP, vmin=0, vmax=1, interpolation="nearest")
    edges = np.cumsum([0, *layers.values()])
    for edge in edges[1:-1] - 0.5:
        ax.axhline(edge, color=ORANGE, linewidth=0.9)
        ax.axvline(edge, color=ORANGE, linewidth=0.9)
    centres = (edges[:-1] + edges[1:] - 1) / 2
    ax.set_yticks(centres, list(layers), fontsize=SMALL, rotation=90, va="center")
    ax.set_xticks(centres, list(layers), fontsize=SMALL)
    ax.tick_params(length=0)
    if colorbar:
        scale = ax.inset_axes((1.03, 0.0, 0.035, 1.0))
        ax.figure.colorbar(image, cax=scale, ticks=[0, 0.5, 1])
        scale.tick_params(labelsize=SMALL, length=2)
        scale.set_ylabel("|correlation|", fontsize=SMALL)
        scale.spines["outline"].set_linewidth(0.5)
    return ax


def plot_film(
    axes: Iterable[Axes],
    connectomes: Sequence[jax.typing.ArrayLike],
    *,
    titles: Sequence[str] | None = None,
    layers: Mapping[str, int] | None = None,
    colorbar: bool = True,
) -> list[Axes]:
    """Draws connectomes side by side, in the order of the last one, so that a unit keeps its place.

    Lines separate the layers; their names are left to `plot_connectome`.

    Args:
        axes: as many as connectomes; arrays of Axes are flattened.
        connectomes: f32[P, P] each.
        titles: one per connectome, the step for example.
        layers: as in `plot_connectome`.
        colorbar: whether to draw the scale beside the last one.

    Returns:
        The Axes, flat.

    Raises:
        ValueError: if the numbers of axes, connectomes and titles differ, or those of units; otherwise as
            `plot_connectome`.

    Example:
        >>> import matplotlib.figure
        >>> first = np.array([[0.0, 0.8, 0.1], [0.8, 0.0, 0.2], [0.1, 0.2, 0.0]])
        >>> last = np.array([[0.0, 0.1, 0.9], [0.1, 0.0, 0.2], [0.9, 0.2, 0.0]])
        >>> axes = plot_film(matplotlib.figure.Figure().subplots(1, 2), [first, last], titles=["0", "100"])
        >>> [ax.images[0].get_array()[0].tolist() for ax in axes]  # of unit 1, in both to units 1, 2, 0
        [[0.0, 0.2, 0.8], [0.0, 0.2, 0.1]]
    """
    axes = [axes] if isinstance(axes, Axes) else _inputs.as_list("axes", axes, " of matplotlib Axes")
    axes = list(np.ravel(np.asarray(axes, dtype=object)))
    for ax in axes:
        _inputs.check_axes("axes", ax)
    matrices = [
        _inputs.as_matrix("connectomes", matrix) for matrix in _inputs.as_list("connectomes", connectomes)
    ]
    titles = [""] * len(matrices) if titles is None else _inputs.as_list("titles", titles)
    _checks.check_flag("colorbar", colorbar)
    counts = len(axes), len(matrices), len(titles)
    if not 0 < counts[0] == counts[1] == counts[2]:
        raise ValueError(f"axes, connectomes and titles must be equally many, got {counts}.")
    _inputs.check_same_units("connectomes", matrices)
    order = _order(matrices[-1], _inputs.as_layers(layers, len(matrices[-1])), None)
    for number, (ax, matrix, title) in enumerate(zip(axes, matrices, titles, strict=True)):
        plot_connectome(ax, matrix, layers=layers, order=order, colorbar=colorbar and number == len(axes) - 1)
        ax.set_title(title, fontsize=SMALL)
        ax.set(xticks=[], yticks=[])  # no room for the names of the layers
    return axes


def _order(matrix: np.ndarray, layers: Mapping[str, int], order: jax.typing.ArrayLike | None) -> np.ndarray:
    """The given order, or the tree's within each layer."""
    if order is None:
        layer = np.repeat(np.arange(len(layers)), list(layers.values()))
        order = tree_order(topology.spanning_tree(matrix)) if len(matrix) > 1 else np.zeros(1, dtype=int)
        return order[np.argsort(layer[order], kind="stable")]
    order = np.asarray(_checks.real_array("order", order))
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(len(matrix))):
        raise ValueError(f"order must be a permutation of {len(matrix)} units, got {_checks.shown(order)}.")
    return order.astype(int)
