"""README's picture, all tasks in one panel, of what is published: `python -m benchmarks.training.picture`."""

import argparse
import json
import pathlib

import numpy as np
from matplotlib import figure as figures

from benchmarks import arguments
from benchmarks.training import methods, protocols, report, tasks
from cgalr_jax import plotting

PUBLISHED = report.PAGE.with_suffix(".json")
PICTURE = report.PAGE.parents[1] / "assets" / "error_against_base_rate.png"

VALLEYS = {
    "SGD cosine": (plotting.GREY, ":", "SGD, cosine"),
    "AdamW cosine": (plotting.BLUE, "-.", "AdamW, cosine"),
    "Prodigy cosine": (plotting.GREEN, "--", "Prodigy, cosine"),
    "CG-ALR hybrid": (plotting.VERMILION, "-", "CG-ALR, SGD, cosine"),
}


def valley(records: list[arguments.Record], method: str) -> tuple[np.ndarray, np.ndarray]:
    """Base rates relative to the middle of the judged range, and the error at each of them.

    The error is the geometric mean over the tasks, variants left out, of the error relative to that of SGD
    cosine at the rate that is best for the task.
    """
    errors: dict[str, dict[tuple[str, float], float]] = {}
    for record in records:
        if record["method"] in (method, protocols.REFERENCE):
            errors.setdefault(record["method"], {})[record["task"], record["base_rate"]] = record["error"]
    labels = sorted({label for label, _ in errors[method] if not tasks.catalogue()[label].variant})
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


def draw(path: pathlib.Path, records: list[arguments.Record]) -> None:
    """Writes the picture: large letters, since a telephone shows it half as wide."""
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


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training.picture", description=__doc__)
    parser.add_argument(
        "--out", type=arguments.output_file, default=PICTURE, metavar="FILE", help="default: README's picture"
    )
    options = parser.parse_args(given)
    kinds = [f".{kind}" for kind in sorted(figures.Figure().canvas.get_supported_filetypes())]
    if options.out.suffix.lower() not in kinds:
        parser.error(f"argument --out: must end in {', '.join(kinds)}, got {options.out}")
    draw(options.out, json.loads(PUBLISHED.read_text()))


if __name__ == "__main__":
    main()
