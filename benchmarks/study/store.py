"""Results on disk: a file for each task, method, base rate and batch of seeds; what is there is not rerun."""

import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

import cgalr_jax
from benchmarks import arrays
from benchmarks.study import methods, runner, tasks

Seeds = tuple[int, ...]


class Study(NamedTuple):
    """What is compared on what, and where the outcomes lie."""

    folder: pathlib.Path
    tasks: Mapping[str, tasks.Task]
    methods: Mapping[str, methods.Method]


def path_of(folder: pathlib.Path, task: str, method: str, rate: float, seeds: Seeds) -> pathlib.Path:
    """Where an outcome lies."""
    name = f"{rate:.2e}_seeds{seeds[0]}-{seeds[-1]}.npz"
    return folder / task / re.sub(r"\W+", "_", method) / name


def settings_of(study: Study, task: str, method: str) -> str:
    """The numbers that an outcome depends on, but for what its path says."""
    numbers = study.tasks[task]._replace(load=None, seeds=None)
    return repr((tuple(numbers), tuple(study.methods[method]), cgalr_jax.__version__))


def save(study: Study, task: str, method: str, rate: float, seeds: Seeds, outcome: runner.Outcome) -> None:
    """Writes it; a file that exists is whole."""
    path = path_of(study.folder, task, method, rate, seeds)
    arrays.save(path, outcome, settings_of(study, task, method))


def load(study: Study, task: str, method: str, rate: float, seeds: Seeds) -> runner.Outcome | None:
    """The outcome, or None if there is none yet, or one of other settings."""
    path = path_of(study.folder, task, method, rate, seeds)
    return arrays.load(path, runner.Outcome, settings_of(study, task, method))


def batches(study: Study, task: str) -> list[Seeds]:
    """The batches of seeds that there are files of, the longest first where two overlap."""
    names = (path.stem for path in (study.folder / task).glob("*/*.npz"))
    ours = filter(None, (re.search(r"_seeds(\d+)-(\d+)$", name) for name in names))
    found = {tuple(range(int(each[1]), int(each[2]) + 1)) for each in ours}
    kept: list[Seeds] = []
    for batch in sorted(found, key=lambda batch: (-len(batch), batch)):
        if not set(batch) & set().union(*kept):
            kept.append(batch)
    return sorted(kept)


def load_all(
    study: Study, task: str, method: str, rate: float, batches: list[Seeds]
) -> runner.Outcome | None:
    """The outcomes of these batches of seeds as one, or None where one is not there yet."""
    outcomes = [load(study, task, method, rate, batch) for batch in batches]
    there = [outcome for outcome in outcomes if outcome is not None]
    if len(there) < len(outcomes):
        return None
    return runner.Outcome(*(np.concatenate(each) for each in zip(*there, strict=True)))
