"""Named arrays on disk: a file that exists is whole."""

import pathlib
from typing import Any, NamedTuple

import numpy as np


def save(path: pathlib.Path, record: NamedTuple) -> None:
    """Writes a record; what stops it on the way leaves no file behind under this name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, **record._asdict())
    partial.rename(path)


def load(path: pathlib.Path, kind: type) -> Any:
    """The record of that kind, or None if there is none yet."""
    if not path.exists():
        return None
    with np.load(path) as held:
        return kind(**held)
