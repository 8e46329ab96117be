"""RED with its interval, worst/best ratio, steps to a target: numbers in, numbers out."""

from typing import NamedTuple

import numpy as np

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A relative error difference, as fractions: -0.05 means 5 % less error than the baseline."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """In percent, ``-5.0 [-6.1, -3.9]``."""
        return f"{100 * self.value:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


def _resamples(seeds: int, salt: int) -> np.ndarray:
    return np.random.default_rng(salt).integers(0, seeds, (RESAMPLES, seeds))


def red(ours: np.ndarray, baseline: np.ndarray, salt: int = 0) -> Estimate:
    """``mean(ours) / mean(baseline) - 1`` with a paired bootstrap interval over seeds, 95 %.

    Args:
        ours: f[S], errors seed by seed.
        baseline: f[S], errors of the same seeds.
        salt: of the resampling.
    """
    return mean_red([(ours, baseline)], salt)


def mean_red(pairs: list[tuple[np.ndarray, np.ndarray]], salt: int = 0) -> Estimate:
    """The mean over tasks of `red`, seeds resampled within each task: an interval over seeds, not tasks."""
    if any(len(ours) != len(baseline) for ours, baseline in pairs):
        raise ValueError(f"pairs must be of the same seeds, got {[tuple(map(len, pair)) for pair in pairs]}.")
    values, boots = [], []
    for number, (ours, baseline) in enumerate(pairs):
        rows = _resamples(len(ours), salt + number)
        values.append(ours.mean() / baseline.mean() - 1)
        boots.append(ours[rows].mean(1) / np.maximum(baseline[rows].mean(1), 1e-9) - 1)
    low, high = np.percentile(np.mean(boots, 0), [2.5, 97.5])
    return Estimate(float(np.mean(values)), float(low), float(high))


def oracle(score: np.ndarray) -> int:
    """Index of the base rate with the smallest mean over these very seeds: it favours the method.

    Args:
        score: f[S, K].
    """
    return int(score.mean(0).argmin())


def at_oracle(score: np.ndarray) -> np.ndarray:
    """f[S], the scores at that base rate.

    Args:
        score: f[S, K].
    """
    return score[:, oracle(score)]


def worst_over_best(score: np.ndarray) -> float:
    """Largest mean over seeds among the rates, divided by the smallest."""
    means = score.mean(0)
    return float(means.max() / means.min())


def steps_to_target(curve: np.ndarray, target: float, steps: int) -> np.ndarray:
    """First checkpoint at or below the target: f[...], in steps; NaN where it is never reached.

    Args:
        curve: f[..., C], scores at C equally spaced checkpoints, the last one at the end.
        target: score to reach.
        steps: length of the run.
    """
    reached = curve <= target
    first = (reached.argmax(-1) + 1) * (steps / curve.shape[-1])
    return np.where(reached.any(-1), first, np.nan)
