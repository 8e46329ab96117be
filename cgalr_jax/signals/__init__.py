"""Layers and parameters -> distance: how far a network moved, and which distance is fast enough.

A `Signal` is read once per measurement. The reading stays in the state until the next measurement, which
compares the two readings. Each signal has its own unit of distance. Its `set_point` is the distance that is
fast enough: distances are divided by it, so that 1 means 'as fast as it should be' for every signal.
"""

from cgalr_jax.signals.base import Over, Signal, from_connectomes
from cgalr_jax.signals.combined import hybrid, weigh
from cgalr_jax.signals.connectome import barcode, births, deaths, frobenius
from cgalr_jax.signals.update import largest_share, relative_update, update_norm

__all__ = [
    "Over",
    "Signal",
    "barcode",
    "births",
    "deaths",
    "frobenius",
    "from_connectomes",
    "hybrid",
    "largest_share",
    "relative_update",
    "update_norm",
    "weigh",
]
