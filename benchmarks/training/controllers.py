"""Controllers written as a user would write them, on the public `Controller`, by name.

The library's own with its numbers open for tuning; and the controls that tell what the feedback is worth: a
gate that listens to noise or does the opposite, a calibration on noise, another seed's scales replayed.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cgalr_jax import controllers as library

Config = dict[str, Any]
_TUNED = ("target", "start")
RAMPS = (7, 15, 30, 60)  # steps of one, for the experiment on its length


def calibrated(config: Config, key: jax.Array) -> library.Controller:
    """The library's default, with the shape of the schedule."""
    del key
    table = config["shape"]
    return library.calibrated(lambda step: table[step], **_numbers(config))


def of_known_length(config: Config, key: jax.Array, ramp: int | None = None) -> library.Controller:
    """The same, with the length of the run: it measures each step of its ramp, of at most 60 or as given."""
    del key
    table = config["shape"]
    steps = len(table) if ramp is None else 3 * ramp  # a ramp is a third of a short run
    return library.calibrated(lambda step: table[step], steps=steps, **_numbers(config))


def anytime(config: Config, key: jax.Array) -> library.Controller:
    """The library's default for an unknown horizon: no schedule to follow."""
    del key
    return library.calibrated(**_numbers(config))


def _numbers(config: Config) -> dict[str, Any]:
    return {name: config[name] for name in _TUNED if name in config}


def gate(config: Config, key: jax.Array) -> library.Controller:
    """The paper's gate, or a control: see `listening`."""
    return listening(library.hysteresis_gate(), config["listen"], key)


def listening(shipped: library.Controller, listen: jax.Array, key: jax.Array) -> library.Controller:
    """A gate that hears the distance (`listen` 1), its inverse (-1: the opposite z), or noise (0)."""

    def update(measurement: library.Measurement, state: Any) -> tuple[jax.Array, Any]:
        noise = jnp.exp(jax.random.normal(jax.random.fold_in(key, measurement.step)))
        distance = jnp.where(listen < 0, 1 / measurement.distance, measurement.distance)
        return shipped.update(measurement._replace(distance=jnp.where(listen == 0, noise, distance)), state)

    return shipped._replace(update=update)


def random_distance(config: Config, key: jax.Array) -> library.Controller:
    """`calibrated` on lognormal noise around the set-point."""
    shipped = calibrated(config, key)

    def update(measurement: library.Measurement, state: Any) -> tuple[jax.Array, Any]:
        noise = jax.random.normal(jax.random.fold_in(key, measurement.step))
        return shipped.update(measurement._replace(distance=jnp.exp(0.25 * noise)), state)

    return shipped._replace(update=update)


def replay(config: Config, key: jax.Array) -> library.Controller:
    """The scales another seed's run was given, whatever this run measures: `replayed`, f32[steps]."""
    del key

    def init() -> tuple[jax.Array, jax.Array]:
        return config["replayed"][0], jnp.zeros(())

    def update(measurement: library.Measurement, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        return config["replayed"][measurement.step], state

    return library.Controller(init, update)


CONTROLLERS: dict[str, Callable[[Config, jax.Array], library.Controller]] = {
    "calibrated": calibrated,
    "of known length": of_known_length,
    **{f"ramp of {steps}": functools.partial(of_known_length, ramp=steps) for steps in RAMPS},
    "anytime": anytime,
    "gate": gate,
    "random distance": random_distance,
    "replay": replay,
}
# Those that are compared by themselves share a compilation, as the signals do.
SHARED = ("calibrated", "anytime", "gate", "random distance")


class _Heard(NamedTuple):
    """The states of several controllers, of which one is heard."""

    number: jax.Array  # i32[], which
    states: tuple

    @property
    def calibrating(self) -> jax.Array:
        """bool[], whether the one that is heard is calibrating."""
        each = [jnp.asarray(getattr(state, "calibrating", False)) for state in self.states]
        return jnp.stack(each)[self.number]


def chosen(config: Config, key: jax.Array) -> library.Controller:
    """All of `SHARED` run; the one whose number is in the configuration, `controller`, is heard."""
    parts = [CONTROLLERS[name](config, key) for name in SHARED]

    def init() -> tuple[jax.Array, _Heard]:
        return heard([part.init() for part in parts])

    def update(measurement: library.Measurement, state: _Heard) -> tuple[jax.Array, _Heard]:
        return heard([part.update(measurement, own) for part, own in zip(parts, state.states, strict=True)])

    def heard(pairs: list[tuple[jax.Array, Any]]) -> tuple[jax.Array, _Heard]:
        scales, states = zip(*pairs, strict=True)
        number = jnp.int32(config["controller"])
        return jnp.stack(scales)[number], _Heard(number, states)

    return library.Controller(init, update, max(part.early for part in parts))
