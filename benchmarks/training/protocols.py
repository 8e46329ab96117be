"""What is compared with what: the errors, seed by seed, that the protocols of the report speak of.

Protocol A: ours at no particular rate (the mean over a 100x range of base rates) against a baseline at its
oracle rate. Protocol B: both at no particular rate. One rate: the baseline at the one rate that is best for
all tasks together.
"""

import pathlib
from typing import NamedTuple

import numpy as np

from benchmarks import estimates
from benchmarks.training import methods, store, tasks

REFERENCE = "SGD cosine"
OURS = methods.DEFAULT
Plan = dict[str, dict[str, methods.Method]]


class Table(NamedTuple):
    """All records at hand, by task and by method; only tasks on which the reference was run."""

    records: dict[str, dict[str, store.Record]]

    def tasks_with(self, *names: str) -> list[str]:
        """The tasks, without variants, on which all of these methods were run."""
        return [
            label
            for label, held in self.records.items()
            if not tasks.catalogue()[label].variant and all(name in held for name in names)
        ]

    def tuned(self, label: str, name: str) -> np.ndarray:
        """f[S] at the oracle rate."""
        return estimates.at_oracle(self.records[label][name].score)

    def untuned(self, label: str, name: str) -> np.ndarray:
        """f[S], mean over the judged 100x range."""
        return self.judged(label, name).mean(1)

    def judged(self, label: str, name: str) -> np.ndarray:
        """f[S, 5], the judged rates."""
        return self.records[label][name].score[:, methods.METHODS[name].judged]

    def one_rate(self, name: str) -> int:
        """Index of the base rate with the smallest mean over tasks of error / the reference's."""
        relative = [
            self.records[label][name].score.mean(0) / self.tuned(label, REFERENCE).mean()
            for label in self.tasks_with(name, REFERENCE)
        ]
        return int(np.mean(relative, 0).argmin())

    def protocol_a(self, ours: str, baseline: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs for `estimates.mean_red`, a pair for each task."""
        labels = self.tasks_with(ours, baseline)
        return [(self.untuned(label, ours), self.tuned(label, baseline)) for label in labels]

    def protocol_b(self, ours: str, baseline: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `protocol_a`, both untuned."""
        labels = self.tasks_with(ours, baseline)
        return [(self.untuned(label, ours), self.untuned(label, baseline)) for label in labels]

    def against_one_rate(self, ours: str, baseline: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `protocol_a`, the baseline at its one best rate for all tasks."""
        rate = self.one_rate(baseline)
        labels = self.tasks_with(ours, baseline)
        return [(self.untuned(label, ours), self.records[label][baseline].score[:, rate]) for label in labels]

    def ratios(self, name: str) -> list[float]:
        """Worst over best of the judged rates, one number for each task."""
        return [estimates.worst_over_best(self.judged(label, name)) for label in self.tasks_with(name)]

    def at_chance(self, name: str) -> float:
        """Share of the runs at judged rates that ended within 5 % of a constant answer's score, or worse."""
        return float(
            np.mean(
                [
                    tasks.catalogue()[label].at_chance(self.judged(label, name)).mean()
                    for label in self.tasks_with(name)
                ]
            )
        )

    def target(self, label: str) -> float:
        """What the oracle-tuned reference ends with on the samples curves are scored on, mean over seeds."""
        record = self.records[label][REFERENCE]
        return float(record.curve[:, estimates.oracle(record.score), -1].mean())

    def steps_to_target(self, label: str, name: str) -> np.ndarray:
        """f[S, K], in steps; NaN where it is never reached."""
        steps = tasks.catalogue()[label].steps
        return estimates.steps_to_target(self.records[label][name].curve, self.target(label), steps)


def base_of(name: str) -> str | None:
    """The base optimizer that a method of ours names, None on SGD."""
    return next((base for base in methods.OTHER_BASES if base in name), None)


def reference_of(name: str) -> str:
    """The baseline that a method of ours is compared with: the cosine of its own base optimizer."""
    base = base_of(name)
    return f"{base} cosine" if base else REFERENCE


def read(folder: pathlib.Path, plan: Plan) -> Table:
    """Everything of the plan that is on disk."""
    records = {}
    for label, chosen in plan.items():
        held = {name: store.load(folder, label, name, method) for name, method in chosen.items()}
        held = {name: record for name, record in held.items() if record is not None}
        if REFERENCE in held:
            records[label] = held
    return Table(records)
