"""Does the paper hold? Its own configuration on real data, tuned like all others, with intervals.

    python -m benchmarks.paper --data ~/data                      # everything; resumable, see --out
    python -m benchmarks.paper --data ~/data --tasks cora --methods "paper deaths" "SGD cosine" --seeds 3
    python -m benchmarks.paper --report                           # the table and plots of what is there

Every method is tried at six base rates, and beyond them where the first or the last is its best; the one with
the least validation error, mean over seeds, is reported, on test data that nothing was chosen on.
Where to put the data, and where to get it:

"""

import argparse
import functools
import pathlib
from typing import NamedTuple

import jax

from benchmarks import arguments, pages, progress
from benchmarks.paper import figures, methods, report, runner, store, tasks
from benchmarks.speed import one_core
from examples import datasets

PLACES = "\n".join(f"    FOLDER/{name:22}{source}" for name, source in datasets.SOURCES.items())
SEEDS_AT_ONCE = 10
QUICK_TASKS, QUICK_METHODS, QUICK_SEEDS = ("cora",), ("paper deaths", "gate on noise", "SGD cosine"), 2


class Job(NamedTuple):
    """Seeds and base rates that are trained together."""

    task: str
    method: str
    rates: tuple[float, ...]
    seeds: tuple[int, ...]


def _options(given: list[str] | None) -> argparse.Namespace:
    parser = arguments.parser(
        "benchmarks.paper",
        (__doc__ or "") + PLACES,
        quick=f"{' '.join(QUICK_TASKS)}, {len(QUICK_METHODS)} methods, {QUICK_SEEDS} seeds",
        records="for each task, method, base rate and seed",
    )
    parser.add_argument("--data", type=pathlib.Path, metavar="FOLDER", help="where the data sets lie")
    arguments.add_comparison(parser, "out/paper", tasks=tasks.TASKS, methods=methods.METHODS)
    parser.add_argument(
        "--seeds", type=arguments.positive_integer, metavar="N", help="0 ... N - 1; default: the task's own"
    )
    parser.add_argument("--publish", action="store_true", help="put the report into docs/results")
    parser.add_argument("--one-core", action="store_true", help="leave the other cores to others")
    options = parser.parse_args(given)
    part = options.quick or options.tasks or options.methods or options.seeds
    if options.publish and part:
        parser.error("argument --publish: puts the whole report, it goes with no choice of a part of it")
    options.tasks = options.tasks or list(QUICK_TASKS if options.quick else tasks.TASKS)
    options.methods = options.methods or list(QUICK_METHODS if options.quick else methods.METHODS)
    options.seeds = options.seeds or (QUICK_SEEDS if options.quick else None)
    if not options.report:
        if options.data is None:
            parser.error(f"argument --data: must name the folder of the data sets:\n{PLACES}")
        if options.one_core:
            one_core.keep()  # before JAX starts its threads
        try:
            options.problems = {name: tasks.TASKS[name].load(options.data) for name in options.tasks}
        except (OSError, ValueError) as error:
            parser.error(f"argument --data: {error}")
    return options


def batches(task: str, seeds: int | None) -> list[tuple[int, ...]]:
    """Seeds that are trained together, of a number or of the task's own: more of them only add batches."""
    seeds = seeds or tasks.TASKS[task].seeds
    return [
        tuple(range(first, min(first + SEEDS_AT_ONCE, seeds))) for first in range(0, seeds, SEEDS_AT_ONCE)
    ]


def missing(folder: pathlib.Path, task: str, names: list[str], seeds: int | None) -> list[Job]:
    """What is yet to be trained of a task, as far as is known: the first seeds of every method first."""
    groups = batches(task, seeds)
    rates = {
        name: methods.METHODS[name].rates(
            tasks.TASKS[task], functools.partial(report.validation, folder, task, name, groups)
        )
        for name in names
    }
    jobs = []
    for batch in groups:
        for name in names:
            left = tuple(rate for rate in rates[name] if store.load(folder, task, name, rate, batch) is None)
            together = [left] if runner.side_by_side() else [(rate,) for rate in left]
            jobs += [Job(task, name, part, batch) for part in together if part]
    return jobs


def _train(options: argparse.Namespace) -> None:
    """Trains what is missing, with a progress bar that knows the time left but for steps beyond a grid."""
    jax.config.update("jax_default_matmul_precision", "highest")  # a GPU's float32 is that of a CPU
    todo = {name: missing(options.out, name, options.methods, options.seeds) for name in options.tasks}
    with progress.bar() as bar:
        meter = bar.add_task("", total=sum(map(len, todo.values())))
        for name in options.tasks:
            trainer = runner.Runner(tasks.TASKS[name], options.problems.pop(name))
            while todo[name]:
                for job in todo[name]:
                    at = ", ".join(f"{rate:.2g}" for rate in job.rates)
                    bar.update(meter, description=progress.fitted(f"{name}: {job.method} at {at}", 44))
                    outcomes = trainer.train(methods.METHODS[job.method], job.rates, job.seeds)
                    for rate, outcome in zip(job.rates, outcomes, strict=True):
                        store.save(options.out, name, job.method, rate, job.seeds, outcome)
                    bar.advance(meter)
                todo[name] = missing(options.out, name, options.methods, options.seeds)
                bar.update(meter, total=bar.tasks[meter].total + len(todo[name]))


def main(given: list[str] | None = None) -> None:
    options = _options(given)
    if not options.report:
        _train(options)
    there = options.report and options.seeds is None  # whatever seeds there are results of
    groups = {
        task: store.batches(options.out, task) if there else batches(task, options.seeds)
        for task in options.tasks
    }
    found = report.collect(options.out, options.methods, groups)
    if not any(found.values()):
        raise SystemExit(f"Nothing to report: no method has results at all base rates in {options.out}.")
    text = report.text(found)
    print(text)
    (options.out / "report.md").write_text(text)
    figures.draw(options.out, found)
    records = report.records(found)
    if options.publish:
        plots = [options.out / plot for plot in figures.PLOTS]
        pages.publish(report.PAGE, text, plots, records)
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
