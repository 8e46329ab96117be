"""Warnings that point to the user's line, however deep in the package they arise."""

import pathlib
import sys
import warnings

__all__ = ["warn_deprecated"]

_PACKAGE = pathlib.Path(__file__).parent.as_posix() + "/"


def warn_deprecated(message: str) -> None:
    """Gives a `DeprecationWarning` for the line outside of this package that led here."""
    frame, level = sys._getframe(), 0
    while frame is not None and pathlib.Path(frame.f_code.co_filename).as_posix().startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, DeprecationWarning, stacklevel=level + 1)
