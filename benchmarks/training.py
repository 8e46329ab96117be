"""Does the connectome choose a good learning rate? Tasks, baselines, controls, paired seeds, intervals.

    python benchmarks/training.py                      # everything, resumable: out/training
    python benchmarks/training.py --quick              # two tasks, a few methods, two seeds: a minute or two
    python benchmarks/training.py --report             # tables and plots from what is there, trains nothing
    python benchmarks/training.py --tune set-point     # experiments that set the defaults, on tuning seeds

Tuning seeds (below 1000) are never reported, reporting seeds (4000 ... 4031) are never tuned on.
"""

import argparse
import json
import pathlib
import sys

from rich import progress

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # `judge` lies beside this file

from judge import methods, seconds, tasks, tuning, workers

SEEDS = {"tuning": tuple(range(8)), "reporting": tuple(range(4000, 4032))}
QUICK_TASKS = ("cancer", "graph (karate club)")
QUICK_METHODS = ("SGD cosine", "AdamW cosine", "CG-ALR hybrid", "update norm", "yoked hybrid")
# On a variant only what the time to target compares.
VARIANT_METHODS = (
    "SGD cosine",
    "AdamW cosine",
    "Prodigy cosine",
    "CG-ALR hybrid",
    "CG-ALR Frobenius",
    "update norm",
)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="two small tasks, five methods, two tuning seeds"
    )
    parser.add_argument("--json", type=pathlib.Path, help="write one flat record a run")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("out/training"), help="results and report"
    )
    parser.add_argument("--tasks", nargs="+", metavar="TASK", choices=list(tasks.catalogue()))
    parser.add_argument("--methods", nargs="+", metavar="METHOD", choices=list(methods.METHODS))
    parser.add_argument("--seeds", choices=list(SEEDS), default="reporting")
    parser.add_argument("--processes", type=int, default=workers.cores(), help="default: one for each core")
    parser.add_argument("--publish", action="store_true", help="put the report into benchmarks/README.md")
    parser.add_argument("--report", action="store_true", help="train nothing, report what is there")
    parser.add_argument("--seconds", action="store_true", help="measure what a step costs, and report")
    parser.add_argument("--tune", nargs="+", metavar="EXPERIMENT", choices=list(tuning.EXPERIMENTS))
    parser.add_argument(
        "--tuning-seeds", type=int, default=8, metavar="N", help="0 ... N - 1; what fails rarely needs many"
    )
    return parser.parse_args(arguments)


def _train(
    folder: pathlib.Path, plan: dict[str, dict[str, methods.Method]], seeds: tuple[int, ...], processes: int
) -> None:
    """Trains what is missing of ``{task: {name: method}}``, with a progress bar that knows the time left."""
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    jobs = workers.pending(folder, plan, seeds)
    with progress.Progress(*columns) as bar:
        meter = bar.add_task("training", total=len(jobs))
        for done in workers.run(jobs, min(processes, max(len(jobs), 1))):
            bar.update(meter, description=f"{done.task}: {', '.join(done.methods)}"[:60].ljust(60), advance=1)


def plan_of(labels: list[str], names: list[str]) -> dict[str, dict[str, methods.Method]]:
    """Which methods run on which task; on a variant the few that the time to target compares."""
    return {
        label: {
            name: methods.METHODS[name]
            for name in names
            if not tasks.catalogue()[label].variant or name in VARIANT_METHODS
        }
        for label in labels
    }


def reported() -> list[str]:
    """The tasks and variants of the report."""
    return [label for label, task in tasks.catalogue().items() if not task.tuning]


def main(arguments: list[str] | None = None) -> None:
    options = _arguments(arguments)
    if options.tune:
        chosen = {name: method for each in options.tune for name, method in tuning.EXPERIMENTS[each].items()}
        chosen |= {name: methods.BASELINES[name] for name in map(tuning.reference_of, chosen)}
        labels = options.tasks or [label for label, task in tasks.catalogue().items() if not task.variant]
        folder = options.out / "tuning"
        if not options.report:
            seeds = tuple(range(options.tuning_seeds))
            _train(folder, dict.fromkeys(labels, chosen), seeds, options.processes)
        print(tuning.table(folder, labels, options.tune))
        return
    chosen_seeds = (0, 1) if options.quick else SEEDS[options.seeds]
    folder = options.out / ("quick" if options.quick else options.seeds)
    labels = options.tasks or list(QUICK_TASKS if options.quick else reported())
    names = options.methods or list(QUICK_METHODS if options.quick else methods.METHODS)
    plan = plan_of(labels, names)
    if options.seconds:
        seconds.measure(folder / "seconds.json")
    elif not options.report:
        _train(folder, plan, chosen_seeds, options.processes)
    from judge import report  # matplotlib is slow to import

    text = report.write(folder, plan)
    print(text)
    if options.publish:
        report.publish(folder, plan, text, pathlib.Path(__file__).parent)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report.records(folder, plan)))


if __name__ == "__main__":
    main()
