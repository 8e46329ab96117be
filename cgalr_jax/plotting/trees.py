"""The spanning tree as a graph, and the order that it gives to the units."""

from collections.abc import Mapping

import matplotlib.collections
import numpy as np
from matplotlib.axes import Axes

from cgalr_jax import topology
from cgalr_jax.plotting import _inputs
from cgalr_jax.plotting._style import BLUE, COLOR_MAP, SMALL

__all__ = ["plot_spanning_tree", "tree_order"]


def tree_order(tree: topology.Tree) -> np.ndarray:
    """The units in an order in which the spanning tree's components are contiguous at every threshold.

    Components merge along the tree's edges, the strongest first (single linkage), and are put side by side,
    turned so that the joined ends come close.

    Args:
        tree: edges i32[P - 1, 2] and weights f32[P - 1].

    Returns:
        i64[P], a permutation of the units.

    Raises:
        ValueError: if the edges do not span the units, or the weights are not as many.

    Example:
        >>> edges, weights = np.array([[0, 2], [1, 3], [2, 3]]), np.array([0.9, 0.8, 0.1])
        >>> tree_order(topology.Tree(edges, weights)).tolist()
        [0, 2, 3, 1]
    """
    edges, weights = _inputs.as_tree(tree)
    component = {unit: [unit] for unit in range(len(edges) + 1)}
    for i, j in edges[np.argsort(-weights, kind="stable")].tolist():
        left, right = component[i], component[j]
        if 2 * left.index(i) < len(left) - 1:
            left = left[::-1]
        if 2 * right.index(j) > len(right) - 1:
            right = right[::-1]
        merged = left + right
        component.update(dict.fromkeys(merged, merged))
    return np.array(component[0])


def plot_spanning_tree(ax: Axes, tree: topology.Tree, *, layers: Mapping[str, int] | None = None) -> Axes:
    """Draws the spanning tree as a graph: one row per layer, from input to output upwards.

    Edges within a layer are arcs, edges between layers curves; dark and thick is strong. The units of a row
    are in the order of the tree, so that strong edges are short.

    Args:
        ax: where to draw.
        tree: edges i32[P - 1, 2] and weights f32[P - 1] in [0, 1].
        layers: names and numbers of units, in the order of the units.

    Returns:
        The Axes.

    Raises:
        ValueError: if the edges do not span the units, the weights leave [0, 1], or the layers do not have P
            units together.

    Example:
        >>> import matplotlib.figure
        >>> edges, weights = np.array([[0, 2], [1, 3], [2, 3]]), np.array([0.9, 0.8, 0.1])
        >>> ax = matplotlib.figure.Figure().subplots()
        >>> ax = plot_spanning_tree(ax, topology.Tree(edges, weights), layers={"first": 2, "second": 2})
        >>> ax.collections[0].get_array().tolist()  # the strongest edge is drawn last
        [0.1, 0.8, 0.9]
    """
    _inputs.check_axes("ax", ax)
    edges, weights = _inputs.as_tree(tree)
    weights = _inputs.as_weights("tree.weights", weights)
    units = len(edges) + 1
    layers = _inputs.as_layers(layers, units)
    rank = np.argsort(tree_order(tree))
    x, y = np.zeros(units), np.zeros(units)
    for row, members in enumerate(np.split(np.arange(units), np.cumsum([*layers.values()])[:-1])):
        x[members[np.argsort(rank[members])]] = (np.arange(len(members)) + 0.5) / len(members)
        y[members] = row
    strongest_last = np.argsort(weights, kind="stable")
    curves = [_curve(x[[i, j]], y[[i, j]]) for i, j in edges[strongest_last]]
    lines = matplotlib.collections.LineCollection(
        curves, linewidths=0.4 + 1.6 * weights[strongest_last], cmap=COLOR_MAP, capstyle="round", zorder=1
    )
    lines.set_array(weights[strongest_last])
    lines.set_clim(0, 1)
    ax.add_collection(lines)
    ax.scatter(x, y, s=9, color=BLUE, edgecolors="white", linewidths=0.4, zorder=2)
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.2, len(layers) - 0.35))
    ax.set_xticks([])
    ax.set_yticks(range(len(layers)), [f"{name}\n{size}" for name, size in layers.items()], fontsize=SMALL)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _curve(x: np.ndarray, y: np.ndarray, points: int = 24) -> np.ndarray:
    """An arc above a row, or an S from row to row, as a line [points, 2]."""
    t = np.linspace(0, 1, points)
    if y[0] == y[1]:
        height = 0.12 + 0.6 * abs(x[1] - x[0])
        return np.stack([x[0] + t * (x[1] - x[0]), y[0] + min(height, 0.7) * 4 * t * (1 - t)], axis=1)
    return np.stack([x[0] + (3 * t**2 - 2 * t**3) * (x[1] - x[0]), y[0] + t * (y[1] - y[0])], axis=1)
