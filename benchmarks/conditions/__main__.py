"""Does the default hold under other conditions? Momentum, batch, wrong labels, length, depth.

    python -m benchmarks.conditions --data ~/data                     # everything; resumable, see --out
    python -m benchmarks.conditions --data ~/data --tasks "batch 8"
    python -m benchmarks.conditions --report                          # tables and plot of what is there

One network of 55 thousand parameters, and one condition after the other. Baselines are tried at six base
rates and beyond where the first or the last is best, and have the one with the least validation error; ours
is the mean over all six.
"""

from benchmarks.conditions import figures, methods, report, tasks
from benchmarks.study import comparison

STUDY = comparison.Comparison(
    "benchmarks.conditions",
    __doc__ or "",
    tasks.TASKS,
    methods.METHODS,
    methods.FAMILIES,
    quick=(("200 steps",), (methods.REFERENCE, methods.OURS, methods.STEPS_KNOWN), 2),
    page=report.PAGE,
    text=report.text,
    draw=figures.draw,
    plots=figures.PLOTS,
    applies=methods.applies,
)


def main(given: list[str] | None = None) -> None:
    comparison.main(STUDY, given)


if __name__ == "__main__":
    main()
