"""The report's plots, task by task: error against base rate, and learning rates along the run."""

import pathlib

import matplotlib
import numpy as np

from benchmarks import estimates, panels, schedules
from benchmarks.training import methods, protocols, store, tasks
from cgalr_jax import plotting

LINES = {
    "SGD cosine": (plotting.GREY, ":"),
    "AdamW cosine": (plotting.BLUE, "-."),
    "Prodigy cosine": (plotting.GREEN, "--"),
    "DoG": (plotting.SKY, (0, (1, 3))),
    "update norm": ("black", (0, (6, 2))),
    "CG-ALR hybrid": (plotting.VERMILION, "-"),
}


def draw(folder: pathlib.Path, table: protocols.Table) -> None:
    """Writes rates.png and traces.png."""
    labels = table.tasks_with()
    if labels:
        _rates(folder / "rates.png", table, labels)
    labels = [label for label in labels if protocols.OURS in table.records[label]]
    if labels:
        _traces(folder / "traces.png", table, labels)


def _rates(path: pathlib.Path, table: protocols.Table, labels: list[str]) -> None:
    figure, axes = panels.grid(len(labels), 2.4)
    handles = {}
    for axis, label in zip(axes, labels, strict=True):
        for name, (colour, dashes) in LINES.items():
            record = table.records[label].get(name)
            if record is None:
                continue
            judged = methods.METHODS[name].judged
            relative = record.rates / record.rates[judged][2]
            mean, error = record.score.mean(0), record.score.std(0) / np.sqrt(len(record.seeds))
            (handles[name],) = axis.plot(
                relative, mean, color=colour, linestyle=dashes, marker=".", linewidth=1.8
            )
            axis.fill_between(relative, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        axis.axvspan(0.1, 10, color="black", alpha=0.04, linewidth=0)
        axis.set(xscale="log", title=label, ylim=(0, None))
    axes[0].set_ylabel("test error")
    figure.supxlabel("base rate, relative to the middle of the judged range (shaded)")
    panels.finish(figure, path, handles, columns=2)


def _traces(path: pathlib.Path, table: protocols.Table, labels: list[str]) -> None:
    figure, axes = panels.grid(len(labels), 2.2)
    colours = matplotlib.colormaps["autumn"]
    for axis, label in zip(axes, labels, strict=True):
        record, task = table.records[label][protocols.OURS], tasks.catalogue()[label]
        shape = schedules.shapes(task.steps)["cosine"]
        steps = np.arange(task.steps)[:: store.THINNING]
        for column, rate in enumerate(record.rates):
            trace = rate * shape[:: store.THINNING] * np.median(record.scale[:, column], 0)
            (handle,) = axis.plot(steps, trace, color=colours(column / 6), linewidth=1.0)
        best = table.records[label][protocols.REFERENCE]
        rate = best.rates[estimates.oracle(best.score)]
        (oracle,) = axis.plot(
            steps, rate * shape[:: store.THINNING], color="black", linestyle="--", linewidth=1.2
        )
        axis.set(yscale="log", title=label, ylim=(rate * 1e-3, rate * 20))
    axes[0].set_ylabel("learning rate")
    figure.supxlabel("step")
    names = f"{protocols.OURS}, five base rates", f"{protocols.REFERENCE}, oracle rate"
    panels.finish(figure, path, dict(zip(names, (handle, oracle), strict=True)), columns=2)
