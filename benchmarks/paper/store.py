"""Results on disk: a file for each task, method, base rate and batch of seeds; what is there is not rerun."""

import pathlib
import re

import numpy as np

from benchmarks.paper import runner


def path_of(
    folder: pathlib.Path, task: str, method: str, rate: float, seeds: tuple[int, ...]
) -> pathlib.Path:
    """Where an outcome lies."""
    name = f"{rate:.2e}_seeds{seeds[0]}-{seeds[-1]}.npz"
    return folder / task / re.sub(r"\W+", "_", method) / name


def save(path: pathlib.Path, outcome: runner.Outcome) -> None:
    """Writes it; a file that exists is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **outcome._asdict())
    partial.rename(path)


def load(path: pathlib.Path) -> runner.Outcome | None:
    """The outcome, or None if there is none yet."""
    if not path.exists():
        return None
    with np.load(path) as held:
        return runner.Outcome(**held)


def join(outcomes: list[runner.Outcome]) -> runner.Outcome:
    """Batches of seeds as one."""
    return runner.Outcome(*(np.concatenate(each) for each in zip(*outcomes, strict=True)))
