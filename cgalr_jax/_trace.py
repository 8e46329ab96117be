"""What a run recorded of our metrics: arrays, one number per row, NaN where a row does not have it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Trace(NamedTuple):
    """The arrays of a run, and the beginning of our keys in it: "cgalr", or "cgalr/0" of several."""

    arrays: Mapping[str, np.ndarray]  # f64[n] each
    prefix: str

    @property
    def rows(self) -> int:
        """The number of rows."""
        return max((len(array) for array in self.arrays.values()), default=0)

    def has(self, name: str) -> bool:
        """Whether one of our metrics was recorded at all."""
        return f"{self.prefix}/{name}" in self.arrays

    def key(self, key: str) -> np.ndarray:
        """What was recorded under a key, f64[n]."""
        return self.arrays.get(key, np.full(self.rows, np.nan))

    def ours(self, name: str) -> np.ndarray:
        """One of our metrics, f64[n]."""
        return self.key(f"{self.prefix}/{name}")

    def last(self, name: str) -> float:
        """The last finite number of one of our metrics; NaN if there is none."""
        known = self.ours(name)[np.isfinite(self.ours(name))]
        return float(known[-1]) if len(known) else np.nan

    def base_rate(self) -> np.ndarray:
        """The learning rate without the scale, f64[n]; NaN where that is not known."""
        scale = self.ours("scale")
        return self.ours("learning_rate") / np.where(np.isfinite(scale) & (scale != 0), scale, np.nan)

    def placed(self) -> np.ndarray:
        """Which rows say at which step they are, bool[n]; all of them, if none does."""
        known = np.isfinite(self.ours("step"))
        return known | ~known.any()

    def steps(self) -> np.ndarray:
        """The step of each row, f64[n]; its number, if no row has a step."""
        step = self.ours("step")
        return step if np.isfinite(step).any() else np.arange(self.rows, dtype=np.float64)

    def only(self, chosen: np.ndarray) -> "Trace":
        """These rows, bool[n]."""
        return self._replace(arrays={key: array[chosen] for key, array in self.arrays.items()})
