"""The ramp: from a scale that is too small up to the one at which the network moves at its set-point."""

import math

import jax
import jax.numpy as jnp

from cgalr_jax._counting import one_more
from cgalr_jax.controllers._ring import ring_median
from cgalr_jax.controllers.calibration import (
    ANNEALING,
    BY_BOUND,
    BY_GUARD,
    BY_TIME,
    CALIBRATING,
    NO_RECORD,
    REACHED,
    RETREAT,
    SMALLEST_SCALE,
    UNFINISHED,
    CalibrationState,
    start_again,
)
from cgalr_jax.controllers.sensitivity import Sensitivity

__all__ = ["longest_ramp", "ramp", "slow_steps"]

# The slow part of the ramp begins this far below the set-point, in logarithms; measurements count from there.
_SLOW_FROM = math.log(30.0)
# The slow part may take this many times as many steps as it should.
_ALLOWANCE = 4.0
# A motion this close to the set-point, in logarithms, counts as at the set-point.
_TOLERANCE = 0.1
# The largest growth of the scale in one measurement of the slow part, and the largest fall, in logarithms.
_CAREFUL = _FALL = math.log(2.0)
# Measurements in a row between which steps were often cut that confirm it.
_CONFIRMED_CUTS = 2


def slow_steps(steps: int | None) -> float:
    """Optimizer steps that the slow part should take, in a run of so many; None if its length is not known.

    A long one measures a network that has settled, and is a warm-up. Where each step is measured, sixty are
    enough.
    """
    return 100.0 if steps is None else max(min(steps / 3, 60.0), 7.0)


def longest_ramp(steps: int) -> int:
    """For how many steps each step of the ramp is measured, at most: 20 of them in its fast part."""
    return 20 + math.ceil(_ALLOWANCE * slow_steps(steps))


def ramp(sensitivity: Sensitivity, state: CalibrationState, *, ramp_steps: float) -> CalibrationState:
    """The state after one measurement of the ramp: the next scale or, if the ramp ends here, the anchor.

    Args:
        sensitivity: what was measured.
        state: the state before it.
        ramp_steps: optimizer steps of the slow part, in which the scale grows by 30.
    """
    # The motion as if the schedule were at its peak, and by how much the slow part grows until the next one.
    log_rate = jnp.log(state.scale) + jnp.log(state.known_peak)
    motion = sensitivity.value + log_rate
    growth = jnp.minimum(_SLOW_FROM * sensitivity.steps / ramp_steps, _CAREFUL)
    state = _counted(sensitivity, motion, growth, state)
    # How far the scale is above the one at which the median puts the network at its set-point.
    median = ring_median(state.sensitivities, state.counted)
    excess = jnp.where(state.counted > 0, median, sensitivity.value) + log_rate
    ended, anchor = _end(sensitivity, motion, excess, growth, state)
    factor = _factor(sensitivity, motion, excess, growth, state)
    done, often_cut = ended != UNFINISHED, state.cuts >= _CONFIRMED_CUTS
    state = state._replace(
        scale=jnp.where(done, anchor, state.scale * jnp.exp(factor)),
        anchor=jnp.where(done, anchor, state.anchor),
        phase=jnp.where(done, ANNEALING, CALIBRATING).astype(jnp.int32),
        ended=ended.astype(jnp.int32),
        cut_scale=jnp.where(state.cuts == _CONFIRMED_CUTS, state.scale, state.cut_scale),
        # In ten steps a network does not move ten times as far as in one, and the ramp may have measured each
        # step: the annealing finds its own level of the sensitivity.
        believed=jnp.where(done, 0, jnp.where(often_cut, 1, state.believed)).astype(jnp.int32),
        # Below every sensitivity: the next ones are jumps upwards, and believed once they no longer fall.
        sensitivity=jnp.where(often_cut, NO_RECORD, state.sensitivity),
    )
    return start_again(often_cut, state)  # cut steps may have left another network


def _counted(
    sensitivity: Sensitivity, motion: jax.Array, growth: jax.Array, state: CalibrationState
) -> CalibrationState:
    """The state with what this measurement adds to the sensitivities that count, and to the record.

    The count starts again after a confirmed jump, and if the motion falls early although the scale grows:
    what went before was the momentum of one gradient.
    """
    calmer = sensitivity.believed & (motion < state.record - math.log(5.0))
    anew = sensitivity.changed | (calmer & (state.climbed < _SLOW_FROM))
    counted = jnp.where(anew, 0, state.counted)
    counts = sensitivity.believed & (motion >= -_SLOW_FROM - _TOLERANCE)
    counts &= (counted > 0) | sensitivity.steady
    kept = state.sensitivities.size
    place = counts & (jnp.arange(kept, dtype=jnp.int32) == counted % kept)
    counted = one_more(counts, counted, kept)
    # The record starts again if the motion has clearly fallen; a motion that stays the same while the scale
    # grows has not fallen, though its sensitivity has.
    is_record = sensitivity.believed & ((motion > state.record) | calmer)
    return state._replace(
        sensitivities=jnp.where(place, sensitivity.value, state.sensitivities),
        counted=counted.astype(jnp.int32),
        climbed=jnp.where(anew, 0.0, state.climbed) + jnp.where(counted > 0, growth, 0.0),
        record=jnp.where(is_record, motion, state.record),
        record_scale=jnp.where(is_record, state.scale, state.record_scale),
    )


def _end(
    sensitivity: Sensitivity,
    motion: jax.Array,
    excess: jax.Array,
    growth: jax.Array,
    state: CalibrationState,
) -> tuple[jax.Array, jax.Array]:
    """How the ramp ends here, UNFINISHED if it does not, and the anchor that it would leave."""
    # Sensitivities needed for a calibration: two bad ones are less than half of them.
    least = 5
    # Steps that are often cut end the ramp if its scale is this near to the one that the median predicts, or
    # to that of the last such row, in logarithms.
    near = math.log(3.0)
    # The guard: this growth of the scale, in logarithms, without a new record of the motion ends the ramp.
    # Noise below a tenth of the set-point is small enough for the network's own motion to show later.
    large_noise, small_noise = math.log(50.0), math.log(1e3)

    enough = sensitivity.believed & (state.counted >= least)
    found = state.scale * jnp.exp(-jnp.maximum(excess, 0.0))
    reached = enough & (excess >= -_TOLERANCE) & (found >= SMALLEST_SCALE)
    guard = jnp.exp(jnp.where(motion > math.log(0.1), large_noise, small_noise))
    exhausted = sensitivity.believed & (state.cut_scale == 0) & (state.scale > guard * state.record_scale)
    slow = enough & (state.climbed >= _ALLOWANCE * _SLOW_FROM)
    again = state.scale < math.exp(near) * state.cut_scale
    cut = (state.cuts == _CONFIRMED_CUTS) & (again | ((state.counted >= least) & (excess > -near)))
    ended = jnp.where(slow, BY_TIME, UNFINISHED)
    ended = jnp.where(exhausted, BY_GUARD, ended)
    ended = jnp.where(cut, BY_BOUND, ended)
    ended = jnp.where(reached, REACHED, ended)
    anchor = jnp.where(ended == BY_BOUND, state.scale * jnp.exp(-growth), found)
    noisy = jnp.minimum(found, jnp.maximum(state.record_scale, 1.0))
    return ended, jnp.where(ended == BY_GUARD, noisy, anchor)


def _factor(
    sensitivity: Sensitivity,
    motion: jax.Array,
    excess: jax.Array,
    growth: jax.Array,
    state: CalibrationState,
) -> jax.Array:
    """By how much the scale changes if the ramp goes on, in logarithms."""
    # The largest growth in one measurement where the network hardly moves.
    fastest = math.log(64.0)

    # 1. Fast up to the beginning of the slow part, once two sensitivities are believed, while they are
    #    steady, no faster than carefully in each step while they rise; never beyond the scale that the median
    #    predicts.
    certain = (state.believed >= 2) & sensitivity.steady
    fast = jnp.where(sensitivity.rising, jnp.minimum(_CAREFUL * sensitivity.steps, fastest), fastest)
    rise = jnp.where(certain, jnp.clip(-_SLOW_FROM - jnp.maximum(excess, motion), growth, fast), growth)
    factor = jnp.maximum(jnp.minimum(rise, -excess), -_FALL)
    # 2. At a jump the scale stays until the next measurement; if training may be diverging, it goes down.
    factor = jnp.where(sensitivity.believed, factor, jnp.where(motion > math.log(2.0), -_FALL, 0.0))
    # 3. If steps were often cut the scale stays: the next measurement shows whether they are again. Then it
    #    goes down, until they are not.
    confirmed = state.cuts >= _CONFIRMED_CUTS
    factor = jnp.where(state.cuts > 0, jnp.where(confirmed, -growth, 0.0), factor)
    # 4. Nothing moved: if nothing ever has although the schedule is not 0, the scale rises to 1 at most.
    never = (state.believed == 0) & (state.value > 0)
    still = jnp.where(never, jnp.clip(-jnp.log(state.scale), 0.0, math.log(8.0)), 0.0)
    factor = jnp.where(sensitivity.still, still, factor)
    return jnp.where(sensitivity.finite, factor, math.log(RETREAT))
