"""Connectome-Guided Automatic Learning Rates (CG-ALR) as an Optax gradient transformation.

The way of the data: activations -> units -> moments -> connectome -> barcode -> distance -> controller ->
scale -> updates. Nothing optional is imported here: `cgalr_jax.capture` needs flax, `cgalr_jax.rips`
giotto-ph and SciPy, `cgalr_jax.plotting` matplotlib, and each says so.
"""

from cgalr_jax.averaging import averaged_params, polynomial_averaging
from cgalr_jax.control import (
    Controller,
    Measurement,
    calibrated,
    hysteresis_gate,
    robbins_monro_bounds,
)
from cgalr_jax.finder import LearningRateCurve, find_learning_rate
from cgalr_jax.inputs import check_checkpoint
from cgalr_jax.schedule import connectome_schedule
from cgalr_jax.signal import Signal
from cgalr_jax.topology import (
    Barcode,
    Moments,
    connectome_from_moments,
    frobenius_distance,
    functional_connectome,
    init_moments,
    merge_moments,
    spanning_tree,
    top_distance,
    update_moments,
)
from cgalr_jax.topology import compute_barcode as barcode
from cgalr_jax.topology import compute_births as births
from cgalr_jax.transform import (
    ConnectomeState,
    cgalr,
    metrics,
    scale_by_connectome,
)

__version__ = "0.1.0"

__all__ = [
    "Barcode",
    "ConnectomeState",
    "Controller",
    "LearningRateCurve",
    "Measurement",
    "Moments",
    "Signal",
    "averaged_params",
    "barcode",
    "births",
    "calibrated",
    "cgalr",
    "check_checkpoint",
    "connectome_from_moments",
    "connectome_schedule",
    "find_learning_rate",
    "frobenius_distance",
    "functional_connectome",
    "hysteresis_gate",
    "init_moments",
    "merge_moments",
    "metrics",
    "polynomial_averaging",
    "robbins_monro_bounds",
    "scale_by_connectome",
    "spanning_tree",
    "top_distance",
    "update_moments",
]
