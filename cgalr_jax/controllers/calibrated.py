"""Our controller: a ramp up to the scale at which the network moves at its set-point, then annealing."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cgalr_jax import _checks
from cgalr_jax.controllers.base import Controller, Measurement

__all__ = ["ANNEALING", "CALIBRATING", "CalibrationState", "anneal", "calibrated", "ramp"]

# What it can be doing. Plain numbers, so that they can be logged.
CALIBRATING, ANNEALING = 0, 1

# A distance below this many targets counts as this many: the logarithm of an exact zero is not a number.
_SMALLEST_DISTANCE = 1e-8
# Below the logarithm of every possible distance: the state of a calibration before its first measurement.
_NO_RECORD = -20.0
# The scale stays inside this range whatever happens.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-6, 1e6
# Measurements after which a rate without a schedule has halved: half of the fifty that a run should have.
_HALVED_AFTER = 25


class CalibrationState(NamedTuple):
    """State of `calibrated`."""

    scale: jax.Array  # f32[], without a schedule before it is multiplied by the controller's own decay
    anchor: jax.Array  # f32[], the calibrated scale; the first scale until there is one
    phase: jax.Array  # i32[], CALIBRATING or ANNEALING
    hits: jax.Array  # i32[], measurements in a row that reached the set-point, within the tolerance
    record: jax.Array  # f32[], the largest log(distance / target) seen while calibrating
    record_scale: jax.Array  # f32[], the scale that gave it
    close: jax.Array  # i32[], measurements at or above a tenth of the set-point, while calibrating
    peak: jax.Array  # f32[], the largest value of the schedule so far
    measurements: jax.Array  # i32[], how many there were


def calibrated(
    schedule: optax.Schedule | None = None,
    *,
    target: float = 1.0,
    start: float = 0.001,
    gain: float = 0.3,
    patience: int = 1,
    guard: float = 50.0,
) -> Controller:
    """The default controller: find the scale at which the network moves at its set-point, then anneal.

    Correlations live in [0, 1], so a distance between connectomes has a unit of its own, and one set-point
    serves many networks. With `s = log(distance / target) - log(decay)`, `decay` being the schedule relative
    to its peak so far (without a schedule `1 / (1 + m / 25)` after m measurements, see below):

    - **Calibrating.** The scale starts at `start` and each measurement multiplies it by `exp(-gain s)`, at
      most by 8 and at least by 1/2: far from the set-point the ramp is steep, near it slow. Once `s >= -0.1`
      for `patience` measurements in a row the scale becomes the **anchor**; had it jumped to more than twice
      the set-point, the scale divided by the excess over that. A network that has learnt its data stops
      answering, and diverges if the ramp runs on. So the last factor of ten below the set-point may take
      `patience` measurements and 1.25 times as many as a distance proportional to the rate would need,
      `log(0.1 / log 10) / log(1 - gain)` (8.8 of them; 12 in all): then the scale that it has got to becomes
      the anchor. The peak guard is for one that never comes so near: if the scale has grown by `guard` since
      the distance last set a record, the scale of the record becomes the anchor.
    - **Annealing.** The same inside `[anchor / 5, 3 anchor]`, rising by at most 10 % a measurement, and
      never so far that scale times decay passes the anchor, which is the calibrated rate: a bounded gate
      that keeps the motion falling along with the schedule. A warm-up that goes on after the
      calibration divides anchor and scale by what it adds to the rate: their product was calibrated.

    **Without a schedule**, where the end of the run is not known, the controller brings its own: it multiplies the
    scale by the Robbins-Monro decay `1 / (1 + m / 25)` after m measurements and expects the motion to fall
    likewise. Evaluate the averaged parameters then (`polynomial_averaging`): the average does the rest of the
    annealing, at any step.

    Why absolute, and why these numbers: in our experiments a gate on z alone was little better than a random
    one, and left the base rate decisive. Where a rate that is too large lets training diverge within the steps of one measurement, it comes too
    late: on a squared loss put `optax.clip_by_global_norm(1.0)` before the optimizer.

    Edges: a distance that is not finite multiplies the scale by 0.8, below its bounds if need be, and neither
    counts as a hit nor as a record. As long as nothing has moved (1e-8 targets at most: a rate too small for
    the floating type, a frozen network), the guard waits, and the scale rises to 1 at most: the base rate as
    it was given. A distance that stays the same at every rate (noise that covers the motion) ends the
    calibration all the same: by the guard, with the scale that it began with, or by time where it is within
    the last factor of ten. A schedule below a thousandth of its peak counts as a thousandth. The scale stays
    within [1e-6, 1e6], before the decay that the controller brings itself.

    Args:
        schedule: the base optimizer's own schedule, `step -> learning rate`, if it has one; only its shape
            matters. None: the base rate is constant, and the controller anneals by itself. A constant schedule is
            taken at its word: nothing anneals.
        target: distance to aim at, in set-points of the signal; positive.
        start: first scale; positive, at most 1. Small, because a rate that is too small for some steps does
            no harm, and one that is too large for the first ones does.
        gain: of the logarithm of the distance onto that of the scale; in (0, 1]. Above 0.6 it overshoots.
        patience: measurements in a row at the set-point that end the calibration; at least 1. More wait for
            a second opinion, which a network that learns its data quickly never gives.
        guard: growth of the scale without a new record that ends the calibration; greater than 1.

    Returns:
        A `Controller`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        A network whose distance is proportional to its rate, with a base rate that is 1000 times too small:

        >>> controller = calibrated(optax.constant_schedule(1.0))
        >>> scale, state = controller.init()
        >>> for step in range(60):
        ...     scale, state = controller.update(Measurement(scale / 1000, jnp.int32(step)), state)
        >>> bool(500 < scale < 1500), int(state.phase) == ANNEALING
        (True, True)
    """
    if schedule is not None:
        _checks.check_function("schedule", schedule, "step -> learning rate, or None")
    _checks.check("target", target, lambda x: 0 < x < math.inf, "positive and finite")
    _checks.check("start", start, lambda x: 0 < x <= 1, "in (0, 1]")
    _checks.check("gain", gain, lambda x: 0 < x <= 1, "in (0, 1]")
    _checks.check_integer("patience", patience, 1)
    _checks.check("guard", guard, lambda x: 1 < x < math.inf, "greater than 1 and finite")

    def init() -> tuple[jax.Array, CalibrationState]:
        def f32(value: float) -> jax.Array:  # a fresh buffer each: shared ones cannot be donated
            return jnp.full((), value, jnp.float32)

        state = CalibrationState(
            scale=f32(start),
            anchor=f32(start),
            phase=jnp.zeros((), jnp.int32),
            hits=jnp.zeros((), jnp.int32),
            record=f32(_NO_RECORD),
            record_scale=f32(start),
            close=jnp.zeros((), jnp.int32),
            peak=f32(0.0),
            measurements=jnp.zeros((), jnp.int32),
        )
        return f32(start), state

    def update(measurement: Measurement, state: CalibrationState) -> tuple[jax.Array, CalibrationState]:
        # 1. What the schedule does at this step, and what it adds to a rate that was calibrated before it.
        measurements = jnp.asarray(optax.safe_increment(state.measurements))
        if schedule is None:
            decay, peak = 1 / (1 + measurements.astype(jnp.float32) / _HALVED_AFTER), state.peak
        else:
            decay, peak = _decay(schedule, measurement.step, state.peak)
        state = _lifted(state, peak)._replace(measurements=measurements)
        # 2. How far the network moved, and how far it should have.
        finite = jnp.isfinite(measurement.distance)
        distance = jnp.where(finite, measurement.distance / target, 1.0)
        motion = jnp.log(jnp.maximum(distance, _SMALLEST_DISTANCE))
        moved = _Moved(finite, motion, motion - jnp.log(decay), decay)
        # 3. The phase that it is in decides; a ramp that ends anneals from this measurement on.
        ramped, risen = ramp(moved, state, gain=gain, patience=patience, guard=guard)
        calibrating = state.phase == CALIBRATING
        state = jax.tree.map(lambda new, old: jnp.where(calibrating, new, old), ramped, state)
        scale = jnp.where(state.phase == CALIBRATING, risen, anneal(moved, state, gain=gain))
        state = state._replace(scale=jnp.clip(scale, _SMALLEST_SCALE, _LARGEST_SCALE))
        return state.scale * decay if schedule is None else state.scale, state

    return Controller(init, update)


class _Moved(NamedTuple):
    """One measurement, in the terms of `ramp` and `anneal`."""

    finite: jax.Array  # bool[], whether it could be measured
    motion: jax.Array  # f32[], log(distance / target); 0 where it could not
    excess: jax.Array  # f32[], the motion less the logarithm of the decay: 0 is as fast as it should be
    decay: jax.Array  # f32[], in (0, 1]


# ------------------------------------------------------------------------------------------------------------
# The ramp: from a scale that is too small up to the one at which the network moves at its set-point.
# ------------------------------------------------------------------------------------------------------------


def ramp(
    moved: _Moved, state: CalibrationState, *, gain: float, patience: int, guard: float
) -> tuple[CalibrationState, jax.Array]:
    """One measurement of the ramp: the state after it, its end recorded in `phase` and `anchor`, and the scale.

    The scale is multiplied by `exp(-gain excess)`, within [1/2, 8].
    """
    # A distance this close to the set-point, in logarithms, has reached it; without noise it only approaches.
    tolerance = 0.1
    # The last stretch begins this far below the set-point, and may take this many times the measurements that
    # a network whose distance is proportional to its rate would need for it.
    last_stretch, allowance = math.log(10.0), 1.25
    # A first hit above this many set-points, in logarithms, was a jump: the anchor is the excess lower.
    jump = math.log(2.0)

    # 1. Hits, and the record: the largest motion so far. Not the largest excess: under a falling decay a
    #    distance that stays would set a record each time. As long as no rate has moved anything there is
    #    nothing to guard, and nothing to go by.
    hits = jnp.where(moved.finite & (moved.excess >= -tolerance), state.hits + 1, 0)
    still = (moved.motion <= math.log(1.001 * _SMALLEST_DISTANCE)) & (state.record <= moved.motion)
    is_record = still | (moved.finite & (moved.motion > state.record))
    record = jnp.where(is_record, moved.motion, state.record)
    record_scale = jnp.where(is_record, state.scale, state.record_scale)
    # 2. Three ways to end: the set-point is reached; the last stretch takes too long; the scale has grown
    #    without a new record.
    reached = hits >= patience
    close = state.close + (moved.finite & (moved.excess >= -last_stretch)).astype(jnp.int32)
    # Each measurement leaves 1 - gain of the logarithm of a proportional distance; a gain of 1 nothing.
    needed = math.log(tolerance / last_stretch) / jnp.log1p(-jnp.asarray(gain, jnp.float32))
    slow = close.astype(jnp.float32) >= patience + allowance * jnp.maximum(needed, 1.0)
    exhausted = moved.finite & (state.scale > guard * record_scale)
    # 3. The anchor that each of them leaves.
    overshoot = jnp.exp(jnp.maximum(moved.excess - jump, 0.0))
    anchor = jnp.where(slow, state.scale, state.anchor)
    anchor = jnp.where(exhausted, record_scale, anchor)
    anchor = jnp.where(reached, state.scale / overshoot, anchor)
    phase = jnp.where(reached | slow | exhausted, ANNEALING, CALIBRATING)
    # 4. The next scale: far from the set-point the ramp is steep, near it slow.
    scale = state.scale * _factor(moved, gain, 8.0)
    scale = jnp.minimum(scale, jnp.where(still, jnp.maximum(state.scale, 1.0), _LARGEST_SCALE))
    state = state._replace(
        anchor=anchor,
        phase=phase.astype(jnp.int32),
        hits=hits.astype(jnp.int32),
        record=record,
        record_scale=record_scale,
        close=close.astype(jnp.int32),
    )
    return state, scale


# ------------------------------------------------------------------------------------------------------------
# The annealing: the schedule decides, and the scale keeps the motion falling along with it.
# ------------------------------------------------------------------------------------------------------------


def anneal(moved: _Moved, state: CalibrationState, *, gain: float) -> jax.Array:
    """One measurement of the annealing: the scale, multiplied by `exp(-gain excess)`, within [1/2, 1.1].

    It stays in [anchor / 5, 3 anchor], and times the decay at or below the anchor: a network that has learnt
    its data stops moving, and a rate that rose until it moved again would let training diverge. Distances that
    are not finite are the one thing that may push it below, and it climbs back.
    """
    scale = state.scale * _factor(moved, gain, 1.1)
    lowest = jnp.where(moved.finite, jnp.minimum(0.2 * state.anchor, state.scale), _SMALLEST_SCALE)
    return jnp.clip(scale, lowest, jnp.minimum(3.0, 1 / moved.decay) * state.anchor)


# ------------------------------------------------------------------------------------------------------------
# What both use
# ------------------------------------------------------------------------------------------------------------


def _factor(moved: _Moved, gain: float, highest: float) -> jax.Array:
    """What one measurement multiplies the scale by; what is not finite makes it smaller, the safe side."""
    return jnp.where(moved.finite, jnp.clip(jnp.exp(-gain * moved.excess), 0.5, highest), 0.8)


def _lifted(state: CalibrationState, peak: jax.Array) -> CalibrationState:
    """A warm-up that goes on after the calibration lifts the rate: what was calibrated is their product."""
    found = (state.phase == ANNEALING) & (state.peak > 0)
    lift = jnp.where(found, peak, 1.0) / jnp.where(found, state.peak, 1.0)
    return state._replace(scale=state.scale / lift, anchor=state.anchor / lift, peak=peak)


def _decay(schedule: optax.Schedule, step: jax.Array, peak: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The schedule relative to its peak so far, in [1e-3, 1] (a warm-up is no decay), and that peak."""
    value = jnp.asarray(schedule(step), jnp.float32)
    peak = jnp.maximum(peak, value)
    return jnp.clip(jnp.where(peak > 0, value / jnp.where(peak > 0, peak, 1.0), 1.0), 1e-3, 1.0), peak
