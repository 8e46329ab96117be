"""Three plots: test error, learning rate and the distance against epochs, at the chosen base rates."""

import pathlib
from collections.abc import Callable

import numpy as np
from matplotlib import ticker

from benchmarks import panels
from benchmarks.paper import tasks
from benchmarks.paper.gates import GATES, is_below_the_top
from benchmarks.study import lines, runner
from cgalr_jax import plotting

LINES = {
    "paper deaths": (plotting.VERMILION, "-"),
    "gate on noise": (plotting.ORANGE, "--"),
    "envelope, no gate": (plotting.GREY, "-."),
    "SGD constant": (plotting.SKY, ":"),
    "SGD cosine": ("black", ":"),
    "AdamW cosine": (plotting.GREEN, "-."),
    "our default": (plotting.BLUE, "-"),
}
MEASURED = {name: LINES[name] for name in ("paper deaths", "our default")} | {
    "paper barcode": (plotting.ORANGE, "--")
}


PLOTS = ("error.png", "rate.png", "distance.png")


def draw(folder: pathlib.Path, found: lines.Found) -> None:
    """Writes `PLOTS` of the tasks that were found."""
    found = {label: held for label, held in found.items() if held}
    if found:
        error, rate, distance = (folder / plot for plot in PLOTS)
        _plot(error, found, LINES, "test error", lambda outcome: outcome.test_curve)
        _plot(rate, found, LINES, "learning rate", lambda outcome: outcome.rate)
        _plot(distance, found, MEASURED, "distance", lambda outcome: outcome.distance)


def _plot(
    path: pathlib.Path,
    found: lines.Found,
    styles: dict[str, tuple[str, str]],
    what: str,
    curve: Callable[[runner.Outcome], np.ndarray],
) -> None:
    """The median over seeds, a panel for each task; of the distance one seed: a median hides its peaks.

    There, dots are epochs of reorganisation: the gate holds the rate below the top of its envelope.
    """
    chart, axes = panels.grid(len(found), 3.4)
    handles = {}
    for panel, (label, held) in zip(axes, found.items(), strict=True):
        task = tasks.TASKS[label]
        epochs = np.arange(1, task.points + 1) * (task.epochs // task.points)
        for name, (colour, dashes) in styles.items():
            if name not in held:
                continue
            values = curve(held[name].chosen)
            series = values[0] if what == "distance" else np.median(values, 0)
            shown = series > 0
            (handles[name],) = panel.plot(
                epochs[shown], series[shown], color=colour, linestyle=dashes, linewidth=1.8
            )
            if what == "distance" and name in GATES:
                slowed = shown & is_below_the_top(task, held[name])[0]
                panel.plot(epochs[slowed], series[slowed], "o", color=colour, markersize=4.5)
        panel.set(yscale="log", title=label)
        # Errors span less than a decade: without numbers between its powers of ten an axis would have none.
        low, high = panel.get_ylim()
        panel.yaxis.set_major_locator(
            ticker.LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,), numticks=20)
        )
        panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes[0].set_ylabel(what)
    chart.supxlabel("epoch")
    panels.finish(chart, path, handles, columns=3)
