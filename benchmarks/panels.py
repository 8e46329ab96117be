"""Plots of many panels, legible on a telephone: two columns, and letters that are not too small.

Colours are those of Okabe and Ito, which the colour-blind tell apart; dashes are for who prints in grey.
"""

import pathlib
from collections.abc import Mapping

import numpy as np
from matplotlib import figure as figures
from matplotlib.artist import Artist

COLUMNS, WIDTH = 2, 3.4  # of a panel, in inches


def grid(count: int, height: float) -> tuple[figures.Figure, np.ndarray]:
    """A figure, and its first `count` axes; the others stay empty."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = figures.Figure((WIDTH * COLUMNS, height * rows), layout="constrained")  # no window, no backend
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat[:count]


def finish(figure: figures.Figure, path: pathlib.Path, handles: Mapping[str, Artist], columns: int) -> None:
    """Writes the figure, with a legend of these names in so many columns above its panels."""
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns, frameon=False)
    figure.savefig(path, dpi=90)
