"""The default controller: ramps up to the scale at which the network moves at its set-point, then anneals."""

import math

import jax
import jax.numpy as jnp
import optax

from cgalr_jax import _checks
from cgalr_jax._warnings import warn_deprecated
from cgalr_jax.controllers._ring import ring_median
from cgalr_jax.controllers.base import Controller, Measurement
from cgalr_jax.controllers.calibration import (
    ANNEALING,
    BY_BOUND,
    BY_GUARD,
    BY_TIME,
    CALIBRATING,
    NO_RECORD,
    REACHED,
    UNFINISHED,
    CalibrationState,
    start_again,
)
from cgalr_jax.controllers.following import follow
from cgalr_jax.controllers.sensitivity import AT_REST, Sensitivity, believe

__all__ = ["anneal", "calibrated", "longest_ramp", "ramp"]

# The scale stays inside this range whatever happens.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-6, 1e6
# A distance that is not finite multiplies the scale by this: a smaller rate is the safe side.
_RETREAT = 0.8
# The slow part of the ramp begins this far below the set-point, in logarithms; measurements count from there.
_SLOW_FROM = math.log(30.0)
# The slow part may take this many times as many steps as it should.
_ALLOWANCE = 4.0
# Steps are often cut if more than this share of them is. Noisy gradients lead to single large steps at rates
# that are good.
_OFTEN = 1 / 4
# How many sensitivities are kept: enough for the slow part of the longest ramp.
_KEPT = 64


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
      set-point, then slowly and evenly, by a factor of 30 in a hundred optimizer steps (with `steps`, in
      sixty at most). The median of the sensitivities from the slow part predicts the scale at which the
      network moves at its set-point. Once the ramp reaches this scale, it becomes the **anchor**. The median
      is taken, not the last sensitivity, because a network that has learnt its data hardly moves any more.
    - **Annealing.** The schedule lowers the rate, and the scale stays at the anchor. Only while the
      sensitivity is f > 1 times its usual value, the scale goes down to the anchor divided by sqrt(f), at
      most to a fifth of the anchor; while steps are often cut, it goes down to a fifth, too. It never exceeds
      the anchor: the sensitivity of a network that has learnt its data keeps falling, and a rate that
      compensated for this would let training diverge.

    While the schedule warms up, scale and anchor are divided by what it adds to the rate until the next
    measurement: the product of scale and rate is what climbs and what is calibrated.

    **Without a schedule**, for runs whose end is not known, the controller anneals by itself: it multiplies
    the scale by the Robbins-Monro decay `1 / (1 + m / 25)` after m measurements of the annealing. Evaluate
    the averaged parameters then, see `polynomial_averaging`: averaging does the rest of the annealing, and
    the run can end at any step.

    **What always holds**, and is tested with disturbances drawn at every measurement of networks whose
    motion is proportional to their rate:

    - One bad measurement never decides, nor do two in a row. A measurement in which nothing moved gives no
      sensitivity. A sensitivity that differs from the last one by more than a factor of five is a jump. While
      calibrating, jumps count once three in a row agree, and then replace what was measured before; until
      then the scale stays, or goes down if the network moves too fast.
    - A distance that is not finite multiplies the scale by 0.8 and has no other effect.
    - The set-point counts as reached only after five sensitivities. An anchor is never above the largest
      scale that was tried.
    - While annealing, eight jumps in a row that agree start the calibration again, as long as the schedule is
      above half of its peak.
    - If more than a quarter of the steps had to be cut to `max_share` (see `scale_by_connectome`), twice in a
      row, near the end of the ramp, the ramp ends: with a squared loss, training can diverge before the
      network moves at its set-point. The anchor is the scale one step of the ramp lower. Near means: within
      a factor of three of the scale that is predicted, or of the one at which it happened before.
    - Anywhere else one huge gradient did it, which a momentum repeats for many steps. The scale goes down as
      fast as it climbed until steps are no longer cut, and the count starts again once the sensitivity has
      stopped fading. Cut steps give no sensitivity. Momenta up to 0.95 were tried.
    - `ended` in the state says how the calibration ended: at the set-point; by time, after four times the
      steps that the slow part should take; by the guard, when noise covers the motion: the scale has grown by
      50, below a tenth of the set-point by 1000, without a new record of the motion, and becomes the anchor,
      but at most 1 or the scale of the record; by the bound on one step; or not yet.
    - While no motion has been more than a hundred-thousandth of the set-point (a rate too small for the
      floating type), the scale rises to 1 at most: to the base rate as it was given. It stays as it is while
      the schedule is 0, and once five sensitivities have counted. Before that, what was believed is forgotten
      after thirty such measurements in a row, and after three if no sensitivity has counted yet.
    - A value of the schedule that is negative or not finite is replaced by its last good value and counted in
      `refused`; the base optimizer still applies what its own schedule says. A value of more than twice the
      peak is a new one once two measurements in a row have seen it, or, while annealing, if the schedule
      stays there until the next one. Of the first two values that are not 0 the smaller one counts. Values
      below a thousandth of the peak count as a thousandth.
    - A schedule that changes by more than a factor of 2.5 between two measurements (steps, short cycles)
      counts by its mean over the steps that made the motion; if that is 0, there is no sensitivity.
    - The scale stays within [1e-6, 1e6], before the decay of a controller without a schedule; a set-point
      that would ask for less does not count as reached.

    With `steps`, the transformation measures at each step of the ramp. Otherwise it measures every `every`
    steps from the beginning.

    Args:
        schedule: the base optimizer's own schedule, `step -> learning rate`, if it has one; only its shape
            matters. None: the base rate is constant, and the controller anneals by itself. With a constant
            schedule nothing anneals.
        steps: optimizer steps of the whole run, if known; at least 1. The slow part of the ramp then takes 60
            of them, or a third of the run if that is less, but at least 7; the fast part before it takes a
            few more. The ramp is a warm-up, too: in runs of 200 steps shorter ramps found worse rates and
            ended at larger errors.
        target: distance to aim at, in set-points of the signal; positive.
        start: first scale; in [1e-6, 1]. Small by default: a few steps at too small a rate do no harm, first
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
            warn_deprecated(
                f"{name}= has no effect any more, since all measurements of the ramp count; it will be "
                "removed in the next release."
            )
    if schedule is not None:
        _checks.check_function("schedule", schedule, "step -> learning rate, or None", 1)
        _checks.shapes_of("schedule", schedule, jax.ShapeDtypeStruct((), jnp.int32))
        first = schedule(jnp.zeros((), jnp.int32))
        _checks.check("schedule at step 0", first, lambda x: 0 <= x < math.inf, "finite and at least 0")
    if steps is not None:
        steps = _checks.check_integer("steps", steps, 1)
    target = _checks.check_positive("target", target)
    start = _checks.check("start", start, lambda x: _SMALLEST_SCALE <= x <= 1, "in [1e-6, 1]")
    ramp_steps = _slow_steps(steps)

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
        return f32(start), state

    def update(measurement: Measurement, state: CalibrationState) -> tuple[jax.Array, CalibrationState]:
        # 1. The value of the schedule at this step.
        state = follow(schedule, measurement.step, state)
        # 2. Whether steps were often cut; the sensitivity, and whether to believe it.
        distance = measurement.distance / target
        at_rest = (distance >= 0) & (distance <= AT_REST)  # nothing moved that could have been cut
        cuts = jnp.where(measurement.cut > _OFTEN, state.cuts + 1, 0)
        cuts = jnp.where(at_rest, state.cuts, cuts).astype(jnp.int32)
        state = state._replace(cuts=cuts)
        sensitivity, state = believe(distance, measurement.step, state)
        # 3. The phase decides. If the ramp ends here, the annealing begins with the next measurement.
        state = jax.tree.map(
            lambda calibrating, annealing: jnp.where(state.phase == CALIBRATING, calibrating, annealing),
            ramp(sensitivity, state, ramp_steps=ramp_steps),
            anneal(sensitivity, state),
        )
        state = state._replace(
            scale=jnp.clip(state.scale, _SMALLEST_SCALE, _LARGEST_SCALE),
            anchor=jnp.clip(state.anchor, _SMALLEST_SCALE, _LARGEST_SCALE),
        )
        return state.scale * state.value if schedule is None else state.scale, state

    # If the length of the run is not known, there is a measurement every `every` steps from the beginning.
    return Controller(init, update, early=0 if steps is None else longest_ramp(steps))


def longest_ramp(steps: int) -> int:
    """The most steps that the ramp of a run of this length may take: 20 of them in its fast part."""
    return 20 + math.ceil(_ALLOWANCE * _slow_steps(steps))


def _slow_steps(steps: int | None) -> float:
    """Optimizer steps that the slow part should take, in a run of so many; None if its length is not known.

    A long one measures a network that has settled, and is a warm-up. Where each step is measured, sixty are
    enough.
    """
    return 100.0 if steps is None else max(min(steps / 3, 60.0), 7.0)


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
    # Measurements in a row between which steps were often cut that confirm it. They end the ramp if its scale
    # is this near to the one that the median predicts, or to that of the last such row, in logarithms.
    confirmed_cuts, near = 2, math.log(3.0)
    # The guard: this growth of the scale, in logarithms, without a new record of the motion ends the ramp.
    # Noise below a tenth of the set-point is small enough for the network's own motion to show later.
    large_noise, small_noise = math.log(50.0), math.log(1e3)
    # The largest changes of the scale in one measurement, in logarithms: upwards where the network hardly
    # moves, upwards in the slow part, and downwards.
    fast, careful, fall = math.log(64.0), math.log(2.0), math.log(2.0)

    # 1. The motion as if the schedule were at its peak. The count starts again after a confirmed jump, and if
    #    the motion falls early although the scale grows: what went before was the momentum of one gradient.
    log_rate = jnp.log(state.scale) + jnp.log(state.known_peak)
    motion = sensitivity.value + log_rate
    calmer = sensitivity.believed & (motion < state.record - math.log(5.0))
    anew = sensitivity.changed | (calmer & (state.climbed < _SLOW_FROM))
    counted = jnp.where(anew, 0, state.counted)
    counts = sensitivity.believed & (motion >= -_SLOW_FROM - tolerance)
    counts &= (counted > 0) | sensitivity.steady
    place = counts & (jnp.arange(_KEPT, dtype=jnp.int32) == counted % _KEPT)
    sensitivities = jnp.where(place, sensitivity.value, state.sensitivities)
    counted = counted + counts.astype(jnp.int32)
    # 2. How far the scale is above the one at which the median puts the network at its set-point.
    excess = jnp.where(counted > 0, ring_median(sensitivities, counted), sensitivity.value) + log_rate
    # 3. The record of the motion, for the guard. It starts again if the motion has clearly fallen; a motion
    #    that stays the same while the scale grows has not fallen, though its sensitivity has.
    is_record = sensitivity.believed & ((motion > state.record) | calmer)
    record = jnp.where(is_record, motion, state.record)
    record_scale = jnp.where(is_record, state.scale, state.record_scale)
    # 4. Four ways to end, and the anchor that each of them leaves.
    growth = jnp.minimum(_SLOW_FROM * sensitivity.steps / ramp_steps, careful)
    climbed = jnp.where(anew, 0.0, state.climbed) + jnp.where(counted > 0, growth, 0.0)
    enough = sensitivity.believed & (counted >= least)
    found = state.scale * jnp.exp(-jnp.maximum(excess, 0.0))
    reached = enough & (excess >= -tolerance) & (found >= _SMALLEST_SCALE)
    guard = jnp.where(motion > math.log(0.1), large_noise, small_noise)
    exhausted = sensitivity.believed & (state.cut_scale == 0) & (state.scale > jnp.exp(guard) * record_scale)
    slow = enough & (climbed >= _ALLOWANCE * _SLOW_FROM)
    often_cut, confirmed = state.cuts >= confirmed_cuts, state.cuts == confirmed_cuts
    again = state.scale < math.exp(near) * state.cut_scale
    cut = confirmed & (again | ((counted >= least) & (excess > -near)))
    ended = jnp.where(slow, BY_TIME, UNFINISHED)
    ended = jnp.where(exhausted, BY_GUARD, ended)
    ended = jnp.where(cut, BY_BOUND, ended)
    ended = jnp.where(reached, REACHED, ended)
    anchor = jnp.where(ended == BY_BOUND, state.scale * jnp.exp(-growth), found)
    anchor = jnp.where(ended == BY_GUARD, jnp.minimum(found, jnp.maximum(record_scale, 1.0)), anchor)
    # 5. The next scale: fast up to the beginning of the slow part, once two sensitivities are believed, while
    #    they are steady, no faster than carefully in each step while they rise; never beyond the scale that
    #    the median predicts.
    certain = (state.believed >= 2) & sensitivity.steady
    fast = jnp.where(sensitivity.rising, jnp.minimum(careful * sensitivity.steps, fast), fast)
    rise = jnp.where(certain, jnp.clip(-_SLOW_FROM - jnp.maximum(excess, motion), growth, fast), growth)
    factor = jnp.maximum(jnp.minimum(rise, -excess), -fall)
    # At a jump the scale stays until the next measurement; if training may be diverging, it goes down.
    factor = jnp.where(sensitivity.believed, factor, jnp.where(motion > math.log(2.0), -fall, 0.0))
    # If steps were often cut the scale stays: the next measurement shows whether they are again. Then it goes
    # down, until they are not.
    factor = jnp.where(state.cuts > 0, jnp.where(often_cut, -growth, 0.0), factor)
    # Nothing moved: if nothing ever has although the schedule is not 0, the scale rises to 1 at most.
    never = (state.believed == 0) & (state.value > 0)
    still = jnp.where(never, jnp.clip(-jnp.log(state.scale), 0.0, math.log(8.0)), 0.0)
    factor = jnp.where(sensitivity.still, still, factor)
    factor = jnp.where(sensitivity.finite, factor, math.log(_RETREAT))
    done = ended != UNFINISHED
    state = state._replace(
        scale=jnp.where(done, anchor, state.scale * jnp.exp(factor)),
        anchor=jnp.where(done, anchor, state.anchor),
        phase=jnp.where(done, ANNEALING, CALIBRATING).astype(jnp.int32),
        ended=ended.astype(jnp.int32),
        sensitivities=sensitivities,
        counted=counted.astype(jnp.int32),
        climbed=climbed,
        record=record,
        record_scale=record_scale,
        cut_scale=jnp.where(confirmed, state.scale, state.cut_scale),
        # In ten steps a network does not move ten times as far as in one, and the ramp may have measured each
        # step: the annealing finds its own level of the sensitivity.
        believed=jnp.where(done, 0, jnp.where(often_cut, 1, state.believed)).astype(jnp.int32),
        # Below every sensitivity: the next ones are jumps upwards, and believed once they no longer fall.
        sensitivity=jnp.where(often_cut, NO_RECORD, state.sensitivity),
    )
    return start_again(often_cut, state)  # cut steps may have left another network


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
    # 3. A step towards that scale. With a jump upwards, or if steps are often cut, training may be diverging:
    #    the scale goes down until the jump is confirmed or over.
    below = log_scale < log_anchor + lowest - 0.01  # clearly: at the lowest itself rounding must not decide
    change = jnp.clip(wanted - log_scale, -fall, jnp.where(below, recovery, rise))
    jump = ~sensitivity.believed & ~sensitivity.still & (sensitivity.value > state.sensitivity)
    alarm = jump | (state.cuts > 0)
    change = jnp.where(alarm, jnp.clip(log_anchor + lowest - log_scale, -fall, 0.0), change)
    # 4. Only distances that are not finite may take the scale below its lowest.
    change = jnp.where(sensitivity.finite, change, math.log(_RETREAT))
    reopened = sensitivity.changed & (sensitivity.decay > half)
    state = state._replace(
        scale=state.scale * jnp.exp(change),
        phase=jnp.where(reopened, CALIBRATING, ANNEALING).astype(jnp.int32),
        ended=jnp.where(reopened, UNFINISHED, state.ended).astype(jnp.int32),
        recent=recent,
        usual=usual,
        annealed=state.annealed + (sensitivity.believed | (state.annealed > 0)).astype(jnp.int32),
    )
    return start_again(reopened, state)
