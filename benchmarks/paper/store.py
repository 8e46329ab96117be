"""Results on disk: a file for each task, method, base rate and batch of seeds; what is there is not rerun."""

import pathlib
import re

import numpy as np

from benchmarks import arrays
from benchmarks.paper import runner


def path_of(
    folder: pathlib.Path, task: str, method: str, rate: float, seeds: tuple[int, ...]
) -> pathlib.Path:
    """Where an outcome lies."""
    name = f"{rate:.2e}_seeds{seeds[0]}-{seeds[-1]}.npz"
    return folder / task / re.sub(r"\W+", "_", method) / name


def save(path: pathlib.Path, outcome: runner.Outcome) -> None:
    """Writes it; a file that exists is whole."""
    arrays.save(path, outcome)


def load(path: pathlib.Path) -> runner.Outcome | None:
    """The outcome, or None if there is none yet."""
    return arrays.load(path, runner.Outcome)


def load_all(
    folder: pathlib.Path, task: str, method: str, rate: float, batches: list[tuple[int, ...]]
) -> runner.Outcome | None:
    """The outcomes of these batches of seeds as one, or None where one is not there yet."""
    outcomes = [load(path_of(folder, task, method, rate, batch)) for batch in batches]
    there = [outcome for outcome in outcomes if outcome is not None]
    if len(there) < len(outcomes):
        return None
    return runner.Outcome(*(np.concatenate(each) for each in zip(*there, strict=True)))
