"""A trace of a run: the scalars of `cgalr_jax.metrics`, and yours, step by step.

The transformation prints nothing and writes nothing; this does, where you ask for it. matplotlib and
tensorboardX are imported only by the methods that need them.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np

_SHOWN = ("scale", "distance", "z", "skipped")


class TraceRecorder:
    """Collects scalars over a run, to be saved, drawn, and read as arrays.

    Keys may come and go: where a key was not recorded its array is NaN. NaN and infinity are kept as they
    are.

    Example:
      >>> recorder = TraceRecorder()
      >>> for step in range(3):  # while training: recorder.record(cgalr_jax.metrics(opt_state), loss=loss)
      ...     recorder.record({"cgalr/scale": 2.0**step, "cgalr/step": step}, loss=1.0 / (1 + step))
      >>> recorder.arrays()["cgalr/scale"].tolist()
      [1.0, 2.0, 4.0]
      >>> recorder.summary()  # tqdm: bar.set_postfix_str(...), rich: progress.update(task, description=...)
      'loss 0.333 · scale 4'
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def record(self, metrics: Mapping[str, Any] | None = None, /, **scalars: Any) -> None:
        """Appends a row.

        The numbers are read from the device at once, since the next training step may donate its state; that
        waits for the step they come from, so record every so many steps.

        Args:
          metrics: flat dict of scalars, as of `cgalr_jax.metrics(opt_state)`.
          **scalars: your own; they win where a key is in both.

        Raises:
          ValueError: a value that is not a scalar.
        """
        given = {**(metrics or {}), **scalars}
        values = jax.device_get(list(given.values()))  # of a dict it would sort the keys
        row = {}
        for key, value in zip(given, values, strict=True):
            if np.size(value) != 1:
                raise ValueError(f"{key} must be a scalar, got shape {np.shape(value)}.")
            row[str(key)] = float(np.reshape(value, ()))
        self._rows.append(row)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was recorded, in the order in which the keys came up.

        Returns:
          f64[n] for each key, n the number of rows; NaN where a row does not have the key.
        """
        keys = dict.fromkeys(key for row in self._rows for key in row)
        return {key: np.array([row.get(key, np.nan) for row in self._rows]) for key in keys}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an npz file with one structured array, which pandas takes as it is.

        `np.load(path)["trace"]["loss"]` is one series; `load` gives the recorder back.

        Args:
          path: the file, exactly; a missing suffix is not added.
        """
        arrays = self.arrays()
        trace = np.zeros(len(self), dtype=[(key, np.float64) for key in arrays])
        for key, array in arrays.items():
            trace[key] = array
        with open(path, "wb") as file, warnings.catch_warnings():
            # A Greek key asks for a newer file format, which every NumPy we can run on reads.
            warnings.filterwarnings("ignore", message="Stored array in format 3.0")
            np.savez_compressed(file, trace=trace)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote. A key that a row did not have is NaN in it from then on."""
        with np.load(path, allow_pickle=False) as file:
            trace = file["trace"]
        recorder = cls()
        recorder._rows = [dict(zip(trace.dtype.names or (), row.tolist(), strict=True)) for row in trace]
        return recorder

    def plot(self, axes: Sequence[Any], **options: Any) -> Sequence[Any]:
        """Draws the run on four Axes: `cgalr_jax.plotting.plot_training_trace`, whose options these are."""
        from cgalr_jax import plotting

        return plotting.plot_training_trace(axes, self.arrays(), **options)

    def to_tensorboard(self, directory: str | os.PathLike[str], *, step: str = "cgalr/step") -> None:
        """Writes all rows as TensorBoard scalars.

        Args:
          directory: of the event file.
          step: key of the horizontal axis; rows without it are numbered.

        Raises:
          ImportError: tensorboardX is not installed.
        """
        try:
            import tensorboardX
        except ImportError as error:
            raise ImportError("TensorBoard files need tensorboardX: pip install tensorboardX.") from error
        with tensorboardX.SummaryWriter(os.fspath(directory)) as writer:
            for number, row in enumerate(self._rows):
                at = int(row[step]) if np.isfinite(row.get(step, np.nan)) else number
                for key, value in row.items():
                    writer.add_scalar(key, value, at)

    def summary(self, *keys: str) -> str:
        """The last row in a line, for a progress bar.

        Args:
          *keys: what to show, where it was recorded; without them your own scalars, scale, distance and z,
            and the number of skipped measurements if there are any.

        Returns:
          One line; empty if nothing was recorded.
        """
        row = self._rows[-1] if self._rows else {}
        default = sorted((key for key in row if _is_shown(key, row[key])), key=_is_ours)
        shown = [key for key in keys or default if key in row]
        return " · ".join(f"{key.removeprefix('cgalr/')} {_short(row[key])}" for key in shown)


def _is_ours(key: str) -> bool:
    return key.startswith("cgalr/")


def _is_shown(key: str, value: float) -> bool:
    name = key.rpartition("/")[2]
    return not _is_ours(key) or (name in _SHOWN and not (name == "skipped" and value == 0))


def _short(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.3g}"
