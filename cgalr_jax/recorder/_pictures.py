"""The pictures of a report, as SVG that a page holds."""

import html
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax.typing
import matplotlib
import matplotlib.figure
import numpy as np

from cgalr_jax import plotting

_INK = "#010203"  # stands for the colour of the text, which the reader's browser chooses
_WIDTH = 5.2  # inches


def of_run(trace: Mapping[str, jax.typing.ArrayLike], **options: Any) -> str:
    """Loss, learning rate and motion; `options` are those of `plotting.plot_training_trace`."""

    def draw(figure: matplotlib.figure.Figure) -> None:
        axes = figure.subplots(3, 1, sharex=True)
        plotting.plot_training_trace(axes, trace, **options)
        figure.align_ylabels(axes)

    return svg("Loss, learning rate and motion over the steps", (_WIDTH, 5.4), draw, "run")


def of_connectomes(frames: Mapping[int, np.ndarray], layers: Mapping[str, int] | None) -> str:
    """Connectomes by their steps, in a row or two."""
    columns = len(frames) if len(frames) <= 3 else -(-len(frames) // 2)
    rows = -(-len(frames) // columns)

    def draw(figure: matplotlib.figure.Figure) -> None:
        axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
        for ax in axes[len(frames) :]:
            ax.set_axis_off()
        titles = [f"step {step}" for step in frames]
        plotting.plot_film(
            axes[: len(frames)], list(frames.values()), titles=titles, layers=layers, colorbar=False
        )

    return svg("Connectomes over the run", (_WIDTH, 5.5 * rows / columns), draw, "film")


def svg(
    title: str, size: tuple[float, float], draw: Callable[[matplotlib.figure.Figure], None], name: str
) -> str:
    """An inline SVG whose text and axes take the colour of the page's text.

    Args:
        title: for those who do not see it.
        size: width and height in inches.
        draw: draws on the figure that it is given.
        name: a word that no other picture of the page has.
    """
    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = dict.fromkeys(inked, _INK) | {
        "font.size": 10,
        "axes.linewidth": 0.6,
        "axes.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": name,
    }
    with matplotlib.rc_context(style):
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained", facecolor="none")
        draw(figure)
        figure.draw_without_rendering()  # the layout settles with the second drawing
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=metadata, facecolor="none")
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    # Two pictures on a page must not share the names of their parts.
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
