"""What trains, and at which base rates.

A `Family` is one computation; the methods of a family differ in numbers only and share a compilation. Every
method is tried at six base rates over a range of 300x, around a middle that the task gives for its kind of
rate: the same budget for all. One whose best is the first or the last of them is tried beyond it, until it is
not or the ladder of ten ends: a middle that does not suit a method must not be what makes it lose.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks import schedules
from benchmarks.study.tasks import Task

Config = dict[str, Any]  # "rate": f32[], "shape": f32[steps], "listen": f32[]
FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
GRID = 2, 8  # of these, what every method is tried at
MIDDLES: dict[str, Callable[[Task], float]] = {
    "sgd": lambda task: task.sgd,
    "adam": lambda task: task.adam,
    "factor": lambda task: 1.0,  # of what a method finds by itself
    "share": lambda task: 0.01,  # of an array's norm, a step
    "lion": lambda task: 0.1 * task.adam,  # its updates are all of size 1
    "muon": lambda task: 10 * task.adam,  # those of a matrix have a spectral norm of 1
}


class Setting(NamedTuple):
    """What an optimizer is made from."""

    config: Config
    example: Any  # shapes of the hidden units, of the fixed probe
    samples: Any  # an example of paired samples, or None
    steps: int
    steps_per_epoch: int
    key: jax.Array


class Family(NamedTuple):
    """One computation.

    Attributes:
        build: `Setting -> optax.GradientTransformation`.
        source: what the optimizer is told: None, hidden units that are "fixed" or, where the task allows,
            "paired", or the "loss" of the next batch.
    """

    build: Callable[[Setting], optax.GradientTransformation]
    source: str | None = None


Base = Callable[[optax.Schedule], optax.GradientTransformation]


def plain(base: Base) -> Family:
    """An optimizer that is told its schedule and nothing else."""
    return Family(lambda setting: base(schedules.rate_of(setting.config)))


class Method(NamedTuple):
    """A line of the report: a family, the shape of its schedule, the kind of its base rate."""

    family: str
    shape: str
    kind: str = "sgd"  # of its base rate, in `MIDDLES`
    listen: float = 1.0  # of a gate: 1 hears the distance, 0 noise, -1 its inverse

    def rates(self, task: Task, error: Callable[[float], float | None]) -> tuple[float, ...]:
        """The base rates that it is to be tried at, as far as is known.

        Args:
            task: gives the middle.
            error: the validation error at a base rate, or None where it was not tried yet.
        """
        ladder = [float(np.float32(MIDDLES[self.kind](task) * factor)) for factor in FACTORS]
        first, last = GRID
        while True:
            rates = tuple(ladder[first:last])
            errors = [error(rate) for rate in rates]
            if None in errors:
                return rates
            best = int(np.argmin(np.asarray(errors, np.float64)))
            if best == 0 and first > 0:
                first -= 1
            elif best == len(rates) - 1 and last < len(ladder):
                last += 1
            else:
                return rates


def shapes(steps: int, steps_per_epoch: int) -> dict[str, np.ndarray]:
    """Schedules with a peak of 1, f32[steps]; "envelope" is the upper bound of the paper's preset."""
    epoch = np.arange(steps, dtype=np.float32) // steps_per_epoch
    return schedules.shapes(steps) | {"envelope": 1 / (1 + epoch / 10)}
