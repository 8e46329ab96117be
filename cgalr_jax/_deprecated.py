"""Names of the first edition: they work for one release, and say where they have gone.

One table, old place to new. Modules that are gone can still be imported; their names warn when they are used.
"""

import importlib
import sys
import types
import warnings
from typing import Any

_TOPOLOGY = "cgalr_jax.topology"
_SIGNALS = "cgalr_jax.signals"
_CONTROLLERS = "cgalr_jax.controllers"


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
        "CalibrationState": f"{_CONTROLLERS}.calibrated.CalibrationState",
        "GateState": f"{_CONTROLLERS}.gate.GateState",
        "Measurement": f"{_CONTROLLERS}.Measurement",
    },
}


def look_up(module: str, name: str) -> Any:
    """What an old name stands for, with a DeprecationWarning that names the new place."""
    if not module and name in MOVED:
        return sys.modules[f"cgalr_jax.{name}"]
    new = MOVED[module].get(name)
    old = ".".join(filter(None, ("cgalr_jax", module, name)))
    if new is None:
        raise AttributeError(
            f"module {'.'.join(filter(None, ('cgalr_jax', module)))!r} has no attribute {name!r}"
        )
    warnings.warn(f"{old} is now {new}, and will go with the next release.", DeprecationWarning, stacklevel=3)
    if (module, name) == ("control", "Measurement"):
        return _measurement_with_z
    room, _, attribute = new.rpartition(".")
    return getattr(importlib.import_module(room), attribute)


def moved_arguments(controller: Any, bounds: Any, window: Any) -> Any:
    """The controller, with the arguments that were the transformation's and are now a controller's."""
    if window is not None:
        warnings.warn(
            "window= is now an argument of hysteresis_gate(window=...), the only user of it; here it has no "
            "effect, and will go with the next release.",
            DeprecationWarning,
            stacklevel=3,
        )
    if bounds is None:
        return controller
    warnings.warn(
        "bounds= is now controller=cgalr_jax.controllers.envelope(controller, bounds), and will go with the "
        "next release.",
        DeprecationWarning,
        stacklevel=3,
    )
    from cgalr_jax import controllers

    return controllers.envelope(controllers.calibrated() if controller is None else controller, bounds)


def _measurement_with_z(distance: Any, z: Any, step: Any) -> Any:
    """The `Measurement` of the first edition; its z-score is computed by the gate itself now."""
    from cgalr_jax.controllers import Measurement

    del z
    return Measurement(distance, step)


class _Moved(types.ModuleType):
    """A module that is gone."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return look_up(self.__name__.removeprefix("cgalr_jax."), name)


for _module in filter(None, MOVED):
    sys.modules.setdefault(
        f"cgalr_jax.{_module}", _Moved(f"cgalr_jax.{_module}", "Gone: see cgalr_jax._deprecated.")
    )
