"""Layers and parameters -> distance: how far a network moved, and which distance is fast enough.

A `Signal` is read once per measurement, twice if that is paired. The reading stays in the state until the
next measurement, which compares the two. Each signal has its own unit of distance. Its `set_point` is the
distance that is fast enough: distances are divided by it, so that 1 means 'as fast as it should be' for every
signal.
`cgalr_jax.signals.rips` is imported on first use: it needs giotto-ph and SciPy.
"""

from typing import TYPE_CHECKING

from cgalr_jax import _submodules
from cgalr_jax.signals.base import Over, Signal, from_connectomes
from cgalr_jax.signals.combined import hybrid, weigh
from cgalr_jax.signals.connectome import barcode, births, deaths, frobenius
from cgalr_jax.signals.share import largest_share
from cgalr_jax.signals.update import relative_update, update_norm

_ON_FIRST_USE = ("rips",)
if TYPE_CHECKING:
    from cgalr_jax.signals import rips as rips
else:  # a type checker would take any name for one that this knows
    __getattr__ = _submodules.on_first_use(__name__, _ON_FIRST_USE)

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


def __dir__() -> list[str]:
    return [*__all__, *_ON_FIRST_USE]
