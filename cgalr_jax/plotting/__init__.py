"""Pictures of a connectome, its barcode, its spanning tree, and of what the learning rate did about them.

Each function takes the Axes to draw on and returns them; none makes a figure, shows one or touches a file,
and none changes a style: sizes are relative to yours, so that the pictures stay legible at column width.
Colours are those of Okabe & Ito ("Color universal design", 2008), which the colour-blind can tell apart; the
colour map falls evenly in lightness, so that it prints in grey.
"""

from typing import Any

from cgalr_jax import _deprecated
from cgalr_jax.plotting._style import BLUE, COLOR_MAP, GREEN, GREY, ORANGE, SKY, VERMILION
from cgalr_jax.plotting.barcodes import plot_barcode, plot_betti_curve
from cgalr_jax.plotting.connectomes import plot_connectome, plot_film
from cgalr_jax.plotting.rates import plot_learning_rate_curve
from cgalr_jax.plotting.runs import plot_training_trace
from cgalr_jax.plotting.trees import plot_spanning_tree, tree_order

__all__ = [
    "BLUE",
    "COLOR_MAP",
    "GREEN",
    "GREY",
    "ORANGE",
    "SKY",
    "VERMILION",
    "plot_barcode",
    "plot_betti_curve",
    "plot_connectome",
    "plot_film",
    "plot_learning_rate_curve",
    "plot_spanning_tree",
    "plot_training_trace",
    "tree_order",
]


def __getattr__(name: str) -> Any:
    return _deprecated.look_up("plotting", name)
