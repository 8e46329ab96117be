"""The calibration on a model of a network, one number: what it finds, and what cannot deceive it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scalars import f32, i32

from cgalr_jax import controllers
from cgalr_jax.controllers import (
    ANNEALING,
    BY_BOUND,
    BY_GUARD,
    BY_TIME,
    CALIBRATING,
    REACHED,
    UNFINISHED,
    Measurement,
)
from cgalr_jax.controllers._ring import ring_median
from cgalr_jax.controllers.sensitivity import believe

pytestmark = pytest.mark.usefixtures("strict")

CONSTANT = optax.constant_schedule(1.0)


@functools.cache  # each is compiled once
def calibrated(**arguments):
    return controllers.calibrated(CONSTANT, **arguments)


def in_floats(schedule):
    """Optax's schedules divide integers by numbers, which strict promotion refuses."""
    return lambda step: schedule(jnp.asarray(step, jnp.float32))


def measured(distance=1.0, step=1):
    return Measurement(f32(distance), i32(step))


def simulate(controller, right, factors=None, schedule=None, *, length=300, every=10):
    """A network whose motion is proportional to its rate, and one set-point at the scale `right`.

    `factors` [B, length] multiply its distances, one after the other. Measured every `every` steps, and at
    each step while calibrating if the length of the run is known. Returns the last states and, along the
    runs, scales and phases.
    """
    factors = jnp.ones((1, length), jnp.float32) if factors is None else factors
    schedule = jnp.ones((10_000,), jnp.float32) if schedule is None else schedule
    calibrating = 1 if controller.early else every
    state, trace = _simulate(controller, f32(right), factors, schedule, every=every, calibrating=calibrating)
    return state, *map(np.asarray, trace)


@functools.partial(jax.jit, static_argnames=("controller", "every", "calibrating"))
def _simulate(controller, right, factors, schedule, *, every, calibrating):
    def run(factors):
        def measure(carry, factor):
            scale, state, step = carry
            steps = jnp.where(state.phase == CALIBRATING, jnp.int32(calibrating), jnp.int32(every))
            distance = factor * scale / right * schedule[step]
            scale, state = controller.update(Measurement(distance, step + steps), state)
            return (scale, state, step + steps), (scale, state.phase)

        carry, trace = jax.lax.scan(measure, (*controller.init(), jnp.int32(0)), factors)
        return carry[1], trace

    return jax.vmap(run)(factors)


def disturbed(length, ramp):
    """One or two bad measurements in a row, at each measurement of a ramp: [B, length]."""
    rows = []
    for first in range(ramp + 2):
        for factor in (0.0, math.nan, math.inf, 1e6, 30.0, 3.0, 1 / 3, 1 / 30):
            for count in (1, 2):
                row = np.ones(length, np.float32)
                row[first : first + count] = factor
                rows.append(row)
    return jnp.asarray(np.stack(rows))


# ------------------------------------------------------------------------------------------------------------
# What it finds
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("right", [1e-5, 1e-2, 1.0, 1e3, 2e4])
@pytest.mark.parametrize("steps", [None, 200, 20_000])
def test_the_scale_at_which_the_network_moves_at_its_set_point(right, steps):
    state, scales, phases = simulate(calibrated(steps=steps), right)
    assert phases[0, -1] == ANNEALING
    assert state.ended[0] == REACHED
    assert abs(math.log(state.anchor[0] / right)) < 0.15
    assert abs(math.log(scales[0, -1] / right)) < 0.15
    assert scales.max() < 1.2 * max(right, 1e-3)


@pytest.mark.parametrize("steps", [None, 600])
def test_a_base_rate_too_large_for_any_scale_is_not_called_reached(steps):
    state, scales, _ = simulate(calibrated(steps=steps), 1e-8)
    assert state.ended[0] not in (UNFINISHED, REACHED)
    assert scales[0, -1] == state.anchor[0] == np.float32(1e-6)


@pytest.mark.parametrize(("target", "found"), [(0.5, 50.0), pytest.param(2.0, 200.0, marks=pytest.mark.slow)])
def test_the_target_is_in_set_points(target, found):
    state, _, _ = simulate(calibrated(target=target), 100.0)
    assert abs(math.log(state.anchor[0] / found)) < 0.15


@pytest.mark.parametrize("right", [1e-1, 1.0, 1e2, 1e4])
@pytest.mark.parametrize(
    ("steps", "slow"), [(20, 7), (30, 10), (120, 40), (180, 60), (600, 60), (20_000, 60)]
)
def test_a_ramp_that_knows_the_run_is_no_longer_than_it_has_to_be(right, steps, slow):
    """A third, and a few steps on the way to it; of longer runs no more than some sixty steps."""
    controller = calibrated(steps=steps)
    assert controller.early == 20 + 4 * slow
    _, _, phases = simulate(controller, right)
    assert slow <= np.sum(phases[0] == CALIBRATING) <= slow + 6


def test_a_network_that_stops_answering_is_calibrated_by_its_whole_ramp():
    """Its motion goes with the root of the rate: the last measurement would ask for more and more."""
    controller = calibrated()
    scale, state = controller.init()
    update = jax.jit(controller.update)
    for step in range(1, 200):
        scale, state = update(measured(0.1 * math.sqrt(scale), step), state)
    assert state.ended == REACHED
    assert 3 < state.anchor < 40


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 63, 64, 65, 100])
def test_the_median_of_the_ramp_is_that_of_its_last_measurements(count):
    values = np.random.default_rng(count).normal(size=count).astype(np.float32)
    ring = np.full(64, -9.0, np.float32)
    for number, value in enumerate(values):
        ring[number % 64] = value
    np.testing.assert_allclose(ring_median(jnp.asarray(ring), i32(count)), np.median(values[-64:]), rtol=1e-6)


def test_a_trend_along_the_ramp_ends_by_the_set_point_too():
    fall = jnp.exp(-0.05 * jnp.arange(300, dtype=jnp.float32))[None]
    state, _, _ = simulate(calibrated(), 100.0, fall)
    assert state.ended[0] == REACHED


def test_a_network_that_answers_less_and_less_ends_by_time_at_the_largest_scale():
    """Four times the hundred steps of the slow part, which begins at a thirtieth of the set-point."""
    controller = calibrated()
    scale, state = controller.init()
    update = jax.jit(controller.update)
    scales, slow = [], 0
    for step in range(10, 1000, 10):
        distance = 1e-4 * math.sqrt(float(scale))
        slow += int(state.ended) == UNFINISHED and distance > 1 / 30
        scale, state = update(measured(distance, step), state)
        scales.append(float(scale))
    assert state.ended == BY_TIME
    assert max(scales) == float(state.anchor) == 1e6
    assert slow in (40, 41)


@pytest.mark.parametrize("distance", [math.inf, 1e9])
def test_no_motion_takes_the_scale_below_its_smallest(distance):
    controller = calibrated()
    scale, state = controller.init()
    update = jax.jit(controller.update)
    for step in range(1, 100):
        scale, state = update(measured(distance, step), state)
    np.testing.assert_allclose(scale, 1e-6, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------
# What cannot deceive it
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "right"),
    [
        (200, 1e3),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((None, 1.0), (None, 1e3), (200, 1.0))),
    ],
)
def test_no_bad_measurement_of_the_ramp_decides_nor_do_two_in_a_row(right, steps):
    controller = calibrated(steps=steps)
    _, _, phases = simulate(controller, right)
    factors = disturbed(150, int(np.sum(phases[0] == CALIBRATING)))
    noise = np.exp(0.2 * np.random.default_rng(0).standard_normal(factors.shape, np.float32))
    for each in (factors, factors * noise):
        state, scales, _ = simulate(controller, right, each, length=150)
        off = np.abs(np.log(np.asarray(state.anchor) / right))
        assert np.all(np.asarray(state.ended) == REACHED)
        assert off.max() < math.log(2)
        assert scales.max() < 3 * right


@pytest.mark.parametrize("steps", [None, 200])
def test_a_ramp_whose_steps_are_cut_ends_below_them_and_one_that_was_cut_once_goes_on(steps):
    controller = calibrated(steps=steps)
    every = 1 if steps else 10

    @jax.jit
    @jax.vmap
    def run(once, above):
        """Cut at one measurement, and wherever the scale is above a bound."""

        def measure(carry, number):
            scale, state = carry
            cut = jnp.where((number == once) | (scale > above), f32(0.3), f32(0.2))
            return controller.update(Measurement(scale / 1000, every * number, cut), state), None

        return jax.lax.scan(measure, controller.init(), jnp.arange(1, 100, dtype=jnp.int32))[0]

    # The first is cut wherever it is above 50, each of the others once.
    once, above = np.arange(80, dtype=np.int32), np.full(80, np.inf, np.float32)
    above[0] = 50
    scales, states = run(once, above)
    assert states.ended[0] == BY_BOUND
    assert 20 < states.anchor[0] < 70
    assert scales[0] == states.anchor[0]
    assert np.all(states.ended[1:] == REACHED)
    assert np.all(np.abs(np.log(states.anchor[1:] / 1000)) < 0.2)


@pytest.mark.parametrize(
    ("steps", "momentum"),
    [
        (600, 0.9),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((None, 0.9), (None, 0.5), (600, 0.5))),
    ],
)
def test_a_momentum_that_repeats_one_large_gradient_does_not_decide(steps, momentum):
    """Step by step: the network moves by its momentum, at most by twenty times a good step."""
    controller = calibrated(steps=steps)
    right, length, every = 100.0, 600, 10

    @jax.jit
    @jax.vmap
    def run(at, size):
        def step(carry, number):
            scale, state, velocity, moved, cuts, last = carry
            due = (number % every == 0) | ((number < controller.early) & (state.phase == CALIBRATING))
            steps = jnp.maximum(number - last, 1)
            distance = moved / steps.astype(jnp.float32) / right
            measured = controller.update(
                Measurement(distance, number, cuts / steps.astype(jnp.float32)), state
            )
            scale, state = jax.tree.map(
                lambda a, b: jnp.where(due & (number > 0), a, b), measured, (scale, state)
            )
            moved, cuts, last = (
                jnp.where(due, f32(0), moved),
                jnp.where(due, f32(0), cuts),
                jnp.where(due, number, last),
            )
            velocity = momentum * velocity + (1 - momentum) * jnp.where(number == at, size, f32(1))
            move = scale * velocity
            cut = move > 20 * right
            carry = (
                scale,
                state,
                velocity,
                moved + jnp.minimum(move, 20 * right),
                cuts + cut.astype(jnp.float32),
                last,
            )
            return carry, None

        carry = (*controller.init(), f32(1), f32(0), f32(0), i32(0))
        return jax.lax.scan(step, carry, jnp.arange(length, dtype=jnp.int32))[0][1]

    at, size = np.meshgrid(np.arange(0, 150, 3, np.int32), np.float32([1, 3, 30, 1e3, 1e4, 1e5]))
    state = run(at.ravel(), size.ravel())
    off, ended = np.log(np.asarray(state.anchor) / right), np.asarray(state.ended)
    assert set(np.unique(ended)) <= {REACHED, BY_BOUND}
    assert np.abs(off[ended == REACHED]).max() < math.log(2)
    # Near the set-point it looks like a network that diverges: the anchor is on the safe side, and says so.
    assert np.all((off[ended == BY_BOUND] > math.log(0.15)) & (off[ended == BY_BOUND] < 0.1))
    assert np.mean(ended == BY_BOUND) < 0.15
    assert np.all(ended[at.ravel() < 20] == REACHED)


@pytest.mark.parametrize(("above", "ended"), [(220.0, REACHED), (400.0, BY_BOUND)])
def test_cut_steps_end_the_ramp_within_a_factor_of_three_of_its_end(above, ended):
    """The network's set-point is at a scale of 1000; two measurements in a row find steps cut."""
    controller = calibrated()
    update = jax.jit(controller.update)
    scale, state = controller.init()
    cuts = 0
    for number in range(1, 60):
        cut = scale > above and cuts < 2
        cuts += int(cut)
        scale, state = update(Measurement(f32(scale / 1000), i32(10 * number), f32(float(cut))), state)
    assert cuts == 2
    assert int(state.ended) == ended


def test_steps_that_are_cut_take_the_scale_down_for_a_while():
    controller = calibrated()
    update = jax.jit(controller.update)
    scale, state = controller.init()
    scales = []
    for number in range(1, 120):
        cut = f32(0.3 if 60 <= number < 70 else 0.2)
        scale, state = update(Measurement(f32(scale / 100), i32(10 * number), cut), state)
        scales.append(float(scale))
    assert abs(math.log(scales[58] / 100)) < 0.2
    assert 15 < scales[68] < 30
    assert scales[-1] == pytest.approx(scales[58], rel=0.05)


def test_one_bad_measurement_of_the_annealing_passes():
    controller = calibrated()
    rows = np.ones((14, 200), np.float32)
    for row, (factor, count) in enumerate(
        (factor, count) for factor in (0.0, math.nan, 1e6, 30.0, 3.0, 1 / 3, 1 / 30) for count in (1, 2)
    ):
        rows[row, 100 : 100 + count] = factor
    state, scales, _ = simulate(controller, 100.0, jnp.asarray(rows), length=200)
    assert np.all(np.asarray(state.ended) == REACHED)
    assert np.all(scales[:, 100:] > 15)
    assert np.all(scales[:, 100:] < 200)
    assert np.all(np.abs(np.log(scales[:, -1] / 100)) < 0.2)


@pytest.mark.parametrize("steps", [None, 600])
@pytest.mark.parametrize("at", [20, 40, 60, 90, 400])
def test_one_value_of_the_schedule_that_is_far_too_large_is_no_peak(steps, at):
    spike = controllers.calibrated(lambda step: jnp.where(step == at, f32(1000), f32(1)), steps=steps)
    state, scales, _ = simulate(spike, 100.0)
    assert state.peak[0] == 1
    assert state.ended[0] == REACHED
    assert abs(math.log(scales[0, -1] / 100)) < 0.15


def test_nothing_that_did_not_move_is_a_measurement_of_a_rate():
    factors = np.ones((1, 300), np.float32)
    factors[0, 5:60] = 0
    state, scales, _ = simulate(calibrated(), 100.0, factors)
    assert np.all(scales[0, 5:60] == scales[0, 5])
    assert abs(math.log(state.anchor[0] / 100)) < 0.15


@pytest.mark.parametrize(
    ("distance", "share", "still"),
    [
        (5e-4, 1 / 1500, True),
        (5e-4, 1 / 700, False),  # not a thousand times less than the last one
        (1.5e-3, 1 / 1500, False),  # not small
    ],
)
def test_a_small_motion_a_thousand_times_less_than_the_last_one_is_rounding(distance, share, still):
    before = calibrated().init()[1]._replace(peak=f32(1), scale=f32(distance / share), sensitivity=f32(0))
    for believed in (1, 2):  # the only one may be the bad one
        heard, _ = believe(f32(distance), i32(10), before._replace(believed=i32(believed)))
        assert heard.still == (still and believed == 2)


@pytest.mark.parametrize("first", [3, 8, 15, 25])
def test_the_rounding_of_distances_is_no_motion(first):
    """Two readings of the same parameters differ by 1e-7 or so, whatever the rate."""
    controller = calibrated()
    update = jax.jit(controller.update)
    scale, state = controller.init()
    for number in range(1, 120):
        skipped = first <= number < first + 40
        scale, state = update(measured(3e-6 if skipped else scale / 100, 10 * number), state)
    assert state.ended == REACHED
    assert abs(math.log(state.anchor / 100)) < 0.15


@pytest.mark.parametrize("steps", [None, 600])
@pytest.mark.parametrize("factor", [30.0, 3e3, 1e6, 1e-3])
def test_a_bad_first_measurement_costs_three_more(steps, factor):
    """Units that are alike at the start, or dead: their connectome jumps once, with the first step."""
    factors = np.ones((2, 300), np.float32)
    factors[0, 0] = factor
    state, _, phases = simulate(calibrated(steps=steps), 3.0, factors)
    disturbed, clean = np.sum(phases == CALIBRATING, axis=1)
    assert disturbed <= clean + 3
    assert abs(math.log(state.anchor[0] / 3.0)) < 0.15


def test_a_network_that_never_moved_gets_the_base_rate_at_most():
    state, scales, _ = simulate(calibrated(), 1.0, jnp.zeros((1, 300), jnp.float32))
    assert scales.max() <= 1.0
    assert scales[0, -1] == 1.0
    assert state.ended[0] == UNFINISHED


def test_what_is_not_finite_makes_the_scale_smaller_and_does_not_count():
    factors = np.ones((2, 300), np.float32)
    factors[0, :60], factors[1, 100:160] = np.nan, np.inf
    state, scales, _ = simulate(calibrated(), 100.0, factors)
    np.testing.assert_allclose(scales[0, 0], 0.8e-3, rtol=1e-5)
    assert scales[0, 59] < 1e-5
    assert scales[1, 159] < 1e-3
    assert np.all(np.asarray(state.ended) == REACHED)
    assert np.all(np.abs(np.log(np.asarray(state.anchor) / 100)) < 0.15)
    assert np.all(np.abs(np.log(scales[:, -1] / 100)) < 0.15)


def test_a_distance_that_stays_the_same_at_every_rate_ends_by_the_guard():
    controller = calibrated()
    update = jax.jit(controller.update)
    scale, state = controller.init()
    for step in range(1, 100):
        scale, state = update(measured(0.01, 10 * step), state)
    assert state.ended == BY_GUARD
    assert scale <= 1


@pytest.mark.parametrize("factor", [1 / 100, 100.0])
def test_a_calibration_that_proves_wrong_opens_again(factor):
    factors = np.ones((1, 300), np.float32)
    factors[0, 100:] = factor
    state, scales, phases = simulate(calibrated(), 100.0, factors)
    assert phases[0, 99] == ANNEALING
    assert np.any(phases[0, 100:] == CALIBRATING)
    assert state.ended[0] == REACHED
    assert abs(math.log(scales[0, -1] * factor / 100)) < 0.2


def test_late_in_a_schedule_it_stays_closed():
    cosine = in_floats(optax.cosine_decay_schedule(1.0, 2000))
    factors = jnp.ones((1, 200), jnp.float32).at[0, 150:].set(0.01)
    state, scales, phases = simulate(
        controllers.calibrated(cosine), 100.0, factors, cosine(jnp.arange(4000)), length=200
    )
    assert np.all(phases[0, 150:] == ANNEALING)
    assert scales[0, 150:].max() < 130
    assert state.ended[0] == REACHED


def test_a_start_far_too_high_comes_down_and_diverges_nowhere():
    state, scales, _ = simulate(calibrated(), 1e-5)
    assert np.all(np.diff(scales[0, :4]) < 0)
    assert abs(math.log(state.anchor[0] / 1e-5)) < 0.15


# ------------------------------------------------------------------------------------------------------------
# Schedules
# ------------------------------------------------------------------------------------------------------------


def test_the_scale_leaves_the_annealing_to_the_schedule():
    cosine = in_floats(optax.cosine_decay_schedule(0.5, 3000))
    table = cosine(jnp.arange(4000)) / 0.5
    state, scales, phases = simulate(controllers.calibrated(cosine), 100.0, None, table, length=250)
    annealing = scales[0][phases[0] == ANNEALING]
    assert annealing.max() / annealing.min() < 1.05
    assert state.refused[0] == 0


def test_a_warm_up_lifts_the_rate_and_the_product_stays():
    warm = in_floats(optax.warmup_cosine_decay_schedule(0.0, 1.0, 1000, 4000))
    table = warm(jnp.arange(5000))
    state, scales, phases = simulate(controllers.calibrated(warm), 1.0, None, table, length=150)
    end = np.flatnonzero(phases[0] == ANNEALING)[0]
    assert table[end] < 0.2  # it ended within the warm-up, at a scale above 1
    assert abs(math.log(scales[0, -1])) < 0.2
    assert state.ended[0] == REACHED


@pytest.mark.parametrize("warm_up", [10, 100, 300])
@pytest.mark.parametrize("steps", [None, 1000])
def test_a_warm_up_neither_hurries_the_ramp_nor_lifts_the_rate_between_measurements(steps, warm_up):
    schedule = in_floats(optax.warmup_cosine_decay_schedule(0.0, 1.0, warm_up, 1000))
    controller = controllers.calibrated(schedule, steps=steps)
    right = 20.0

    def step(carry, number):
        (scale, state), moved, passed = carry
        due = (number % 10 == 0) | (state.calibrating & (number < controller.early))
        due &= number > 0
        distance = moved / jnp.maximum(passed, 1).astype(jnp.float32) / right
        measured = controller.update(Measurement(distance, number), state)
        scale, state = jax.tree.map(lambda new, old: jnp.where(due, new, old), measured, (scale, state))
        rate = scale * schedule(number)
        moved, passed = jnp.where(due, 0.0, moved) + rate, jnp.where(due, 0, passed) + 1
        return ((scale, state), moved, passed), (rate, state.phase)

    start = controller.init(), f32(0.0), i32(0)
    run = jax.jit(lambda: jax.lax.scan(step, start, jnp.arange(500, dtype=jnp.int32)))
    ((_, state), _, _), (rates, phases) = run()
    end = int(np.flatnonzero(phases == ANNEALING)[0])
    assert state.ended == REACHED
    assert 0.8 * right < rates[end] < 1.1 * right
    assert np.max(rates[end:]) < 1.15 * right
    assert np.sum(rates[:end] > right / 30) >= 50


def test_a_schedule_that_fails_at_a_step_keeps_its_last_good_value():
    fails = {150: math.nan, 160: math.inf, 170: -1.0}

    def schedule(step):
        return functools.reduce(lambda rate, at: jnp.where(step == at, f32(fails[at]), rate), fails, f32(1.0))

    controller = controllers.calibrated(schedule)
    state, _, _ = simulate(controller, 100.0)
    before, _, _ = simulate(calibrated(), 100.0)
    assert state.refused[0] <= len(fails)
    np.testing.assert_allclose(state.anchor, before.anchor, rtol=1e-6)
    update = jax.jit(controller.update)
    for step, value in fails.items():
        scale, state = update(measured(1e-3, step), controller.init()[1])
        assert state.refused == 1, value
        assert jnp.isfinite(scale), value


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_schedule_that_begins_with_no_rate_is_refused(value):
    with pytest.raises(ValueError, match=r"schedule at step 0 must be finite and at least 0, got"):
        controllers.calibrated(lambda step: f32(value))
    with pytest.raises(ValueError, match="schedule at step 0"):
        controllers.calibrated(lambda step: -in_floats(optax.cosine_decay_schedule(1.0, 100))(step))


def test_without_a_schedule_it_brings_its_own_decay():
    state, scales, phases = simulate(controllers.calibrated(), 100.0, length=200)
    end = np.flatnonzero(phases[0] == ANNEALING)[0]
    np.testing.assert_allclose(scales[0, end] / 100, 1, rtol=0.15)
    np.testing.assert_allclose(scales[0, end + 26] / 100, 0.5, rtol=0.15)
    np.testing.assert_allclose(state.anchor[0] / 100, 1, rtol=0.15)


# ------------------------------------------------------------------------------------------------------------
# The contract of a controller
# ------------------------------------------------------------------------------------------------------------


def test_the_state_keeps_its_form_and_shares_no_buffer():
    controller = calibrated()
    scale, state = controller.init()
    after = jax.eval_shape(controller.update, measured(), state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after[1]) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert not any(x.weak_type for x in jax.tree.leaves(after))
    pointers = [x.unsafe_buffer_pointer() for x in [scale, *jax.tree.leaves(state)]]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0.0}, "target must be positive and finite, got 0.0"),
        ({"start": 0.0}, r"start must be in \[1e-6, 1\], got 0.0"),
        ({"start": 2.0}, r"start must be in \[1e-6, 1\], got 2.0"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": 100.0}, "steps must be an integer"),
        ({"schedule": 0.1}, "schedule must be a function"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        controllers.calibrated(**arguments)


def test_the_numbers_that_are_logged():
    assert (CALIBRATING, ANNEALING) == (0, 1)
    assert (UNFINISHED, REACHED, BY_TIME, BY_GUARD, BY_BOUND) == (0, 1, 2, 3, 4)


def test_it_says_whether_it_is_calibrating():
    controller = calibrated()
    _, state = controller.init()
    assert state.calibrating
