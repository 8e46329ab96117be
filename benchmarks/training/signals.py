"""The signals of the library by name, and one that is any of several: which one, the configuration says."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cgalr_jax import signals as library
from cgalr_jax.signals import combined

Config = dict[str, Any]


def _hybrid_by_share(config: Config) -> library.Signal:
    """The hybrid with another weight of the update in its geometric mean: `share`."""
    parts = (library.births("max", sample=16, set_point=combined.BIRTHS_SET_POINT), library.relative_update())

    def compare(before: tuple[Any, Any], after: tuple[Any, Any]) -> jax.Array:
        return library.weigh(*_in_set_points(parts, before, after), config["share"])

    return library.hybrid(*parts)._replace(compare=compare)


def _in_set_points(parts: tuple, before: tuple, after: tuple) -> list[jax.Array]:
    """The distances of several signals, each in its own set-points."""
    triples = zip(parts, before, after, strict=True)
    return [part.compare(old, new) / part.set_point for part, old, new in triples]


SIGNALS: dict[str, Callable[[Config], library.Signal]] = {
    "hybrid": lambda config: library.hybrid(),
    "hybrid by share": _hybrid_by_share,
    "relative update": lambda config: library.relative_update(),
    "births of 16": lambda config: library.births("max", sample=16),
    "frobenius": lambda config: library.frobenius(),
    "births": lambda config: library.births(),
    "births over min": lambda config: library.births("min"),
    "deaths": lambda config: library.deaths(),
    "deaths over min": lambda config: library.deaths("min"),
    "deaths of 16": lambda config: library.deaths("max", sample=16),
    "barcode": lambda config: library.barcode(),
    "barcode over min": lambda config: library.barcode("min"),
    "barcode of 16": lambda config: library.barcode("max", sample=16),
    "update norm": lambda config: library.update_norm(),
}
# Those that are compared by themselves share a compilation, which takes far longer here than the training.
SHARED = ("hybrid", "frobenius", "births", "births over min", "update norm")


def chosen(config: Config) -> library.Signal:
    """All of `SHARED` are read; the one whose number is in the configuration, `signal`, is compared."""
    parts = {name: SIGNALS[name](config) for name in SHARED}

    def read(*measured: Any) -> dict[str, Any]:
        return {name: part.read(*measured) for name, part in parts.items()}

    def compare(before: dict[str, Any], after: dict[str, Any]) -> jax.Array:
        readings = ([reading[name] for name in SHARED] for reading in (before, after))
        return jnp.stack(_in_set_points(list(parts.values()), *readings))[jnp.int32(config["signal"])]

    return library.Signal(read, compare, 1.0, reads_params=True)
