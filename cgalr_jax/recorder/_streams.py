"""Where rows go while a run goes on: a file of JSON lines, a folder of TensorBoard."""

import json
import math
import os
from collections.abc import Mapping


class JsonLines:
    """Appends a JSON object per row to a file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "a+b")  # noqa: SIM115  it stays open over the run
        try:
            self._mend(path)
        except BaseException:
            self._file.close()
            raise

    def _mend(self, path: str | os.PathLike[str]) -> None:
        """Ends the last line of what is there, or cuts it off if it is half a row."""
        self._file.seek(0)
        end, last = 0, b""
        for line in self._file:
            end, last = end + len(line), line
        if not last:
            return
        whole = True
        try:
            is_row = isinstance(json.loads(last), dict)
        except ValueError:
            whole, is_row = False, last.startswith(b"{") and not last.endswith(b"\n")
        if not is_row:
            raise ValueError(
                f"jsonl must be a file of JSON lines, got {os.fspath(path)}, which ends {last[:40]!r}."
            )
        if not whole:
            self._file.truncate(end - len(last))
        elif not last.endswith(b"\n"):
            self._file.write(b"\n")
        self._file.flush()

    def write(self, row: Mapping[str, float], number: int) -> None:
        """Appends a row; the file has it when this returns."""
        del number
        finite = {key: value if math.isfinite(value) else None for key, value in row.items()}
        self._file.write(json.dumps(finite, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class EventFile:
    """Writes rows as TensorBoard scalars."""

    def __init__(self, directory: str | os.PathLike[str], step: str = "cgalr/step") -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise ImportError("TensorBoard files need tensorboardX: pip install tensorboardX.") from error
        # A thread writes; asked to flush, it does not wait for what is still in its queue.
        self._writer, self._step = tensorboardX.SummaryWriter(os.fspath(directory), flush_secs=1), step

    def write(self, row: Mapping[str, float], number: int) -> None:
        """Appends a row, at its step or at its number where it has none."""
        at = int(row[self._step]) if math.isfinite(row.get(self._step, math.nan)) else number
        for key, value in row.items():
            self._writer.add_scalar(key, value, at)

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
