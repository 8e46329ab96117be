"""What a measurement says of the network: its sensitivity, and whether to believe it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = [
    "ANNEALING",
    "AT_REST",
    "BY_BOUND",
    "BY_GUARD",
    "BY_TIME",
    "CALIBRATING",
    "ENDINGS",
    "NO_RECORD",
    "REACHED",
    "UNFINISHED",
    "CalibrationState",
    "Sensitivity",
    "believe",
    "follow",
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

# A distance of at most this many targets is the rounding of float32, not motion: updates were skipped, or are
# too small for their type.
AT_REST = 1e-5

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


class Sensitivity(NamedTuple):
    """One measurement, as `ramp` and `anneal` need it."""

    value: jax.Array  # f32[], log(distance / target) - log(rate); the last one believed if there is none
    finite: jax.Array  # bool[], whether the distance could be measured
    still: jax.Array  # bool[], whether nothing moved
    believed: jax.Array  # bool[], whether it was neither still, nor of cut steps, nor an unconfirmed jump
    steady: jax.Array  # bool[], whether it falls more slowly than a momentum forgets; not known of the first
    rising: jax.Array  # bool[], whether it is clearly above the last one
    changed: jax.Array  # bool[], whether it confirms a jump: the network's sensitivity has changed
    decay: jax.Array  # f32[], the schedule relative to its peak; above 1 only until a new peak is seen twice
    steps: jax.Array  # f32[], optimizer steps since the last measurement


def follow(schedule: optax.Schedule | None, step: jax.Array, state: CalibrationState) -> CalibrationState:
    """The state with the schedule's value and peak at this step, and the scale that its rise asks for."""
    if schedule is None:
        # Measurements after which the rate has halved: half of the fifty that a run should have at least.
        halved_after = 25.0
        value = 1 / (1 + state.annealed.astype(jnp.float32) / halved_after)
        return state._replace(value=value, peak=jnp.ones((), jnp.float32))
    # The scale stays until the next measurement, which may be as far away as the last one was; after a ramp
    # of which each step is measured it is ten steps away, unless the caller says otherwise.
    nearest = 10
    # A value above so many peaks has to be seen twice: one that is far too large is no peak.
    sudden = 2.0
    # A schedule that changes by more than this between two measurements has steps, or short cycles: it counts
    # by its mean.
    uneven = 2.5
    # At so many places it is looked at between two measurements.
    places = 5

    def good(value: jax.Array) -> jax.Array:
        return (value >= 0) & (value < jnp.inf)  # false for NaN, too

    def values(start: jax.Array, steps: jax.Array, halves: int) -> jax.Array:
        """The schedule at places of these steps, in their middle (1) or at their end (2); 0 if not good."""
        at = [start + (2 * place + halves) * steps // (2 * places) for place in range(places)]
        found = jnp.stack([jnp.asarray(schedule(each), jnp.float32) for each in at])
        return jnp.where(good(found), found, 0.0)

    # 1. The value that made the motion.
    passed = jnp.maximum(step - state.step, 1)
    now = jnp.asarray(schedule(step), jnp.float32)
    value = jnp.where(good(now), now, state.value)
    between = values(state.step, passed, 1)
    even = jnp.maximum(jnp.max(between), value) <= uneven * jnp.minimum(jnp.min(between), value)
    value = jnp.where(even | ~good(now), value, jnp.mean(between))
    # 2. The peak, which the values until the next measurement may raise; the first value is all there is.
    ahead = jnp.sort(values(step, jnp.maximum(passed, nearest), 2))
    annealing = state.phase == ANNEALING
    later, twice = jnp.where(annealing, ahead[-1], value), jnp.where(annealing, ahead[-2], 0.0)
    seen = jnp.maximum(jnp.minimum(value, state.value), twice)
    peak = jnp.where(state.peak > 0, jnp.maximum(state.peak, seen), value)
    for reached in (value, later):
        peak = jnp.where(reached <= sudden * peak, jnp.maximum(reached, peak), peak)
    # While the schedule warms up, the scale is divided by what that adds to the rate: their product is what
    # climbs, and what is calibrated. So is what the scale is compared with.
    lift = jnp.where(state.peak > 0, peak, 1.0) / state.known_peak
    return state._replace(
        scale=state.scale / lift,
        anchor=state.anchor / lift,
        record_scale=state.record_scale / lift,
        cut_scale=state.cut_scale / lift,
        value=value,
        peak=peak,
        refused=state.refused + (~good(now)).astype(jnp.int32),
    )


def start_again(condition: jax.Array, state: CalibrationState) -> CalibrationState:
    """The state in which, if the condition holds, no measurement of this ramp has counted yet."""
    return state._replace(
        counted=jnp.where(condition, 0, state.counted).astype(jnp.int32),
        climbed=jnp.where(condition, 0.0, state.climbed),
        record=jnp.where(condition, NO_RECORD, state.record),
    )


def believe(
    distance: jax.Array, step: jax.Array, state: CalibrationState
) -> tuple[Sensitivity, CalibrationState]:
    """The sensitivity of the network, whether it is to be believed, and the state updated with it.

    `state.cuts` is that of this measurement already: cut steps are smaller than their rate, and say nothing
    of the sensitivity.
    """
    # The largest change of a sensitivity that we saw between two measurements, in logarithms.
    jump = math.log(5.0)
    # How many jumps in a row have to agree: while calibrating; and while annealing, where there is more time.
    confirmed_by, reopened_by = 3, 8
    # A momentum repeats one large gradient for many steps, a little less each time. What falls faster than a
    # momentum of 0.98 forgets may be such a gradient: a jump upwards counts once it falls more slowly, and
    # has lasted for ten steps.
    fades, memory = -math.log(0.98), 10
    # What rises by more than this is still on its way: a momentum that builds up, a head that starts at zero.
    rises = math.log(1.2)
    # After this many measurements without motion, earlier sensitivities are dropped, unless so many have
    # counted that they were no accident.
    forgotten_after, kept_from = 30, 5

    # A small motion whose sensitivity is a thousand times less than the last one is rounding, too; unless the
    # last one is the only one, and may be the bad one of the two.
    no_answer, small = math.log(1e3), 1e-3
    # A schedule below this share of its peak counts as this share: the logarithm of zero is not finite.
    smallest_decay = 1e-3

    # 1. Motion per rate.
    finite = (distance >= 0) & (distance < jnp.inf)  # false for NaN, too
    peak = state.known_peak
    decay = jnp.where(state.peak > 0, jnp.maximum(state.value / peak, smallest_decay), 1.0)
    moved = finite & (distance > AT_REST) & (state.peak > 0) & (state.value > 0)
    motion = jnp.log(jnp.where(moved, distance, 1.0))
    value = motion - jnp.log(state.scale * decay) - jnp.log(peak)
    answers = (state.believed < 2) | (value > state.sensitivity - no_answer) | (distance > small)
    usable = moved & answers & (state.cuts == 0)
    value = jnp.where(usable, value, state.sensitivity)
    # 2. A sensitivity that agrees with the last one is believed; jumps are, once enough of them agree.
    agrees = (state.believed == 0) | (jnp.abs(value - state.sensitivity) <= jump)
    steps = jnp.maximum(step - state.step, 1)
    upwards = value > state.sensitivity
    faded = fades * jnp.minimum(steps, memory).astype(jnp.float32)
    lower = upwards & (value < state.suspect - faded)
    again = (state.suspects > 0) & (jnp.abs(value - state.suspect) <= jump) & ~lower
    suspects = jnp.where(again, state.suspects + 1, 1)
    suspect = jnp.where(again & upwards, jnp.minimum(value, state.suspect), value)
    enough = jnp.where(state.phase == CALIBRATING, confirmed_by, reopened_by)
    enough = jnp.where(upwards, jnp.maximum(enough, -(-memory // steps)), enough)
    changed = usable & ~agrees & (suspects >= enough)
    believed = usable & (agrees | changed)
    steady = (state.believed > 0) & (value >= state.sensitivity - faded)
    rising = (state.believed > 0) & (value > state.sensitivity + rises)
    # 3. The state for the next measurement.
    still = finite & ~(moved & answers)
    stills = jnp.where(still, state.stills + 1, 0)
    count = jnp.minimum(state.believed + believed.astype(jnp.int32), 2)
    forgotten = (stills >= forgotten_after) & (state.counted < kept_from)
    state = start_again(forgotten, state)._replace(
        believed=jnp.where(forgotten, 0, jnp.where(changed, 1, count)).astype(jnp.int32),
        sensitivity=jnp.where(believed, value, state.sensitivity),
        suspect=jnp.where(usable, suspect, state.suspect),
        suspects=jnp.where(usable, jnp.where(believed, 0, suspects), state.suspects).astype(jnp.int32),
        stills=jnp.where(forgotten, 0, stills).astype(jnp.int32),
        step=jnp.asarray(step, jnp.int32),
    )
    return Sensitivity(
        value, finite, still, believed, steady, rising, changed, decay, steps.astype(jnp.float32)
    ), state
