"""A plot that studies share."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks import panels
from benchmarks.study.lines import Found

Styles = Mapping[str, tuple[str, Any]]  # method: colour, dashes


def errors(path: pathlib.Path, found: Found, styles: Styles) -> None:
    """The mean test error against the base rates that every method is tried at, a panel for each task."""
    chart, axes = panels.grid(len(found), 2.4)
    handles = {}
    for panel, (label, held) in zip(axes, found.items(), strict=True):
        for name, (colour, dashes) in styles.items():
            if name not in held:
                continue
            line = held[name].on_grid
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
