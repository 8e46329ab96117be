"""What a user pays: the error after as many runs as tuning takes, steps to a target, and what size does."""

import numpy as np

from benchmarks import estimates, pages
from benchmarks.real_size import methods, tasks
from benchmarks.real_size.methods import DEFAULT, REFERENCE
from benchmarks.study.lines import Found
from benchmarks.study.quantities import (
    found_over_best,
    on_all,
    ramp,
    span,
    tuned_by,
    until,
    untuned,
)

RUNS = (1, 2, 3, 6)
SLACK = 1.05  # of the target, over the error that the reference ends with
SIZES = ((0, 100_000), (100_000, 600_000), (600_000, 10_000_000))  # numbers of parameters
UNTUNED = (DEFAULT, methods.STEPS_KNOWN)


def runs(found: Found) -> str:
    """Ours after one run against baselines after one and more."""
    rows = []
    for ours in UNTUNED:
        for name in methods.BASELINES:
            if not (both := on_all(found, ours, name)):
                continue
            row = [ours, name, str(len(both))]
            for count in RUNS:
                pairs = [(untuned(held[ours]), tuned_by(held[name], count)) for label, held in both.items()]
                row.append(str(estimates.mean_red(pairs)))
            rows.append(row)
    note = (
        "RED in %, negative is better, of ours after one run, the mean over the six base rates, against a "
        "baseline that was trained at so many of them, 300 times apart: the one with the least validation "
        "error is kept, and the mean is over all that could be drawn. It is for who knows no more of the "
        "rate; with one that suits most tasks known beforehand, 'one setting' above, a baseline pays one "
        "run, too."
    )
    head = ["ours, 1 run", "baseline", "tasks", *(f"{count} run{'s' * (count > 1)}" for count in RUNS)]
    return pages.table("What tuning costs", note, head, rows)


def steps(found: Found) -> str:
    """Shares of the run: until the target, and until the learning rate is largest."""
    baselines = (REFERENCE, "SGD cosine", "AdamW warm-up cosine")
    rows = []
    for label, held in on_all(found, DEFAULT, REFERENCE).items():
        target = SLACK * float(held[REFERENCE].chosen.test.mean())
        row = [label]
        for name in (*baselines, *UNTUNED):
            if name not in held:
                row.append("not run")
                continue
            chosen = [held[name].chosen] if name in baselines else held[name].on_grid.outcomes
            share = np.concatenate([until(outcome.test_curve, target) for outcome in chosen])
            middle = np.median(share)
            in_time = f"({100 * np.mean(np.isfinite(share)):.0f} %)"
            row.append(f"{middle:.2f} {in_time}" if middle < np.inf else f"- {in_time}")
        row += [f"{np.median(ramp(held[name].on_grid)):.2f}" if name in held else "-" for name in UNTUNED]
        rows.append(row)
    note = (
        f"The share of the run after which the test error is first within {100 * (SLACK - 1):.0f} % of what "
        f"{REFERENCE} ends with, tuned: median over seeds (ours: and over the six base rates), and the share "
        "of runs that come there; a dash unless more than half do. Ramp: the share after which the learning "
        "rate is largest. To a fifth of most runs, at which the curves were taken. A step of ours costs "
        "more, see [what a step costs](step.md)."
    )
    head = ["task", *(f"{name}, tuned" for name in baselines), *UNTUNED, "ramp of ours", "ramp, steps known"]
    return pages.table("Steps to a target", note, head, rows)


def sizes(found: Found) -> str:
    """Ours against the reference, by numbers of parameters."""
    rows = []
    for ours in UNTUNED:
        for first, last in SIZES:
            both = {
                label: held
                for label, held in on_all(found, ours, REFERENCE).items()
                if first <= tasks.PARAMETERS[label] < last
            }
            if not both:
                continue
            pairs = [(untuned(held[ours]), held[REFERENCE].chosen.test) for label, held in both.items()]
            ratios = [
                float(np.median(found_over_best(held[ours], held[REFERENCE]))) for label, held in both.items()
            ]
            counts = [tasks.PARAMETERS[label] for label in both]
            rows.append(
                [
                    ours,
                    f"{min(counts):,} to {max(counts):,}",
                    str(len(both)),
                    str(estimates.mean_red(pairs)),
                    f"{100 * np.median([estimates.red(*pair).value for pair in pairs]):+.1f}",
                    span(ratios),
                    f"{sum(0.5 <= ratio <= 2 for ratio in ratios)}",
                ]
            )
    note = (
        f"Against {REFERENCE}, tuned. Found/best as in the table above: median, least and largest of "
        "the tasks, and on how many of them it is within a factor of two."
    )
    head = ["ours", "parameters", "tasks", "RED, mean", "median", "found/best", "within a factor of two"]
    return pages.table("By size", note, head, rows)
