"""The tables: ours at six base rates, none of them chosen, against baselines at the one validation chose."""

import numpy as np

from benchmarks import estimates, pages
from benchmarks.real_size import costs, methods, tasks
from benchmarks.real_size.methods import DEFAULT, REFERENCE
from benchmarks.study.lines import Found
from benchmarks.study.quantities import (
    at_chance,
    best_rate,
    ends,
    found_over_best,
    found_rates,
    on_all,
    span,
    spread,
    untuned,
    value,
)

PAGE = pages.RESULTS / "real_size.md"


def text(found: Found) -> str:
    """All tables that there is something to put into."""
    found = {label: held for label, held in found.items() if held}
    tables = (_against, costs.runs, _each, costs.sizes, costs.steps, _controls, _variants, _bases)
    parts = [table(found) for table in tables]
    return "\n\n".join(part for part in parts if part) or "Nothing to compare: no task has results of ours."


def _pairs(both: Found, ours: str, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each task, ours without a choice and the other at the rate that validation chose: f[S] each."""
    return [(untuned(held[ours]), held[name].chosen.test) for label, held in both.items()]


def _against(found: Found) -> str:
    rows = []
    for ours in (DEFAULT, methods.STEPS_KNOWN, "ours on AdamW"):
        for name in methods.BASELINES:
            if not (both := on_all(found, ours, name)):
                continue
            pairs = _pairs(both, ours, name)
            each = [estimates.red(*pair) for pair in pairs]
            worst = max(range(len(each)), key=lambda number: each[number].value)
            rows.append(
                [
                    ours,
                    name,
                    str(len(both)),
                    str(estimates.mean_red(pairs)),
                    f"{100 * np.median([red.value for red in each]):+.1f}",
                    f"{100 * each[worst].value:+.1f} ({list(both)[worst]})",
                    f"{sum(red.high < 0 for red in each)} better, {sum(red.low > 0 for red in each)} worse",
                    str(_mean_against(both, ours, name, _one_rate(both, name))),
                ]
            )
    note = (
        "RED in %, negative is better. Ours is the mean over six base rates, 300 times apart, and none is "
        "chosen. Tuned: the baseline at the base rate with the least validation error on a task, of six and "
        "beyond. One setting: at the one of the six multiples of the grid's middle that suits these tasks "
        "best by their test errors, which favours the baseline. A score is capped at chance."
    )
    head = ["ours", "baseline", "tasks", "tuned, mean", "median", "worst task", "by intervals", "one setting"]
    return pages.table("Against the baselines", note, head, rows)


def _one_rate(both: Found, name: str) -> int:
    """The place in the grid that suits these tasks best: the least mean of errors over a task's best one."""
    relative = []
    for held in both.values():
        means = held[name].on_grid.test.mean(0)
        relative.append(means / means.min())
    return int(np.argmin(np.mean(relative, 0)))


def _mean_against(both: Found, ours: str, name: str, place: int) -> estimates.Estimate:
    return estimates.mean_red(
        [(untuned(held[ours]), held[name].on_grid.test[:, place]) for label, held in both.items()]
    )


def _each(found: Found) -> str:
    rows = []
    for label, held in on_all(found, DEFAULT).items():
        line = held[DEFAULT].on_grid
        row = [label, str(len(line.outcomes[0].test)), value(tasks.TASKS[label], untuned(line))]
        row += [f"{spread(line):.2f}"]
        if REFERENCE in held:
            ratio = found_over_best(held[DEFAULT], held[REFERENCE])
            row += [
                best_rate(held[REFERENCE]),
                value(tasks.TASKS[label], held[REFERENCE].chosen.test),
                str(estimates.red(untuned(line), held[REFERENCE].chosen.test)),
                span(ratio),
            ]
        else:
            row += ["-"] * 4
        row += [f"{100 * at_chance(tasks.TASKS[label], line):.0f} %", ends(line)]
        rows.append(row)
    note = (
        f"{DEFAULT} at its six base rates, {REFERENCE} at the rate that validation chose (edge: the first or "
        "the last that it was tried at), and the largest learning rate that ours came to over that one "
        "(median, least and largest of all runs; of the times that the curves were taken, the first after a "
        "fifth of most runs). At chance: the share of runs within 5 % of it, at which scores are capped. "
        "The last column counts how the calibrations ended."
    )
    head = [
        "task",
        "seeds",
        "ours",
        "worst/best",
        "best rate",
        REFERENCE,
        "RED",
        "found/best",
        "at chance",
        "ended by",
    ]
    return pages.table("Task by task", note, head, rows)


def _controls(found: Found) -> str:
    rows = []
    for base in ("SGD", "AdamW"):
        ours, control = f"ours on {base}", f"update norm on {base}"
        for label, held in on_all(found, ours, control).items():
            first, second = (untuned(held[name]) for name in (ours, control))
            rows.append(
                [
                    base,
                    label,
                    value(tasks.TASKS[label], first),
                    value(tasks.TASKS[label], second),
                    str(estimates.red(first, second)),
                    f"{spread(held[ours]):.2f}, {spread(held[control]):.2f}",
                    ", ".join(
                        f"{100 * at_chance(tasks.TASKS[label], held[name]):.0f}" for name in (ours, control)
                    )
                    + " %",
                ]
            )
    note = "The same controller with no connectome: it hears the norm of the update."
    head = ["base", "task", "ours", "update norm", "RED of ours", "worst/best", "at chance"]
    return pages.table("What the connectome is worth", note, head, rows)


def _variants(found: Found) -> str:
    rows = []
    for label, held in found.items():
        for name in methods.VARIANTS:
            if not {DEFAULT, name} <= set(held):
                continue
            other, ours = (untuned(held[each]) for each in (name, DEFAULT))
            ratio = np.median(found_rates(held[name])) / np.median(found_rates(held[DEFAULT].on_grid))
            rows.append(
                [
                    label,
                    name,
                    value(tasks.TASKS[label], other),
                    str(estimates.red(other, ours)),
                    f"{ratio:.2g}",
                ]
            )
    note = (
        "Against the defaults: a bound of 0.1, no `steps=`, and a controller that is not told the schedule, "
        "so that it anneals by itself besides; the last column is how the rates compare."
    )
    return pages.table("Other settings", note, ["task", "ours", "error", "RED", "rate over rate"], rows)


def _bases(found: Found) -> str:
    rows = []
    for ours in methods.OURS:
        base = ours.removeprefix("ours on ")
        against = f"{base.split(',')[0]} cosine"
        if not (both := on_all(found, ours, against)):
            continue
        pairs = _pairs(both, ours, against)
        ratios = [
            float(np.median(found_over_best(held[ours], held[against]))) for label, held in both.items()
        ]
        spreads = [spread(held[ours]) for label, held in both.items()]
        rows.append(
            [
                base,
                str(len(both)),
                str(estimates.mean_red(pairs)),
                f"{100 * max(estimates.red(*pair).value for pair in pairs):+.1f}",
                span(ratios),
                f"{np.mean(spreads):.2f} / {max(spreads):.2f}",
            ]
        )
    note = (
        "Ours against the same optimizer's tuned cosine; found/best: the median over runs of the largest "
        "rate that ours came to, over the cosine's tuned one (median, least and largest of the tasks)."
    )
    head = ["base optimizer", "tasks", "RED, mean", "worst task", "found/best", "worst/best, mean / largest"]
    return pages.table("Base optimizers", note, head, rows)
