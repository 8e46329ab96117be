"""Results on disk: a small file for each task and method, so that a run goes on where it stopped."""

import pathlib
import re
from typing import NamedTuple

import numpy as np

import cgalr_jax
from benchmarks import arrays
from benchmarks.training import methods, tasks


class Record(NamedTuple):
    """What a method did on a task: S seeds, K base rates."""

    seeds: np.ndarray  # int[S]
    rates: np.ndarray  # f32[K]
    score: np.ndarray  # f32[S, K]
    curve: np.ndarray  # f32[S, K, CHECKPOINTS], scores along the way
    scale: np.ndarray  # f32[S, K, T]: 1 where a method has none; every fifth step
    distance: np.ndarray  # f32[S, K, T], likewise
    seconds: np.ndarray  # f32[], wall time a run while vmapped with the others of its family


THINNING = 5


def path_of(folder: pathlib.Path, task: str, method: str) -> pathlib.Path:
    """Where a record lies."""
    return folder / re.sub(r"[^\w.%-]+", "_", task) / (re.sub(r"[^\w.%-]+", "_", method) + ".npz")


def settings_of(label: str, method: methods.Method) -> str:
    """The numbers that a record depends on; of one that replays the scales of ours, those of ours, too."""
    task = tasks.catalogue()[label]
    replayed = tuple(methods.METHODS[methods.DEFAULT]) if method.family == "yoked" else ()
    return repr((task.steps, task.batch, tuple(method), replayed, cgalr_jax.__version__))


def load(folder: pathlib.Path, task: str, name: str, method: methods.Method) -> Record | None:
    """The record, or None if there is none yet, or one of other settings."""
    return arrays.load(path_of(folder, task, name), Record, settings_of(task, method))


def holds(folder: pathlib.Path, task: str, name: str, method: methods.Method, seeds: tuple[int, ...]) -> bool:
    """Whether there is a record of these settings and seeds."""
    record = load(folder, task, name, method)
    return (
        record is not None
        and tuple(record.seeds) == seeds
        and len(record.rates) == len(method.rates)
        and np.allclose(record.rates, method.rates)
    )


def save(folder: pathlib.Path, task: str, name: str, method: methods.Method, record: Record) -> None:
    """Writes the record; a file that exists is whole."""
    arrays.save(path_of(folder, task, name), record, settings_of(task, method))
