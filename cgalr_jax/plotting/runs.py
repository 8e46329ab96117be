"""A run in panels: loss, learning rate, distance and z over the steps, the controller's phases shaded."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.typing
import matplotlib
import numpy as np
from matplotlib.axes import Axes

from cgalr_jax import _checks, controllers
from cgalr_jax._trace import Trace
from cgalr_jax.plotting import _inputs
from cgalr_jax.plotting._style import BLUE, GREEN, GREY, ORANGE, SKY, SMALL, VERMILION, clean

__all__ = ["plot_training_trace"]

_CALIBRATED_PHASES = {
    controllers.CALIBRATING: ("calibrating", ORANGE),
    controllers.ANNEALING: ("annealing", SKY),
}
_GATE_PHASES = {controllers.FAST: ("fast", SKY), controllers.SLOW: ("slow", VERMILION)}


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
    """Draws a run in panels: loss, learning rate with anchor and envelope, motion, z; phases shaded.

    The motion is the distance in set-points, whose level 1 is drawn with it. Of a trace without
    `"{prefix}/motion"` it is the distance itself that is drawn.

    Of a long run the loss is drawn faintly, under its mean over the last fiftieth of the rows.

    Args:
        axes: four Axes, from top to bottom; or three, without z.
        trace: arrays of one length, as `TraceRecorder.arrays` gives them: `loss` and the keys of
            `cgalr_jax.metrics`; what is missing leaves its panel empty, NaN leaves a gap. The horizontal axis
            is `"{prefix}/step"`, without the rows that have none; or the row, where none has.
        loss: key of the loss.
        base_learning_rate: f32[] or f32[n], finite and at least 0; NaN in a row of them leaves a gap.
            Multiplies scale, anchor and envelope. None: what the trace has at `"{prefix}/learning_rate"`,
            otherwise the scale itself is drawn.
        set_point: of a trace without motion: a level to draw into the distances; positive and finite.
        bounds: the bounds that were given to `controllers.envelope`, `step -> (low, high)`; it is called with
            all steps, f64[n], and gives f32[] or f32[n] each.
        prefix: `"cgalr/0"` and so on where there are several instances.

    Returns:
        The Axes.

    Raises:
        ValueError: if there are not three or four axes, the arrays differ in length, or an argument is out of
            range.

    Example:
        >>> import matplotlib.figure
        >>> trace = {"loss": [3.0, 2.0, 1.0], "cgalr/step": [1, 2, 3], "cgalr/scale": [1.0, 2.0, 4.0]}
        >>> axes = matplotlib.figure.Figure().subplots(3)
        >>> axes = plot_training_trace(axes, trace, base_learning_rate=0.5)
        >>> axes[1].get_ylabel(), axes[1].lines[0].get_ydata().tolist()
        ('learning rate', [0.5, 1.0, 2.0])
    """
    panels = _inputs.as_list("axes", axes, " of matplotlib Axes")  # the values of a mosaic are no sequence
    if len(panels) not in (3, 4):
        raise ValueError(f"axes must be three or four, got {len(panels)}.")
    for ax in panels:
        _inputs.check_axes("axes", ax)
    if bounds is not None:
        _checks.check_function("bounds", bounds, "step -> (low, high), or None", 1)
    for name, key in (("loss", loss), ("prefix", prefix)):
        if not isinstance(key, str):
            raise ValueError(f"{name} must be a key of the trace, a string, got {_checks.shown(key)}.")
    if set_point is not None:
        set_point = _checks.check_positive("set_point", set_point)
    run = _read(trace, loss, prefix, base_learning_rate, set_point)
    _draw_loss(panels[0], run)
    _draw_rate(panels[1], run, bounds)
    _draw_distance(panels[2], run)
    if len(panels) == 4:
        panels[3].axhline(0, color=GREY, linewidth=0.7, linestyle=":")
        panels[3].step(run.step, run.z, where="post", color=GREEN, linewidth=1.1)
    rate, distance = "learning rate" if run.knows_rate else "scale", "motion" if run.moved else "distance"
    labels = (loss, rate, distance, "z")
    for ax, label in zip(panels, labels[: len(panels)], strict=True):
        ax.set_ylabel(label, fontsize=SMALL)
        ax.tick_params(which="both", labelsize=SMALL)
        _shade(ax, run, named=ax is panels[0])
        clean(ax)
        if len(run.step):
            ax.set_xlim(run.step[0], max(run.step[-1], run.step[0] + 1))
    for ax in panels[:3]:
        drawn = (np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.lines)
        if any(np.any(np.isfinite(values) & (values > 0)) for values in drawn):
            ax.set_yscale("log", nonpositive="mask")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize="x-small", frameon=False, ncols=3, handlelength=1.5, loc="best")
    for ax in panels[:-1]:
        ax.tick_params(labelbottom=False)
    panels[-1].set_xlabel("step")
    return axes


class _Run(NamedTuple):
    """A trace as it is drawn, f64[n] each; NaN where nothing was recorded."""

    step: np.ndarray
    loss: np.ndarray
    base: np.ndarray  # multiplies scale, anchor and envelope
    knows_rate: bool  # whether that makes a learning rate of them
    scale: np.ndarray
    anchor: np.ndarray | None  # None of a controller that has none
    distance: np.ndarray  # the motion if it is known
    moved: bool  # whether it is
    set_point: float | None  # in the unit of the distance
    z: np.ndarray
    phase: np.ndarray


def _read(
    arrays: Any,
    loss: str,
    prefix: str,
    base_learning_rate: jax.typing.ArrayLike | None,
    set_point: float | None,
) -> _Run:
    trace = Trace(_inputs.as_series("trace", arrays), prefix)
    knows_rate = base_learning_rate is not None or trace.has("learning_rate")
    base = trace.base_rate() if knows_rate else np.ones(trace.rows)
    if base_learning_rate is not None:
        numbers = _inputs.as_numbers("base_learning_rate", base_learning_rate)
        unknown = np.isnan(numbers) & (numbers.ndim > 0)
        if not np.all((numbers >= 0) & (numbers < math.inf) | unknown):
            raise ValueError(
                "base_learning_rate must be finite and at least 0, or a row of such numbers, NaN where it is "
                f"not known, got {_checks.shown(base_learning_rate)}."
            )
        base = _row_by_row("base_learning_rate", numbers, trace.rows)
    placed = trace.placed()
    base, trace = base[placed], trace.only(placed)
    moved, phase, anchor = trace.has("motion"), trace.ours("phase"), None
    if trace.has("anchor"):
        anchor = np.where(phase == controllers.CALIBRATING, np.nan, trace.ours("anchor"))  # none yet
    return _Run(
        step=trace.steps(),
        loss=trace.key(loss),
        base=base,
        knows_rate=knows_rate,
        scale=trace.ours("scale"),
        anchor=anchor,
        distance=trace.ours("motion" if moved else "distance"),
        moved=moved,
        set_point=1.0 if moved else set_point,
        z=trace.ours("z"),
        phase=phase,
    )


def _row_by_row(name: str, values: jax.typing.ArrayLike, rows: int) -> np.ndarray:
    """A number for each row, or the same for all, as f64[rows]."""
    numbers = _inputs.as_numbers(name, values)
    if numbers.shape not in ((), (rows,)):
        raise ValueError(f"{name} must have shape () or ({rows},), got {numbers.shape}.")
    return np.broadcast_to(numbers, (rows,))


def _draw_loss(ax: Axes, run: _Run) -> None:
    ink, window = matplotlib.rcParams["text.color"], len(run.step) // 50
    faint = 0.3 if window > 1 else 1.0
    ax.plot(run.step, run.loss, color=ink, linewidth=0.9, alpha=faint)
    if window > 1:
        ax.plot(run.step, _running_mean(run.loss, window), color=ink, linewidth=1.4)


def _draw_rate(ax: Axes, run: _Run, bounds: Callable[[Any], tuple[Any, Any]] | None) -> None:
    ax.step(run.step, run.base * run.scale, where="post", color=BLUE, linewidth=1.4, label="_scale")
    if run.anchor is not None:
        anchor = run.base * run.anchor
        ax.plot(run.step, anchor, color=ORANGE, linewidth=1.1, linestyle="--", label="anchor")
    if bounds is not None and len(run.step):
        pair = bounds(run.step)
        _checks.check_pair("bounds", pair, "(low, high)")
        low, high = (
            run.base * _row_by_row(f"bounds: {name}", bound, len(run.step))
            for name, bound in zip(("low", "high"), pair, strict=True)
        )
        ax.fill_between(run.step, low, high, color=GREEN, alpha=0.15, linewidth=0, label="envelope")


def _draw_distance(ax: Axes, run: _Run) -> None:
    ax.step(run.step, run.distance, where="post", color=VERMILION, linewidth=1.1)
    if run.set_point is not None:
        ax.axhline(run.set_point, color=GREY, linewidth=0.9, linestyle=":", label="set-point")


def _running_mean(series: np.ndarray, window: int) -> np.ndarray:
    """The mean of the last finite numbers of a window, at each place; NaN where there are none."""
    finite = np.isfinite(series)
    sums, counts = (
        np.convolve(numbers, np.ones(window))[: len(series)]
        for numbers in (np.where(finite, series, 0), finite)
    )
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _shade(ax: Axes, run: _Run, *, named: bool) -> None:
    """Shades each stretch of rows in a known phase; all of a phase are one patch, which names it."""
    step, phase = run.step, run.phase
    phases = _GATE_PHASES if run.anchor is None else _CALIBRATED_PHASES
    starts = np.flatnonzero(np.diff(phase, prepend=np.nan) != 0)  # NaN differs from everything
    ends = np.append(starts[1:], len(step) - 1)
    for each in dict.fromkeys(phase[starts]):
        if each in phases:
            name, color = phases[int(each)]
            left, right = (step[rows[phase[starts] == each]] for rows in (starts, ends))
            corners = np.column_stack([left, left, right, right]).ravel(), np.tile([0, 1, 1, 0], len(left))
            label = name if named else None
            across = ax.get_xaxis_transform()
            ax.fill(*corners, transform=across, color=color, alpha=0.13, linewidth=0, label=label)
