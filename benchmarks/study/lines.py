"""What a study has found: a line for each method on a task, at all of its base rates."""

import functools
from typing import Any, NamedTuple

import numpy as np

from benchmarks import arguments, estimates
from benchmarks.study import runner, store


class Line(NamedTuple):
    """A method on a task, at all of its base rates."""

    rates: tuple[float, ...]
    outcomes: tuple[runner.Outcome, ...]  # one a rate, all seeds
    grid: tuple[float, ...]  # those of the rates that every method is tried at

    @property
    def test(self) -> np.ndarray:
        """f[S, K], the test errors of all seeds at all base rates."""
        return np.array([outcome.test for outcome in self.outcomes]).T

    @property
    def best(self) -> int:
        """The rate with the least validation error, mean over seeds."""
        return estimates.oracle(np.array([outcome.validation for outcome in self.outcomes]).T)

    @property
    def at_edge(self) -> bool:
        """Whether that is the first or the last that it was tried at."""
        return self.best in (0, len(self.rates) - 1)

    @property
    def chosen(self) -> runner.Outcome:
        """What was reached at that rate."""
        return self.outcomes[self.best]

    @property
    def on_grid(self) -> "Line":
        """The line at the base rates that every method is tried at."""
        kept = {rate: each for rate, each in zip(self.rates, self.outcomes, strict=True) if rate in self.grid}
        return Line(tuple(kept), tuple(kept.values()), self.grid)


Found = dict[str, dict[str, Line]]  # task: method: line


def collect(study: store.Study, names: list[str], groups: dict[str, list[store.Seeds]]) -> Found:
    """What is there of these methods on each task: those batches of its seeds that all their grids have."""
    found: Found = {}
    for label, batches in groups.items():
        begun = {}
        for name in names:
            whole = {batch for batch in batches if _line(study, label, name, [batch])}
            if whole:
                begun[name] = whole
        shared = sorted(set.intersection(*begun.values())) if begun else []
        found[label] = {
            name: line for name in begun if shared and (line := _line(study, label, name, shared))
        }
    return found


def _line(study: store.Study, label: str, name: str, batches: list[store.Seeds]) -> Line | None:
    """A method at the base rates that all these seeds were tried at; None where its grid is not whole."""
    outcome_at = functools.cache(lambda rate: store.load_all(study, label, name, rate, batches))
    method, task = study.methods[name], study.tasks[label]
    wanted = method.rates(task, lambda rate: _validation(outcome_at(rate)))
    grid = method.rates(task, lambda rate: None)
    there = {rate: outcome for rate in wanted if (outcome := outcome_at(rate)) is not None}
    return Line(tuple(there), tuple(there.values()), grid) if len(there) >= len(grid) else None


def validation(
    study: store.Study, label: str, name: str, batches: list[store.Seeds], rate: float
) -> float | None:
    """The mean validation error of a method at a base rate, or None where it was not tried yet."""
    return _validation(store.load_all(study, label, name, rate, batches))


def _validation(outcome: runner.Outcome | None) -> float | None:
    return None if outcome is None else float(outcome.validation.mean())


def summary(found: Found) -> list[dict[str, Any]]:
    """What is published: a record for each task, method and base rate, with lists over seeds."""
    return [
        {
            "task": label,
            "method": name,
            "rate": float(f"{rate:.3g}"),
            "chosen": int(number == line.best),
            "validation": [round(float(each), 5) for each in outcome.validation],
            "test": [round(float(each), 5) for each in outcome.test],
        }
        for label, lines in found.items()
        for name, line in lines.items()
        for number, (rate, outcome) in enumerate(zip(line.rates, line.outcomes, strict=True))
    ]


def records(found: Found) -> list[arguments.Record]:
    """One flat record for each task, method, base rate and seed."""
    return [
        {
            **{key: row[key] for key in ("task", "method", "rate", "chosen")},
            "seed": seed,
            "validation": validation,
            "test": test,
        }
        for row in summary(found)
        for seed, (validation, test) in enumerate(zip(row["validation"], row["test"], strict=True))
    ]
