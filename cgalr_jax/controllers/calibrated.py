"""The default controller: ramps up to the scale at which the network moves at its set-point, then anneals."""

import math

import jax
import jax.numpy as jnp
import optax

from cgalr_jax import _checks
from cgalr_jax._counting import one_more
from cgalr_jax._warnings import warn_deprecated
from cgalr_jax.controllers.annealing import anneal
from cgalr_jax.controllers.base import Controller, Measurement
from cgalr_jax.controllers.calibration import (
    CALIBRATING,
    LARGEST_SCALE,
    SMALLEST_SCALE,
    CalibrationState,
    first_state,
)
from cgalr_jax.controllers.following import follow
from cgalr_jax.controllers.ramp import longest_ramp, ramp, slow_steps
from cgalr_jax.controllers.sensitivity import AT_REST, believe

__all__ = ["calibrated"]

# Steps are often cut if more than this share of them is. Noisy gradients lead to single large steps at rates
# that are good.
_OFTEN = 1 / 4


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
      calibrating, jumps count once three in a row agree, upward ones once they have lasted ten steps, too,
      and no longer fade. Then they replace what was measured before; until then the scale stays, or goes
      down if the network moves too fast.
    - A distance that is not finite multiplies the scale by 0.8 and gives no sensitivity. Its steps are steps
      of the ramp.
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

        >>> from cgalr_jax.controllers import ENDINGS
        >>> controller = calibrated(optax.constant_schedule(1.0))
        >>> scale, state = controller.init()
        >>> for step in range(10, 200, 10):
        ...     scale, state = controller.update(Measurement(scale / 1000, jnp.int32(step)), state)
        >>> bool(900 < scale < 1100), ENDINGS[int(state.ended)]
        (True, 'at the set-point')
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
    start = _checks.check("start", start, lambda x: SMALLEST_SCALE <= x <= 1, "in [1e-6, 1]")
    ramp_steps = slow_steps(steps)

    def init() -> tuple[jax.Array, CalibrationState]:
        # A buffer of its own for the scale: a shared one cannot be donated.
        return jnp.full((), start, jnp.float32), first_state(start)

    def update(measurement: Measurement, state: CalibrationState) -> tuple[jax.Array, CalibrationState]:
        # 1. The value of the schedule at this step.
        state = follow(schedule, measurement.step, state)
        # 2. Whether steps were often cut; the sensitivity, and whether to believe it.
        distance = measurement.distance / target
        at_rest = (distance >= 0) & (distance <= AT_REST)  # nothing moved that could have been cut
        cuts = jnp.where(measurement.cut > _OFTEN, one_more(True, state.cuts), 0)
        cuts = jnp.where(at_rest, state.cuts, cuts).astype(jnp.int32)
        state = state._replace(cuts=cuts)
        sensitivity, state = believe(distance, measurement.step, state)
        # 3. The phase decides. If the ramp ends here, the annealing begins with the next measurement.
        climbed, annealed = ramp(sensitivity, state, ramp_steps=ramp_steps), anneal(sensitivity, state)
        state = optax.tree.where(state.phase == CALIBRATING, climbed, annealed)
        state = state._replace(
            scale=jnp.clip(state.scale, SMALLEST_SCALE, LARGEST_SCALE),
            anchor=jnp.clip(state.anchor, SMALLEST_SCALE, LARGEST_SCALE),
        )
        return state.scale * state.value if schedule is None else state.scale, state

    # If the length of the run is not known, there is a measurement every `every` steps from the beginning.
    return Controller(init, update, early=0 if steps is None else longest_ramp(steps))
