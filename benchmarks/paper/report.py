"""The table: test errors at the base rate that validation chose, RED with paired intervals."""

import pathlib
from typing import NamedTuple

import numpy as np

from benchmarks import arguments, estimates
from benchmarks.paper import methods, runner, store, tasks

REFERENCE = "SGD cosine"
OURS = "paper deaths"
GATES = ("paper deaths", "paper barcode", "paper WD", "gate on noise", "gate reversed")


class Line(NamedTuple):
    """A method on a task, at all of its base rates."""

    rates: tuple[float, ...]
    outcomes: tuple[runner.Outcome, ...]  # one a rate, all seeds

    @property
    def best(self) -> int:
        """The rate with the least validation error, mean over seeds."""
        return int(np.argmin([outcome.validation.mean() for outcome in self.outcomes]))

    @property
    def chosen(self) -> runner.Outcome:
        """What was reached at that rate."""
        return self.outcomes[self.best]


Found = dict[str, dict[str, Line]]  # task: method: line


def collect(
    folder: pathlib.Path, labels: list[str], names: list[str], batches: list[tuple[int, ...]]
) -> Found:
    """What is there of these tasks and methods: those batches of seeds that all rates of all methods have."""
    found: Found = {}
    for label in labels:
        parts = {}
        for name in names:
            rates = methods.METHODS[name].rates(tasks.TASKS[label])
            grid = [[store.load(store.path_of(folder, label, name, r, b)) for b in batches] for r in rates]
            whole = [n for n in range(len(batches)) if all(row[n] is not None for row in grid)]
            if whole:
                parts[name] = rates, grid, set(whole)
        shared = sorted(set.intersection(*(whole for _, _, whole in parts.values()))) if parts else []
        found[label] = {
            name: Line(rates, tuple(store.join([row[n] for n in shared]) for row in grid))
            for name, (rates, grid, _) in parts.items()
            if shared
        }
    return found


def text(found: Found) -> str:
    """A table for each task."""
    return (
        "\n".join(_table(label, lines) for label, lines in found.items() if lines) or "Nothing to report.\n"
    )


def _table(label: str, lines: dict[str, Line]) -> str:
    task, seeds = tasks.TASKS[label], len(next(iter(lines.values())).chosen.test)
    rows = [
        f"### {label}, {seeds} paired seeds, {task.epochs} epochs\n",
        f"| method | base rate | test {task.unit} | RED against {REFERENCE} | {OURS} against it |",
        "|---|---|---|---|---|",
    ]
    for name, line in lines.items():
        edge = " (edge)" if line.best in (0, len(line.rates) - 1) else ""
        test = line.chosen.test
        value = f"{100 * test.mean():.2f} %" if task.unit == "error" else f"{test.mean():.3f}"
        against = _red(lines, name, REFERENCE)
        beside = _red(lines, OURS, name)
        rows.append(f"| {name} | {line.rates[line.best]:.2g}{edge} | {value} | {against} | {beside} |")
    gates = [f"{name} {100 * _at_the_top(task, lines[name]):.0f} %" for name in GATES if name in lines]
    if gates:
        rows += [
            "",
            "Share of the run that a gate sits at the top of its envelope: " + ", ".join(gates) + ".",
        ]
    return "\n".join(rows) + "\n"


def _at_the_top(task: tasks.Task, line: Line) -> float:
    """The share of the run in which a gate is at its envelope's upper bound: as if there were none."""
    ends = np.arange(1, task.points + 1) * (task.epochs // task.points) - 1
    top = line.rates[line.best] * methods.shapes(task.epochs, 1)["envelope"][ends]
    return float(np.mean(line.chosen.rate >= 0.999 * top))


def _red(lines: dict[str, Line], first: str, second: str) -> str:
    if first == second or not {first, second} <= set(lines):
        return ""
    return str(estimates.red(lines[first].chosen.test, lines[second].chosen.test))


def records(found: Found) -> list[arguments.Record]:
    """One flat record for each task, method, base rate and seed."""
    return [
        {
            "task": label,
            "method": name,
            "rate": rate,
            "chosen": int(number == line.best),
            "seed": seed,
            "validation": round(float(outcome.validation[seed]), 5),
            "test": round(float(outcome.test[seed]), 5),
        }
        for label, lines in found.items()
        for name, line in lines.items()
        for number, (rate, outcome) in enumerate(zip(line.rates, line.outcomes, strict=True))
        for seed in range(len(outcome.test))
    ]
