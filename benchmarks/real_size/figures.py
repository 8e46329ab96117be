"""Two plots, a panel for each task: error against base rate, and learning rates along the run."""

import pathlib

import numpy as np

from benchmarks import panels
from benchmarks.real_size import report, tasks
from benchmarks.study.lines import Found
from cgalr_jax import plotting

LINES = {
    "SGD warm-up cosine": (plotting.GREY, ":"),
    "AdamW warm-up cosine": (plotting.BLUE, "-."),
    "Prodigy cosine": (plotting.GREEN, "--"),
    "update norm on SGD": ("black", (0, (6, 2))),
    "ours on SGD": (plotting.VERMILION, "-"),
}
PLOTS = ("errors.png", "rates.png")


def draw(folder: pathlib.Path, found: Found) -> None:
    """Writes `PLOTS` of the tasks that were found."""
    found = {label: held for label, held in found.items() if report.OURS in held}
    if found:
        _errors(folder / PLOTS[0], found)
        _rates(folder / PLOTS[1], found)


def _errors(path: pathlib.Path, found: Found) -> None:
    chart, axes = panels.grid(len(found), 2.4)
    handles = {}
    for panel, (label, held) in zip(axes, found.items(), strict=True):
        for name, (colour, dashes) in LINES.items():
            if name not in held:
                continue
            line = report.grid(label, name, held[name])
            middle = np.sqrt(line.rates[2] * line.rates[3])
            (handles[name],) = panel.plot(
                np.array(line.rates) / middle,
                line.test.mean(0),
                color=colour,
                linestyle=dashes,
                marker=".",
                linewidth=1.8,
            )
        panel.set(xscale="log", yscale="log", title=label)
    axes[0].set_ylabel("test error")
    chart.supxlabel("base rate, over the middle of the grid")
    panels.finish(chart, path, handles, columns=2)


def _rates(path: pathlib.Path, found: Found) -> None:
    chart, axes = panels.grid(len(found), 2.4)
    handles = {}
    for panel, (label, held) in zip(axes, found.items(), strict=True):
        task, line = tasks.TASKS[label], report.grid(label, report.OURS, held[report.OURS])
        epochs = np.arange(1, task.points + 1) * (task.epochs // task.points)
        for outcome in line.outcomes:
            (handles["ours on SGD, six base rates"],) = panel.plot(
                epochs, np.median(outcome.rate, 0), color=plotting.VERMILION, linewidth=1.2
            )
        if report.REFERENCE in held:
            tuned = held[report.REFERENCE].chosen.rate[0]
            (handles[f"{report.REFERENCE}, tuned"],) = panel.plot(
                epochs, np.maximum(tuned, 1e-9), color=plotting.GREY, linestyle=":", linewidth=1.8
            )
        panel.set(yscale="log", title=label, ylim=(max(line.rates) * 1e-4, None))
    axes[0].set_ylabel("learning rate")
    chart.supxlabel("epoch")
    panels.finish(chart, path, handles, columns=2)
