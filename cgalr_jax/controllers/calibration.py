"""The state of a calibration: its phases, how it ended, and what it remembers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "ANNEALING",
    "BY_BOUND",
    "BY_GUARD",
    "BY_TIME",
    "CALIBRATING",
    "ENDINGS",
    "LARGEST_SCALE",
    "NO_RECORD",
    "REACHED",
    "RETREAT",
    "SMALLEST_SCALE",
    "UNFINISHED",
    "CalibrationState",
    "first_state",
    "start_again",
]

# The phases, and how a calibration ended. Plain numbers, so that they can be logged.
CALIBRATING, ANNEALING = 0, 1
UNFINISHED, REACHED, BY_TIME, BY_GUARD, BY_BOUND = 0, 1, 2, 3, 4
ENDINGS = {
    UNFINISHED: "unfinished",
    REACHED: "at the set-point",
    BY_TIME: "by time",
    BY_GUARD: "by the guard",
    BY_BOUND: "by the bound on one step",
}

# The scale stays inside this range whatever happens.
SMALLEST_SCALE, LARGEST_SCALE = 1e-6, 1e6
# A distance that is not finite multiplies the scale by this: a smaller rate is the safe side.
RETREAT = 0.8
# How many sensitivities are kept: enough for the slow part of the usual ramp, and the last of a longer one.
_KEPT = 64
# Stands for "no record yet": below the logarithm of every motion. Finite, because some wrappers multiply the
# state by zero.
NO_RECORD = -100.0


class CalibrationState(NamedTuple):
    """State of `calibrated`.

    A sensitivity is the motion of the network per learning rate, in logarithms:
    `log(distance / target) - log(scale) - log(schedule)`. It does not depend on the rate as long as the
    motion is proportional to the rate.
    """

    scale: jax.Array  # f32[], without a schedule the value before the controller's own decay
    anchor: jax.Array  # f32[], the calibrated scale; the first scale until there is one
    phase: jax.Array  # i32[], CALIBRATING or ANNEALING
    ended: jax.Array  # i32[], how the calibration ended: UNFINISHED, REACHED, BY_TIME, BY_GUARD or BY_BOUND
    sensitivities: jax.Array  # f32[64], ring of the sensitivities of this ramp that count
    counted: jax.Array  # i32[], how many sensitivities have counted in this ramp
    climbed: jax.Array  # f32[], log of how far the slow ramp could have climbed since the first of them
    record: jax.Array  # f32[], the largest log(distance / target) that was believed
    record_scale: jax.Array  # f32[], the scale at that measurement
    believed: jax.Array  # i32[], how many sensitivities were believed, capped at 2
    sensitivity: jax.Array  # f32[], the last sensitivity that was believed
    suspect: jax.Array  # f32[], the last sensitivity measured; the lowest of a row of jumps upwards
    suspects: jax.Array  # i32[], length of the present row of jumps that agree with each other
    cuts: jax.Array  # i32[], measurements in a row between which steps were often cut
    cut_scale: jax.Array  # f32[], the scale at which the ramp last met such a row; 0 if it has met none
    stills: jax.Array  # i32[], measurements in a row in which nothing moved
    recent: jax.Array  # f32[], running mean of the annealing's sensitivities, over some three of them
    usual: jax.Array  # f32[], the same over some twenty
    annealed: jax.Array  # i32[], measurements while annealing
    peak: jax.Array  # f32[], the largest value of the schedule that two measurements in a row have reached
    value: jax.Array  # f32[], the last good value of the schedule
    refused: jax.Array  # i32[], how many values of the schedule were not used
    step: jax.Array  # i32[], optimizer step of the last measurement

    @property
    def calibrating(self) -> jax.Array:
        """bool[], true during the ramp. If `steps` was given, each step of the ramp is measured."""
        return self.phase == CALIBRATING

    @property
    def known_peak(self) -> jax.Array:
        """f32[], the peak; 1 before a warm-up has begun, when it is 0."""
        return jnp.where(self.peak > 0, self.peak, 1.0)


def first_state(start: float) -> CalibrationState:
    """The state before anything is measured, at the first scale."""

    def f32(value: float) -> jax.Array:  # a fresh buffer each: shared ones cannot be donated
        return jnp.full((), value, jnp.float32)

    def i32() -> jax.Array:
        return jnp.zeros((), jnp.int32)

    return CalibrationState(
        scale=f32(start),
        anchor=f32(start),
        phase=i32(),
        ended=i32(),
        sensitivities=jnp.zeros((_KEPT,), jnp.float32),
        counted=i32(),
        climbed=f32(0.0),
        record=f32(NO_RECORD),
        record_scale=f32(start),
        believed=i32(),
        sensitivity=f32(0.0),
        suspect=f32(0.0),
        suspects=i32(),
        cuts=i32(),
        cut_scale=f32(0.0),
        stills=i32(),
        recent=f32(0.0),
        usual=f32(0.0),
        annealed=i32(),
        peak=f32(0.0),
        value=f32(1.0),
        refused=i32(),
        step=i32(),
    )


def start_again(condition: jax.Array, state: CalibrationState) -> CalibrationState:
    """The state in which, if the condition holds, no measurement of this ramp has counted yet."""
    return state._replace(
        counted=jnp.where(condition, 0, state.counted).astype(jnp.int32),
        climbed=jnp.where(condition, 0.0, state.climbed),
        record=jnp.where(condition, NO_RECORD, state.record),
    )
