"""Results on disk: a small file for each task and method, so that a run goes on where it stopped."""

import pathlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from judge import methods, runner, tasks


class Record(NamedTuple):
    """What a method did on a task: S seeds, K base rates."""

    seeds: np.ndarray  # int[S]
    rates: np.ndarray  # f32[K]
    score: np.ndarray  # f32[S, K]
    curve: np.ndarray  # f32[S, K, CHECKPOINTS], scores along the way
    scale: np.ndarray  # f32[S, K, T]: 1 where a method has none; every fifth step
    distance: np.ndarray  # f32[S, K, T]
    seconds: np.ndarray  # f32[], wall time a run while vmapped with the others of its family


THINNING = 5


def path_of(folder: pathlib.Path, task: str, method: str) -> pathlib.Path:
    """Where a record lies."""
    return folder / re.sub(r"[^\w.%-]+", "_", task) / (re.sub(r"[^\w.%-]+", "_", method) + ".npz")


def load(folder: pathlib.Path, task: str, method: str) -> Record | None:
    """The record, or None if there is none yet."""
    path = path_of(folder, task, method)
    if not path.exists():
        return None
    with np.load(path) as held:
        return Record(**held)


def _save(folder: pathlib.Path, task: str, method: str, record: Record) -> None:
    path = path_of(folder, task, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **record._asdict())
    partial.rename(path)  # a file that exists is whole


def pending(
    folder: pathlib.Path,
    task_labels: Sequence[str],
    chosen: dict[str, methods.Method],
    seeds: tuple[int, ...],
) -> list[tuple[str, str, list[str]]]:
    """What is left to do, as (task, family, methods of that family); who is replayed comes first."""
    work = []
    for label in task_labels:
        missing: dict[str, list[str]] = {}
        for name, method in chosen.items():
            record = load(folder, label, name)
            same = (
                record is not None
                and tuple(record.seeds) == seeds
                and np.allclose(record.rates, method.rates)
            )
            if not same:
                missing.setdefault(method.family, []).append(name)
        work += [(label, family, names) for family, names in missing.items()]
    return work


def execute(
    folder: pathlib.Path,
    work: Sequence[tuple[str, str, list[str]]],
    chosen: dict[str, methods.Method],
    families: dict[str, methods.Family],
    seeds: tuple[int, ...],
    replayed: Callable[[str], Record | None],
) -> Iterator[str]:
    """Runs what is left, saving after each family; yields a line for the progress bar before each."""
    for label, family, names in work:
        yield f"{label}: {', '.join(names)}"
        task, members = tasks.catalogue()[label], [chosen[name] for name in names]
        configs = methods.configurations(task, members, len(seeds))
        if family == "yoked":
            record = replayed(label)
            if record is None:
                continue
            # Each seed is given the scales of the next one at the same base rate.
            others = np.roll(np.repeat(record.scale, THINNING, -1)[..., : task.steps], 1, axis=0)
            configs["replayed"] = others
        train, _ = runner.compile_family(task, families[family], seeds, configs)
        began = time.perf_counter()
        outcome = train()
        seconds = np.float32((time.perf_counter() - began) / outcome.score.size)
        first = 0
        for name, method in zip(names, members, strict=True):
            columns = slice(first, first + len(method.rates))
            first = columns.stop
            part = jax.tree.map(lambda leaf, columns=columns: leaf[:, columns], outcome)
            record = Record(
                np.array(seeds),
                np.float32(method.rates),
                part.score,
                part.curve,
                part.scale[..., ::THINNING].astype(np.float32),
                part.distance[..., ::THINNING].astype(np.float32),
                seconds,
            )
            _save(folder, label, name, record)
        jax.clear_caches()
