"""The work itself: a process for each core, kept to it; networks this small fill no more than one."""

import concurrent.futures
import multiprocessing
import os
import pathlib
import signal
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.training import methods, runner, store, tasks, tuning


class Job(NamedTuple):
    """One compilation: the methods of a family on a task."""

    folder: pathlib.Path
    task: str
    family: str
    methods: dict[str, methods.Method]
    seeds: tuple[int, ...]


def pending(
    folder: pathlib.Path, plan: dict[str, dict[str, methods.Method]], seeds: tuple[int, ...]
) -> list[Job]:
    """What is left to do of ``{task: {name: method}}``."""
    jobs = []
    for label, chosen in plan.items():
        missing: dict[str, dict[str, methods.Method]] = {}
        for name, method in chosen.items():
            if not store.holds(folder, label, name, method, seeds):
                missing.setdefault(method.family, {})[name] = method
        jobs += [Job(folder, label, family, members, seeds) for family, members in missing.items()]
    return jobs


def run(jobs: Sequence[Job], processes: int) -> Iterator[Job]:
    """Runs the jobs, what replays another's scales last; yields each when it is done."""
    first = [job for job in jobs if job.family != "yoked"]
    last = [job for job in jobs if job.family == "yoked"]
    if processes == 1:
        for job in first + last:
            execute(job)
            yield job
        return
    context = multiprocessing.get_context("spawn")
    numbers: multiprocessing.Queue = context.Queue()
    for number in range(processes):
        numbers.put(number)
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, _keep_to_one_core, (numbers,))
    try:
        for wave in (first, last):
            futures = {pool.submit(execute, job): job for job in wave}
            for future in concurrent.futures.as_completed(futures):
                future.result()
                yield futures[future]
    finally:
        pool.shutdown(cancel_futures=True)  # whatever stops it, the rest of the queue is not for now


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keep_to_one_core(numbers: multiprocessing.Queue) -> None:
    """XLA has as many threads as there are cores to run on. Ctrl-C ends a worker at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    number = numbers.get()
    if hasattr(os, "sched_setaffinity"):  # Linux
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[number % len(allowed)]})


def execute(job: Job) -> None:
    """Trains, and saves a record of each method."""
    task, members = tasks.catalogue()[job.task], list(job.methods.values())
    configs = methods.configurations(task, members, len(job.seeds))
    if job.family == "yoked":
        ours = methods.METHODS[methods.DEFAULT]
        record = store.load(job.folder, job.task, methods.DEFAULT, ours)
        if record is None:
            return
        # Each seed is given the scales of the next one at the same base rate.
        others = np.roll(np.repeat(record.scale, store.THINNING, -1)[..., : task.steps], 1, axis=0)
        configs["replayed"] = others
    train, _ = runner.compile_family(task, tuning.FAMILIES[job.family], job.seeds, configs)
    began = time.perf_counter()
    outcome = train()
    seconds = np.float32((time.perf_counter() - began) / outcome.score.size)
    first = 0
    for name, method in job.methods.items():
        columns = slice(first, first + len(method.rates))
        first = columns.stop
        part = jax.tree.map(lambda leaf, columns=columns: leaf[:, columns], outcome)
        record = store.Record(
            np.array(job.seeds),
            np.float32(method.rates),
            part.score,
            part.curve,
            part.scale[..., :: store.THINNING].astype(np.float32),
            part.distance[..., :: store.THINNING].astype(np.float32),
            seconds,
        )
        store.save(job.folder, job.task, name, method, record)
    jax.clear_caches()
