"""Named arrays on disk: a file that exists is whole, and says with which settings and code it was made."""

import collections
import contextlib
import functools
import pathlib
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from cgalr_jax.recorder import _files

SETTINGS, COMMIT = "settings", "commit"  # the names under which they are kept


def write(path: pathlib.Path, named: Mapping[str, Any]) -> None:
    """Writes a file; what stops it on the way leaves what was there, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _files.replacing(path) as file:
        np.savez_compressed(file, **named)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All that a file holds, by name."""
    with readable(path), path.open("rb") as file, np.load(file) as held:
        return dict(held)


@contextlib.contextmanager
def readable(path: pathlib.Path) -> Iterator[None]:
    """Ends with a sentence where a file is damaged, which fails in zipfile, zlib, NumPy or json."""
    try:
        yield
    except Exception as error:
        raise SystemExit(f"{path} cannot be read ({error}): delete it, and run again.") from error


@functools.cache
def commit() -> str:
    """The commit of the code that runs, with a "+" where files differ from it; empty outside of a clone."""
    describe = ["git", "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(
            describe, cwd=pathlib.Path(__file__).parent, capture_output=True, check=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def save(path: pathlib.Path, record: NamedTuple, settings: str, by: str | None = None) -> None:
    """Writes a record; the commit that made it is that of the code that runs if None."""
    write(path, record._asdict() | {SETTINGS: settings, COMMIT: commit() if by is None else by})


def made_by(paths: Iterable[pathlib.Path]) -> str:
    """A sentence: how many of these records the code of which commit has made."""
    commits = collections.Counter(str(read(path).get(COMMIT, "")) for path in paths)
    each = (f"{name or 'not noted'} ({count})" for name, count in sorted(commits.items()))
    return f"Outcomes, by the commit of the code that made them: {', '.join(each)}."


def load(path: pathlib.Path, kind: type[Any], settings: str | None = None) -> Any:
    """The record of that kind, or None if there is none yet, or one of other settings or another edition."""
    if not path.exists():
        return None
    found = read(path)
    found.pop(COMMIT, None)  # other code may have made it: a report says so
    made_with = found.pop(SETTINGS, None)
    if settings is not None and made_with is not None and str(made_with) != settings:
        return None
    return kind(**found) if found.keys() == set(kind._fields) else None
