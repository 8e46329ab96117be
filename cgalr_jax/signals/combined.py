"""Two signals combined into one."""

from typing import Any

import jax
import jax.numpy as jnp

from cgalr_jax import _checks
from cgalr_jax.layers import Layers
from cgalr_jax.signals.base import Signal, check_signal
from cgalr_jax.signals.connectome import births
from cgalr_jax.signals.update import relative_update

__all__ = ["BIRTHS_SET_POINT", "hybrid", "weigh"]

# The weight of the update in the hybrid, and the set-point of its births. Births on sub-samples change little
# until the network moves far: with this set-point the weighted mean of both does best.
_SHARE, BIRTHS_SET_POINT = 0.7, 0.75


def hybrid(connectome: Signal | None = None, update: Signal | None = None) -> Signal:
    """Connectome and update together, the default signal: `weigh` of two distances in their set-points.

    The two signals fail in different cases. The motion of the weights is misleading if they start tiny or far
    from their final size, and too small in deep networks, where small moves add up. A connectome does not
    change where units saturate. If one of the two distances stays 0 (a probe of frozen layers), the other one
    still ends the ramp of `calibrated`, at twice its set-point.

    Args:
        connectome: a signal that reads activations; default `births("max", sample=16, set_point=0.75)`.
        update: a signal that reads parameters; default `relative_update()`.

    Returns:
        A `Signal` with set-point 1; its reading is the pair of readings.

    Raises:
        ValueError: if `connectome` or `update` is no `Signal`, or the two are mixed up.

    Example:
        A matrix moves at the set-point, and the connectome stands still.

        >>> layers = Layers({"hidden": jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])})
        >>> before, after = ({"w": size * jnp.ones((64, 64)) / 8} for size in (1.0, 1.25))
        >>> signal = hybrid()
        >>> print(f"{signal.compare(signal.read(layers, before), signal.read(layers, after)):.2f}")
        0.50
    """
    if connectome is None:
        connectome = births("max", sample=16, set_point=BIRTHS_SET_POINT)
    first = check_signal("connectome", connectome)
    second = check_signal("update", relative_update() if update is None else update)
    if not first.reads_activations or second.reads_activations:
        raise ValueError(
            "connectome must be a signal that reads activations, and update one that does not; got "
            f"connectome={_checks.shown(first)}, update={_checks.shown(second)}."
        )

    def read(layers: Layers, params: Any) -> tuple[Any, Any]:
        return first.read(layers, params), second.read(layers, params)

    def compare(before: tuple[Any, Any], after: tuple[Any, Any]) -> jax.Array:
        motion, change = (
            signal.compare(old, new) / signal.set_point
            for signal, old, new in zip((first, second), before, after, strict=True)
        )
        return weigh(motion, change)

    return Signal(read, compare, 1.0, reads_params=True)


def weigh(motion: jax.Array, change: jax.Array, share: float | jax.Array = _SHARE) -> jax.Array:
    """The weighted geometric mean of two motions, and at least half of the larger one.

    `max(motion^(1 - share) change^share, motion / 2, change / 2)`

    Args:
        motion: how far the connectome moved, in its set-points; f32[], not negative.
        change: how far the parameters moved, in their set-points; f32[], not negative.
        share: the weight of `change`; in [0, 1].

    Returns:
        f32[]; infinite if one of the two is no distance: negative or not finite.

    Raises:
        ValueError: if an argument is no array of numbers, or `share` is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> [f"{weigh(jnp.float32(x), jnp.float32(1.0)):.2f}" for x in (0.0, 0.5, 1.0)]
        ['0.50', '0.81', '1.00']
    """
    motion, change = (
        jnp.asarray(_checks.real_array(name, value), jnp.float32)
        for name, value in (("motion", motion), ("change", change))
    )
    share = _checks.check("share", share, lambda x: 0 <= x <= 1, "in [0, 1]")
    measured = jnp.isfinite(motion) & jnp.isfinite(change) & (jnp.minimum(motion, change) >= 0)
    motion, change = (jnp.where(measured, x, 1.0) for x in (motion, change))
    mean = motion ** (1 - share) * change**share  # two powers: a power of the product could underflow
    return jnp.where(measured, jnp.maximum(mean, jnp.maximum(motion, change) / 2), jnp.inf)
