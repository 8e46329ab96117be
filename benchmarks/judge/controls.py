"""Laws and signals written as a user would write them, on the public `Controller` and `Signal`.

The calibrated law as the library ships it, with its numbers open for tuning; and the controls that tell what
the feedback is
worth: a gate that listens to noise or does the opposite, a calibration on noise, another seed's scales
replayed.
"""

from typing import Any

import jax
import jax.numpy as jnp

import cgalr_jax
from cgalr_jax import control
from cgalr_jax import signal as signals

Config = dict[str, Any]
SIGNALS = ("hybrid", "frobenius", "births", "births over min", "update norm")
LAWS = ("calibrated", "anytime", "gate", "random distance")
_TUNED = ("target", "start", "gain", "patience", "guard")


def signal(name: str, config: Config) -> signals.Signal:
    """A signal by name; `set_point` and `update_set_point` in the configuration replace its own."""
    first, _, over = name.partition(" over ")
    if first == "hybrid":
        made = signals.hybrid(
            signal("frobenius", config), _set(signals.update_norm(), config, "update_set_point")
        )
        return _share(made, config["share"]) if "share" in config else made
    makers = {
        "births": signals.births,
        "deaths": signals.deaths,
        "barcode": signals.barcode,
        "frobenius": signals.frobenius,
        "update norm": signals.update_norm,
    }
    made = makers[first](over) if over else makers[first]()
    return _set(made, config, "set_point")


def _set(made: signals.Signal, config: Config, key: str) -> signals.Signal:
    return made._replace(set_point=config[key]) if key in config else made


def _share(hybrid: signals.Signal, share: jax.Array) -> signals.Signal:
    """The hybrid with another weight of the update norm in its geometric mean."""
    parts = signals.frobenius(), signals.update_norm()

    def compare(before: tuple[Any, Any], after: tuple[Any, Any]) -> jax.Array:
        motion, update = (
            part.compare(old, new) / part.set_point
            for part, old, new in zip(parts, before, after, strict=True)
        )
        return signals.weigh(motion, update, share)

    return hybrid._replace(compare=compare)


def chosen_signal(config: Config) -> signals.Signal:
    """The library's signals, all read, the one whose number in `SIGNALS` is in the configuration compared.

    So they share one compilation, which takes far longer here than the training.
    """
    parts = {"hybrid": signals.hybrid()} | {name: signal(name, {}) for name in SIGNALS[1:]}

    def read(*measured: Any) -> dict[str, Any]:
        readings = {name: parts[name].read(*measured) for name in SIGNALS[1:]}
        return readings | {"hybrid": (readings["frobenius"], readings["update norm"])}

    def compare(before: dict[str, Any], after: dict[str, Any]) -> jax.Array:
        distances = [
            parts[name].compare(before[name], after[name]) / parts[name].set_point for name in SIGNALS
        ]
        return jnp.stack(distances)[jnp.int32(config["signal"])]

    return signals.Signal(read, compare, 1.0, reads_params=True)


def chosen_law(config: Config, key: jax.Array) -> cgalr_jax.Controller:
    """All laws run side by side, the one whose number in `LAWS` is in the configuration is heard."""
    laws = [make(config, key) for make in (calibrated, anytime, gate, random_distance)]

    def init() -> tuple[jax.Array, tuple]:
        scales, states = zip(*(law.init() for law in laws), strict=True)
        return jnp.stack(scales)[jnp.int32(config["law"])], states

    def update(measurement: control.Measurement, states: tuple) -> tuple[jax.Array, tuple]:
        pairs = [law.update(measurement, state) for law, state in zip(laws, states, strict=True)]
        scales, states = zip(*pairs, strict=True)
        return jnp.stack(scales)[jnp.int32(config["law"])], states

    return control.Controller(init, update)


def calibrated(config: Config, key: jax.Array) -> cgalr_jax.Controller:
    """The library's default law, told the shape of the schedule."""
    del key
    table = config["shape"]
    return control.calibrated(lambda step: table[step], **_numbers(config))


def anytime(config: Config, key: jax.Array) -> cgalr_jax.Controller:
    """The library's law for an unknown horizon: no schedule to follow."""
    del key
    return control.calibrated(**_numbers(config))


def _numbers(config: Config) -> dict[str, Any]:
    return {name: config[name] for name in _TUNED if name in config}


def anneal_by_noise(config: Config, key: jax.Array) -> cgalr_jax.Controller:
    """Unknown horizon without a decay: calibrate, hold the anchor, cut it whenever the motion is noise.

    A network that still learns moves less and less at the same rate. Where five measurements are not a
    twentieth below the five before them, on the mean of their logarithms, the scale is multiplied by ``cut``.
    """
    del key
    law = control.calibrated(lambda step: jnp.ones(()), **_numbers(config))

    def init() -> tuple[jax.Array, tuple]:
        scale, state = law.init()
        return scale, (state, jnp.ones(()), jnp.full((), jnp.inf), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def update(measurement: control.Measurement, held: tuple) -> tuple[jax.Array, tuple]:
        state, left, before, total, seen = held
        calibrating = state.phase == control.CALIBRATING
        scale, after = law.update(measurement, state)
        state = jax.tree.map(lambda new, old: jnp.where(calibrating, new, old), after, state)
        scale = jnp.where(state.phase == control.CALIBRATING, scale, state.anchor)
        total, seen = total + jnp.log(jnp.maximum(measurement.distance, 1e-8)), seen + 1
        look = ~calibrating & (seen == 5)
        noise = look & (before - total / 5 < 0.05)
        left = jnp.where(noise, config["cut"] * left, left)
        # What the cut takes from the motion is no sign of learning.
        expected = total / 5 + jnp.where(noise, jnp.log(config["cut"]), 0.0)
        before = jnp.where(look, expected, before)
        again = look | calibrating
        return scale * left, (state, left, before, jnp.where(again, 0.0, total), jnp.where(again, 0, seen))

    return control.Controller(init, update)


def endless(config: Config, key: jax.Array) -> cgalr_jax.Controller:
    """`calibrated`, its ramp ended by a hit or by the peak guard alone: what the end by time is worth."""
    law = calibrated(config, key)

    def update(measurement: control.Measurement, state: Any) -> tuple[jax.Array, Any]:
        return law.update(measurement, state._replace(close=jnp.zeros_like(state.close)))

    return control.Controller(law.init, update)


def gate(config: Config, key: jax.Array) -> cgalr_jax.Controller:
    """The paper's gate; `listen` 1 hears z, -1 the opposite of z, 0 normal noise instead."""
    law = control.hysteresis_gate()

    def update(measurement: control.Measurement, state: Any) -> tuple[jax.Array, Any]:
        noise = jax.random.normal(jax.random.fold_in(key, measurement.step))
        heard = jnp.where(config["listen"] == 0, noise, config["listen"] * measurement.z)
        return law.update(measurement._replace(z=heard), state)

    return control.Controller(law.init, update)


def random_distance(config: Config, key: jax.Array) -> cgalr_jax.Controller:
    """The calibrated law on lognormal noise around the set-point."""
    law = calibrated(config, key)

    def update(measurement: control.Measurement, state: Any) -> tuple[jax.Array, Any]:
        noise = jax.random.normal(jax.random.fold_in(key, measurement.step))
        return law.update(measurement._replace(distance=jnp.exp(0.25 * noise)), state)

    return control.Controller(law.init, update)


def replay(config: Config, key: jax.Array) -> cgalr_jax.Controller:
    """The scales another seed's run was given, whatever this run measures: `replayed`, f32[steps]."""
    del key

    def init() -> tuple[jax.Array, jax.Array]:
        return config["replayed"][0], jnp.zeros(())

    def update(measurement: control.Measurement, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        return config["replayed"][measurement.step], state

    return control.Controller(init, update)
