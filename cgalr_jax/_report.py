"""A page about one run, made from its trace: `TraceRecorder.report`."""

import html
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.typing
import matplotlib
import matplotlib.figure
import numpy as np

from cgalr_jax import _checks, controllers, plotting

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --line: #ddd; --warning: #fdeee3 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #181818; --ink: #ddd; --line: #444; --warning: #4a2a12 }
}
body { max-width: 38rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif;
  background: var(--paper); color: var(--ink) }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.2rem; font-size: 1.25rem }
svg { width: 100%; height: auto; display: block }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { font-weight: 600; width: 40% }
.warning { background: var(--warning); padding: .6rem .8rem; border-left: .3rem solid #d55e00 }
footer { margin-top: 3rem; font-size: .85rem; opacity: .7 }
"""
_INK = "#010203"  # stands for the colour of the text, which the reader's browser chooses
_FRAMES = 6
# Fewer measurements than these, and the calibration has hardly begun: see `scale_by_connectome`.
_ADVISED_MEASUREMENTS = 50
_REACHED, _BY_TIME, _BY_GUARD, _BY_BOUND = 1, 2, 3, 4  # of `cgalr/ended`; 0 is unfinished


class _Facts(NamedTuple):
    """What the sentences say."""

    rows: int
    steps: int
    loss: str
    first_loss: float  # NaN if it was not recorded
    last_loss: float
    lost: int  # rows in which the loss was not finite
    has_calibration: bool
    ended: int | None  # as in `cgalr/ended`; None where it is not known
    ended_at: int | None  # step
    found: float  # the calibrated rate, or scale; NaN if there is none
    found_is_rate: bool
    measurements: int | None
    skipped: int
    refused: int
    peak: float  # largest distance, in set-points; NaN if that is not known


def page(
    trace: Mapping[str, np.ndarray],
    *,
    settings: Mapping[str, Any] | None = None,
    connectomes: Mapping[int, jax.typing.ArrayLike] | None = None,
    layers: Mapping[str, int] | None = None,
    set_point: float | None = None,
    base_learning_rate: jax.typing.ArrayLike | None = None,
    loss: str = "loss",
    bounds: Callable[[Any], tuple[Any, Any]] | None = None,
    prefix: str = "cgalr",
) -> str:
    """The HTML page; `TraceRecorder.report` says what the arguments are."""
    for name, value in (("settings", settings), ("connectomes", connectomes)):
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a mapping, got {_checks.shown(value)}.")
    if set_point is not None:
        _checks.check("set_point", set_point, lambda x: 0 < x < math.inf, "positive and finite")
    settings = dict(settings or {})
    trace = dict(trace)
    if set_point is not None and f"{prefix}/distance" in trace:
        trace[f"{prefix}/distance"] = trace[f"{prefix}/distance"] / set_point

    def draw_run(figure: matplotlib.figure.Figure) -> None:
        axes = figure.subplots(3, 1, sharex=True)
        plotting.plot_training_trace(
            axes,
            trace,
            loss=loss,
            base_learning_rate=base_learning_rate,
            set_point=None if set_point is None else 1.0,
            bounds=bounds,
            prefix=prefix,
        )
        if set_point is not None:
            axes[2].set_ylabel("distance\n(set-points)", fontsize="small")
        figure.align_ylabels(axes)

    picture = _picture("Loss, learning rate and distance over the steps", (5.2, 5.4), draw_run, "run")
    facts = _facts(trace, base_learning_rate, set_point is not None, loss, prefix)
    title = f"A run of {_count(facts.steps, 'step')}"
    parts = [f"<h1>{title}</h1>", *(f'<p class="warning">{text}</p>' for text in _warnings(facts))]
    parts += [f"<p>{_story(facts)}</p>", "<h2>Settings</h2>", _table({"seed": "not recorded", **settings})]
    if facts.rows:
        parts += ["<h2>Loss, learning rate, distance</h2>", f"<p>{_caption(facts)}</p>", picture]
    frames = _frames(connectomes or {})
    if frames:
        columns = len(frames) if len(frames) <= 3 else -(-len(frames) // 2)
        rows = -(-len(frames) // columns)

        def draw_film(figure: matplotlib.figure.Figure) -> None:
            axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
            for ax in axes[len(frames) :]:
                ax.set_axis_off()
            titles = [f"step {step}" for step in frames]
            plotting.plot_film(
                axes[: len(frames)], list(frames.values()), titles=titles, layers=layers, colorbar=False
            )

        units = len(next(iter(frames.values())))
        parts.append("<h2>The connectome</h2>")
        parts.append(
            f"<p>Correlations of {units} units, in the order of the last spanning tree; lines part the "
            "layers. White is no correlation, black a full one. From one picture to the next the "
            "connectome has moved about equally far.</p>"
        )
        parts.append(_picture("Connectomes over the run", (5.2, 5.5 * rows / columns), draw_film, "film"))
    advice = "".join(f"<li>{text}</li>" for text in _advice(facts, "seed" in settings, set_point is not None))
    parts += ["<h2>What to try next</h2>", f"<ul>{advice}</ul>", "<footer>Made by cgalr_jax.</footer>"]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{title}</title><style>{_STYLE}</style>"
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


# --- What is known.


def _facts(trace: Mapping[str, np.ndarray], base: Any, in_set_points: bool, loss: str, prefix: str) -> _Facts:
    rows = max((len(array) for array in trace.values()), default=0)
    missing = np.full(rows, np.nan)

    def series(name: str) -> np.ndarray:
        return trace.get(f"{prefix}/{name}", missing)

    def last(name: str) -> float:
        known = series(name)[np.isfinite(series(name))]
        return float(known[-1]) if len(known) else math.nan

    steps = last("step") if math.isfinite(last("step")) else rows
    losses = trace.get(loss, missing)
    finite = losses[np.isfinite(losses)]
    part = max(len(finite) // 20, 1)
    ends = (np.median(finite[:part]), np.median(finite[-part:])) if len(finite) else (math.nan, math.nan)

    # When the calibration ended, what it had found.
    over = series("ended") > 0 if f"{prefix}/ended" in trace else series("phase") == controllers.ANNEALING
    row = int(np.argmax(over)) if over.any() else rows - 1
    rate, anchor = missing, series("anchor")
    if base is not None:
        rate = np.broadcast_to(np.asarray(base, dtype=np.float64), (rows,)) * anchor
    elif f"{prefix}/learning_rate" in trace:
        scale = series("scale")
        rate = series("learning_rate") * anchor / np.where(scale == 0, np.nan, scale)
    found_is_rate = bool(over.any() and math.isfinite(rate[row]))
    found = (rate if found_is_rate else anchor)[row] if over.any() else math.nan
    ended = int(last("ended")) if math.isfinite(last("ended")) else None
    if ended is None and f"{prefix}/anchor" in trace and not over.any():
        ended = 0
    step_of = trace.get(f"{prefix}/step", np.arange(rows))
    distance = series("distance")
    peak = np.max(distance, where=np.isfinite(distance), initial=0.0)
    return _Facts(
        rows=rows,
        steps=int(steps),
        loss=loss,
        first_loss=float(ends[0]),
        last_loss=float(ends[1]),
        lost=_lost(losses) if loss in trace else 0,
        has_calibration=f"{prefix}/anchor" in trace or f"{prefix}/ended" in trace,
        ended=ended,
        ended_at=int(step_of[row]) if over.any() and math.isfinite(step_of[row]) else None,
        found=float(found),
        found_is_rate=found_is_rate,
        measurements=int(last("measurements")) if math.isfinite(last("measurements")) else None,
        skipped=int(np.nan_to_num(last("skipped"))),
        refused=int(np.nan_to_num(last("refused"))),
        peak=float(peak) if in_set_points and peak > 0 else math.nan,
    )


def _lost(losses: np.ndarray) -> int:
    """Rows in which the loss was not finite; NaN may only say that it was not recorded there."""
    finite = np.isfinite(losses)
    last = len(losses) - int(np.argmax(finite[::-1])) if finite.any() else 0
    if finite[:last].all():  # recorded in each row, until it was lost
        return len(losses) - last
    return int(np.sum(np.isinf(losses)))


def _frames(connectomes: Mapping[int, jax.typing.ArrayLike]) -> dict[int, np.ndarray]:
    """A few of the finite connectomes, between which it moved about equally far."""
    matrices = {step: np.asarray(matrix) for step, matrix in sorted(connectomes.items())}
    matrices = {step: matrix for step, matrix in matrices.items() if np.all(np.isfinite(matrix))}
    if len(matrices) <= _FRAMES:
        return matrices
    moved = [float(np.linalg.norm(b - a)) for a, b in itertools.pairwise(matrices.values())]
    path = np.concatenate([[0.0], np.cumsum(moved)])
    chosen = {int(np.argmin(np.abs(path - share))) for share in np.linspace(0, path[-1], _FRAMES)}
    return {step: matrix for k, (step, matrix) in enumerate(matrices.items()) if k in chosen}


# --- What is said.


def _number(value: float) -> str:
    return f"{value:.3g}"


def _warnings(facts: _Facts) -> list[str]:
    texts = {
        0: "The calibration is unfinished: the run ended while the scale was still looking for its level.",
        _BY_TIME: "The calibration ended by time: the set-point was not reached in the steps that it had.",
        _BY_GUARD: "The calibration ended by the guard: the network moved in a way that the rate does not "
        "explain, and the scale was kept where it was safe.",
        _BY_BOUND: "The calibration ended by the bound on one step: steps had to be cut before the network "
        "moved at its set-point.",
    }
    found = [texts[facts.ended]] if facts.ended in texts else []
    if facts.lost:
        found.append(f"The {html.escape(facts.loss)} was not a finite number in {_count(facts.lost, 'row')}.")
    return found


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")


def _story(facts: _Facts) -> str:
    if not facts.rows:
        return "Nothing was recorded."
    text = ""
    if math.isfinite(facts.first_loss):
        went = "fell" if facts.last_loss < facts.first_loss else "rose"
        went = "stayed" if facts.last_loss == facts.first_loss else went
        ends = f"from {_number(facts.first_loss)} to {_number(facts.last_loss)}"
        ends = f"at {_number(facts.last_loss)}" if went == "stayed" else ends
        text += f"The {html.escape(facts.loss)} {went} {ends}. "
    if facts.ended_at is not None and facts.has_calibration:
        how = {
            _REACHED: "reached its set-point and ended",
            _BY_TIME: "ended by time",
            _BY_GUARD: "ended by the guard",
            _BY_BOUND: "ended by the bound on one step",
        }
        what = "a learning rate" if facts.found_is_rate else "a scale"
        text += f"The calibration {how.get(facts.ended or -1, 'ended')} at step {facts.ended_at}"
        text += f", at {what} of {_number(facts.found)}. " if math.isfinite(facts.found) else ". "
    elif not facts.has_calibration:
        text += "There was no calibration to follow: its keys are not in the trace. "
    if math.isfinite(facts.peak):
        text += f"The connectome moved by at most {_number(facts.peak)} set-points between two measurements. "
    return text.strip() or f"Recorded: {_count(facts.rows, 'row')}."


def _caption(facts: _Facts) -> str:
    text = "Shaded is what the controller was doing, as the legend says."
    return text if facts.has_calibration else "Each is empty where nothing was recorded."


def _advice(facts: _Facts, has_seed: bool, has_set_point: bool) -> list[str]:
    advice = []
    if facts.ended == 0:
        advice.append(
            "Let it run longer, measure more often (a smaller <code>every</code>), or begin with a base "
            "learning rate ten times as large: then less is left to look for."
        )
    if facts.ended == _BY_TIME:
        advice.append(
            "Begin with a base learning rate ten times as large, so that the set-point is within reach; if "
            "it is not reached then either, ask less of the connectome (<code>target</code> below 1)."
        )
    if facts.ended == _BY_GUARD:
        at = "" if facts.ended_at is None else f" around step {facts.ended_at}"
        advice.append(
            f"Look at the loss and the distance{at}. A probe that sees other samples, dropout or running "
            "statistics each time moves without any step: measure on fixed or paired samples, in evaluation "
            "mode. If the loss jumped, clip the gradients."
        )
    if facts.ended == _BY_BOUND:
        advice.append(
            "That is what a squared loss without clipping does. Clip the gradients; where the loss fell "
            "well, nothing is wrong."
        )
    if facts.ended == _REACHED and facts.found_is_rate:
        advice.append(
            f"A second run that begins at a base learning rate of {_number(facts.found)} has little left to "
            "find; other seeds tell how much of the result is luck."
        )
    if facts.measurements is not None and facts.measurements < _ADVISED_MEASUREMENTS:
        advice.append(
            f"With {facts.measurements} measurements there is little to go by: take a smaller "
            f"<code>every</code>, so that there are {_ADVISED_MEASUREMENTS} or more."
        )
    if facts.skipped:
        advice.append(
            f"Measurements that were skipped: {facts.skipped}. Activations or distances were not finite; "
            "look for overflow, dead layers and batches of one sample."
        )
    if facts.refused:
        advice.append(
            f"Values that were refused: {facts.refused}. A schedule, bounds, a controller or a signal gave "
            "one that is not finite and positive; the last good one was used in its place."
        )
    if facts.lost:
        advice.append("Find the first row in which the loss is not finite, and what the rate was before it.")
    if facts.last_loss > facts.first_loss:
        advice.append("The loss rose: lower <code>target</code>, or clip the gradients.")
    if not has_set_point:
        advice.append(
            "Give this report the signal's set-point (<code>set_point=signal.set_point_at(every)</code>): "
            "then the distance is drawn in set-points, in which 1 is fast enough."
        )
    if not has_seed:
        advice.append(
            'Give it the seed (<code>settings={"seed": ...}</code>), so that the run can be repeated.'
        )
    return advice or ["Nothing stands out: try other seeds, to tell how much of the result is luck."]


def _table(settings: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(str(value))}</td></tr>"
        for key, value in settings.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _picture(
    title: str, size: tuple[float, float], draw: Callable[[matplotlib.figure.Figure], None], name: str
) -> str:
    """An inline SVG whose text and axes take the colour of the page's text."""
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = dict.fromkeys(inked, _INK) | {
        "font.size": 10,
        "axes.linewidth": 0.6,
        "axes.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": name,
    }
    with matplotlib.rc_context(style):
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained", facecolor="none")
        draw(figure)
        figure.draw_without_rendering()  # the layout settles with the second drawing
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=metadata, facecolor="none")
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    # Two pictures on a page must not share the names of their parts.
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
