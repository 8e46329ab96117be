"""Files that are read with care, and replaced whole or not at all."""

import contextlib
import errno
import io
import os
import secrets
import stat
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when it is whole and on the disk."""
    target = os.path.realpath(path)  # a link stays a link
    mode = None
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(target).st_mode
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {folder}", os.fspath(path))
    aside = os.path.join(folder, f".{secrets.token_hex(8)}.tmp")
    try:
        with open(aside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(aside, stat.S_IMODE(mode))
        os.replace(aside, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise


def write_trace(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], rows: int) -> None:
    """Writes an npz file with one structured array; `TraceRecorder.save` says more."""
    trace = np.zeros(rows, dtype=[(key, np.float64) for key in arrays])
    for key, array in arrays.items():
        trace[key] = array
    with replacing(path) as file, warnings.catch_warnings():
        # A Greek key, or thousands, ask for a newer file format, which every NumPy we can run on reads.
        warnings.filterwarnings("ignore", message=r"Stored array in format [23]\.0")
        np.savez_compressed(file, trace=trace)


def read_trace(path: str | os.PathLike[str]) -> np.ndarray:
    """The structured array of such a file; a ValueError has the path and what is wrong."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        return _trace_in(content)
    except Exception as error:  # damaged bytes fail in zipfile, zlib, NumPy and the parser of its headers
        reason = error if isinstance(error, _UnreadableError) else f"it is damaged or cut short ({error})"
        raise ValueError(f"path must be a file of TraceRecorder.save, got {path}: {reason}.") from error


class _UnreadableError(Exception):
    """What is wrong with a file, as the end of a sentence."""


def _trace_in(content: bytes) -> np.ndarray:
    if not content.startswith(b"PK"):
        kind = "empty" if not content else "no npz file" + (" but a pickle" if content[:1] == b"\x80" else "")
        raise _UnreadableError(f"it is {kind}" + (f", it begins {content[:8]!r}" if content else ""))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if "trace.npy" not in names:
            raise _UnreadableError(f"it holds no array 'trace', only {names[:8]}")
        with archive.open("trace.npy") as file:
            # NumPy's limit of a header, 10,000 characters, is that of some 350 keys; ours is a hundred times
            # the file, since a compressed header is hardly ever smaller than that.
            try:
                trace = np.lib.format.read_array(file, allow_pickle=False, max_header_size=len(content) * 100)
            except ValueError as error:
                if "Object arrays" in str(error):
                    raise _UnreadableError("its 'trace' is pickled, and nothing is unpickled") from error
                raise
            file.read()  # to the end, where the checksum is compared
    fields = [trace.dtype[name] for name in trace.dtype.names or ()]
    if trace.ndim != 1 or trace.dtype.names is None or any(field.kind not in "biuf" for field in fields):
        raise _UnreadableError(
            f"its 'trace' is no row of named numbers, but has shape {trace.shape} and dtype {trace.dtype}"
        )
    return trace
