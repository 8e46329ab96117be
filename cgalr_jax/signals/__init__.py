"""Layers, parameters, updates -> distance: what says how far a network moved, and how much of it is fast.

A `Signal` is read once per measurement. Its reading stays in the state until the next one, when the two are
compared. Each signal answers in its own unit; `set_point` says how much of it is the calibrated speed, so
that a controller sees 1 for 'moving as fast as it should' whichever signal it listens to.
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
