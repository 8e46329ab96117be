"""Connectome-Guided Automatic Learning Rates (CG-ALR) as an Optax gradient transformation.

The order of the computation: activations -> layers -> connectome -> (barcode) -> reading -> distance ->
controller -> scale -> updates. This package exports the names that a training script uses; the stages are in
`cgalr_jax.topology`, `cgalr_jax.signals` and `cgalr_jax.controllers`. Modules with optional dependencies are
imported separately: `cgalr_jax.capture` needs flax, `cgalr_jax.topology.rips` giotto-ph and SciPy,
`cgalr_jax.plotting` matplotlib.
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
    """Looks up names of the API before 0.1.0, with a warning."""
    return _deprecated.look_up("", name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
