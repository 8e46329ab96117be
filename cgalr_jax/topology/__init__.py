"""From units to distances, in pure JAX: connectome, spanning tree, barcode, and distances between them.

Nothing here depends on an optimizer. `cgalr_jax.topology.rips` is imported on first use: it needs giotto-ph
and SciPy.
"""

from typing import TYPE_CHECKING

from cgalr_jax import _submodules
from cgalr_jax.topology.barcode import Barcode, compute_barcode
from cgalr_jax.topology.connectome import DEAD, connectome_from_moments, functional_connectome
from cgalr_jax.topology.distance import barcode_distance, frobenius_distance, top_distance
from cgalr_jax.topology.moments import Moments, gather_moments, init_moments, merge_moments, update_moments
from cgalr_jax.topology.spanning_tree import Tree, compute_births, spanning_tree

_ON_FIRST_USE = ("rips",)
if TYPE_CHECKING:
    from cgalr_jax.topology import rips as rips
else:  # a type checker would take any name for one that this knows
    __getattr__ = _submodules.on_first_use(__name__, _ON_FIRST_USE)

__all__ = [
    "DEAD",
    "Barcode",
    "Moments",
    "Tree",
    "barcode_distance",
    "compute_barcode",
    "compute_births",
    "connectome_from_moments",
    "frobenius_distance",
    "functional_connectome",
    "gather_moments",
    "init_moments",
    "merge_moments",
    "spanning_tree",
    "top_distance",
    "update_moments",
]


def __dir__() -> list[str]:
    return [*__all__, *_ON_FIRST_USE]
