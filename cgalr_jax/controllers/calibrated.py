"""Our controller: a ramp up to the scale at which the network moves at its set-point, then annealing."""

import math
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cgalr_jax import _checks
from cgalr_jax.controllers.base import Controller, Measurement

__all__ = [
    "ANNEALING",
    "BY_BOUND",
    "BY_GUARD",
    "BY_TIME",
    "CALIBRATING",
    "REACHED",
    "UNFINISHED",
    "CalibrationState",
    "anneal",
    "calibrated",
    "ramp",
]

# What it can be doing, and how a calibration ended. Plain numbers, so that they can be logged.
CALIBRATING, ANNEALING = 0, 1
UNFINISHED, REACHED, BY_TIME, BY_GUARD, BY_BOUND = 0, 1, 2, 3, 4

# The scale stays inside this range whatever happens.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-6, 1e6
# Below the logarithm of every motion: there is none yet. No infinity, which some wrappers multiply by zero.
_NO_RECORD = -100.0
# Distances of so many targets or less are none, but the rounding of float32: updates were skipped, or are too
# small for their type.
_STILL = 1e-5
# A schedule below this share of its peak counts as this share: the logarithm of zero is not a number.
_SMALLEST_DECAY = 1e-3
# What is not finite makes the scale this much smaller: the safe side.
_RETREAT = 0.8
# The slow part of the ramp begins so far below the set-point, in logarithms: what is measured there counts.
_SLOW_FROM = math.log(30.0)
# The slow part may take so many times its steps.
_ALLOWANCE = 4.0
# Sensitivities that are kept: as many as the slow part of the longest ramp has steps.
_KEPT = 64


class CalibrationState(NamedTuple):
    """State of `calibrated`.

    A sensitivity is a motion per learning rate, `log(distance / target) - log(scale) - log(schedule)`: what
    the rate does to the network, whatever the rate is.
    """

    scale: jax.Array  # f32[], without a schedule before it is multiplied by the controller's own decay
    anchor: jax.Array  # f32[], the calibrated scale; the first scale until there is one
    phase: jax.Array  # i32[], CALIBRATING or ANNEALING
    ended: jax.Array  # i32[], how the calibration ended: UNFINISHED, REACHED, BY_TIME, BY_GUARD or BY_BOUND
    sensitivities: jax.Array  # f32[64], ring of the sensitivities of this ramp that count
    counted: jax.Array  # i32[], how many there were
    climbed: jax.Array  # f32[], log of what the ramp could have grown by since the first of them
    record: jax.Array  # f32[], the largest log(distance / target) that was believed
    record_scale: jax.Array  # f32[], the scale that gave it
    believed: jax.Array  # i32[], sensitivities that were believed, 2 at most
    sensitivity: jax.Array  # f32[], the last of them
    suspect: jax.Array  # f32[], the last one that was a jump
    suspects: jax.Array  # i32[], how many jumps in a row agree on it
    cuts: jax.Array  # i32[], measurements in a row with a step that was cut
    stills: jax.Array  # i32[], measurements in a row in which nothing moved
    recent: (
        jax.Array
    )  # f32[], mean of the sensitivities of the last three measurements or so of the annealing
    usual: jax.Array  # f32[], the same of the last twenty
    annealed: jax.Array  # i32[], measurements while annealing
    peak: jax.Array  # f32[], the largest value of the schedule so far
    value: jax.Array  # f32[], its last good value
    refused: jax.Array  # i32[], its values that were not used
    step: jax.Array  # i32[], of the last measurement

    @property
    def calibrating(self) -> jax.Array:
        """bool[], whether to measure at each step, early in a run whose length is known."""
        return self.phase == CALIBRATING


class Sensitivity(NamedTuple):
    """One measurement, in the terms of `ramp` and `anneal`."""

    value: (
        jax.Array
    )  # f32[], log(distance / target) per rate; the last one that was believed if there is none
    finite: jax.Array  # bool[], whether there was a distance
    still: jax.Array  # bool[], whether nothing moved
    believed: jax.Array  # bool[], whether it was neither still nor an unconfirmed jump
    changed: jax.Array  # bool[], whether it confirms that the network is another now
    decay: jax.Array  # f32[], the schedule relative to its peak, in (0, 1]
    steps: jax.Array  # f32[], optimizer steps since the last measurement


def calibrated(
    schedule: optax.Schedule | None = None,
    *,
    steps: int | None = None,
    target: float = 1.0,
    start: float = 0.001,
    gain: None = None,
    patience: None = None,
    guard: None = None,
) -> Controller:
    """The default controller: find the scale at which the network moves at its set-point, then anneal.

    A distance in set-points says how fast the network moves, and divided by the rate how much it answers to
    it: its sensitivity. One set-point serves many networks if it is read along a whole ramp.

    - **Calibrating.** The scale climbs from `start`, fast as long as the motion is below a thirtieth of the
      set-point, then slowly and evenly, by a factor of 30 in a hundred steps, or in a tenth of the run if its
      length is known. Once it reaches the scale at which the median of all sensitivities on the way says that
      the network moves at its set-point, that becomes the **anchor**. A network that has learnt its data
      stops answering; the median remembers how it answered before.
    - **Annealing.** The schedule does it. Where the network begins to answer more than it used to, the scale
      goes down by the root of that, at most to a fifth of the anchor, and comes back as the network gets used
      to it; where steps are cut, too. It never passes the anchor: a network that has learnt its data answers
      less and less, and a rate that made up for it would let training diverge. A warm-up that goes on after
      the calibration divides anchor and scale by what it adds to the rate: their product was calibrated.

    **Without a schedule**, where the end of the run is not known, the controller brings its own: it
    multiplies the scale by the Robbins-Monro decay `1 / (1 + m / 25)` after m measurements of the annealing.
    Evaluate the averaged parameters then (`polynomial_averaging`): the average does the rest, at any step.

    **What always holds**, and is tested by disturbances drawn at every measurement:

    - One bad measurement never decides, nor do two in a row. Nothing that did not move is a measurement of a
      rate. A sensitivity that differs from the last one by more than a factor of five is a jump: it counts
      once three in a row agree, and what was measured before them then counts no more. Until then the scale
      stays, or comes down where the network moves too fast.
    - A distance that is not finite multiplies the scale by 0.8 and counts as nothing else.
    - It takes five sensitivities to calibrate; an anchor is never above the largest scale that was tried.
    - A calibration that proves wrong opens again: eight jumps in a row that agree, as long as the schedule is
      above half of its peak.
    - Where steps have to be cut to `max_share` of a matrix in two measurements in a row, the ramp ends a step
      of its own lower: a squared loss diverges before the network moves at its set-point.
    - It says how it ended, in `ended`: at the set-point; by time, after four times the steps that the slow
      part should take; by the guard, when the scale has grown by 50 while the motion set no record (noise
      that covers it), with the scale of the record; by the bound on one step; or not yet.
    - As long as nothing has ever moved (a rate too small for the floating type, a frozen network), by more
      than a hundred-thousandth of the set-point, the scale rises to 1 at most: the base rate as it was given.
    - A value of the schedule that is not finite, or negative, is not used: its last good one is, and
      `refused` counts it. Values below a thousandth of the peak count as a thousandth.
    - The scale stays within [1e-6, 1e6], before the decay that the controller brings itself.

    Where the length of the run is known, the transformation measures at each step while calibrating: it asks
    the state whether it is `calibrating`. Otherwise it measures every `every` steps from the beginning.

    Args:
        schedule: the base optimizer's own schedule, `step -> learning rate`, if it has one; only its shape
            matters. None: the base rate is constant, and the controller anneals by itself. A constant
            schedule is taken at its word: nothing anneals.
        steps: optimizer steps of the whole run, if known; at least 1. The ramp then takes an eighth of
            them or less, at least a dozen steps and at most some seventy. It is a warm-up, too: slower ramps
            found better rates and ended at smaller errors.
        target: distance to aim at, in set-points of the signal; positive.
        start: first scale; positive, at most 1. Small, because a rate that is too small for some steps does
            no harm, and one that is too large for the first ones does.
        gain: deprecated, without effect, as are the next two: the ramp is another one now.
        patience: deprecated.
        guard: deprecated.

    Returns:
        A `Controller`.

    Raises:
        ValueError: if an argument is outside its range, or the first value of the schedule is negative or not
            finite.

    Example:
        A network whose distance is proportional to its rate, with a base rate that is 1000 times too small:

        >>> controller = calibrated(optax.constant_schedule(1.0))
        >>> scale, state = controller.init()
        >>> for step in range(10, 200, 10):
        ...     scale, state = controller.update(Measurement(scale / 1000, jnp.int32(step)), state)
        >>> bool(900 < scale < 1100), int(state.ended) == REACHED
        (True, True)
    """
    for name, value in (("gain", gain), ("patience", patience), ("guard", guard)):
        if value is not None:
            warnings.warn(
                f"{name}= has no effect any more, since the ramp is read as a whole, and will go with the "
                "next release.",
                DeprecationWarning,
                stacklevel=2,
            )
    if schedule is not None:
        _checks.check_function("schedule", schedule, "step -> learning rate, or None")
        first = schedule(jnp.zeros((), jnp.int32))
        _checks.check("schedule at step 0", first, lambda x: 0 <= x < math.inf, "finite and at least 0")
    if steps is not None:
        _checks.check_integer("steps", steps, 1)
    _checks.check("target", target, lambda x: 0 < x < math.inf, "positive and finite")
    _checks.check("start", start, lambda x: 0 < x <= 1, "in (0, 1]")
    # A shorter ramp leaves more of a short run; a longer one reads a network that has settled, and warms up.
    ramp_steps = 100.0 if steps is None else min(max(0.1 * steps, 7.0), 60.0)

    def init() -> tuple[jax.Array, CalibrationState]:
        def f32(value: float) -> jax.Array:  # a fresh buffer each: shared ones cannot be donated
            return jnp.full((), value, jnp.float32)

        def i32() -> jax.Array:
            return jnp.zeros((), jnp.int32)

        state = CalibrationState(
            scale=f32(start),
            anchor=f32(start),
            phase=i32(),
            ended=i32(),
            sensitivities=jnp.zeros((_KEPT,), jnp.float32),
            counted=i32(),
            climbed=f32(0.0),
            record=f32(_NO_RECORD),
            record_scale=f32(start),
            believed=i32(),
            sensitivity=f32(0.0),
            suspect=f32(0.0),
            suspects=i32(),
            cuts=i32(),
            stills=i32(),
            recent=f32(0.0),
            usual=f32(0.0),
            annealed=i32(),
            peak=f32(0.0),
            value=f32(1.0),
            refused=i32(),
            step=i32(),
        )
        return f32(start), state

    def update(measurement: Measurement, state: CalibrationState) -> tuple[jax.Array, CalibrationState]:
        # 1. What the schedule does at this step.
        state = _follow(schedule, measurement.step, state)
        # 2. How far the network moved, per rate, and whether to believe it; whether a step was too large.
        sensitivity, state = _believe(measurement.distance / target, measurement.step, state)
        state = state._replace(cuts=jnp.where(measurement.cut > 1, state.cuts + 1, 0).astype(jnp.int32))
        # 3. The phase decides; a ramp that ends anneals from the next measurement on.
        state = jax.tree.map(
            lambda calibrating, annealing: jnp.where(state.phase == CALIBRATING, calibrating, annealing),
            ramp(sensitivity, state, ramp_steps=ramp_steps),
            anneal(sensitivity, state),
        )
        state = state._replace(scale=jnp.clip(state.scale, _SMALLEST_SCALE, _LARGEST_SCALE))
        return state.scale * state.value if schedule is None else state.scale, state

    # All steps that a ramp may take: its fast part, and what is allowed for the slow one. Where the length of
    # the run is not known, the cadence is the one that was asked for.
    return Controller(init, update, early=0 if steps is None else 20 + math.ceil(_ALLOWANCE * ramp_steps))


# ------------------------------------------------------------------------------------------------------------
# What to believe
# ------------------------------------------------------------------------------------------------------------


def _believe(
    distance: jax.Array, step: jax.Array, state: CalibrationState
) -> tuple[Sensitivity, CalibrationState]:
    """The sensitivity of the network, whether it is to be believed, and the state that remembers it."""
    # From one measurement to the next no network that we saw changed by more than this, in logarithms.
    jump = math.log(5.0)
    # Jumps in a row that have to agree, while calibrating and while annealing, where there is time.
    confirmed_by, reopened_by = 3, 8
    # Measurements without motion after which nothing is believed of what was before.
    forgotten_after = 30

    # 1. Motion per rate. The peak is 0 before a warm-up has begun.
    finite = (distance >= 0) & (distance < jnp.inf)  # false for NaN, too
    peak = jnp.where(state.peak > 0, state.peak, 1.0)
    decay = jnp.where(state.peak > 0, jnp.clip(state.value / peak, _SMALLEST_DECAY, 1.0), 1.0)
    moved = finite & (distance > _STILL) & (state.peak > 0)
    # Small, and a thousand times less than the network answered before: rounding, too.
    no_answer, small = math.log(1e3), 1e-3
    motion = jnp.log(jnp.where(moved, distance, 1.0))
    value = motion - jnp.log(state.scale * decay) - jnp.log(peak)
    answers = (state.believed == 0) | (value > state.sensitivity - no_answer) | (distance > small)
    usable = moved & answers
    value = jnp.where(usable, value, state.sensitivity)
    # 2. One that agrees with the last is believed; jumps are, once enough of them agree.
    agrees = (state.believed == 0) | (jnp.abs(value - state.sensitivity) <= jump)
    again = (state.suspects > 0) & (jnp.abs(value - state.suspect) <= jump)
    suspects = jnp.where(again, state.suspects + 1, 1)
    enough = jnp.where(state.phase == CALIBRATING, confirmed_by, reopened_by)
    changed = usable & ~agrees & (suspects >= enough)
    believed = usable & (agrees | changed)
    # 3. What is remembered of it.
    still = finite & ~usable
    stills = jnp.where(still, state.stills + 1, 0)
    count = jnp.minimum(state.believed + believed.astype(jnp.int32), 2)
    forgotten = stills >= forgotten_after
    steps = (step - state.step).astype(jnp.float32)
    state = state._replace(
        believed=jnp.where(forgotten, 0, jnp.where(changed, 1, count)).astype(jnp.int32),
        counted=jnp.where(forgotten, 0, state.counted).astype(jnp.int32),
        climbed=jnp.where(forgotten, 0.0, state.climbed),
        record=jnp.where(forgotten, _NO_RECORD, state.record),
        sensitivity=jnp.where(believed, value, state.sensitivity),
        suspect=jnp.where(usable, value, state.suspect),
        suspects=jnp.where(usable, jnp.where(believed, 0, suspects), state.suspects).astype(jnp.int32),
        stills=jnp.where(forgotten, 0, stills).astype(jnp.int32),
        step=jnp.asarray(step, jnp.int32),
    )
    return Sensitivity(value, finite, still, believed, changed, decay, steps), state


# ------------------------------------------------------------------------------------------------------------
# The ramp: from a scale that is too small up to the one at which the network moves at its set-point.
# ------------------------------------------------------------------------------------------------------------


def ramp(sensitivity: Sensitivity, state: CalibrationState, *, ramp_steps: float) -> CalibrationState:
    """One measurement of the ramp; where it ends, `phase`, `ended`, `anchor` and `scale` say so.

    Args:
        sensitivity: what was measured.
        state: before it.
        ramp_steps: optimizer steps of the slow part, in which the scale grows by 30.
    """
    # Sensitivities that make a calibration: two bad ones are less than half of them.
    least = 5
    # A motion this close to the set-point, in logarithms, has reached it.
    tolerance = 0.1
    # Measurements in a row with a step that was cut: one may be a bad batch.
    confirmed_cuts = 2
    # The guard: growth of the scale, in logarithms, without a record.
    guard = math.log(50.0)
    # The largest factors of one measurement, in logarithms: where the network hardly moves, where it is near
    # its set-point or too little is known, and downwards.
    fast, careful, fall = math.log(64.0), math.log(2.0), math.log(2.0)

    # 1. The motion, were the schedule at its peak; a network that is another now is measured anew.
    log_rate = jnp.log(state.scale) + _log_peak(state)
    motion = sensitivity.value + log_rate
    counts = sensitivity.believed & (motion >= -_SLOW_FROM - tolerance)
    counted = jnp.where(sensitivity.changed, 0, state.counted)
    place = counts & (jnp.arange(_KEPT, dtype=jnp.int32) == counted % _KEPT)
    sensitivities = jnp.where(place, sensitivity.value, state.sensitivities)
    counted = counted + counts.astype(jnp.int32)
    # 2. How far the scale is above the one that all of them point to.
    excess = jnp.where(counted > 0, _median(sensitivities, counted), sensitivity.value) + log_rate
    # 3. The record, for the guard. After a change for the calmer it begins anew; but a motion that stays
    #    where it was while the scale grew is no change for the calmer.
    calmer = sensitivity.changed & (motion < state.record - math.log(5.0))
    is_record = sensitivity.believed & ((motion > state.record) | calmer)
    record = jnp.where(is_record, motion, state.record)
    record_scale = jnp.where(is_record, state.scale, state.record_scale)
    # 4. Four ways to end, and the anchor that each of them leaves.
    growth = jnp.minimum(_SLOW_FROM * sensitivity.steps / ramp_steps, careful)
    climbed = jnp.where(sensitivity.changed, 0.0, state.climbed) + jnp.where(counted > 0, growth, 0.0)
    enough = sensitivity.believed & (counted >= least)
    reached = enough & (excess >= -tolerance)
    exhausted = sensitivity.believed & (state.scale > math.exp(guard) * record_scale)
    slow = enough & (climbed >= _ALLOWANCE * _SLOW_FROM)
    cut = sensitivity.believed & (state.cuts >= confirmed_cuts)
    ended = jnp.where(slow, BY_TIME, UNFINISHED)
    ended = jnp.where(exhausted, BY_GUARD, ended)
    ended = jnp.where(cut, BY_BOUND, ended)
    ended = jnp.where(reached, REACHED, ended)
    found = state.scale * jnp.exp(-jnp.maximum(excess, 0.0))
    anchor = jnp.where(ended == BY_GUARD, record_scale, found)
    anchor = jnp.where(ended == BY_BOUND, state.scale * jnp.exp(-growth), anchor)
    anchor = jnp.clip(anchor, _SMALLEST_SCALE, _LARGEST_SCALE)
    # 5. The next scale: fast up to the slow part, as far as two measurements are sure of it; never beyond
    #    what the sensitivities point to.
    surest = jnp.maximum(excess, motion)
    rise = jnp.where(state.believed >= 2, jnp.clip(-_SLOW_FROM - surest, growth, fast), growth)
    factor = jnp.maximum(jnp.minimum(rise, -excess), -fall)
    # A jump waits for the next one; one that may be a divergence waits at a smaller scale.
    factor = jnp.where(sensitivity.believed, factor, jnp.where(motion > math.log(2.0), -fall, 0.0))
    # A step that was cut: whether the next ones are, too, is seen at the same scale.
    factor = jnp.where(state.cuts > 0, jnp.minimum(factor, 0.0), factor)
    # Nothing moves: has it ever?
    still = jnp.where(state.believed == 0, jnp.clip(-jnp.log(state.scale), 0.0, math.log(8.0)), 0.0)
    factor = jnp.where(sensitivity.still, still, factor)
    factor = jnp.where(sensitivity.finite, factor, math.log(_RETREAT))
    done = ended != UNFINISHED
    return state._replace(
        scale=jnp.where(done, anchor, state.scale * jnp.exp(factor)),
        anchor=jnp.where(done, anchor, state.anchor),
        phase=jnp.where(done, ANNEALING, CALIBRATING).astype(jnp.int32),
        ended=ended.astype(jnp.int32),
        sensitivities=sensitivities,
        counted=counted.astype(jnp.int32),
        climbed=climbed,
        record=record,
        record_scale=record_scale,
        # In ten steps a network does not move ten times as far as in one: the annealing has its own level.
        believed=jnp.where(done, 0, state.believed).astype(jnp.int32),
    )


def _median(ring: jax.Array, count: jax.Array) -> jax.Array:
    """The median of the first `count` numbers of a ring, of all once it is full; at least one."""
    count = jnp.clip(count, 1, _KEPT)
    ordered = jnp.sort(jnp.where(jnp.arange(_KEPT, dtype=jnp.int32) < count, ring, jnp.inf))
    return 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])


# ------------------------------------------------------------------------------------------------------------
# The annealing: the schedule decides, and the scale keeps the network from answering more than it used to.
# ------------------------------------------------------------------------------------------------------------


def anneal(sensitivity: Sensitivity, state: CalibrationState) -> CalibrationState:
    """One measurement of the annealing."""
    # Shares of a new measurement in the two means: the last three count as recent, the last twenty as usual.
    recent_share, usual_share = 0.3, 0.05
    # How much of a change of the sensitivity the scale takes back, in logarithms.
    gain = 0.5
    # The smallest scale, in logarithms of anchors.
    lowest = math.log(0.2)
    # The largest factors of one measurement: down, up, and up again from below the lowest.
    fall, rise, recovery = math.log(2.0), math.log(1.3), math.log(2.0)
    # Below this share of the schedule's peak a calibration is not worth repeating.
    half = 0.5

    # 1. What the network answers these days, and what it is used to.
    first = sensitivity.believed & (state.annealed == 0)
    recent = state.recent + recent_share * (sensitivity.value - state.recent)
    usual = state.usual + usual_share * (sensitivity.value - state.usual)
    recent, usual = (jnp.where(first, sensitivity.value, mean) for mean in (recent, usual))
    recent, usual = (
        jnp.where(sensitivity.believed, new, old)
        for new, old in ((recent, state.recent), (usual, state.usual))
    )
    # 2. The scale that takes half of an increase back.
    log_scale, log_anchor = jnp.log(state.scale), jnp.log(state.anchor)
    wanted = log_anchor + jnp.clip(-gain * (recent - usual), lowest, 0.0)
    # 3. A step towards it. A jump upwards may be a divergence, and so may steps that were cut: down, until it
    #    is confirmed or over.
    below = log_scale < log_anchor + lowest
    change = jnp.clip(wanted - log_scale, -fall, jnp.where(below, recovery, rise))
    jump = ~sensitivity.believed & ~sensitivity.still & (sensitivity.value > state.sensitivity)
    alarm = jump | (state.cuts > 0)
    change = jnp.where(alarm, jnp.clip(log_anchor + lowest - log_scale, -fall, 0.0), change)
    # 4. What is not finite is the one thing that may push it below its bounds.
    change = jnp.where(sensitivity.finite, change, math.log(_RETREAT))
    reopened = sensitivity.changed & (sensitivity.decay > half)
    return state._replace(
        scale=state.scale * jnp.exp(change),
        phase=jnp.where(reopened, CALIBRATING, ANNEALING).astype(jnp.int32),
        ended=jnp.where(reopened, UNFINISHED, state.ended).astype(jnp.int32),
        counted=jnp.where(reopened, 0, state.counted).astype(jnp.int32),
        climbed=jnp.where(reopened, 0.0, state.climbed),
        record=jnp.where(reopened, _NO_RECORD, state.record),
        recent=recent,
        usual=usual,
        annealed=state.annealed + (sensitivity.believed | (state.annealed > 0)).astype(jnp.int32),
    )


# ------------------------------------------------------------------------------------------------------------
# The schedule
# ------------------------------------------------------------------------------------------------------------


def _follow(schedule: optax.Schedule | None, step: jax.Array, state: CalibrationState) -> CalibrationState:
    """The state with the schedule's value and peak at this step."""
    if schedule is None:
        # Measurements after which the rate has halved: half of the fifty that a run should have.
        halved_after = 25.0
        value = 1 / (1 + state.annealed.astype(jnp.float32) / halved_after)
        return state._replace(value=value, peak=jnp.ones((), jnp.float32))
    value = jnp.asarray(schedule(step), jnp.float32)
    good = (value >= 0) & (value < jnp.inf)  # false for NaN, too
    value = jnp.where(good, value, state.value)
    peak = jnp.maximum(state.peak, value)
    # A warm-up that goes on after the calibration lifts the rate: what was calibrated is their product.
    found = (state.phase == ANNEALING) & (state.peak > 0)
    lift = jnp.where(found, peak, 1.0) / jnp.where(found, state.peak, 1.0)
    return state._replace(
        scale=state.scale / lift,
        anchor=state.anchor / lift,
        value=value,
        peak=peak,
        refused=state.refused + (~good).astype(jnp.int32),
    )


def _log_peak(state: CalibrationState) -> jax.Array:
    return jnp.log(jnp.where(state.peak > 0, state.peak, 1.0))
