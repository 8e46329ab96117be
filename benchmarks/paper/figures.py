"""Three plots: test error, learning rate and the distance against epochs, at the chosen base rates."""

import pathlib
from collections.abc import Callable

import numpy as np
from matplotlib import figure as figures
from matplotlib import ticker

from benchmarks.paper import report, runner, tasks

LINES = {
    "paper deaths": "#d62728",
    "gate on noise": "#ff9896",
    "envelope, no gate": "#7f7f7f",
    "SGD constant": "#bcbd22",
    "SGD cosine": "#000000",
    "AdamW cosine": "#1f77b4",
    "our default": "#2ca02c",
}
MEASURED = {name: LINES[name] for name in ("paper deaths", "our default")} | {"paper barcode": "#9467bd"}


def draw(folder: pathlib.Path, found: report.Found) -> None:
    """Writes error.png, rate.png and distance.png of the tasks that were found."""
    found = {label: lines for label, lines in found.items() if lines}
    if found:
        _plot(folder / "error.png", found, LINES, "test error", lambda outcome: outcome.test_curve)
        _plot(folder / "rate.png", found, LINES, "learning rate", lambda outcome: outcome.rate)
        _plot(folder / "distance.png", found, MEASURED, "distance", lambda outcome: outcome.distance)


def _plot(
    path: pathlib.Path,
    found: report.Found,
    colours: dict[str, str],
    what: str,
    curve: Callable[[runner.Outcome], np.ndarray],
) -> None:
    """The median over seeds, a panel for each task; of the distance one seed: a median hides its peaks."""
    chart = figures.Figure((max(3.4 * len(found), 6.0), 3.0), layout="constrained")  # no window, no backend
    panels = chart.subplots(1, len(found), squeeze=False)[0]
    handles = {}
    for panel, (label, lines) in zip(panels, found.items(), strict=True):
        task = tasks.TASKS[label]
        epochs = np.arange(1, task.points + 1) * (task.epochs // task.points)
        for name, colour in colours.items():
            if name not in lines:
                continue
            values = curve(lines[name].chosen)
            series = values[0] if what == "distance" else np.median(values, 0)
            shown = series > 0
            (handles[name],) = panel.plot(epochs[shown], series[shown], color=colour, linewidth=1.3)
        panel.set(yscale="log", title=label)
        panel.title.set_fontsize(9)
        panel.tick_params(labelsize=7, which="both")
        panel.yaxis.set_minor_formatter(ticker.NullFormatter())
    panels[0].set_ylabel(what, fontsize=8)
    chart.supxlabel("epoch", fontsize=9)
    chart.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=4, frameon=False, fontsize=8
    )
    chart.savefig(path, dpi=80)
