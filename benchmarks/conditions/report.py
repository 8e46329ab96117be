"""The tables: ours at six base rates, none of them chosen, against a tuned cosine, condition by condition."""

import numpy as np

from benchmarks import estimates, pages
from benchmarks.conditions import methods, tasks
from benchmarks.study.lines import Found, Line
from benchmarks.study.quantities import (
    at_chance,
    best_rate,
    ends,
    found_over_best,
    ramp,
    span,
    spread,
    untuned,
    value,
)

PAGE = pages.RESULTS / "conditions.md"


def text(found: Found) -> str:
    """Both tables, of the conditions that ours and the reference were run under."""
    whole = {label: held for label, held in by_role(found).items() if methods.REFERENCE in held}
    parts = [_against(whole), _each(whole)]
    return "\n\n".join(part for part in parts if part) or "Nothing to compare: no condition is whole."


def by_role(found: Found) -> Found:
    """The lines of each condition by the names of the methods, without its momentum."""
    return {
        label: {
            name: held[method]
            for name in methods.NAMES
            if (method := methods.at(name, tasks.momentum(label))) in held
        }
        for label, held in found.items()
    }


def _cell(held: dict[str, Line], name: str) -> str:
    if name not in held:
        return "-"
    error = held[name].chosen.test if name == methods.OTHER else untuned(held[name])
    return str(estimates.red(error, held[methods.REFERENCE].chosen.test))


def _against(found: Found) -> str:
    others = (methods.OTHER, *methods.UNTUNED)
    rows = []
    for label, held in found.items():
        line = held[methods.REFERENCE]
        error = value(tasks.TASKS[label], line.chosen.test)
        rows.append([label, error, best_rate(line), *(_cell(held, name) for name in others)])
    note = (
        f"RED in % against {methods.REFERENCE} at the rate that validation chose (edge: the first or the "
        f"last that it was tried at), negative is better. {methods.OTHER} is tuned, too; ours is the mean "
        "over six base rates, 300 times apart. End unknown: the average of the parameters, and no schedule."
    )
    head = ["condition", methods.REFERENCE, "best rate", *others]
    return pages.table("Against a tuned cosine", note, head, rows)


def _each(found: Found) -> str:
    rows = []
    for label, held in found.items():
        for name in methods.UNTUNED:
            if name not in held:
                continue
            line, reference = held[name], held[methods.REFERENCE]
            rows.append(
                [
                    label,
                    name,
                    f"{spread(line):.2f}",
                    span(found_over_best(line, reference)),
                    f"{np.median(ramp(line)):.2f}",
                    f"{100 * at_chance(tasks.TASKS[label], line):.0f} %",
                    ends(line),
                ]
            )
    note = (
        "Worst over best of the six base rates; the largest learning rate, of the times that the curves were "
        "taken, over the best of the reference (median, least and largest of all runs); the share of the run "
        "after which it is largest; the share of runs at chance; how the calibrations ended."
    )
    head = ["condition", "ours", "worst/best", "found/best", "ramp", "at chance", "ended by"]
    return pages.table("What it found", note, head, rows)
