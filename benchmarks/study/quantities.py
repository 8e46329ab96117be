"""What tables and plots are made of: numbers of a `Line`, a method on a task at all of its base rates."""

import itertools
from collections.abc import Sequence

import numpy as np

from benchmarks import estimates, scores
from benchmarks.study.lines import Found, Line
from benchmarks.study.tasks import Task
from cgalr_jax import controllers

ENDS = {
    controllers.REACHED: "set-point",
    controllers.BY_TIME: "time",
    controllers.BY_GUARD: "guard",
    controllers.BY_BOUND: "bound",
    controllers.UNFINISHED: "unfinished",
}


def on_all(found: Found, *names: str) -> Found:
    """The tasks that all these methods were run on."""
    return {label: held for label, held in found.items() if set(names) <= set(held)}


def untuned(line: Line) -> np.ndarray:
    """f[S], the mean over the base rates that every method is tried at."""
    return line.on_grid.test.mean(1)


def tuned_by(line: Line, runs: int) -> np.ndarray:
    """f[S], the error after so many runs, at base rates drawn from the grid, the best by validation kept.

    It is the mean over all that could be drawn: who tunes knows no more of the rate than that it is one of
    these. Of one run it is the mean over the grid, `untuned`.
    """
    kept = line.on_grid
    validation = [outcome.validation.mean() for outcome in kept.outcomes]
    drawn = itertools.combinations(range(len(validation)), runs)
    return np.mean([kept.test[:, min(each, key=validation.__getitem__)] for each in drawn], 0)


def until(curves: np.ndarray, target: float) -> np.ndarray:
    """f[...], the share of a run after which a curve is at the target; infinite where it never is.

    Args:
        curves: f[..., C], errors at C equally spaced times, the last one at the end.
        target: error to reach.
    """
    share = estimates.steps_to_target(curves, target, 1)
    return np.where(np.isnan(share), np.inf, share)


def spread(line: Line) -> float:
    """The worst base rate of the grid over the best of them."""
    return estimates.worst_over_best(line.on_grid.test)


def at_chance(task: Task, line: Line) -> float:
    """The share of runs, at any base rate, that end within 5 % of the chance that scores are capped at."""
    return float(scores.at_chance(line.test, task.chance).mean())


def found_rates(line: Line) -> np.ndarray:
    """f[K, S], the largest learning rate of each run, of the times that its curves were taken."""
    return np.array([outcome.rate.max(1) for outcome in line.outcomes])


def ramp(line: Line) -> np.ndarray:
    """f[K, S], the share of the run after which the learning rate is largest, where the curves were taken."""
    return np.array([(outcome.rate.argmax(1) + 1) / outcome.rate.shape[1] for outcome in line.outcomes])


def found_over_best(line: Line, baseline: Line) -> np.ndarray:
    """f[K, S], the largest learning rate of each run on the grid over the baseline's tuned one."""
    return found_rates(line.on_grid) / baseline.rates[baseline.best]


def value(task: Task, test: np.ndarray) -> str:
    """The mean error, as it is written: a share in percent, nats and squares as they are."""
    return f"{100 * test.mean():.2f} %" if task.unit == "error" else f"{test.mean():.4f}"


def best_rate(line: Line) -> str:
    """The base rate that validation chose, as it is written, and whether it is the first or last tried."""
    return f"{line.rates[line.best]:.2g}{' (edge)' if line.at_edge else ''}"


def span(ratios: Sequence[float] | np.ndarray) -> str:
    """The median, the least and the largest, as they are written."""
    return f"{np.median(ratios):.2g} ({np.min(ratios):.2g} to {np.max(ratios):.2g})"


def ends(line: Line) -> str:
    """How many calibrations ended in which way, as it is written."""
    ended = np.concatenate([outcome.ended for outcome in line.outcomes])
    return ", ".join(f"{name} {np.sum(ended == end)}" for end, name in ENDS.items() if np.any(ended == end))
