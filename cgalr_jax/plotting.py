"""Pictures of a connectome, its barcode, its spanning tree, and of what the learning rate did about them.

Each function takes the Axes to draw on and returns them; none makes a figure, shows one or touches a file,
and none changes a style: sizes are relative to yours, so that the pictures stay legible at column width.
Colours are those of Okabe & Ito ("Color universal design", 2008), which the colour-blind can tell apart; the
colour map falls evenly in lightness, so that it prints in grey.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.typing
import matplotlib
import matplotlib.collections
import matplotlib.colors
import numpy as np
from matplotlib.axes import Axes

from cgalr_jax import _checks, controllers, topology

__all__ = [
    "BLUE",
    "COLOR_MAP",
    "GREEN",
    "GREY",
    "ORANGE",
    "SKY",
    "VERMILION",
    "plot_barcode",
    "plot_betti_curve",
    "plot_connectome",
    "plot_film",
    "plot_learning_rate_curve",
    "plot_spanning_tree",
    "plot_training_trace",
    "tree_order",
]

BLUE, ORANGE, GREEN, VERMILION, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#777777"
# The places of the colours make lightness fall evenly.
COLOR_MAP = matplotlib.colors.LinearSegmentedColormap.from_list(
    "connectome", [(0.0, "white"), (0.3, SKY), (0.54, BLUE), (1.0, "black")]
)

_CALIBRATED_PHASES = {
    controllers.CALIBRATING: ("calibrating", ORANGE),
    controllers.ANNEALING: ("annealing", SKY),
}
_GATE_PHASES = {controllers.FAST: ("fast", SKY), controllers.SLOW: ("slow", VERMILION)}
_SMALL = "small"
_SEPARATE_BARS = 40  # more than these, and nobody could see the gaps
_ROUNDING = 1e-6  # by which a correlation may exceed 1
_OLD_NAMES = ("barcode", "betti_curve", "connectome", "film", "spanning_tree", "training_trace")


def __getattr__(name: str) -> Any:
    """Names that other functions have too: replaced, and kept for one release."""
    if name not in _OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"{__name__}.{name} is now {__name__}.plot_{name}; the old name goes after version 0.1."
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return globals()[f"plot_{name}"]


def tree_order(tree: topology.Tree) -> np.ndarray:
    """The units in an order in which the spanning tree's components are contiguous at every threshold.

    Components merge along the tree's edges, the strongest first (single linkage), and are put side by side,
    turned so that the joined ends come close.

    Args:
      tree: edges i32[P - 1, 2] and weights f32[P - 1].

    Returns:
      i64[P], a permutation of the units.

    Raises:
      ValueError: edges that do not span the units, or weights that are not as many.

    Example:
      >>> edges, weights = np.array([[0, 2], [1, 3], [2, 3]]), np.array([0.9, 0.8, 0.1])
      >>> tree_order(topology.Tree(edges, weights)).tolist()
      [0, 2, 3, 1]
    """
    edges, weights = _as_tree(tree)
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
      ValueError: a matrix that is not square or leaves [0, 1], layers that do not have P units together, or
        an order that is no permutation of the units.
    """
    _check_axes("ax", ax)
    _checks.check_flag("colorbar", colorbar)
    matrix = _as_matrix("matrix", matrix)
    layers = _as_layers(layers, len(matrix))
    order = _order(matrix, layers, order)
    image = ax.imshow(matrix[np.ix_(order, order)], cmap=COLOR_MAP, vmin=0, vmax=1, interpolation="nearest")
    edges = np.cumsum([0, *layers.values()])
    for edge in edges[1:-1] - 0.5:
        ax.axhline(edge, color=ORANGE, linewidth=0.9)
        ax.axvline(edge, color=ORANGE, linewidth=0.9)
    centres = (edges[:-1] + edges[1:] - 1) / 2
    ax.set_yticks(centres, list(layers), fontsize=_SMALL, rotation=90, va="center")
    ax.set_xticks(centres, list(layers), fontsize=_SMALL)
    ax.tick_params(length=0)
    if colorbar:
        scale = ax.inset_axes((1.03, 0.0, 0.035, 1.0))
        ax.figure.colorbar(image, cax=scale, ticks=[0, 0.5, 1])
        scale.tick_params(labelsize=_SMALL, length=2)
        scale.set_ylabel("|correlation|", fontsize=_SMALL)
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
      ValueError: numbers of axes, connectomes and titles that differ, and as `plot_connectome`.
    """
    axes = list(np.ravel(np.asarray(axes, dtype=object)))
    for ax in axes:
        _check_axes("axes", ax)
    matrices = [_as_matrix("connectomes", matrix) for matrix in _as_list("connectomes", connectomes)]
    titles = [""] * len(matrices) if titles is None else _as_list("titles", titles)
    _checks.check_flag("colorbar", colorbar)
    counts = len(axes), len(matrices), len(titles)
    if not 0 < counts[0] == counts[1] == counts[2]:
        raise ValueError(f"axes, connectomes and titles must be equally many, got {counts}.")
    if len(units := {len(matrix) for matrix in matrices}) > 1:
        raise ValueError(f"connectomes must have the same units, got {sorted(units)} of them.")
    order = _order(matrices[-1], _as_layers(layers, len(matrices[-1])), None)
    for number, (ax, matrix, title) in enumerate(zip(axes, matrices, titles, strict=True)):
        plot_connectome(ax, matrix, layers=layers, order=order, colorbar=colorbar and number == len(axes) - 1)
        ax.set_title(title, fontsize=_SMALL)
        ax.set(xticks=[], yticks=[])  # no room for the names of the layers
    return axes


def plot_barcode(ax: Axes, bars: topology.Barcode) -> Axes:
    """Draws a barcode: when components are born and cycles die as edges are cut, the weakest first.

    One component has always been there; the others are born at `bars.births` and stay. Cycles have always
    been there and die at `bars.deaths`. Each group fills its half, one bar per row; many bars are one solid
    area.

    Args:
      ax: where to draw.
      bars: births f32[P - 1] and deaths f32[E - P + 1], or their quantiles, ascending.

    Returns:
      The Axes.

    Raises:
      ValueError: births or deaths that are not a row of numbers in [0, 1].
    """
    _check_axes("ax", ax)
    _checks.check_kind("bars", bars, topology.Barcode, "cgalr_jax.topology")
    births, deaths = (_as_weights(f"bars.{name}", getattr(bars, name)) for name in ("births", "deaths"))
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
    ax.set_yticks(*zip(*ticks, strict=True), fontsize=_SMALL, rotation=90, va="center", ha="center")
    ax.tick_params(axis="y", length=0, pad=12)
    return _clean(ax)


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
      ValueError: births that are not a row of numbers in [0, 1].
    """
    _check_axes("ax", ax)
    if not matplotlib.colors.is_color_like(color):
        raise ValueError(f"color must be a colour of matplotlib, got {_checks.shown(color)}.")
    born = np.sort(_as_weights("births", births))
    thresholds = np.concatenate([[0.0], born, [1.0]])
    components = 1 + np.searchsorted(born, thresholds, side="right")
    ax.step(thresholds, components, where="post", color=color, label=label, linewidth=1.4)
    ax.set(xlim=(0, 1), xlabel="threshold", ylabel="components")
    ax.set_ylim(bottom=0)
    return _clean(ax)


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
      ValueError: edges that do not span the units, or layers that do not have P units together.
    """
    _check_axes("ax", ax)
    edges, weights = _as_tree(tree)
    units = len(edges) + 1
    layers = _as_layers(layers, units)
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
    ax.set_yticks(range(len(layers)), [f"{name}\n{size}" for name, size in layers.items()], fontsize=_SMALL)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def plot_training_trace(
    axes: Sequence[Axes],
    trace: Mapping[str, jax.typing.ArrayLike],
    *,
    loss: str = "loss",
    base_learning_rate: jax.typing.ArrayLike | None = None,
    set_point: float | None = None,
    bounds: Callable[[Any], tuple[Any, Any]] | None = None,
    prefix: str = "cgalr",
) -> Sequence[Axes]:
    """Draws a run in panels: loss, learning rate with anchor and envelope, distance, z; phases shaded.

    Of a long run the loss is drawn faintly, under its mean over the last fiftieth of the rows.

    Args:
      axes: four Axes, from top to bottom; or three, without z.
      trace: arrays of one length, as `TraceRecorder.arrays` gives them: `loss` and the keys of
        `cgalr_jax.metrics`; what is missing leaves its panel empty, NaN leaves a gap. The horizontal axis is
        `"{prefix}/step"`, or the row.
      loss: key of the loss.
      base_learning_rate: f32[] or f32[n]; multiplies scale, anchor and envelope. None: what the trace
        has at `"{prefix}/learning_rate"`, otherwise the scale itself is drawn.
      set_point: the signal's, drawn into the distances; positive.
      bounds: the envelope that was given to `scale_by_connectome`, `step -> (low, high)`.
      prefix: `"cgalr/0"` and so on where there are several instances.

    Returns:
      The Axes.

    Raises:
      ValueError: a number of axes other than three or four, arrays of several lengths, or an argument out of
        range.
    """
    if len(_as_list("axes", axes)) not in (3, 4):
        raise ValueError(f"axes must be three or four, got {len(axes)}.")
    for ax in axes:
        _check_axes("axes", ax)
    if set_point is not None:
        _checks.check("set_point", set_point, lambda x: 0 < x < math.inf, "positive and finite")
    if bounds is not None:
        _checks.check_function("bounds", bounds, "step -> (low, high), or None", 1)
    for name, key in (("loss", loss), ("prefix", prefix)):
        if not isinstance(key, str):
            raise ValueError(f"{name} must be a key of the trace, a string, got {_checks.shown(key)}.")
    values = _as_series("trace", trace)
    rows = max((len(array) for array in values.values()), default=0)
    missing = np.full(rows, np.nan)
    step = values.get(f"{prefix}/step", np.arange(rows, dtype=np.float64))
    scale, distance, z = (values.get(f"{prefix}/{name}", missing) for name in ("scale", "distance", "z"))
    knows_rate = base_learning_rate is not None or f"{prefix}/learning_rate" in values
    base = np.ones(rows)
    if base_learning_rate is not None:
        base = _as_numbers("base_learning_rate", base_learning_rate)
        if base.shape not in ((), (rows,)):
            raise ValueError(f"base_learning_rate must have shape () or ({rows},), got {base.shape}.")
    elif knows_rate:
        base = values[f"{prefix}/learning_rate"] / np.where(scale == 0, np.nan, scale)

    ink = matplotlib.rcParams["text.color"]
    losses, window = values.get(loss, missing), rows // 50
    faint = 0.3 if window > 1 else 1.0
    axes[0].plot(step, losses, color=ink, linewidth=0.9, alpha=faint)
    if window > 1:
        axes[0].plot(step, _running_mean(losses, window), color=ink, linewidth=1.4)
    axes[1].step(step, base * scale, where="post", color=BLUE, linewidth=1.4, label="_scale")
    phases, phase = _GATE_PHASES, values.get(f"{prefix}/phase", missing)
    if f"{prefix}/anchor" in values:
        phases = _CALIBRATED_PHASES
        anchor = np.where(phase == controllers.CALIBRATING, np.nan, values[f"{prefix}/anchor"])  # none yet
        axes[1].plot(step, base * anchor, color=ORANGE, linewidth=1.1, linestyle="--", label="anchor")
    if bounds is not None and rows:
        low, high = (base * np.asarray(bound, dtype=np.float64) * np.ones(rows) for bound in bounds(step))
        axes[1].fill_between(step, low, high, color=GREEN, alpha=0.15, linewidth=0, label="envelope")
    axes[2].step(step, distance, where="post", color=VERMILION, linewidth=1.1)
    if set_point is not None:
        axes[2].axhline(set_point, color=GREY, linewidth=0.9, linestyle=":", label="set-point")
    if len(axes) == 4:
        axes[3].axhline(0, color=GREY, linewidth=0.7, linestyle=":")
        axes[3].step(step, z, where="post", color=GREEN, linewidth=1.1)

    labels = (loss, "learning rate" if knows_rate else "scale", "distance", "z")
    for ax, label in zip(axes, labels[: len(axes)], strict=True):
        ax.set_ylabel(label, fontsize=_SMALL)
        ax.tick_params(which="both", labelsize=_SMALL)
        _shade(ax, step, phase, phases, named=ax is axes[0])
        _clean(ax)
        if rows:
            ax.set_xlim(step[0], max(step[-1], step[0] + 1))
    for ax in axes[:3]:
        if any(np.any(np.asarray(line.get_ydata()) > 0) for line in ax.lines):
            ax.set_yscale("log", nonpositive="mask")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize="x-small", frameon=False, ncols=3, handlelength=1.5, loc="best")
    for ax in axes[:-1]:
        ax.tick_params(labelbottom=False)
    axes[-1].set_xlabel("step")
    return axes


def plot_learning_rate_curve(ax: Axes, curve: Any) -> Axes:
    """Draws what `find_learning_rate` saw: the distance at each rate, and where it meets the set-point.

    A rate at which the distance was not finite is a cross at the upper edge.

    Args:
      ax: where to draw.
      curve: a `cgalr_jax.LearningRateCurve`.

    Returns:
      The Axes.

    Raises:
      ValueError: a curve of another type.

    Example:
      >>> import matplotlib.figure
      >>> from cgalr_jax import LearningRateCurve
      >>> rates, distances = np.array([0.01, 0.1, 1.0]), np.array([0.2, 0.9, 4.0])
      >>> ax = matplotlib.figure.Figure().subplots()
      >>> ax = plot_learning_rate_curve(ax, LearningRateCurve(0.1, 0.08, 0.13, True, rates, distances))
      >>> ax.get_legend_handles_labels()[1]
      ['set-point', 'rate 0.1 (0.08 to 0.13)']
    """
    _check_axes("ax", ax)
    if not all(hasattr(curve, name) for name in ("rate", "low", "high", "reached", "rates", "distances")):
        raise ValueError(f"curve must be a cgalr_jax.LearningRateCurve, got {_checks.shown(curve)}.")
    rates, distances = np.asarray(curve.rates), np.asarray(curve.distances)
    finite = np.isfinite(distances)
    ax.plot(rates[finite], distances[finite], color=BLUE, marker="o", markersize=3.5, linewidth=1.1)
    for rate in rates[~finite]:
        ax.plot(rate, 0.97, "x", color=VERMILION, transform=ax.get_xaxis_transform())
    ax.axhline(1.0, color=GREY, linewidth=0.9, linestyle=":", label="set-point")
    found = f"rate {curve.rate:.2g}"
    found += f" ({curve.low:.2g} to {curve.high:.2g})" if curve.reached else ", the set-point was not reached"
    ax.axvline(curve.rate, color=ORANGE, linewidth=1.3, label=found)
    ax.axvspan(curve.low, curve.high, color=ORANGE, alpha=0.15, linewidth=0)
    ax.set(xscale="log", xlabel="learning rate", ylabel="distance, in set-points")
    if np.any(distances[finite] > 0):
        ax.set_yscale("log", nonpositive="mask")
    legend = ax.legend(fontsize=_SMALL, frameon=False, loc="best")
    legend.set_in_layout(False)  # it may be wider than narrow axes, which shall not shrink for it
    return _clean(ax)


def _running_mean(series: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last finite numbers of a window, at each place; NaN where there are none."""
    finite = np.isfinite(series)
    sums, counts = (
        np.convolve(numbers, np.ones(window))[: len(series)]
        for numbers in (np.where(finite, series, 0), finite)
    )
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


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


def _shade(
    ax: Axes, step: np.ndarray, phase: np.ndarray, phases: Mapping[int, tuple[str, str]], *, named: bool
) -> None:
    """Shades each stretch of rows in a known phase; the first of a phase names it, in the legend."""
    starts = np.flatnonzero(np.diff(phase, prepend=np.nan) != 0)  # NaN differs from everything
    seen = set()
    for start, end in zip(starts, [*starts[1:], len(phase)][: len(starts)], strict=True):
        if phase[start] in phases:
            name, color = phases[int(phase[start])]
            label = name if named and name not in seen else None
            until = step[min(end, len(step) - 1)]
            ax.axvspan(step[start], until, color=color, alpha=0.13, linewidth=0, label=label)
            seen.add(name)


def _curve(x: np.ndarray, y: np.ndarray, points: int = 24) -> np.ndarray:
    """An arc above a row, or an S from row to row, as a line [points, 2]."""
    t = np.linspace(0, 1, points)
    if y[0] == y[1]:
        height = 0.12 + 0.6 * abs(x[1] - x[0])
        return np.stack([x[0] + t * (x[1] - x[0]), y[0] + min(height, 0.7) * 4 * t * (1 - t)], axis=1)
    return np.stack([x[0] + (3 * t**2 - 2 * t**3) * (x[1] - x[0]), y[0] + t * (y[1] - y[0])], axis=1)


def _check_axes(name: str, ax: Any) -> None:
    if not isinstance(ax, Axes):
        raise ValueError(f"{name} must be matplotlib Axes, got {_checks.shown(ax)}.")


def _as_list(name: str, values: Any) -> list[Any]:
    try:
        if not isinstance(values, (str, Mapping)):
            return list(values)
    except TypeError:  # cannot be gone through
        pass
    raise ValueError(f"{name} must be a list, got {_checks.shown(values)}.")


def _as_numbers(name: str, values: Any) -> np.ndarray:
    return np.asarray(_checks.real_array(name, values), dtype=np.float64)


def _in_unit_interval(array: np.ndarray) -> bool:
    return bool(np.all((array >= 0) & (array <= 1 + _ROUNDING)))  # NaN fails


def _as_matrix(name: str, matrix: jax.typing.ArrayLike) -> np.ndarray:
    numbers = _as_numbers(name, matrix)
    if numbers.ndim != 2 or not 0 < numbers.shape[0] == numbers.shape[1]:
        raise ValueError(f"{name} must have shape [P, P], got {numbers.shape}.")
    if not _in_unit_interval(numbers):
        raise ValueError(f"{name} must lie in [0, 1], got {numbers.min()} to {numbers.max()}.")
    return np.asarray(matrix)


def _as_weights(name: str, weights: Any) -> np.ndarray:
    numbers = _as_numbers(name, weights)
    if numbers.ndim != 1 or not _in_unit_interval(numbers):
        raise ValueError(f"{name} must be a row of numbers in [0, 1], got {_checks.shown(weights)}.")
    return np.asarray(weights)


def _as_tree(tree: topology.Tree) -> tuple[np.ndarray, np.ndarray]:
    """Edges and weights, after a check that they connect all units."""
    edges, weights = np.asarray(getattr(tree, "edges", None)), np.asarray(getattr(tree, "weights", None))
    if edges.shape != (*weights.shape, 2) or weights.ndim != 1 or edges.dtype.kind not in "iu":
        got = _checks.shown(tree)
        raise ValueError(f"tree must have edges i32[P - 1, 2] and weights f32[P - 1], got {got}.")
    component = np.arange(len(edges) + 1)
    for i, j in edges:
        if not 0 <= min(i, j) <= max(i, j) < len(component) or component[i] == component[j]:
            raise ValueError(f"tree must connect the units 0 to {len(edges)}, got the edge ({i}, {j}) in it.")
        component[component == component[i]] = component[j]
    return edges, weights


def _as_series(name: str, trace: Any) -> dict[str, np.ndarray]:
    """The arrays f64[n] of a trace, n being the same."""
    if not isinstance(trace, Mapping):
        raise ValueError(f"{name} must be a mapping of keys to arrays, got {_checks.shown(trace)}.")
    values = {key: _as_numbers(f"{name}[{key!r}]", array) for key, array in trace.items()}
    shapes = {array.shape for array in values.values()}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        got = {key: array.shape for key, array in values.items()}
        raise ValueError(f"{name} must hold arrays [n] of one length, got shapes {got}.")
    return values


def _as_layers(layers: Mapping[str, int] | None, units: int) -> dict[str, int]:
    if layers is not None and not isinstance(layers, Mapping):
        raise ValueError(
            f"layers must be a mapping of names to numbers of units, got {_checks.shown(layers)}."
        )
    layers = {f"{units} units": units} if layers is None else dict(layers)
    for name, size in layers.items():
        _checks.check_integer(f"layers[{name!r}]", size, 1)
    if sum(layers.values()) != units:
        raise ValueError(f"layers must have {units} units together, got {layers!r}.")
    return layers


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


def _clean(ax: Axes) -> Axes:
    ax.spines[["top", "right"]].set_visible(False)
    return ax
