"""The two plots: error against base rate, and learning rates along the run."""

import pathlib

import matplotlib
import numpy as np
from matplotlib import figure as figures

from benchmarks import estimates
from benchmarks.training import methods, protocols, store, tasks

LINES = {
    "SGD cosine": "#7f7f7f",
    "AdamW cosine": "#1f77b4",
    "Prodigy cosine": "#9467bd",
    "DoG": "#bcbd22",
    "update norm": "#2ca02c",
    "CG-ALR hybrid": "#d62728",
}


def _grid(count: int, width: float, height: float) -> tuple:
    columns = min(4, count)
    rows = -(-count // columns)
    figure = figures.Figure((width * columns, height * rows), layout="constrained")  # no window, no backend
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat[:count]


def _finish(figure, path: pathlib.Path, handles: list, names: list[str]) -> None:
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9)
    figure.savefig(path, dpi=80)


def draw(folder: pathlib.Path, table: protocols.Table) -> None:
    """Writes rates.png and traces.png."""
    labels = table.tasks_with()
    if labels:
        _rates(folder / "rates.png", table, labels)
    labels = [label for label in labels if "CG-ALR hybrid" in table.records[label]]
    if labels:
        _traces(folder / "traces.png", table, labels)


def _rates(path: pathlib.Path, table: protocols.Table, labels: list[str]) -> None:
    figure, axes = _grid(len(labels), 3.0, 2.3)
    handles = {}
    for axis, label in zip(axes, labels, strict=True):
        for name, colour in LINES.items():
            record = table.records[label].get(name)
            if record is None:
                continue
            judged = methods.METHODS[name].judged
            relative = record.rates / record.rates[judged][2]
            mean, error = record.score.mean(0), record.score.std(0) / np.sqrt(len(record.seeds))
            (handles[name],) = axis.plot(relative, mean, color=colour, marker=".", linewidth=1.4)
            axis.fill_between(relative, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        axis.axvspan(0.1, 10, color="black", alpha=0.04, linewidth=0)
        axis.set(xscale="log", title=label, ylim=(0, None))
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("test error", fontsize=8)
    figure.supxlabel("base rate, relative to the middle of the judged range (shaded)", fontsize=9)
    _finish(figure, path, list(handles.values()), list(handles))


def _traces(path: pathlib.Path, table: protocols.Table, labels: list[str]) -> None:
    figure, axes = _grid(len(labels), 3.0, 2.1)
    colours = matplotlib.colormaps["autumn"]
    for axis, label in zip(axes, labels, strict=True):
        record, task = table.records[label]["CG-ALR hybrid"], tasks.catalogue()[label]
        shape = methods.shapes(task.steps)["cosine"]
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
        axis.title.set_fontsize(9)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("learning rate", fontsize=8)
    figure.supxlabel("step", fontsize=9)
    _finish(
        figure,
        path,
        [handle, oracle],
        ["CG-ALR hybrid from five base rates (median seed)", "SGD cosine at its oracle rate"],
    )
