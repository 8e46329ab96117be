"""What a gate did, from the rates that were applied: an outcome keeps no more of it."""

import numpy as np

from benchmarks.study.lines import Line
from benchmarks.study.methods import shapes
from benchmarks.study.tasks import Task

__all__ = ["GATES", "is_below_the_top"]

GATES = ("paper deaths", "paper barcode", "paper WD", "gate on noise", "gate reversed")


def is_below_the_top(task: Task, line: Line) -> np.ndarray:
    """Where a gate holds the rate below its envelope's upper bound, bool[S, C]: since it heard motion."""
    ends = np.arange(1, task.points + 1) * (task.epochs // task.points) - 1
    top = line.rates[line.best] * shapes(task.epochs, 1)["envelope"][ends]
    return line.chosen.rate < 0.999 * top
