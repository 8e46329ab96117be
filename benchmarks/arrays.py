"""Named arrays on disk: a file that exists is whole, and says with which settings it was made."""

import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

from cgalr_jax.recorder import _files

_SETTINGS = "settings"


def save(path: pathlib.Path, record: NamedTuple, settings: str) -> None:
    """Writes a record; what stops it on the way leaves what was there, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _files.replacing(path) as file:
        np.savez_compressed(file, **record._asdict(), **{_SETTINGS: settings})


def load(path: pathlib.Path, kind: type, settings: str | None = None) -> Any:
    """The record of that kind, or None if there is none yet, or one of other settings."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as held:
            found = dict(held)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SystemExit(f"{path} cannot be read ({error}): delete it, and run again.") from error
    made_with = found.pop(_SETTINGS, None)
    if settings is not None and made_with is not None and str(made_with) != settings:
        return None
    return kind(**found)
