"""Barcodes, and the curve of their births."""

import jax.typing
import matplotlib.collections
import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes

from cgalr_jax import _checks, topology
from cgalr_jax.plotting import _inputs
from cgalr_jax.plotting._style import BLUE, ORANGE, SMALL, clean

__all__ = ["plot_barcode", "plot_betti_curve"]

_SEPARATE_BARS = 40  # more than these, and nobody could see the gaps


def plot_barcode(ax: Axes, bars: topology.Barcode) -> Axes:
    """Draws a barcode: when components are born and cycles die as edges are cut, the weakest first.

    One component has always been there; the others are born at `bars.births` and stay. Cycles have always
    been there and die at `bars.deaths`. Each group fills its half, one bar per row; many bars are one solid
    area.

    Args:
        ax: where to draw.
        bars: births f32[P - 1] and deaths f32[(P - 1)(P - 2) / 2], or their quantiles, ascending.

    Returns:
        The Axes.

    Raises:
        ValueError: if `bars` is no `Barcode`, or its births or deaths are not a row of numbers in [0, 1].

    Example:
        >>> import matplotlib.figure
        >>> bars = topology.Barcode(births=np.array([0.4, 0.9]), deaths=np.array([0.2]))
        >>> ax = plot_barcode(matplotlib.figure.Figure().subplots(), bars)
        >>> [label.get_text().split() for label in ax.get_yticklabels()]
        [['3', 'components'], ['1', 'cycles']]
    """
    _inputs.check_axes("ax", ax)
    _checks.check_kind("bars", bars, topology.Barcode, "cgalr_jax.topology")
    births, deaths = (
        _inputs.as_weights(f"bars.{name}", getattr(bars, name)) for name in ("births", "deaths")
    )
    births = np.concatenate([[0.0], births])
    units = len(births)
    cycles = (units - 1) * (units - 2) // 2  # not the length of the deaths, which may be their quantiles
    groups = (
        (np.stack([births, np.ones_like(births)], axis=1)[::-1], (0.53, 1.0), BLUE, units, "components"),
        (np.stack([np.zeros_like(deaths), deaths], axis=1), (0.0, 0.47), ORANGE, cycles, "cycles"),
    )
    ticks = []
    for spans, (bottom, top), color, number, name in groups:
        rows = np.linspace(bottom, top, len(spans) + 1)
        polygons = _bars(spans, rows) if len(spans) <= _SEPARATE_BARS else [_staircase(spans, rows)]
        ax.add_collection(
            matplotlib.collections.PolyCollection(polygons, facecolors=color, linewidths=0, label=name)
        )
        ticks.append(((bottom + top) / 2, f"{number}\n{name}"))
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="threshold: edges of this weight and less are cut")
    ax.set_yticks(*zip(*ticks, strict=True), fontsize=SMALL, rotation=90, va="center", ha="center")
    ax.tick_params(axis="y", length=0, pad=12)
    return clean(ax)


def plot_betti_curve(
    ax: Axes, births: jax.typing.ArrayLike, *, color: str = BLUE, label: str | None = None
) -> Axes:
    """Draws the Betti-0 curve: the number of components that are left when edges up to a threshold are cut.

    Args:
        ax: where to draw; call it again to compare.
        births: f32[P - 1], ascending: the curve is 1 plus how many of them are at most the threshold.
        color: of the line.
        label: for the legend.

    Returns:
        The Axes.

    Raises:
        ValueError: if the births are not a row of numbers in [0, 1], or matplotlib knows no such color.

    Example:
        >>> import matplotlib.figure
        >>> ax = plot_betti_curve(matplotlib.figure.Figure().subplots(), np.array([0.4, 0.9]))
        >>> ax.lines[0].get_xdata().tolist(), ax.lines[0].get_ydata().tolist()
        ([0.0, 0.4, 0.9, 1.0], [1, 2, 3, 3])
    """
    _inputs.check_axes("ax", ax)
    if not matplotlib.colors.is_color_like(color):
        raise ValueError(f"color must be a colour of matplotlib, got {_checks.shown(color)}.")
    born = np.sort(_inputs.as_weights("births", births))
    thresholds = np.concatenate([[0.0], born, [1.0]])
    components = 1 + np.searchsorted(born, thresholds, side="right")
    ax.step(thresholds, components, where="post", color=color, label=label, linewidth=1.4)
    ax.set(xlim=(0, 1), xlabel="threshold", ylabel="components")
    ax.set_ylim(bottom=0)
    return clean(ax)


def _bars(spans: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """A rectangle a bar, from [n, 2] of (left, right) and the n + 1 borders of the rows."""
    gap = 0.25 * np.diff(rows)
    return [
        np.array([(left, low), (right, low), (right, high), (left, high)])
        for (left, right), low, high in zip(spans, rows[:-1], rows[1:] - gap, strict=True)
    ]


def _staircase(spans: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The outline of all bars together: rectangles side by side show seams in vector formats."""
    heights = np.repeat(rows, 2)[1:-1]
    left, right = np.repeat(spans, 2, axis=0).T
    return np.concatenate([np.stack([right, heights], axis=1), np.stack([left, heights], axis=1)[::-1]])
