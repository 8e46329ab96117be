"""Does the default hold at the sizes that people train? Against baselines as practitioners set them.

    python -m benchmarks.real_size --data ~/data                   # everything; resumable, see --out
    python -m benchmarks.real_size --data ~/data --tasks "mlp 2 x 512" --methods "ours on SGD" "SGD cosine"
    python -m benchmarks.real_size --report                        # tables and plots of what is there

Every method is tried at six base rates, 300 times apart, and a baseline beyond them where the first or the
last is its best. A baseline has the rate with the least validation error; ours has none: it is the mean over
all six. On an accelerator the seeds and base rates of a method are trained side by side, in seconds once it
is compiled; on two cores the graphs and the tables take minutes, the rest days.
"""

from benchmarks.real_size import figures, methods, report, tasks
from benchmarks.study import comparison

STUDY = comparison.Comparison(
    "benchmarks.real_size",
    __doc__ or "",
    tasks.TASKS,
    methods.METHODS,
    methods.FAMILIES,
    quick=(("diabetes",), ("SGD cosine", "AdamW cosine", "ours on SGD"), 2),
    page=report.PAGE,
    text=report.text,
    draw=figures.draw,
    plots=figures.PLOTS,
)


def main(given: list[str] | None = None) -> None:
    comparison.main(STUDY, given)


if __name__ == "__main__":
    main()
