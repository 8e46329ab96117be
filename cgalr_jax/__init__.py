"""Connectome-Guided Automatic Learning Rates (CG-ALR) as an Optax gradient transformation.

The way of the data: activations -> layers -> connectome -> (barcode) -> reading -> distance -> controller ->
scale -> updates. Here are the names that a training script types; the stages are in `cgalr_jax.topology`,
`cgalr_jax.signals` and `cgalr_jax.controllers`. Nothing optional is imported: `cgalr_jax.capture` needs flax,
`cgalr_jax.topology.rips` giotto-ph and SciPy, `cgalr_jax.plotting` matplotlib, and each says so.
"""

from cgalr_jax import _deprecated, controllers, signals, topology
from cgalr_jax.averaging import averaged_params, polynomial_averaging
from cgalr_jax.cadence import is_measurement_step
from cgalr_jax.controllers import Controller, Measurement, calibrated, hysteresis_gate, robbins_monro_bounds
from cgalr_jax.finder import LearningRateCurve, find_learning_rate
from cgalr_jax.schedule import connectome_schedule
from cgalr_jax.signals import Signal
from cgalr_jax.state import ConnectomeState, check_checkpoint, metrics
from cgalr_jax.transform import cgalr, scale_by_connectome

__version__ = "0.1.0"

__all__ = [
    "ConnectomeState",
    "Controller",
    "LearningRateCurve",
    "Measurement",
    "Signal",
    "averaged_params",
    "calibrated",
    "cgalr",
    "check_checkpoint",
    "connectome_schedule",
    "controllers",
    "find_learning_rate",
    "hysteresis_gate",
    "is_measurement_step",
    "metrics",
    "polynomial_averaging",
    "robbins_monro_bounds",
    "scale_by_connectome",
    "signals",
    "topology",
]


def __getattr__(name: str) -> object:
    """Names of the first edition."""
    return _deprecated.look_up("", name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
