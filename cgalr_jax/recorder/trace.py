"""The recorder: rows in, arrays, files, pictures and pages out."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import jax.core
import jax.typing
import numpy as np

from cgalr_jax import _checks
from cgalr_jax.recorder import _files, _summary
from cgalr_jax.recorder._streams import EventFile, JsonLines

__all__ = ["TraceRecorder"]


class TraceRecorder:
    """Collects scalars over a run, to be watched while it goes on, saved, drawn, reported and read as arrays.

    Keys may come and go: where a key was not recorded its array is NaN. NaN and infinity are kept as they
    are.

    To watch a run, give it a file, a folder or both; each row is written at once (TensorBoard's once a
    second, with the next row), behind those of an earlier run, and `with` closes them:

    ```python
    with TraceRecorder(jsonl="run.jsonl", tensorboard="logs") as recorder:
        for step, batch in enumerate(batches):
            opt_state, loss = train_step(opt_state, batch)
            row = recorder.record(cgalr_jax.metrics(opt_state), loss=loss)
            wandb.log(row, step=step)  # Weights & Biases takes the row as it is,
            writer.write_scalars(step, row)  # and so does a clu.metric_writers.MetricWriter
    ```

    Args:
        jsonl: a file to append a JSON object per row to (`pandas.read_json(file, lines=True)` reads it). JSON
            has no NaN and no infinity: they are null. Half a row at its end, of a run that was killed, is cut
            off.
        tensorboard: a folder for an event file, as for `to_tensorboard`.

    Raises:
        ValueError: if `jsonl` is another kind of file, which is left as it is, or `tensorboard` is no folder.
        ImportError: if `tensorboard` is given and tensorboardX is not installed.

    Example:
        >>> recorder = TraceRecorder()
        >>> for step in range(3):  # while training: recorder.record(cgalr_jax.metrics(opt_state), loss=loss)
        ...     row = recorder.record({"cgalr/scale": 2.0**step, "cgalr/step": step}, loss=1.0 / (1 + step))
        >>> row
        {'cgalr/scale': 4.0, 'cgalr/step': 2.0, 'loss': 0.3333333333333333}
        >>> recorder.arrays()["cgalr/scale"].tolist()
        [1.0, 2.0, 4.0]
        >>> recorder.summary()  # tqdm: bar.set_postfix_str(...), rich: progress.update(task, description=...)
        'loss 0.333 · scale 4'
    """

    def __init__(
        self,
        *,
        jsonl: str | os.PathLike[str] | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
    ) -> None:
        if jsonl is not None:
            _checks.check_file("jsonl", jsonl)
        if tensorboard is not None:
            _checks.check_folder("tensorboard", tensorboard)
        self._rows: list[dict[str, float]] = []
        self._closed = False
        self._streams: list[JsonLines | EventFile] = []
        if jsonl is not None:  # first: it may refuse the file, and then no event file is left behind
            self._streams.append(JsonLines(jsonl))
        if tensorboard is not None:
            self._streams.append(EventFile(tensorboard))

    def __len__(self) -> int:
        return len(self._rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the streams, if there are any; the rows stay, and can be saved, drawn and reported.

        Raises:
            OSError: if the end of a stream cannot be written.
        """
        self._closed = True
        with contextlib.ExitStack() as stack:  # each is closed, even if another cannot be
            for stream in self._streams:
                stack.callback(stream.close)
            self._streams = []

    def record(self, metrics: Mapping[str, Any] | None = None, /, **scalars: Any) -> dict[str, float]:
        """Appends a row, to the streams too.

        The numbers are read from the device at once, since the next training step may donate its state; that
        waits for the step they come from, so record every so many steps.

        Args:
            metrics: flat dict of scalars, as of `cgalr_jax.metrics(opt_state)`.
            **scalars: your own; they win where a key is in both.

        Returns:
            The row, keys and Python floats: what other loggers take.

        Raises:
            ValueError: if a value is no real scalar, a key is empty or holds a zero byte, or the call is
                under `jit` or after `close`.
            OSError: if a stream cannot be written; the row is in the recorder, though.
        """
        if metrics is not None and not isinstance(metrics, Mapping):
            raise ValueError(f"metrics must be a mapping of keys to scalars, got {_checks.shown(metrics)}.")
        if self._closed:
            raise ValueError("record must be called before the recorder is closed, inside its `with`.")
        given = {str(key): value for key, value in {**(metrics or {}), **scalars}.items()}
        if traced := [key for key, value in given.items() if isinstance(value, jax.core.Tracer)]:
            raise ValueError(f"record must be called outside of jit, with numbers; got traced {traced}.")
        numbers = [_real(_checked_key(key), value) for key, value in given.items()]
        values = jax.device_get(numbers)  # all at once; of a dict it would sort the keys
        row = {key: float(value.reshape(())) for key, value in zip(given, values, strict=True)}
        self._rows.append(row)
        for stream in self._streams:
            stream.write(row, len(self._rows) - 1)
        return dict(row)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was recorded, in the order in which the keys came up.

        Returns:
            f64[n] for each key, n the number of rows; NaN where a row does not have the key.
        """
        return _columns(list(self._rows))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an npz file with one structured array, which pandas takes as it is.

        `np.load(path)["trace"]["loss"]` is one series; `load` gives the recorder back. (With some 350 keys
        or more NumPy asks for `np.load(path, max_header_size=...)`.) A file that is there already is replaced
        when the new one is whole: a full disk or a kill on the way leaves it as it was.

        Args:
            path: the file, exactly; a missing suffix is not added.

        Raises:
            ValueError: if `path` names a folder or another thing that is not a file.
            OSError: if it cannot be written.
        """
        _checks.check_file("path", path)
        rows = list(self._rows)
        _files.write_trace(path, _columns(rows), len(rows))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads what `save` wrote. A key that a row did not have is NaN in it from then on.

        Args:
            path: the file. Nothing in it is unpickled.

        Raises:
            ValueError: if it is damaged or another kind of file; the message has the path and what is wrong.
            OSError: if it cannot be opened.
        """
        _checks.check_path("path", path, "a file of TraceRecorder.save")
        trace = _files.read_trace(path)
        recorder = cls()
        names = trace.dtype.names or ()
        recorder._rows = [dict(zip(names, map(float, row.tolist()), strict=True)) for row in trace]
        return recorder

    def plot(self, axes: Sequence[Any], **options: Any) -> Sequence[Any]:
        """Draws the run on three or four Axes: `cgalr_jax.plotting.plot_training_trace` has the options."""
        from cgalr_jax import plotting

        return plotting.plot_training_trace(axes, self.arrays(), **options)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        settings: Mapping[str, Any] | None = None,
        connectomes: Mapping[int, jax.typing.ArrayLike] | None = None,
        layers: Mapping[str, int] | None = None,
        loss: str = "loss",
        base_learning_rate: jax.typing.ArrayLike | None = None,
        set_point: float | None = None,
        bounds: Callable[[Any], tuple[Any, Any]] | None = None,
        prefix: str = "cgalr",
    ) -> None:
        """Writes one page about the run, which needs nothing beside itself: open it in a browser.

        Settings and seed, the rate that was found, how the calibration ended, loss, learning rate and motion,
        the connectome over the run where you recorded it, and what to try next. Its sentences are made from
        the trace. matplotlib draws the pictures.

        Args:
            path: of the HTML file; one that is there is replaced when the new one is whole.
            settings: what you want to remember, `{"seed": 0, "optimizer": "adamw"}` for instance.
            connectomes: {step: f32[P, P]}, drawn as a film; those that are not finite are left out.
            layers: {name: number of units}, of the P units in their order, to part the layers.
            loss: as in `cgalr_jax.plotting.plot_training_trace`, like the arguments below.
            base_learning_rate: multiplies scale and anchor.
            set_point: a level to draw into the distances of a trace without motion.
            bounds: the envelope.
            prefix: of our keys.

        Raises:
            ValueError: if `path` is not a file, or an argument is out of range.
            OSError: if the page cannot be written.

        Example:
            >>> import pathlib, tempfile
            >>> recorder = TraceRecorder()
            >>> for step in range(3):
            ...     row = recorder.record({"cgalr/scale": 2.0**step, "cgalr/step": step}, loss=1 / (1 + step))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     page = pathlib.Path(folder, "run.html")
            ...     recorder.report(page, settings={"seed": 0}, base_learning_rate=0.01)
            ...     print("The loss fell from 1 to 0.333." in page.read_text())
            True
        """
        from cgalr_jax.recorder import _page

        _checks.check_file("path", path)
        page = _page.page(
            self.arrays(),
            settings=settings,
            connectomes=connectomes,
            layers=layers,
            loss=loss,
            base_learning_rate=base_learning_rate,
            set_point=set_point,
            bounds=bounds,
            prefix=prefix,
        )
        with _files.replacing(path) as file:
            file.write(page.encode(errors="backslashreplace"))  # a file's name need not be UTF-8

    def to_tensorboard(self, directory: str | os.PathLike[str], *, step: str = "cgalr/step") -> None:
        """Writes all rows as TensorBoard scalars, once a run is over.

        Args:
            directory: of the event file.
            step: key of the horizontal axis; rows without it are numbered.

        Raises:
            ValueError: if `directory` is no folder.
            ImportError: if tensorboardX is not installed.
        """
        _checks.check_folder("directory", directory)
        if not isinstance(step, str):
            raise ValueError(f"step must be a key, a string, got {_checks.shown(step)}.")
        with contextlib.closing(EventFile(directory, step)) as file:
            for number, row in enumerate(self._rows):
                file.write(row, number)

    def summary(self, *keys: str) -> str:
        """The last row in a line, for a progress bar.

        Args:
            *keys: what to show, where it was recorded; without them your own scalars, scale, motion and z,
                and the numbers of skipped measurements and refused values if there are any.

        Returns:
            One line, which ends with a warning if the calibration is unfinished, or ended by time, by the
            guard or by the bound on one step; empty if nothing was recorded.

        Raises:
            ValueError: if a key is no string.
        """
        for key in keys:
            if not isinstance(key, str):
                raise ValueError(f"keys must be strings, got {_checks.shown(key)}.")
        return _summary.line(self._rows[-1] if self._rows else {}, keys)


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    """The arrays of these rows, a list of its own: another thread may record more of them meanwhile."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.array([row.get(key, np.nan) for row in rows]) for key in keys}


def _checked_key(key: str) -> str:
    if not key or "\0" in key:
        raise ValueError(f"metrics must have keys that are not empty and hold no zero byte, got {key!r}.")
    return key


def _real(key: str, value: Any) -> jax.Array | np.ndarray:
    """The value as an array of one real number; what is on the device stays there."""
    try:
        if isinstance(value, np.ma.MaskedArray):  # its number may be missing
            raise TypeError
        array = value if isinstance(value, jax.Array) else np.asarray(value)
        if array.dtype == object and all(isinstance(number, int) for number in np.ravel(array)):
            array = np.asarray(array, dtype=np.float64)  # an integer of more than 64 bits
    except (TypeError, ValueError, OverflowError):  # no array, or an integer that no float holds
        raise ValueError(f"{key} must be a real number, got {_checks.shown(value)}.") from None
    if array.size != 1:
        raise ValueError(
            f"{key} must be a scalar, got shape {array.shape}. What a lax.scan has stacked is recorded row "
            "by row: for i in range(n): recorder.record(jax.tree.map(lambda x: x[i], rows))."
        )
    if not array.dtype.name.startswith(("bool", "int", "uint", "float", "bfloat")):
        raise ValueError(f"{key} must be a real number, got {_checks.shown(value)}.")
    return array
