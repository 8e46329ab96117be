"""What the examples' command lines share: arguments that are checked before anything runs, and progress."""

import argparse
import contextlib
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

PICTURES = (".pdf", ".png", ".svg")
_Data = TypeVar("_Data")


def parser(description: str, quick: str) -> argparse.ArgumentParser:
    """A parser with `--seed` and `--quick`, of which `quick` says what is less."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--seed", type=whole, default=0, help="of data, parameters and batches (default 0)")
    made.add_argument("--quick", action="store_true", help=quick)
    return made


def load(command: argparse.ArgumentParser, loader: Callable[..., _Data], *arguments: Any) -> _Data:
    """Reads a data set, or ends with a sentence that says what is missing."""
    if None in arguments:
        command.error("this data set needs --data FOLDER, the folder that holds it")
    try:
        return loader(*arguments)
    except (OSError, ValueError) as error:
        command.error(str(error))


def need_no_data(command: argparse.ArgumentParser, folder: pathlib.Path | None, option: str) -> None:
    """Ends with a sentence if a folder was given that this choice of data does not read."""
    if folder is not None:
        command.error(f"--data {folder} would not be read: say {option}, too")


def steps(count: int, name: str) -> Iterator[int]:
    """Counts the steps of a run, and says how far it is."""
    start, part = time.monotonic(), max(count // 4, 1)
    print(f"{name}: compiling, then {count} steps ...", flush=True)
    for t in range(count):
        yield t
        if (t + 1) % part == 0:
            print(f"{name}: step {t + 1} of {count}, {time.monotonic() - start:.0f} s", flush=True)


# --- Types of arguments: argparse turns their errors into its own.


def whole(text: str) -> int:
    """A whole number that may be a seed."""
    number = int(text) if text.lstrip("+-").isdecimal() else -1
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return number


def positive(text: str) -> float:
    """A positive number that float32 can hold."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 1e-37 <= number <= 1e37:
        raise argparse.ArgumentTypeError(
            f"must be a positive number, got {text!r} (float32 holds 1e-37 to 1e37)"
        )
    return number


def folder(text: str) -> pathlib.Path:
    """A folder that is there."""
    path = _path(text)
    if not text.strip() or not _is(pathlib.Path.is_dir, path):
        raise argparse.ArgumentTypeError(f"must be a folder that is there, got {text!r}")
    return path


def _path(text: str) -> pathlib.Path:
    """The path; `~name` of nobody is left as it is."""
    return pathlib.Path(os.path.expanduser(text))


def _is(question: Callable[[pathlib.Path], bool], path: pathlib.Path) -> bool:
    """The answer; no where it cannot be known: a name that is too long, a folder that is not ours."""
    try:
        return question(path)
    except (OSError, ValueError):
        return False


def new_folder(text: str) -> pathlib.Path:
    """A folder that files can be written into; it is made."""
    path = _path(text)
    with writable("must be a folder that can be written into", text):
        if not text.strip():  # pathlib takes nothing for the folder that one is in
            raise ValueError("it has no name")
        try_folder(path)
    return path


def picture(text: str) -> pathlib.Path:
    """A picture to be written, in a folder that is there."""
    path = _path(text)
    kinds = " or ".join(PICTURES)
    if (
        path.suffix.lower() not in PICTURES
        or _is(pathlib.Path.is_dir, path)
        or not _is(pathlib.Path.is_dir, path.parent)
    ):
        raise argparse.ArgumentTypeError(f"must be a {kinds} file in a folder that is there, got {text!r}")
    with writable("must be a file that can be written", text):
        try_file(path)
    return path


@contextlib.contextmanager
def writable(allowed: str, text: str) -> Iterator[None]:
    """What the file system says, as argparse's own: a name that is too long, a folder that is not ours."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a name that holds a null character
        raise argparse.ArgumentTypeError(f"{allowed}, got {text!r}: {error}") from None


def try_folder(path: pathlib.Path) -> None:
    """Makes the folder, and a file in it that is gone at once."""
    path.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=path).close()


def try_file(path: pathlib.Path) -> None:
    """Opens the file to write; what is there stays as it is, and what is not is not there afterwards."""
    existed = path.exists()
    path.open("ab").close()
    if not existed:
        path.unlink()
