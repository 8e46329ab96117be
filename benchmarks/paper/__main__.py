"""Does the paper hold? Its own configuration on real data, tuned like all others, with intervals.

    python -m benchmarks.paper --data ~/data                      # everything; resumable, see --out
    python -m benchmarks.paper --data ~/data --tasks cora --methods "paper deaths" "SGD cosine" --seeds 3
    python -m benchmarks.paper --report                           # the table and plots of what is there

Every method is tried at six base rates, and beyond them where the first or the last is its best; the one with
the least validation error, mean over seeds, is reported, on test data that nothing was chosen on.
"""

from benchmarks.paper import figures, methods, report, tasks
from benchmarks.study import comparison

STUDY = comparison.Comparison(
    "benchmarks.paper",
    __doc__ or "",
    tasks.TASKS,
    methods.METHODS,
    methods.FAMILIES,
    quick=(("cora",), ("paper deaths", "gate on noise", "SGD cosine"), 2),
    page=report.PAGE,
    text=report.text,
    draw=figures.draw,
    plots=figures.PLOTS,
)


def main(given: list[str] | None = None) -> None:
    comparison.main(STUDY, given)


if __name__ == "__main__":
    main()
