"""The command line of a study on real data: trains what is missing, reports, publishes."""

import argparse
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from benchmarks import arguments, arrays, one_core, pages, progress
from benchmarks.study import archive, lines, methods, runner, store, tasks
from examples import datasets

PLACES = "\n".join(f"    FOLDER/{name:22}{source}" for name, source in datasets.SOURCES.items())
SEEDS_AT_ONCE = 10


class Comparison(NamedTuple):
    """A study, and how it is reported.

    Attributes:
        command: the module, `benchmarks.NAME`.
        description: of the command line.
        tasks: all of them, by name.
        methods: all of them, by name.
        families: what they compute, by name.
        quick: tasks, methods and number of seeds of `--quick`.
        page: that `--publish` puts the report into.
        text: the report's tables.
        draw: writes the report's plots into a folder.
        plots: their names.
        applies: whether a method is run on a task, `(task, method) -> bool`.
    """

    command: str
    description: str
    tasks: Mapping[str, tasks.Task]
    methods: Mapping[str, methods.Method]
    families: Mapping[str, methods.Family]
    quick: tuple[tuple[str, ...], tuple[str, ...], int]
    page: pathlib.Path
    text: Callable[[lines.Found], str]
    draw: Callable[[pathlib.Path, lines.Found], None]
    plots: tuple[str, ...]
    applies: Callable[[str, str], bool] = lambda task, method: True


class Job(NamedTuple):
    """Seeds and base rates that are trained together."""

    task: str
    method: str
    rates: tuple[float, ...]
    seeds: store.Seeds


def _options(of: Comparison, given: list[str] | None) -> argparse.Namespace:
    quick_tasks, quick_methods, quick_seeds = of.quick
    parser = arguments.parser(
        of.command,
        f"{of.description}\nWhere to put the data, and where to get it:\n\n{PLACES}",
        quick=f"{' '.join(quick_tasks)}, {len(quick_methods)} methods, {quick_seeds} seeds",
        records="for each task, method, base rate and seed",
    )
    arguments.add_data(parser)
    folder = f"out/{of.command.rpartition('.')[-1]}"
    arguments.add_comparison(parser, folder, tasks=of.tasks, methods=of.methods)
    parser.add_argument(
        "--seeds", type=arguments.positive_integer, metavar="N", help="0 ... N - 1; default: the task's own"
    )
    parser.add_argument("--published", action="store_true", help="go on from the outcomes that are published")
    parser.add_argument("--one-core", action="store_true", help="leave the other cores to others")
    options = parser.parse_args(given)
    part = options.quick or options.tasks or options.methods or options.seeds
    arguments.check_publish(parser, options, part, of.page)
    if options.report:
        arguments.need_no_data(parser, options, "--report trains nothing")
    options.tasks = options.tasks or list(quick_tasks if options.quick else of.tasks)
    options.methods = options.methods or list(quick_methods if options.quick else of.methods)
    options.seeds = options.seeds or (quick_seeds if options.quick else None)
    if not options.report:
        if options.one_core:
            one_core.keep()  # before JAX starts its threads
        folder = options.data or pathlib.Path()  # some tasks read no file
        missing = f"must name the folder of the data sets:\n{PLACES}" if options.data is None else None
        with arguments.reading_data(parser, missing):
            options.problems = {name: of.tasks[name].load(folder) for name in options.tasks}
    return options


def batches(study: store.Study, task: str, seeds: int | None) -> list[store.Seeds]:
    """Seeds that are trained together, of a number or of the task's own: more of them only add batches."""
    seeds = seeds or study.tasks[task].seeds
    return [
        tuple(range(first, min(first + SEEDS_AT_ONCE, seeds))) for first in range(0, seeds, SEEDS_AT_ONCE)
    ]


def missing(study: store.Study, task: str, names: list[str], seeds: int | None) -> list[Job]:
    """What is yet to be trained of a task, as far as is known: the first seeds of every method first."""
    groups = batches(study, task, seeds)
    rates = {
        name: study.methods[name].rates(
            study.tasks[task], functools.partial(lines.validation, study, task, name, groups)
        )
        for name in names
    }
    jobs = []
    for batch in groups:
        for name in names:
            left = tuple(rate for rate in rates[name] if store.load(study, task, name, rate, batch) is None)
            together = [left] if runner.side_by_side() else [(rate,) for rate in left]
            jobs += [Job(task, name, part, batch) for part in together if part]
    return jobs


def _train(of: Comparison, study: store.Study, options: argparse.Namespace) -> None:
    """Trains what is missing, with a progress bar that knows the time left but for steps beyond a grid."""
    jax.config.update("jax_default_matmul_precision", "highest")  # a GPU's float32 is that of a CPU
    names = {task: [name for name in options.methods if of.applies(task, name)] for task in options.tasks}
    todo = {task: missing(study, task, names[task], options.seeds) for task in options.tasks}
    with progress.bar() as bar:
        meter = bar.add_task("", total=sum(map(len, todo.values())))
        for name in options.tasks:
            trainer = runner.Runner(study.tasks[name], options.problems.pop(name), of.families)
            while todo[name]:
                for job in todo[name]:
                    at = ", ".join(f"{rate:.2g}" for rate in job.rates)
                    bar.update(meter, description=progress.fitted(f"{name}: {job.method} at {at}", 44))
                    outcomes = trainer.train(study.methods[job.method], job.rates, job.seeds)
                    for rate, outcome in zip(job.rates, outcomes, strict=True):
                        store.save(study, name, job.method, rate, job.seeds, outcome)
                    bar.advance(meter)
                todo[name] = missing(study, name, names[name], options.seeds)
                bar.update(meter, total=bar.tasks[meter].total + len(todo[name]))


def main(of: Comparison, given: list[str] | None = None) -> None:
    """Runs the command."""
    options = _options(of, given)
    study = store.Study(options.out, of.tasks, of.methods)
    runs = archive.RUNS / of.page.stem
    if options.published:
        archive.unpack(runs, options.out)
    if not options.report:
        with arguments.resumable():
            _train(of, study, options)
    there = options.report and options.seeds is None  # whatever seeds there are results of
    groups = {
        task: store.batches(study, task) if there else batches(study, task, options.seeds)
        for task in options.tasks
    }
    found = lines.collect(study, options.methods, groups)
    if not any(found.values()):
        raise SystemExit(f"Nothing to report: no method has results at all base rates in {options.out}.")
    reported = [task for task, held in found.items() if held]
    files = (path for task in reported for path in (options.out / task).glob("*/*.npz"))
    text = f"{of.text(found)}\n\n{arrays.made_by(files)}"
    print(text)
    (options.out / "report.md").write_text(text)
    of.draw(options.out, found)
    if options.publish:
        pages.publish(of.page, text, [options.out / plot for plot in of.plots], lines.summary(found))
        archive.pack(options.out, runs, reported)
    arguments.write(options.json, lines.records(found))
