"""Does the connectome choose a good learning rate? Tasks, baselines, controls, paired seeds, intervals.

    python -m benchmarks.training                      # everything, resumable: out/training
    python -m benchmarks.training --quick              # two tasks, a few methods, two seeds: a minute or two
    python -m benchmarks.training --report             # tables and plots from what is there, trains nothing
    python -m benchmarks.training --tune set-point     # experiments that set the defaults, on tuning seeds

Tuning seeds (below 1000) are never reported, reporting seeds (4000 ... 4031) are never tuned on.
"""

import argparse
import pathlib

from benchmarks import arguments, progress
from benchmarks.training import methods, protocols, report, seconds, tasks, tuning, workers

SEEDS = {"tuning": tuple(range(8)), "reporting": tuple(range(4000, 4032))}
QUICK_SEEDS = SEEDS["tuning"][:2]
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


def _options(given: list[str] | None) -> argparse.Namespace:
    parser = arguments.parser(
        "benchmarks.training",
        __doc__,
        quick=f"{len(QUICK_TASKS)} tasks, {len(QUICK_METHODS)} methods, {len(QUICK_SEEDS)} tuning seeds",
        records="for each run (with --tune: for each setting and task)",
    )
    arguments.add_comparison(parser, "out/training", tasks=tasks.catalogue(), methods=methods.METHODS)
    parser.add_argument("--seeds", choices=list(SEEDS), default="reporting")
    parser.add_argument(
        "--processes",
        type=arguments.positive_integer,
        default=workers.cores(),
        metavar="N",
        help="default: one for each core",
    )
    parser.add_argument("--seconds", action="store_true", help="measure what a step costs, and report")
    experiments = list(tuning.EXPERIMENTS)
    parser.add_argument("--tune", nargs="+", action=arguments.Each, metavar="EXPERIMENT", choices=experiments)
    parser.add_argument(
        "--tuning-seeds",
        type=arguments.positive_integer,
        metavar="N",
        help=f"0 ... N - 1, with --tune; default: N = {len(SEEDS['tuning'])}; what fails rarely needs many",
    )
    options = parser.parse_args(given)
    if options.tune and (options.quick or options.methods or options.seconds):
        parser.error("argument --tune: goes with --tasks and --tuning-seeds, not with a choice of methods")
    if options.tuning_seeds and not options.tune:
        parser.error("argument --tuning-seeds: goes with --tune")
    options.tuning_seeds = options.tuning_seeds or len(SEEDS["tuning"])
    if options.seconds and options.report:
        parser.error("argument --seconds: measures, and then reports; --report only reports")
    part = options.quick or options.tune or options.tasks or options.methods or options.seeds != "reporting"
    arguments.check_publish(parser, options, part, report.PAGE)
    return options


def _train(
    folder: pathlib.Path, plan: dict[str, dict[str, methods.Method]], seeds: tuple[int, ...], processes: int
) -> None:
    """Trains what is missing of ``{task: {name: method}}``, with a progress bar that knows the time left."""
    jobs = workers.pending(folder, plan, seeds)
    with progress.bar() as bar:
        meter = bar.add_task("training", total=len(jobs))
        for done in workers.run(jobs, min(processes, max(len(jobs), 1))):
            description = progress.fitted(f"{done.task}: {', '.join(done.methods)}", 60)
            bar.update(meter, description=description, advance=1)


def plan_of(labels: list[str], names: list[str]) -> dict[str, dict[str, methods.Method]]:
    """Which methods run on which task; on a variant the few that the time to target compares.

    The reference runs, too, whatever is chosen: there is no report without it.
    """
    if protocols.REFERENCE not in names:
        names = [protocols.REFERENCE, *names]
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


def _tune(options: argparse.Namespace) -> None:
    """Trains and reports experiments; each on all tasks but the variants, unless some are chosen."""
    chosen = {name: method for each in options.tune for name, method in tuning.EXPERIMENTS[each].items()}
    chosen |= {name: methods.REFERENCES[name] for name in map(protocols.reference_of, chosen)}
    labels = options.tasks or [label for label, task in tasks.catalogue().items() if not task.variant]
    # A folder of its own for each number of seeds: what is compared is of the same seeds.
    folder = options.out / f"experiments_{options.tuning_seeds}_seeds"
    if not options.report:
        seeds = tuple(range(options.tuning_seeds))
        _train(folder, dict.fromkeys(labels, chosen), seeds, options.processes)
    records = tuning.records(folder, labels, options.tune)
    if not records:
        raise SystemExit(f"Nothing to report: there are no results of {' '.join(options.tune)} in {folder}.")
    print(tuning.table(folder, labels, options.tune))
    arguments.write(options.json, records)


def _compare(options: argparse.Namespace) -> None:
    """Trains and reports the comparison of all methods on all tasks, or of those that are chosen."""
    seeds = QUICK_SEEDS if options.quick else SEEDS[options.seeds]
    folder = options.out / ("quick" if options.quick else options.seeds)
    labels = options.tasks or list(QUICK_TASKS if options.quick else reported())
    names = options.methods or list(QUICK_METHODS if options.quick else methods.METHODS)
    plan = plan_of(labels, names)
    if options.seconds:
        seconds.measure(folder / "seconds.json")
    elif not options.report:
        _train(folder, plan, seeds, options.processes)
    text = report.write(folder, plan)
    print(text)
    if options.publish:
        if missing := workers.pending(folder, plan, seeds):
            raise SystemExit(f"Not published: {len(missing)} parts of the comparison are not in {folder}.")
        report.publish(folder, plan, text)
    arguments.write(options.json, report.records(folder, plan))


def main(given: list[str] | None = None) -> None:
    options = _options(given)
    with arguments.resumable():
        (_tune if options.tune else _compare)(options)


if __name__ == "__main__":
    main()
