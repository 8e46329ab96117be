"""Connectome-Guided Automatic Learning Rates (CG-ALR) as an Optax gradient transformation.

The order of the computation: activations -> layers -> connectome -> (barcode) -> reading -> distance ->
controller -> scale -> updates. This package exports the names that a training script uses; the stages are in
`cgalr_jax.topology`, `cgalr_jax.signals` and `cgalr_jax.controllers`. The other modules are imported on first
use, since some have optional dependencies: `cgalr_jax.capture` needs flax, `cgalr_jax.topology.rips`
giotto-ph and SciPy, `cgalr_jax.plotting` matplotlib.
"""

from typing import TYPE_CHECKING

from cgalr_jax import _deprecated, _submodules, controllers, signals, topology
from cgalr_jax.averaging import averaged_params, polynomial_averaging
from cgalr_jax.cadence import is_measurement_step
from cgalr_jax.controllers import Controller, Measurement, calibrated, hysteresis_gate, robbins_monro_bounds
from cgalr_jax.finder import LearningRateCurve, find_learning_rate
from cgalr_jax.schedule import connectome_schedule
from cgalr_jax.signals import Signal
from cgalr_jax.state import ConnectomeState, check_checkpoint, metrics
from cgalr_jax.transform import cgalr, scale_by_connectome

if TYPE_CHECKING:
    from cgalr_jax import capture as capture
    from cgalr_jax import plotting as plotting
    from cgalr_jax import presets as presets
    from cgalr_jax import recorder as recorder
    from cgalr_jax import stopping as stopping

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

_ON_FIRST_USE = ("capture", "plotting", "presets", "recorder", "stopping")
_submodule = _submodules.on_first_use(__name__, _ON_FIRST_USE)


def __getattr__(name: str) -> object:
    """Imports a submodule; looks up names of the API before 0.1.0, with a warning."""
    return _submodule(name) if name in _ON_FIRST_USE else _deprecated.look_up("", name)


def __dir__() -> list[str]:
    return [*__all__, *_ON_FIRST_USE, "__version__"]
