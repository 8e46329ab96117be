"""The default controller: ramps up to the scale at which the network moves at its set-point, then anneals."""

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

# The phases, and how a calibration ended. Plain numbers, so that they can be logged.
CALIBRATING, ANNEALING = 0, 1
UNFINISHED, REACHED, BY_TIME, BY_GUARD, BY_BOUND = 0, 1, 2, 3, 4

# The scale stays inside this range whatever happens.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-6, 1e6
# Stands for "no record yet": below the logarithm of every motion. Finite, because some wrappers multiply the
# state by zero.
_NO_RECORD = -100.0
# A distance of at most this many targets is the rounding of float32, not motion: updates were skipped, or are
# too small for their type.
_STILL = 1e-5
# A schedule below this share of its peak counts as this share: the logarithm of zero is not finite.
_SMALLEST_DECAY = 1e-3
# A distance that is not finite multiplies the scale by this: a smaller rate is the safe side.
_RETREAT = 0.8
# The slow part of the ramp begins this far below the set-point, in logarithms; measurements count from there.
_SLOW_FROM = math.log(30.0)
# The slow part may take this many times as many steps as it should.
_ALLOWANCE = 4.0
# How many sensitivities are kept: enough for the slow part of the longest ramp.
_KEPT = 64


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
    suspect: jax.Array  # f32[], the last sensitivity measured, whether believed or not
    suspects: jax.Array  # i32[], length of the present row of jumps that agree with each other
    cuts: jax.Array  # i32[], measurements in a row with a step that was cut
    stills: jax.Array  # i32[], measurements in a row in which nothing moved
    recent: jax.Array  # f32[], running mean of the annealing's sensitivities, over some three of them
    usual: jax.Array  # f32[], the same over some twenty
    annealed: jax.Array  # i32[], measurements while annealing
    peak: jax.Array  # f32[], the largest value of the schedule so far
    value: jax.Array  # f32[], the last good value of the schedule
    refused: jax.Array  # i32[], how many values of the schedule were not used
    step: jax.Array  # i32[], optimizer step of the last measurement

    @property
    def calibrating(self) -> jax.Array:
        """bool[], true during the ramp. If `steps` was given, each step of the ramp is measured."""
        return self.phase == CALIBRATING


class Sensitivity(NamedTuple):
    """One measurement, as `ramp` and `anneal` need it."""

    value: jax.Array  # f32[], log(distance / target) - log(rate); if nothing moved, the last one believed
    finite: jax.Array  # bool[], whether the distance could be measured
    still: jax.Array  # bool[], whether nothing moved
    believed: jax.Array  # bool[], whether it was neither still nor an unconfirmed jump
    changed: jax.Array  # bool[], whether it confirms a jump: the network's sensitivity has changed
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
    """The default controller: finds the scale at which the network moves at its set-point, then anneals.

    A distance in set-points is the motion of the network. The motion divided by the learning rate is the
    network's **sensitivity**. With the median sensitivity of a whole ramp, one set-point serves many
    networks.

    - **Calibrating.** The scale climbs from `start`: fast while the motion is below a thirtieth of the
      set-point, then slowly and evenly, by a factor of 30 in a hundred optimizer steps (with `steps`, in a
      tenth of the run). The median of the sensitivities from the slow part predicts the scale at which the
      network moves at its set-point. Once the ramp reaches this scale, it becomes the **anchor**. The median
      is taken, not the last sensitivity, because a network that has learnt its data hardly moves any more.
    - **Annealing.** The schedule lowers the rate, and the scale stays at the anchor. Only while the
      sensitivity is f > 1 times its usual value, the scale goes down to the anchor divided by sqrt(f), at
      most to a fifth of the anchor; while steps are cut, it goes down to a fifth, too. It never exceeds the
      anchor: the sensitivity of a network that has learnt its data keeps falling, and a rate that compensated
      for this would let training diverge. If the schedule still warms up after the calibration, anchor and
      scale are divided by what the warm-up adds to the rate: the product of scale and rate was calibrated.

    **Without a schedule**, for runs whose end is not known, the controller anneals by itself: it multiplies
    the scale by the Robbins-Monro decay `1 / (1 + m / 25)` after m measurements of the annealing. Evaluate
    the averaged parameters then, see `polynomial_averaging`: averaging does the rest of the annealing, and
    the run can end at any step.

    **What always holds**, and is tested with disturbances drawn at every measurement:

    - One bad measurement never decides, nor do two in a row. A measurement in which nothing moved gives no
      sensitivity. A sensitivity that differs from the last one by more than a factor of five is a jump. While
      calibrating, jumps count once three in a row agree, and then replace what was measured before; until
      then the scale stays, or goes down if the network moves too fast.
    - A distance that is not finite multiplies the scale by 0.8 and has no other effect.
    - The set-point counts as reached only after five sensitivities. An anchor is never above the largest
      scale that was tried.
    - While annealing, eight jumps in a row that agree start the calibration again, as long as the schedule is
      above half of its peak.
    - If steps had to be cut to `max_share` (see `scale_by_connectome`) in two measurements in a row, the ramp
      ends. The anchor is the scale one step of the ramp lower. With a squared loss, training can diverge
      before the network moves at its set-point.
    - `ended` in the state says how the calibration ended: at the set-point; by time, after four times the
      steps that the slow part should take; by the guard, when the scale has grown by 50 without a new record
      of the motion (noise covers the motion), with the scale of the record as the anchor; by the bound on one
      step; or not yet.
    - While no motion has been more than a hundred-thousandth of the set-point (a rate too small for the
      floating type, a frozen network), the scale rises to 1 at most: to the base rate as it was given.
    - A value of the schedule that is negative or not finite is replaced by its last good value and counted in
      `refused`. Values below a thousandth of the peak count as a thousandth.
    - The scale stays within [1e-6, 1e6], before the decay of a controller without a schedule.

    With `steps`, the transformation measures at each step of the ramp. Otherwise it measures every `every`
    steps from the beginning.

    Args:
        schedule: the base optimizer's own schedule, `step -> learning rate`, if it has one; only its shape
            matters. None: the base rate is constant, and the controller anneals by itself. With a constant
            schedule nothing anneals.
        steps: optimizer steps of the whole run, if known; at least 1. The slow part of the ramp then takes a
            tenth of them, but at least 7 and at most 60; the fast part before it takes a few steps more. The
            ramp is a warm-up, too: slower ramps found better rates and ended at smaller errors.
        target: distance to aim at, in set-points of the signal; positive.
        start: first scale; in (0, 1]. Small by default: a few steps at too small a rate do no harm, first
            steps at too large a rate do.
        gain: deprecated, without effect, like the next two: the ramp works differently now.
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
    # Optimizer steps of the slow part. A short ramp leaves more of a short run to training; a long one
    # measures a network that has settled, and serves as a warm-up.
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
        # 1. The value of the schedule at this step.
        state = _follow(schedule, measurement.step, state)
        # 2. The sensitivity, and whether to believe it; whether a step was cut.
        sensitivity, state = _believe(measurement.distance / target, measurement.step, state)
        state = state._replace(cuts=jnp.where(measurement.cut > 1, state.cuts + 1, 0).astype(jnp.int32))
        # 3. The phase decides. If the ramp ends here, the annealing begins with the next measurement.
        state = jax.tree.map(
            lambda calibrating, annealing: jnp.where(state.phase == CALIBRATING, calibrating, annealing),
            ramp(sensitivity, state, ramp_steps=ramp_steps),
            anneal(sensitivity, state),
        )
        state = state._replace(scale=jnp.clip(state.scale, _SMALLEST_SCALE, _LARGEST_SCALE))
        return state.scale * state.value if schedule is None else state.scale, state

    # The most steps that a ramp may take: 20 for its fast part, and what is allowed for the slow one. If the
    # length of the run is not known, there is a measurement every `every` steps from the beginning.
    return Controller(init, update, early=0 if steps is None else 20 + math.ceil(_ALLOWANCE * ramp_steps))


# ------------------------------------------------------------------------------------------------------------
# What to believe
# ------------------------------------------------------------------------------------------------------------


def _believe(
    distance: jax.Array, step: jax.Array, state: CalibrationState
) -> tuple[Sensitivity, CalibrationState]:
    """The sensitivity of the network, whether it is to be believed, and the state updated with it."""
    # The largest change of a sensitivity that we saw between two measurements, in logarithms.
    jump = math.log(5.0)
    # How many jumps in a row have to agree: while calibrating; and while annealing, where there is more time.
    confirmed_by, reopened_by = 3, 8
    # After this many measurements without motion, earlier sensitivities are dropped.
    forgotten_after = 30

    # 1. Motion per rate. The peak is 0 before a warm-up has begun.
    finite = (distance >= 0) & (distance < jnp.inf)  # false for NaN, too
    peak = jnp.where(state.peak > 0, state.peak, 1.0)
    decay = jnp.where(state.peak > 0, jnp.clip(state.value / peak, _SMALLEST_DECAY, 1.0), 1.0)
    moved = finite & (distance > _STILL) & (state.peak > 0)
    # A small motion whose sensitivity is a thousand times less than the last one is rounding, too; unless the
    # last one is the only one, and may be the bad one of the two.
    no_answer, small = math.log(1e3), 1e-3
    motion = jnp.log(jnp.where(moved, distance, 1.0))
    value = motion - jnp.log(state.scale * decay) - jnp.log(peak)
    answers = (state.believed < 2) | (value > state.sensitivity - no_answer) | (distance > small)
    usable = moved & answers
    value = jnp.where(usable, value, state.sensitivity)
    # 2. A sensitivity that agrees with the last one is believed; jumps are, once enough of them agree.
    agrees = (state.believed == 0) | (jnp.abs(value - state.sensitivity) <= jump)
    again = (state.suspects > 0) & (jnp.abs(value - state.suspect) <= jump)
    suspects = jnp.where(again, state.suspects + 1, 1)
    enough = jnp.where(state.phase == CALIBRATING, confirmed_by, reopened_by)
    changed = usable & ~agrees & (suspects >= enough)
    believed = usable & (agrees | changed)
    # 3. The state for the next measurement.
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
    """The state after one measurement of the ramp: the next scale or, if the ramp ends here, the anchor.

    Args:
        sensitivity: what was measured.
        state: the state before it.
        ramp_steps: optimizer steps of the slow part, in which the scale grows by 30.
    """
    # Sensitivities needed for a calibration: two bad ones are less than half of them.
    least = 5
    # A motion this close to the set-point, in logarithms, counts as at the set-point.
    tolerance = 0.1
    # Measurements in a row with a cut step that end the ramp: one may be a bad batch.
    confirmed_cuts = 2
    # The guard: this growth of the scale, in logarithms, without a new record of the motion ends the ramp.
    guard = math.log(50.0)
    # The largest changes of the scale in one measurement, in logarithms: upwards where the network hardly
    # moves, upwards in the slow part, and downwards.
    fast, careful, fall = math.log(64.0), math.log(2.0), math.log(2.0)

    # 1. The motion as if the schedule were at its peak. After a confirmed jump the count starts again.
    log_rate = jnp.log(state.scale) + _log_peak(state)
    motion = sensitivity.value + log_rate
    counts = sensitivity.believed & (motion >= -_SLOW_FROM - tolerance)
    counted = jnp.where(sensitivity.changed, 0, state.counted)
    place = counts & (jnp.arange(_KEPT, dtype=jnp.int32) == counted % _KEPT)
    sensitivities = jnp.where(place, sensitivity.value, state.sensitivities)
    counted = counted + counts.astype(jnp.int32)
    # 2. How far the scale is above the one at which the median puts the network at its set-point.
    excess = jnp.where(counted > 0, _median(sensitivities, counted), sensitivity.value) + log_rate
    # 3. The record of the motion, for the guard. It starts again if the motion has clearly fallen; a motion
    #    that stays the same while the scale grows has not fallen, though its sensitivity has.
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
    # 5. The next scale: fast up to the beginning of the slow part, once two sensitivities are believed; never
    #    beyond the scale that the median predicts.
    surest = jnp.maximum(excess, motion)
    rise = jnp.where(state.believed >= 2, jnp.clip(-_SLOW_FROM - surest, growth, fast), growth)
    factor = jnp.maximum(jnp.minimum(rise, -excess), -fall)
    # At a jump the scale stays until the next measurement; if training may be diverging, it goes down.
    factor = jnp.where(sensitivity.believed, factor, jnp.where(motion > math.log(2.0), -fall, 0.0))
    # After a cut step the scale does not grow: the next measurement shows whether steps are cut again.
    factor = jnp.where(state.cuts > 0, jnp.minimum(factor, 0.0), factor)
    # Nothing moved: if nothing ever has, the scale rises to 1 at most.
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
        # In ten steps a network does not move ten times as far as in one, and the ramp may have measured each
        # step: the annealing finds its own level of the sensitivity.
        believed=jnp.where(done, 0, state.believed).astype(jnp.int32),
    )


def _median(ring: jax.Array, count: jax.Array) -> jax.Array:
    """The median of the first `count` numbers of a ring, or of all once it is full; of at least one."""
    count = jnp.clip(count, 1, _KEPT)
    ordered = jnp.sort(jnp.where(jnp.arange(_KEPT, dtype=jnp.int32) < count, ring, jnp.inf))
    return 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])


# ------------------------------------------------------------------------------------------------------------
# The annealing: the schedule lowers the rate; the scale goes down while the sensitivity is unusually high.
# ------------------------------------------------------------------------------------------------------------


def anneal(sensitivity: Sensitivity, state: CalibrationState) -> CalibrationState:
    """The state after one measurement of the annealing."""
    # Weights of a new measurement in the two running means, over some three and some twenty measurements.
    recent_share, usual_share = 0.3, 0.05
    # Which part of an increase of the sensitivity the scale compensates, in logarithms.
    gain = 0.5
    # The smallest scale, as the logarithm of its ratio to the anchor.
    lowest = math.log(0.2)
    # The largest changes of the scale in one measurement, in logarithms: down, up, and up from below lowest.
    fall, rise, recovery = math.log(2.0), math.log(1.3), math.log(2.0)
    # Below this share of the schedule's peak a calibration is not worth repeating.
    half = 0.5

    # 1. The recent and the usual sensitivity.
    first = sensitivity.believed & (state.annealed == 0)
    recent = state.recent + recent_share * (sensitivity.value - state.recent)
    usual = state.usual + usual_share * (sensitivity.value - state.usual)
    recent, usual = (jnp.where(first, sensitivity.value, mean) for mean in (recent, usual))
    recent, usual = (
        jnp.where(sensitivity.believed, new, old)
        for new, old in ((recent, state.recent), (usual, state.usual))
    )
    # 2. The scale that compensates half of an increase.
    log_scale, log_anchor = jnp.log(state.scale), jnp.log(state.anchor)
    wanted = log_anchor + jnp.clip(-gain * (recent - usual), lowest, 0.0)
    # 3. A step towards that scale. With a jump upwards, or with cut steps, training may be diverging: the
    #    scale goes down until the jump is confirmed or over.
    below = log_scale < log_anchor + lowest
    change = jnp.clip(wanted - log_scale, -fall, jnp.where(below, recovery, rise))
    jump = ~sensitivity.believed & ~sensitivity.still & (sensitivity.value > state.sensitivity)
    alarm = jump | (state.cuts > 0)
    change = jnp.where(alarm, jnp.clip(log_anchor + lowest - log_scale, -fall, 0.0), change)
    # 4. Only distances that are not finite may take the scale below its lowest.
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
        # Measurements after which the rate has halved: half of the fifty that a run should have at least.
        halved_after = 25.0
        value = 1 / (1 + state.annealed.astype(jnp.float32) / halved_after)
        return state._replace(value=value, peak=jnp.ones((), jnp.float32))
    value = jnp.asarray(schedule(step), jnp.float32)
    good = (value >= 0) & (value < jnp.inf)  # false for NaN, too
    value = jnp.where(good, value, state.value)
    peak = jnp.maximum(state.peak, value)
    # If the schedule still warms up after the calibration, anchor and scale are divided by what the warm-up
    # adds to the rate: the product of scale and rate was calibrated.
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
