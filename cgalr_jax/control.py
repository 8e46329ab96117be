"""Distances to a scale: what the learning rate does about a connectome that moves.

A `Controller` is a pair of pure functions, `init() -> (scale, state)` and `update(measurement, state) ->
(scale, state)`, so that a user can write a third beside the two shipped here:

- `hysteresis_gate`, the paper's law (arXiv 2510.23781): relative, it reacts to how unusual a distance is.
- `calibrated`, the default and our own: absolute, it finds the scale at which the connectome moves at its
  set-point.

Both see a `Measurement` after each block of `every` steps and never raise: what cannot be measured makes the
scale smaller.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

# What the Schmitt trigger of the gate, and the calibrated law, can be doing. Plain numbers, so that they can
# be logged.
FAST, HOLD, SLOW = -1, 0, 1
CALIBRATING, ANNEALING = 0, 1

# 1 / Phi^-1(3/4): a median absolute deviation times this is a standard deviation, if the numbers are normal.
_MAD_TO_DEVIATION = 1.4826
# A distance below this many targets counts as this many: the logarithm of an exact zero is not a number.
SMALLEST_DISTANCE = 1e-8
# Below the logarithm of every possible distance: the state of a calibration before its first measurement.
_NO_RECORD = -20.0
# The scale stays inside this range whatever happens.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-6, 1e6
# What is not finite makes the scale this much smaller: the safe side.
_RETREAT = 0.8
# A distance this close to the set-point, in logarithms, has reached it; without noise it only approaches.
_TOLERANCE = 0.1
# A first hit above this many set-points, in logarithms, was a jump: the anchor is the excess lower.
_JUMP = math.log(2.0)
# The last stretch of a calibration begins this far below the set-point, in logarithms, and may take this many
# times the measurements that a network whose distance is proportional to its rate would need for it.
_LAST_STRETCH, _ALLOWANCE = math.log(10.0), 1.25
# Measurements after which a rate without a schedule has halved: half of the fifty that a run should have.
_HALVED_AFTER = 25
# While annealing the scale stays within these multiples of the anchor.
_LOWEST, _HIGHEST = 0.2, 3.0
# The largest factor a measurement on the scale: while calibrating, while annealing, and (inverted) downwards.
_RAMP, _RISE, _FALL = 8.0, 1.1, 2.0


class Measurement(NamedTuple):
    """What a controller is told after each block of steps.

    Attributes:
        distance: f32[], how far the connectome moved, in set-points of the signal: 1 is the calibrated speed.
            Not finite if it could not be measured (non-finite activations, no layer with two live units).
        z: f32[], robust z-score of the logarithm of the distance among the last ones, in [-10, 10]; 0 while
            there are few.
        step: i32[], optimizer steps taken so far.
    """

    distance: jax.Array
    z: jax.Array
    step: jax.Array


class Controller(NamedTuple):
    """A control law: two pure functions.

    Attributes:
        init: `() -> (scale, state)`: the scale f32[] before the first measurement, and a pytree of arrays.
        update: `(Measurement, state) -> (scale, state)`: called once a measurement, under jit; the structure,
            shapes and dtypes of the state must not change. A NamedTuple with fields `phase` and `anchor`
            shows them in `metrics`.

    Example:
        A law that halves the scale whenever the connectome moves faster than its set-point:

        >>> import jax.numpy as jnp
        >>> from cgalr_jax import control
        >>> def update(measurement, scale):
        ...     scale = jnp.where(measurement.distance < 1, scale, scale / 2)
        ...     return scale, scale
        >>> law = control.Controller(lambda: (jnp.float32(1), jnp.float32(1)), update)
        >>> scale, state = law.init()
        >>> fast = control.Measurement(jnp.float32(3), jnp.float32(0), jnp.int32(10))
        >>> print(law.update(fast, state)[0])
        0.5
    """

    init: Callable[[], tuple[jax.Array, Any]]
    update: Callable[[Measurement, Any], tuple[jax.Array, Any]]


def robust_z_score(
    value: jax.Array, history: jax.Array, count: jax.Array, *, min_count: int = 5
) -> jax.Array:
    """How unusual a value is among the last ones, by median and median absolute deviation (MAD).

    `z = (value - median) / (1.4826 MAD + 1e-3 |median| + 1e-6)`, clipped to [-10, 10]. Median and MAD are the
    paper's; the two small terms, which keep z finite when all of the history is equal (MAD = 0), and the
    clipping are our choice.

    Args:
        value: f32[], finite.
        history: f32[W], a ring buffer of earlier values; the first `min(count, W)` entries are valid.
        count: i32[], how many values were ever written to the ring.
        min_count: fewer values than this give z = 0.

    Returns:
        f32[], in [-10, 10].

    Example:
        >>> import jax.numpy as jnp
        >>> history = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> print(f"{robust_z_score(jnp.float32(6.0), history, jnp.int32(5)):.2f}")
        2.02
    """
    valid = jnp.arange(history.size) < count
    median = _median(history, valid)
    deviation = _median(jnp.abs(history - median), valid)
    spread = _MAD_TO_DEVIATION * deviation + 1e-3 * jnp.abs(median) + 1e-6
    return jnp.where(count >= min_count, jnp.clip((value - median) / spread, -10.0, 10.0), 0.0)


def _median(values: jax.Array, valid: jax.Array) -> jax.Array:
    """The median of the valid values; at least one must be valid to mean anything."""
    ordered = jnp.sort(jnp.where(valid, values, jnp.inf))
    count = jnp.maximum(jnp.sum(valid), 1)
    return 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])


def schmitt_trigger(mode: jax.Array, z: jax.Array, *, enter: float, leave: float) -> jax.Array:
    """A gate with hysteresis: it takes more to enter a mode than to stay in it.

    ```
             z > enter               z < -enter
    HOLD ------------> SLOW   HOLD ------------> FAST      SLOW: the connectome reorganises faster than it
    used to
         <------------             <------------           FAST: it is calmer than it used to be
             z < leave               z > -leave
    ```

    The paper has a gate with hysteresis; these thresholds are our choice. A z beyond the opposite threshold
    changes the mode at once.

    Args:
        mode: i32[], FAST (-1), HOLD (0) or SLOW (1).
        z: f32[], finite.
        enter: threshold that has to be passed to enter SLOW, and its negative to enter FAST.
        leave: threshold below which SLOW is left; in [0, enter].

    Returns:
        i32[], the next mode.

    Example:
        >>> import jax.numpy as jnp
        >>> mode = jnp.int32(HOLD)
        >>> for z in (0.5, 1.5, 0.5, -0.5):
        ...     mode = schmitt_trigger(mode, jnp.float32(z), enter=1.0, leave=0.0)
        ...     print(int(mode), end=" ")
        0 1 1 0
    """
    left = jnp.where(mode == SLOW, z < leave, z > -leave)
    mode = jnp.where(left, HOLD, mode)
    return jnp.where(z > enter, SLOW, jnp.where(z < -enter, FAST, mode)).astype(jnp.int32)


class GateState(NamedTuple):
    """State of `hysteresis_gate`."""

    scale: jax.Array  # f32[]
    phase: jax.Array  # i32[], FAST, HOLD or SLOW


def hysteresis_gate(
    *,
    enter: float = 1.0,
    leave: float = 0.0,
    up: float = 1.1,
    down: float = 0.8,
    floor: float = 0.1,
    ceiling: float = 10.0,
) -> Controller:
    """The paper's law: slow down while the organisation is unstable, speed up when a stable one emerges.

    Each measurement multiplies the scale by `down` in the mode SLOW, by `up` in the mode FAST and by 1 in
    HOLD; the mode is that of `schmitt_trigger` on the z-score. Pass `bounds=robbins_monro_bounds(...)` to the
    transformation for the paper's envelope. All of the numbers are our choice, the paper's text was not
    available.

    Being relative to its own past, this law cannot see that a rate is 100 times wrong: choose the base rate
    as you would without it, or use `calibrated`.

    Edges: with fewer than five measurements, or a connectome that does not move at all, z = 0 and the scale
    is held. A distance that is not finite multiplies the scale by `down` and sets the mode to HOLD.

    Args:
        enter: |z| that opens the gate; positive. Higher values react less often.
        leave: |z| at which it closes; in [0, enter].
        up: factor a measurement in FAST; at least 1.
        down: factor a measurement in SLOW; in (0, 1].
        floor: smallest scale; positive, at most 1.
        ceiling: largest scale; at least 1.

    Returns:
        A `Controller` whose scale starts at 1 and stays in [floor, ceiling].

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> gate = hysteresis_gate()
        >>> scale, state = gate.init()
        >>> stable = Measurement(jnp.float32(0.5), jnp.float32(-2.0), jnp.int32(100))
        >>> print(f"{gate.update(stable, state)[0]:.2f}")
        1.10
    """
    check("enter", enter, lambda x: x > 0, "positive")
    check("leave", leave, lambda x: 0 <= x <= enter, f"in [0, enter] = [0, {enter}]")
    check("up", up, lambda x: 1 <= x < math.inf, "at least 1 and finite")
    check("down", down, lambda x: 0 < x <= 1, "in (0, 1]")
    check("floor", floor, lambda x: 0 < x <= 1, "in (0, 1]")
    check("ceiling", ceiling, lambda x: 1 <= x < math.inf, "at least 1 and finite")

    def init() -> tuple[jax.Array, GateState]:
        return jnp.ones((), jnp.float32), GateState(jnp.ones((), jnp.float32), jnp.zeros((), jnp.int32))

    def update(measurement: Measurement, state: GateState) -> tuple[jax.Array, GateState]:
        finite = jnp.isfinite(measurement.distance)
        mode = schmitt_trigger(state.phase, measurement.z, enter=enter, leave=leave)
        mode = jnp.where(finite, mode, HOLD)
        factor = jnp.where(mode == SLOW, down, jnp.where(mode == FAST, up, 1.0))
        factor = jnp.where(finite, factor, down)
        scale = jnp.clip(state.scale * factor, floor, ceiling)
        return scale, GateState(scale, mode)

    return Controller(init, update)


class CalibrationState(NamedTuple):
    """State of `calibrated`."""

    scale: jax.Array  # f32[], without a schedule before it is multiplied by the law's own decay
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
    """Our law, the default: find the scale at which the connectome moves at its set-point, then anneal.

    Correlations live in [0, 1], so a distance between connectomes has a unit of its own, and one set-point
    serves many networks. With `s = log(distance / target) - log(decay)`, `decay` being the schedule relative
    to its peak so far (without a schedule `1 / (1 + m / 25)` after m measurements, see below):

    - **Calibrating.** The scale starts at `start` and each measurement multiplies it by `exp(-gain s)`, at
      most by 8 and at least by 1/2: far from the set-point the ramp is steep, near it slow. Once `s >= -0.1`
      for `patience` measurements in a row the scale becomes the **anchor**; had it jumped to more than twice
      the set-point, the scale divided by the excess over that. A network that has learnt its data stops
      answering, and breaks if the ramp runs on. So the last factor of ten below the set-point may take
      `patience` measurements and 1.25 times as many as a distance proportional to the rate would need,
      `log(0.1 / log 10) / log(1 - gain)` (8.8 of them; 12 in all): then the scale that it has got to becomes
      the anchor. The peak guard is for one that never comes so near: if the scale has grown by `guard` since
      the distance last set a record, the scale of the record becomes the anchor.
    - **Annealing.** The same law inside `[anchor / 5, 3 anchor]`, rising by at most 10 % a measurement, and
      never so far that scale times decay passes the anchor, which is the calibrated rate: a bounded gate
      that keeps the motion falling along with the schedule. A warm-up that goes on after the
      calibration divides anchor and scale by what it adds to the rate: their product was calibrated.

    **Without a schedule**, where the end of the run is not known, the law brings its own: it multiplies the
    scale by the Robbins-Monro decay `1 / (1 + m / 25)` after m measurements and expects the motion to fall
    likewise. Evaluate the averaged parameters then (`polynomial_averaging`): the average does the rest of the
    annealing, at any step.

    Why absolute, and why these numbers: in our experiments a gate on z alone was little better than a random
    one, and left the base rate decisive. All of it is our choice; the paper has the relative gate only.

    Where a rate that is too large breaks the network within the steps of one measurement, the law comes too
    late: on a squared loss put `optax.clip_by_global_norm(1.0)` before the optimizer.

    Edges: a distance that is not finite multiplies the scale by 0.8, below its bounds if need be, and neither
    counts as a hit nor as a record. As long as nothing has moved (1e-8 targets at most: a rate too small for
    the floating type, a frozen network), the guard waits, and the scale rises to 1 at most: the base rate as
    it was given. A distance that stays the same at every rate (noise that covers the motion) ends the
    calibration all the same: by the guard, with the scale that it began with, or by time where it is within
    the last factor of ten. A schedule below a thousandth of its peak counts as a thousandth. The scale stays
    within [1e-6, 1e6], before the decay that the law brings itself.

    Args:
        schedule: the base optimizer's own schedule, `step -> learning rate`, if it has one; only its shape
            matters. None: the base rate is constant, and the law anneals by itself. A constant schedule is
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

        >>> import jax.numpy as jnp
        >>> law = calibrated(optax.constant_schedule(1.0))
        >>> scale, state = law.init()
        >>> for step in range(60):
        ...     scale, state = law.update(Measurement(scale / 1000, jnp.float32(0), jnp.int32(step)), state)
        >>> bool(500 < scale < 1500), int(state.phase) == ANNEALING
        (True, True)
    """
    if schedule is not None and not callable(schedule):
        raise ValueError(f"schedule must be a function of the step or None, got {schedule!r}.")
    check("target", target, lambda x: 0 < x < math.inf, "positive and finite")
    check("start", start, lambda x: 0 < x <= 1, "in (0, 1]")
    check("gain", gain, lambda x: 0 < x <= 1, "in (0, 1]")
    check_integer("patience", patience, 1)
    check("guard", guard, lambda x: 1 < x < math.inf, "greater than 1 and finite")

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
        finite = jnp.isfinite(measurement.distance)
        measurements = jnp.asarray(optax.safe_increment(state.measurements))
        if schedule is None:
            decay, peak = 1 / (1 + measurements.astype(jnp.float32) / _HALVED_AFTER), state.peak
        else:
            decay, peak = _decay(schedule, measurement.step, state.peak)
        calibrating = state.phase == CALIBRATING
        # A warm-up that goes on after the calibration lifts the rate: what was calibrated is their product.
        found = ~calibrating & (state.peak > 0)
        lifted = jnp.where(found, peak, 1.0) / jnp.where(found, state.peak, 1.0)
        state = state._replace(scale=state.scale / lifted, anchor=state.anchor / lifted)
        distance = jnp.where(finite, measurement.distance / target, 1.0)
        motion = jnp.log(jnp.maximum(distance, SMALLEST_DISTANCE))
        excess = motion - jnp.log(decay)

        hits = jnp.where(finite & (excess >= -_TOLERANCE), state.hits + 1, 0)
        # No rate has moved anything yet: there is nothing to guard, and nothing to go by.
        still = calibrating & (distance <= SMALLEST_DISTANCE) & (state.record <= motion)
        # Not of the excess: under a falling decay a distance that stays would set a record each time.
        is_record = still | (finite & calibrating & (motion > state.record))
        record = jnp.where(is_record, motion, state.record)
        record_scale = jnp.where(is_record, state.scale, state.record_scale)
        reached = calibrating & (hits >= patience)
        close = jnp.where(finite & calibrating & (excess >= -_LAST_STRETCH), state.close + 1, state.close)
        # Each measurement leaves 1 - gain of the logarithm of a proportional distance; a gain of 1 nothing.
        needed = math.log(_TOLERANCE / _LAST_STRETCH) / jnp.log1p(-jnp.asarray(gain, jnp.float32))
        needed = jnp.maximum(needed, 1.0)
        slow = calibrating & (close.astype(jnp.float32) >= patience + _ALLOWANCE * needed)
        exhausted = calibrating & finite & (state.scale > guard * record_scale)
        overshoot = jnp.exp(jnp.maximum(excess - _JUMP, 0.0))
        anchor = jnp.where(slow, state.scale, state.anchor)
        anchor = jnp.where(exhausted, record_scale, anchor)
        anchor = jnp.where(reached, state.scale / overshoot, anchor)
        phase = jnp.where(reached | slow | exhausted, ANNEALING, state.phase)

        highest_factor = jnp.where(phase == CALIBRATING, _RAMP, _RISE)
        factor = jnp.clip(jnp.exp(-gain * excess), 1 / _FALL, highest_factor)
        scale = state.scale * jnp.where(finite, factor, _RETREAT)
        annealing = phase == ANNEALING
        # A divergence is the one thing that may push the scale out of its bounds, downwards; it climbs back.
        lowest = jnp.minimum(_LOWEST * anchor, state.scale)
        lowest = jnp.where(annealing & finite, lowest, _SMALLEST_SCALE)
        # Nor may the rate pass the calibrated one: a network that has learnt stops moving until it breaks.
        highest = jnp.where(still, jnp.maximum(state.scale, 1.0), _LARGEST_SCALE)
        highest = jnp.where(annealing, jnp.minimum(_HIGHEST, 1 / decay) * anchor, highest)
        scale = jnp.clip(jnp.clip(scale, lowest, highest), _SMALLEST_SCALE, _LARGEST_SCALE)
        state = CalibrationState(
            scale,
            anchor,
            phase.astype(jnp.int32),
            hits.astype(jnp.int32),
            record,
            record_scale,
            close.astype(jnp.int32),
            peak,
            measurements,
        )
        return scale * decay if schedule is None else scale, state

    return Controller(init, update)


def _decay(schedule: optax.Schedule, step: jax.Array, peak: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The schedule relative to its peak so far, in [1e-3, 1] (a warm-up is no decay), and that peak."""
    value = jnp.asarray(schedule(step), jnp.float32)
    peak = jnp.maximum(peak, value)
    return jnp.clip(jnp.where(peak > 0, value / peak, 1.0), 1e-3, 1.0), peak


def robbins_monro_bounds(
    lower: float, upper: float, *, tau: float, exponent: float = 1.0
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """An envelope for the scale under which stochastic approximation converges whatever the controller does.

    `lower (1 + t / tau)^-exponent <= scale_t <= upper (1 + t / tau)^-exponent`. With a constant base rate and
    `1/2 < exponent <= 1` the rates a_t satisfy the conditions of Robbins and Monro, `sum a_t = inf` and
    `sum a_t^2 < inf`, by comparison with the two bounds, however the distances come out. That is what the
    paper's convergence proof under the Polyak-Lojasiewicz condition asks for; it also needs a bounded
    gradient noise, and `upper` times the base rate at most the inverse of the smoothness. With a decaying
    base schedule the claim is void.

    The envelope's place is the paper's, its form and its numbers are our choice. It anneals less well than a
    cosine over a known horizon.

    Args:
        lower: smallest scale at step 0; positive.
        upper: largest scale at step 0; at least `lower`.
        tau: steps after which the bounds have halved, if exponent = 1; positive.
        exponent: in (1/2, 1].

    Returns:
        A function `step -> (low, high)`, each f32[].

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> bounds = robbins_monro_bounds(0.1, 1.0, tau=100)
        >>> [f"{x:.2f}" for x in bounds(100)]
        ['0.05', '0.50']
    """
    check("lower", lower, lambda x: x > 0, "positive")
    check("upper", upper, lambda x: lower <= x < math.inf, f"finite and at least lower = {lower}")
    check("tau", tau, lambda x: x > 0, "positive")
    check("exponent", exponent, lambda x: 0.5 < x <= 1, "in (1/2, 1]")

    def bounds(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        envelope = (1 + jnp.asarray(step, jnp.float32) / tau) ** -exponent
        return lower * envelope, upper * envelope

    return bounds


def check(name: str, value: Any, allowed: Callable[[Any], bool], interval: str) -> None:
    """Raises a ValueError that names the argument, its range and what came in; arrays pass unchecked.

    Under `optax.inject_hyperparams` the numbers are traced arrays, of which nothing is known at trace time.
    """
    if isinstance(value, jax.Array):
        return
    try:
        good = allowed(value)
    except TypeError:
        good = False
    if not good:
        raise ValueError(f"{name} must be {interval}, got {value!r}.")


def check_integer(name: str, value: Any, least: int) -> None:
    """`check` for a whole number that is no float, of at least `least`."""
    check(name, value, lambda x: operator.index(x) >= least, f"an integer of at least {least}")
