"""Named arrays on disk: a file that exists is whole, and says with which settings it was made."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from cgalr_jax.recorder import _files

SETTINGS = "settings"  # the name under which they are kept


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


def save(path: pathlib.Path, record: NamedTuple, settings: str) -> None:
    """Writes a record."""
    write(path, record._asdict() | {SETTINGS: settings})


def load(path: pathlib.Path, kind: type[Any], settings: str | None = None) -> Any:
    """The record of that kind, or None if there is none yet, or one of other settings or another edition."""
    if not path.exists():
        return None
    found = read(path)
    made_with = found.pop(SETTINGS, None)
    if settings is not None and made_with is not None and str(made_with) != settings:
        return None
    return kind(**found) if found.keys() == set(kind._fields) else None
