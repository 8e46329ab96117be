"""The paper's controller: slow down while the organisation is unstable, speed up when it is stable."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cgalr_jax import _checks
from cgalr_jax._counting import one_more
from cgalr_jax.controllers._ring import ring_median
from cgalr_jax.controllers.base import Controller, Measurement

__all__ = ["FAST", "HOLD", "SLOW", "GateState", "hysteresis_gate", "robust_z_score", "schmitt_trigger"]

# The modes of the Schmitt trigger. Plain numbers, so that they can be logged.
FAST, HOLD, SLOW = -1, 0, 1

# 1 / Phi^-1(3/4): for normal numbers, the median absolute deviation times this is the standard deviation.
_MAD_TO_DEVIATION = 1.4826
# A distance of at most this many set-points is none: the network stands still.
_SMALLEST_DISTANCE = 1e-8


def robust_z_score(
    value: jax.Array, history: jax.Array, count: jax.Array, *, min_count: int = 5
) -> jax.Array:
    """How unusual a value is among earlier ones, by median and median absolute deviation (MAD).

    `z = (value - median) / (1.4826 MAD + 1e-3 |median| + 1e-6)`, clipped to [-10, 10]. The two small terms
    keep z finite if all values of the history are equal (MAD = 0).

    Args:
        value: f32[], finite.
        history: f32[W], a ring buffer of earlier values; the first `min(count, W)` entries are valid.
        count: i32[], how many values were ever written to the ring.
        min_count: with fewer values than this, z = 0, and with none at all; at least 0.

    Returns:
        f32[], in [-10, 10].

    Raises:
        ValueError: if `value` or `count` is no real number, `history` is empty or not a row of real numbers,
            or `min_count` is no integer of at least 0.

    Example:
        >>> import jax.numpy as jnp
        >>> history = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> print(f"{robust_z_score(jnp.float32(6.0), history, jnp.int32(5)):.2f}")
        2.02
    """
    value = jnp.asarray(_checks.real_scalar("value", value), jnp.float32)
    ring = jnp.asarray(_checks.real_array("history", history), jnp.float32)
    if ring.ndim != 1 or ring.size == 0:
        raise ValueError(f"history must be f32[W] with W at least 1, got {_checks.shown(history)}.")
    count = jnp.asarray(_checks.real_scalar("count", count), jnp.int32)
    min_count = _checks.check_integer("min_count", min_count, 0)
    median = ring_median(ring, count)
    deviation = ring_median(jnp.abs(ring - median), count)
    spread = _MAD_TO_DEVIATION * deviation + 1e-3 * jnp.abs(median) + 1e-6
    return jnp.where(count >= max(min_count, 1), jnp.clip((value - median) / spread, -10.0, 10.0), 0.0)


def schmitt_trigger(mode: jax.Array, z: jax.Array, *, enter: float, leave: float) -> jax.Array:
    """A gate with hysteresis: the threshold to enter a mode is higher than the one to stay in it.

    ```
          z > enter                  z < -enter
    HOLD ------------> SLOW    HOLD ------------> FAST
         <------------              <------------
          z <= leave                 z >= -leave
    ```

    SLOW: the connectome changes faster than it used to. FAST: it changes more slowly than it used to. A z
    beyond the opposite threshold changes SLOW to FAST, or FAST to SLOW, at once.

    Args:
        mode: i32[], FAST (-1), HOLD (0) or SLOW (1).
        z: f32[], finite.
        enter: SLOW is entered above this threshold, FAST below its negative; positive.
        leave: SLOW is left at this threshold or below, FAST at its negative or above; in [0, enter].

    Returns:
        i32[], the next mode.

    Raises:
        ValueError: if `mode` or `z` is no real number, or a threshold is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> mode = jnp.int32(HOLD)
        >>> for z in (0.5, 1.5, 0.5, -0.5):
        ...     mode = schmitt_trigger(mode, jnp.float32(z), enter=1.0, leave=0.0)
        ...     print(int(mode), end=" ")
        0 1 1 0
    """
    mode = jnp.asarray(_checks.real_scalar("mode", mode), jnp.int32)
    z = jnp.asarray(_checks.real_scalar("z", z), jnp.float32)
    enter = _checks.check_positive("enter", enter)
    leave = _checks.check("leave", leave, lambda x: 0 <= x <= enter, f"in [0, enter] = [0, {enter}]")
    left = jnp.where(mode == SLOW, z <= leave, z >= -leave)
    mode = jnp.where(left, HOLD, mode)
    return jnp.where(z > enter, SLOW, jnp.where(z < -enter, FAST, mode)).astype(jnp.int32)


class GateState(NamedTuple):
    """State of `hysteresis_gate`."""

    scale: jax.Array  # f32[]
    phase: jax.Array  # i32[], FAST, HOLD or SLOW
    z: jax.Array  # f32[], of the last distance
    history: jax.Array  # f32[window], ring of the logarithms of distances
    measurements: jax.Array  # i32[], how many distances were ever written to it


def hysteresis_gate(
    *,
    enter: float = 1.0,
    leave: float = 0.0,
    up: float = 1.1,
    down: float = 0.8,
    floor: float = 0.1,
    ceiling: float = 10.0,
    window: int = 10,
) -> Controller:
    """The paper's controller, a gate with hysteresis on the z-score of the distance.

    Each measurement multiplies the scale by `down` in the mode SLOW, by `up` in the mode FAST and by 1 in
    HOLD. The mode comes from `schmitt_trigger`; its z is the `robust_z_score` of the logarithm of the
    distance among the last `window` ones. With the paper's envelope:
    `envelope(hysteresis_gate(), robbins_monro_bounds(...))`.

    A gate compares distances with earlier ones only, and so cannot find out that a rate is 100 times wrong:
    choose the base rate as you would without the gate, or use `calibrated`.

    Special cases: before five measurements, or if the connectome does not move at all, z = 0 and the scale
    is held; a distance without motion does not join the others. A distance that is not finite multiplies the
    scale by `down` and sets the mode to HOLD.

    Args:
        enter: |z| above which the mode changes to SLOW or FAST; positive. Higher values react less often.
        leave: |z| at or below which the mode changes back to HOLD; in [0, enter].
        up: factor per measurement in FAST; at least 1.
        down: factor per measurement in SLOW; in (0, 1].
        floor: smallest scale; in (0, 1].
        ceiling: largest scale; at least 1.
        window: how many earlier distances a new one is compared with; at least 5.

    Returns:
        A `Controller` whose scale starts at 1 and stays in [floor, ceiling].

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> gate = hysteresis_gate()
        >>> scale, state = gate.init()
        >>> for distance in (1.0, 1.1, 0.9, 1.0, 1.05, 0.5):  # the last is much smaller than the others
        ...     scale, state = gate.update(Measurement(jnp.float32(distance), jnp.int32(0)), state)
        >>> print(f"{scale:.2f}")
        1.10
    """
    enter = _checks.check_positive("enter", enter)
    leave = _checks.check("leave", leave, lambda x: 0 <= x <= enter, f"in [0, enter] = [0, {enter}]")
    up = _checks.check("up", up, lambda x: 1 <= x < math.inf, "at least 1 and finite")
    down = _checks.check("down", down, lambda x: 0 < x <= 1, "in (0, 1]")
    floor = _checks.check("floor", floor, lambda x: 0 < x <= 1, "in (0, 1]")
    ceiling = _checks.check("ceiling", ceiling, lambda x: 1 <= x < math.inf, "at least 1 and finite")
    window = _checks.check_integer("window", window, 5)

    def init() -> tuple[jax.Array, GateState]:
        state = GateState(
            scale=jnp.ones((), jnp.float32),
            phase=jnp.zeros((), jnp.int32),
            z=jnp.zeros((), jnp.float32),
            history=jnp.zeros((window,), jnp.float32),
            measurements=jnp.zeros((), jnp.int32),
        )
        return jnp.ones((), jnp.float32), state

    def update(measurement: Measurement, state: GateState) -> tuple[jax.Array, GateState]:
        # 1. The z-score of the distance; 0 if the distance could not be measured, or nothing moved: a network
        #    that stands still, whose updates are skipped for instance, says nothing of a rate.
        finite = jnp.isfinite(measurement.distance)
        moved = finite & (measurement.distance > _SMALLEST_DISTANCE)
        logarithm = jnp.log(jnp.where(moved, measurement.distance, 1.0))
        z = robust_z_score(logarithm, state.history, state.measurements)
        z = jnp.where(moved, z, 0.0)
        # 2. The mode, and from it the scale.
        mode = schmitt_trigger(state.phase, z, enter=enter, leave=leave)
        mode = jnp.where(moved, mode, HOLD)
        factor = jnp.where(mode == SLOW, down, jnp.where(mode == FAST, up, 1.0))
        factor = jnp.where(finite, factor, down)
        scale = jnp.clip(state.scale * factor, floor, ceiling)
        # 3. The distance joins the history.
        pushed = state.history.at[state.measurements % window].set(logarithm)
        state = GateState(
            scale=scale.astype(jnp.float32),
            phase=mode.astype(jnp.int32),
            z=z.astype(jnp.float32),
            history=jnp.where(moved, pushed, state.history),
            measurements=one_more(moved, state.measurements, window),
        )
        return state.scale, state

    return Controller(init, update)
