"""Names of the API before 0.1.0: they work for one release, with a warning that names the new place.

One table maps old places to new ones. Modules that were removed can still be imported; each use of an old
name warns.
"""

import importlib
import sys
import types
from typing import Any

from cgalr_jax._warnings import warn_deprecated

_TOPOLOGY = "cgalr_jax.topology"
_SIGNALS = "cgalr_jax.signals"
_CONTROLLERS = "cgalr_jax.controllers"
_PLOTTING = "cgalr_jax.plotting"


def _same(module: str, names: str) -> dict[str, str]:
    return {name: f"{module}.{name}" for name in names.split()}


_MOMENTS = "Moments connectome_from_moments functional_connectome init_moments merge_moments update_moments"

# {old module: {old name: new place}}; "" is the package itself.
MOVED: dict[str, dict[str, str]] = {
    "": {
        **_same(_TOPOLOGY, f"{_MOMENTS} Barcode frobenius_distance spanning_tree top_distance"),
        "barcode": f"{_TOPOLOGY}.compute_barcode",
        "births": f"{_TOPOLOGY}.compute_births",
    },
    "connectome": {
        **_same(_TOPOLOGY, f"{_MOMENTS} gather_moments DEAD"),
        "layer_units": "cgalr_jax.layers.layer_units",
    },
    "persistence": {
        **_same(_TOPOLOGY, "Barcode Tree spanning_tree"),
        "barcode": f"{_TOPOLOGY}.compute_barcode",
        "births": f"{_TOPOLOGY}.compute_births",
    },
    "distance": _same(_TOPOLOGY, "barcode_distance frobenius_distance top_distance"),
    "rips": {
        **_same(f"{_TOPOLOGY}.rips", "vietoris_rips wasserstein_distance"),
        "wasserstein": f"{_TOPOLOGY}.rips.diagram_distance",
        "wasserstein_signal": f"{_SIGNALS}.rips.wasserstein",
    },
    "signal": _same(
        _SIGNALS, "Over Signal barcode births deaths from_connectomes frobenius hybrid update_norm weigh"
    ),
    "control": {
        **_same(
            _CONTROLLERS,
            "ANNEALING CALIBRATING FAST HOLD SLOW Controller calibrated hysteresis_gate robbins_monro_bounds "
            "robust_z_score schmitt_trigger",
        ),
        "CalibrationState": f"{_CONTROLLERS}.calibration.CalibrationState",
        "GateState": f"{_CONTROLLERS}.gate.GateState",
        "Measurement": f"{_CONTROLLERS}.Measurement",
    },
    # Names that other functions have, too. No file of that folder may be called so: it would hide the name.
    "plotting": {
        name: f"{_PLOTTING}.plot_{name}"
        for name in ("barcode", "betti_curve", "connectome", "film", "spanning_tree", "training_trace")
    },
}
_REMOVED = ("connectome", "persistence", "distance", "rips", "signal", "control")


def look_up(module: str, name: str) -> Any:
    """The object that an old name stands for, with a DeprecationWarning that names its new place."""
    if not module and name in _REMOVED:
        return sys.modules[f"cgalr_jax.{name}"]
    new = MOVED[module].get(name)
    old = ".".join(filter(None, ("cgalr_jax", module, name)))
    if new is None:
        raise AttributeError(
            f"module {'.'.join(filter(None, ('cgalr_jax', module)))!r} has no attribute {name!r}"
        )
    warn_deprecated(
        f"{old} is now {new}; the old name will be removed in the next release.",
    )
    if (module, name) == ("control", "Measurement"):
        return _measurement_with_z
    room, _, attribute = new.rpartition(".")
    return getattr(importlib.import_module(room), attribute)


def moved_arguments(controller: Any, bounds: Any, window: Any) -> Any:
    """The controller, after the transformation's old arguments `bounds` and `window` were applied to it."""
    if window is not None:
        warn_deprecated(
            "window= is now an argument of hysteresis_gate(window=...), its only user; here it has no "
            "effect, and will be removed in the next release.",
        )
    if bounds is None:
        return controller
    warn_deprecated(
        "bounds= is now controller=cgalr_jax.controllers.envelope(controller, bounds); the argument will be "
        "removed in the next release.",
    )
    from cgalr_jax import controllers

    return controllers.envelope(controllers.calibrated() if controller is None else controller, bounds)


def _measurement_with_z(distance: Any, z: Any, step: Any) -> Any:
    """The `Measurement` of the API before 0.1.0; the gate now computes the z-score itself."""
    from cgalr_jax.controllers import Measurement

    del z
    return Measurement(distance, step)


class _Moved(types.ModuleType):
    """A module that was removed: its names are looked up in the table."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return look_up(self.__name__.removeprefix("cgalr_jax."), name)


for _module in _REMOVED:
    sys.modules.setdefault(
        f"cgalr_jax.{_module}", _Moved(f"cgalr_jax.{_module}", "Removed: see cgalr_jax._deprecated.")
    )
