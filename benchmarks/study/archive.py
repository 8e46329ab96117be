"""The published outcomes of a study, a file for each task: who has the repository can go on from there."""

import pathlib
from collections.abc import Iterable

import numpy as np

from benchmarks import arrays
from benchmarks.study import runner

RUNS = pathlib.Path(__file__).parents[1] / "runs"
_PLACE, _SEEDS = "place", "seeds"  # of an outcome in the folder, and how many it has


def pack(folder: pathlib.Path, runs: pathlib.Path, tasks: Iterable[str]) -> None:
    """Writes what a study's folder holds of these tasks: RUNS/TASK.npz, all outcomes one after the other."""
    for task in tasks:
        held = {path: arrays.read(path) for path in sorted((folder / task).glob("*/*.npz"))}
        fields = {
            name: np.concatenate([each[name] for each in held.values()]) for name in runner.Outcome._fields
        }
        of_each = {
            _PLACE: [path.relative_to(folder).as_posix() for path in held],
            _SEEDS: [len(each["test"]) for each in held.values()],
            arrays.SETTINGS: [str(each[arrays.SETTINGS]) for each in held.values()],
            arrays.COMMIT: [str(each.get(arrays.COMMIT, "")) for each in held.values()],
        }
        arrays.write(runs / f"{task}.npz", fields | of_each)


def unpack(runs: pathlib.Path, folder: pathlib.Path) -> None:
    """Lays the published outcomes into a study's folder, beside what is there."""
    for archive in sorted(runs.glob("*.npz")):
        held = arrays.read(archive)
        borders = np.cumsum(held[_SEEDS])[:-1]
        fields = {name: np.split(held[name], borders) for name in runner.Outcome._fields}
        for number, place in enumerate(held[_PLACE]):
            if not (folder / str(place)).exists():
                outcome = runner.Outcome(**{name: parts[number] for name, parts in fields.items()})
                settings, commit = (str(held[name][number]) for name in (arrays.SETTINGS, arrays.COMMIT))
                arrays.save(folder / str(place), outcome, settings, commit)
