"""The plots: error against base rate, task by task and over all of them, and learning rates along the run.

`python -m benchmarks.training.figures` draws the one that README opens with, from what is published.
"""

import json
import pathlib

import matplotlib
import numpy as np
from matplotlib import figure as figures

from benchmarks import estimates, panels
from benchmarks.training import methods, protocols, store, tasks
from cgalr_jax import plotting

PUBLISHED = pathlib.Path("docs/results/training.json")
PICTURE = pathlib.Path("docs/assets/error_against_base_rate.png")

# Colours of Okabe and Ito, which the colour-blind tell apart; the dashes are for who prints them in grey.
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
    axes[0].set_ylabel("learning rate")
    figure.supxlabel("step")
    names = f"{protocols.OURS}, five base rates", f"{protocols.REFERENCE}, oracle rate"
    panels.finish(figure, path, dict(zip(names, (handle, oracle), strict=True)), columns=2)


# --- README's picture: all tasks in one panel, from the published records.

VALLEYS = {
    "SGD cosine": (plotting.GREY, ":", "SGD, cosine"),
    "AdamW cosine": (plotting.BLUE, "-.", "AdamW, cosine"),
    "Prodigy cosine": (plotting.GREEN, "--", "Prodigy, cosine"),
    "CG-ALR hybrid": (plotting.VERMILION, "-", "CG-ALR, SGD, cosine"),
}


def valley(records: list[dict], method: str) -> tuple[np.ndarray, np.ndarray]:
    """Base rates relative to the middle of the judged range, and the error at each of them.

    The error is the geometric mean over the tasks, variants left out, of the error relative to that of SGD
    cosine at the rate that is best for the task.
    """
    errors: dict[str, dict[tuple[str, float], float]] = {}
    for record in records:
        if record["method"] in (method, protocols.REFERENCE):
            errors.setdefault(record["method"], {})[record["task"], record["base_rate"]] = record["error"]
    labels = sorted({name for name, _ in errors[method] if "(" not in name})  # "name (variant)"
    best = {
        label: min(error for (name, _), error in errors[protocols.REFERENCE].items() if name == label)
        for label in labels
    }
    rates = sorted({rate for _, rate in errors[method]})
    relative = [
        np.exp(np.mean([np.log(errors[method][label, rate] / best[label]) for label in labels]))
        for rate in rates
    ]
    middle = rates[methods.METHODS[method].judged][2]
    return np.array(rates) / middle, np.array(relative)


def draw_valleys(path: pathlib.Path, records: list[dict]) -> None:
    """Writes README's picture: large letters, since a telephone shows it half as wide."""
    figure = figures.Figure((7, 4.2), layout="constrained")
    axis = figure.subplots()
    for method, (colour, dashes, label) in VALLEYS.items():
        x, y = valley(records, method)
        axis.plot(x, y, dashes, color=colour, linewidth=3.2, label=label, marker="o", markersize=5)
    axis.axhline(1, color=plotting.GREY, linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlabel="base rate, relative to the middle of those tried")
    axis.set_ylabel("test error, relative to the\nbest tuned SGD cosine")
    axis.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axis.set_yticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    axis.set_yticks([], minor=True)
    for text in (axis.xaxis.label, axis.yaxis.label, *axis.get_xticklabels(), *axis.get_yticklabels()):
        text.set_fontsize(14)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=13, loc="upper center", ncols=2)
    axis.set_ylim(0.85, None)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    draw_valleys(PICTURE, json.loads(PUBLISHED.read_text()))
