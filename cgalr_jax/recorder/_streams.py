"""Where rows go while a run goes on: a file of JSON lines, a folder of TensorBoard."""

import json
import math
import os
import platform
import re
import time
from collections.abc import Mapping
from typing import Any

# What a kill or a full disk can leave of a row: the beginning of what `JsonLines.write` writes.
_KEY = rb'"(?:[ !#-\[\]-~]|\\.)*'  # without its closing quote
_VALUE = rb"(?:null|-?\d+[.e][-+.e\d]*)"
_HALF_A_ROW = re.compile(
    rb'\{(?:%(key)b": %(value)b, )*(?:%(key)b\\?|%(key)b"(?:: ?|: (?:%(value)b,?|-?\d*|n(?:ul?)?))?)?'
    % {b"key": _KEY, b"value": _VALUE}
)


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
        """Ends the last line of what is there, or cuts it off if it is half a row of ours."""
        self._file.seek(0)
        end, line = 0, b""
        for line in self._file:
            if line.strip() and not _is_row(line):
                break
            end += len(line)
        if rest := self._file.seek(0, os.SEEK_END) - end:
            if rest > len(line) or not _HALF_A_ROW.fullmatch(line):
                raise ValueError(
                    'jsonl must be a file of JSON lines, {"key": number}, '
                    f"got {os.fspath(path)}, which has the line {line[:40]!r}."
                )
            self._file.truncate(end)
        elif line and not line.endswith(b"\n"):
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


def _is_row(line: bytes) -> bool:
    """Whether a line is a JSON object of numbers, null where they are not finite."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, or brackets without end
        return False
    return isinstance(row, dict) and all(x is None or isinstance(x, (int, float)) for x in row.values())


class EventFile:
    """Writes rows as TensorBoard scalars.

    From the caller's thread: that of tensorboardX's writers ends at a full disk, and whoever hands it more
    waits for ever.
    """

    def __init__(self, directory: str | os.PathLike[str], step: str = "cgalr/step") -> None:
        try:
            from tensorboardX import RecordWriter
            from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
            from tensorboardX.record_writer import directory_check
            from tensorboardX.summary import scalar
        except ImportError as error:
            raise ImportError("TensorBoard files need tensorboardX: pip install tensorboardX.") from error
        folder = os.fspath(directory)
        directory_check(folder)
        name = f"events.out.tfevents.{time.time_ns()}.{platform.node()}"
        self._event, self._scalar, self._step = Event, scalar, step
        self._file, self._flushed = RecordWriter(os.path.join(folder, name)), -math.inf
        self._append(file_version="brain.Event:2")

    def _append(self, **content: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **content).SerializeToString())

    def write(self, row: Mapping[str, float], number: int) -> None:
        """Appends a row, at its step or at its number where it has none."""
        at = row.get(self._step, math.nan)
        values = [value for key in row for value in self._scalar(key, row[key]).value]
        # The file counts in 64 bits, and so has no place for a step that is larger or not finite.
        self._append(step=int(at) if abs(at) < 2**63 else number, summary={"value": values})
        # A flush waits for the disk: not for each row of a run that records them fast.
        if time.monotonic() - self._flushed >= 1:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
