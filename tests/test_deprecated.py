"""Names of the first edition: each works, and each says where it has gone."""

import importlib
import subprocess
import sys

import jax.numpy as jnp
import pytest

import cgalr_jax
from cgalr_jax import _deprecated, controllers, signals

NAMES = [(module, name) for module, names in _deprecated.MOVED.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_an_old_name_is_the_new_one_and_warns(module, name):
    if module == "rips" or "rips" in _deprecated.MOVED[module][name]:
        pytest.importorskip("scipy")
    new = _deprecated.MOVED[module][name]
    place = importlib.import_module(f"cgalr_jax.{module}".rstrip("."))
    with pytest.warns(DeprecationWarning, match=rf"is now {new}; the old name will be removed") as caught:
        old = getattr(place, name)
    assert caught[0].filename == __file__
    room, _, attribute = new.rpartition(".")
    if (module, name) != ("control", "Measurement"):
        assert old is getattr(importlib.import_module(room), attribute)


SCRIPTS = """
import sys, warnings
import jax, optax  # once; what is ours anew for each script

for script in sys.argv[1:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cgalr_jax"]:
        del sys.modules[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(script, {})
    assert any(warning.category is DeprecationWarning for warning in caught), script
"""


def test_scripts_of_the_first_edition_run():
    scripts = [
        "from cgalr_jax import signal; signal.births()",
        "import cgalr_jax.signal as signal; signal.births()",
        "from cgalr_jax.signal import births; births()",
        "import cgalr_jax; cgalr_jax.signal.births()",
        "from cgalr_jax import births, spanning_tree",
    ]
    done = subprocess.run([sys.executable, "-c", SCRIPTS, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_name_that_never_was():
    with pytest.raises(AttributeError, match="module 'cgalr_jax' has no attribute 'nothing'"):
        _ = cgalr_jax.nothing
    with pytest.raises(ImportError, match="nothing"):
        from cgalr_jax.signal import nothing  # noqa: F401


def test_a_measurement_with_a_z_score():
    with pytest.warns(DeprecationWarning, match="is now cgalr_jax.controllers.Measurement"):
        from cgalr_jax.control import Measurement
    assert Measurement(jnp.float32(1), jnp.float32(0), jnp.int32(7)) == controllers.Measurement(1.0, 7)


def test_bounds_and_window_are_arguments_of_controllers_now():
    bounds = cgalr_jax.robbins_monro_bounds(0.1, 0.5, tau=10.0)
    with pytest.warns(DeprecationWarning, match="bounds= is now controller=") as caught:
        tx = cgalr_jax.scale_by_connectome({"h": 4}, bounds=bounds, controller=cgalr_jax.hysteresis_gate())
    assert caught[0].filename == __file__
    assert tx.init({"w": jnp.ones(3)}).cg_scale == 0.5
    with pytest.warns(DeprecationWarning, match="window= is now an argument of hysteresis_gate"):
        cgalr_jax.cgalr(0.1, {"h": 4}, window=20)


def test_a_signal_with_three_arguments():
    def read(layers, params, connect):
        return {name: connect(units) for name, units in layers.items()}

    old = signals.Signal(read, signals.frobenius().compare, 0.1)
    with pytest.warns(DeprecationWarning, match=r"Signal.read is called with \(layers, params\) now"):
        tx = cgalr_jax.scale_by_connectome({"h": 4}, signal=old, every=1)
    state = tx.init({"w": jnp.ones(3)})
    for scale in (1.0, 2.0):
        acts = {"h": jnp.sin(scale * jnp.arange(32.0).reshape(8, 4) ** 2)}
        _, state = tx.update({"w": jnp.ones(3)}, state, {"w": jnp.ones(3)}, activations=acts)
    assert state.cg_measurements == 1
    assert state.cg_distance > 0


def test_a_third_argument_with_a_default_is_no_old_signal():
    def read(layers, params, power=2):
        return {name: units**power for name, units in layers.items()}

    signal = signals.Signal(read, signals.frobenius().compare, 0.1)  # a warning is an error here
    cgalr_jax.scale_by_connectome({"h": 4}, signal=signal)


@pytest.mark.parametrize("name", ["gain", "patience", "guard"])
def test_arguments_of_the_old_ramp_warn(name):
    with pytest.warns(DeprecationWarning, match=f"^{name}= has no effect any more") as caught:
        cgalr_jax.calibrated(**{name: 2})
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "make",
    [
        lambda **old: cgalr_jax.scale_by_connectome({"h": 4}, **old),
        lambda **old: cgalr_jax.cgalr(0.1, {"h": 4}, **old),
        lambda **old: cgalr_jax.connectome_schedule(0.1, {"h": 4}, **old),
    ],
)
@pytest.mark.parametrize(
    "old",
    [
        {"window": 20},
        {"bounds": cgalr_jax.robbins_monro_bounds(0.1, 0.5, tau=10.0)},
        {"signal": signals.Signal(lambda layers, params, connect: 0, lambda *_: jnp.zeros(()), 0.1)},
    ],
    ids=lambda old: next(iter(old)),
)
def test_a_warning_points_to_the_line_of_the_user(make, old):
    with pytest.warns(DeprecationWarning, match="now") as caught:
        make(**old)
    assert {warning.filename for warning in caught} == {__file__}
