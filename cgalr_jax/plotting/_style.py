"""Colours and sizes that the pictures share."""

import matplotlib.colors
from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, VERMILION, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#777777"
# The places of the colours make lightness fall evenly.
COLOR_MAP = matplotlib.colors.LinearSegmentedColormap.from_list(
    "connectome", [(0.0, "white"), (0.3, SKY), (0.54, BLUE), (1.0, "black")]
)
SMALL = "small"  # relative to the size of your letters


def clean(ax: Axes) -> Axes:
    """Without the lines above and to the right."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax
