"""What the tables and the plots are made of: numbers of a line, a method on a task at all its base rates."""

import itertools

import numpy as np

from benchmarks import estimates, scores
from benchmarks.real_size import methods, tasks
from benchmarks.study.lines import Found, Line

OURS, REFERENCE = "ours on SGD", "SGD warm-up cosine"


def on_all(found: Found, *names: str) -> Found:
    """The tasks that all these methods were run on."""
    return {label: held for label, held in found.items() if set(names) <= set(held)}


def grid(label: str, name: str, line: Line) -> Line:
    """The line at the six base rates that every method is tried at."""
    rates = methods.METHODS[name].rates(tasks.TASKS[label], lambda rate: None)
    return line.at(rates)


def untuned(label: str, name: str, line: Line) -> np.ndarray:
    """f[S], the mean over the six base rates."""
    return grid(label, name, line).test.mean(1)


def tuned_by(label: str, name: str, line: Line, runs: int) -> np.ndarray:
    """f[S], the error after so many runs, at base rates drawn from the six, the best by validation kept.

    It is the mean over all that could be drawn: who tunes knows no more of the rate than that it is one of
    these. Of one run it is the mean over the six, `untuned`.
    """
    kept = grid(label, name, line)
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


def spread(label: str, name: str, line: Line) -> float:
    """The worst of the six base rates over the best of them."""
    return estimates.worst_over_best(grid(label, name, line).test)


def at_chance(label: str, line: Line) -> float:
    """The share of runs, at any base rate, that end within 5 % of the chance that scores are capped at."""
    return float(scores.at_chance(line.test, tasks.TASKS[label].chance).mean())


def found_rates(line: Line) -> np.ndarray:
    """f[K, S], the largest learning rate of each run, of the times that its curves were taken."""
    return np.array([outcome.rate.max(1) for outcome in line.outcomes])


def found_over_best(label: str, name: str, line: Line, baseline: Line) -> np.ndarray:
    """f[6, S], the largest learning rate of each run over the baseline's tuned one."""
    return found_rates(grid(label, name, line)) / baseline.rates[baseline.best]


def value(label: str, test: np.ndarray) -> str:
    """The mean error, as it is written: a share in percent, nats and squares as they are."""
    share = tasks.TASKS[label].unit == "error"
    return f"{100 * test.mean():.2f} %" if share else f"{test.mean():.4f}"
