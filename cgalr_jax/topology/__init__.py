"""From units to distances, in pure JAX: connectome, spanning tree, barcode, and distances between them.

Nothing here depends on an optimizer. `cgalr_jax.topology.rips` has to be imported separately: it needs
giotto-ph and SciPy.
"""

from cgalr_jax.topology.barcode import Barcode, compute_barcode
from cgalr_jax.topology.connectome import DEAD, connectome_from_moments, functional_connectome
from cgalr_jax.topology.distance import barcode_distance, frobenius_distance, top_distance
from cgalr_jax.topology.moments import Moments, gather_moments, init_moments, merge_moments, update_moments
from cgalr_jax.topology.spanning_tree import Tree, compute_births, spanning_tree

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
