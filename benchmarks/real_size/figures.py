"""The plots: a panel for each task (error against base rate, learning rates), and all tasks (runs, sizes)."""

import pathlib

import numpy as np

from benchmarks import panels
from benchmarks.real_size import methods, tasks
from benchmarks.real_size.methods import DEFAULT, REFERENCE
from benchmarks.study import figures
from benchmarks.study.lines import Found
from benchmarks.study.methods import GRID
from benchmarks.study.quantities import (
    found_over_best,
    on_all,
    tuned_by,
    untuned,
)
from cgalr_jax import plotting

LINES = {
    "SGD warm-up cosine": (plotting.GREY, ":"),
    "AdamW warm-up cosine": (plotting.BLUE, "-."),
    "Prodigy cosine": (plotting.GREEN, "--"),
    "update norm on SGD": ("black", (0, (6, 2))),
    "ours on SGD": (plotting.VERMILION, "-"),
}
BASELINES = {
    "SGD cosine": ("black", (0, (6, 2))),
    **{name: LINES[name] for name in ("SGD warm-up cosine", "AdamW warm-up cosine")},
}
RATES = GRID[1] - GRID[0]  # that every method is tried at
TICKS = (0.9, 1.0, 1.2, 1.5, 2.0)
PLOTS = ("errors.png", "rates.png", "runs.png", "sizes.png")


def draw(folder: pathlib.Path, found: Found) -> None:
    """Writes `PLOTS` of the tasks that were found."""
    found = {label: held for label, held in found.items() if DEFAULT in held}
    if found:
        figures.errors(folder / PLOTS[0], found, LINES)
        _rates(folder / PLOTS[1], found)
        _runs(folder / PLOTS[2], found)
        _sizes(folder / PLOTS[3], found)


def _rates(path: pathlib.Path, found: Found) -> None:
    chart, axes = panels.grid(len(found), 2.4)
    handles = {}
    for panel, (label, held) in zip(axes, found.items(), strict=True):
        task, line = tasks.TASKS[label], held[DEFAULT].on_grid
        epochs = np.arange(1, task.points + 1) * (task.epochs // task.points)
        for outcome in line.outcomes:
            (handles["ours on SGD, six base rates"],) = panel.plot(
                epochs, np.median(outcome.rate, 0), color=plotting.VERMILION, linewidth=1.2
            )
        if REFERENCE in held:
            tuned = held[REFERENCE].chosen.rate[0]
            (handles[f"{REFERENCE}, tuned"],) = panel.plot(
                epochs, np.maximum(tuned, 1e-9), color=plotting.GREY, linestyle=":", linewidth=1.8
            )
        panel.set(yscale="log", title=label, ylim=(max(line.rates) * 1e-4, None))
    axes[0].set_ylabel("learning rate")
    chart.supxlabel("epoch")
    panels.finish(chart, path, handles, columns=2)


def _runs(path: pathlib.Path, found: Found) -> None:
    """The error of a baseline over ours, which was trained once, against how often it was trained."""
    chart, (panel,) = panels.grid(1, 3.0)
    counts = range(1, 1 + RATES)
    handles = {}
    for name, (colour, dashes) in BASELINES.items():
        both = on_all(found, DEFAULT, name)
        means = [
            np.mean(
                [
                    tuned_by(held[name], count).mean() / untuned(held[DEFAULT]).mean()
                    for label, held in both.items()
                ]
            )
            for count in counts
            if both
        ]
        if means:
            (handles[name],) = panel.plot(
                counts, means, color=colour, linestyle=dashes, marker="o", linewidth=1.8
            )
    handles["ours on SGD, 1 run"] = panel.axhline(1, color=plotting.VERMILION, linewidth=1.8)
    panel.set(yscale="log", ylabel="error over that of ours", xlabel="training runs, at drawn base rates")
    panel.set_yticks(TICKS, [str(tick) for tick in TICKS])
    panel.minorticks_off()
    panels.finish(chart, path, handles, columns=2)


def _sizes(path: pathlib.Path, found: Found) -> None:
    """The learning rate that was found over the best one, against the number of parameters."""
    chart, (panel,) = panels.grid(1, 3.0)
    handles = {"a factor of two": panel.axhspan(0.5, 2, color=plotting.GREY, alpha=0.2, linewidth=0)}
    for name, colour, marker in (
        (DEFAULT, plotting.VERMILION, "o"),
        (methods.STEPS_KNOWN, plotting.BLUE, "^"),
    ):
        both = on_all(found, name, REFERENCE)
        sizes = [tasks.PARAMETERS[label] for label in both]
        ratios = [np.median(found_over_best(held[name], held[REFERENCE])) for label, held in both.items()]
        if both:
            (handles[name],) = panel.plot(sizes, ratios, color=colour, marker=marker, linestyle="")
    panel.set(
        xscale="log", yscale="log", ylabel="found rate over best rate", xlabel="parameters of the network"
    )
    panels.finish(chart, path, handles, columns=3)
