"""One plot: error against base rate, a panel for each condition."""

import pathlib

from benchmarks.conditions import methods, report
from benchmarks.study import figures
from benchmarks.study.lines import Found
from cgalr_jax import plotting

LINES = {
    methods.OTHER: ("black", (0, (6, 2))),
    methods.REFERENCE: (plotting.GREY, ":"),
    methods.OURS: (plotting.VERMILION, "-"),
    methods.STEPS_KNOWN: (plotting.BLUE, "-."),
}
PLOTS = ("errors.png",)


def draw(folder: pathlib.Path, found: Found) -> None:
    """Writes `PLOTS` of the conditions that were found."""
    if held := {label: lines for label, lines in report.by_role(found).items() if lines}:
        figures.errors(folder / PLOTS[0], held, LINES)
