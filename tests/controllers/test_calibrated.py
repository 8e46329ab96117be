"""The calibration as a transition table, and its edges."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cgalr_jax import controllers
from cgalr_jax.controllers import ANNEALING, CALIBRATING, Measurement
from cgalr_jax.controllers.calibrated import CalibrationState

pytestmark = pytest.mark.usefixtures("strict")


def f32(value):
    return jnp.array(value, jnp.float32)


def i32(value):
    return jnp.array(value, jnp.int32)


def measured(distance=1.0, step=100):
    return Measurement(f32(distance), i32(step))


def calibration(
    scale=0.1,
    anchor=0.01,
    phase=CALIBRATING,
    hits=0,
    record=-1.0,
    record_scale=0.1,
    close=0,
    peak=0.0,
    seen=0,
):
    return CalibrationState(
        scale=f32(scale),
        anchor=f32(anchor),
        phase=i32(phase),
        hits=i32(hits),
        record=f32(record),
        record_scale=f32(record_scale),
        close=i32(close),
        peak=f32(peak),
        measurements=i32(seen),
    )


E = np.e

# gain 0.3, guard 12; the distance is in set-points, so its logarithm is s.
CALIBRATION = {
    "ramp grows at most eightfold": (
        calibration(scale=0.1, record=-9.0),
        E**-8,
        dict(scale=0.8, phase=CALIBRATING, hits=0, record=-8.0, record_scale=0.1),
    ),
    "ramp slows down near the set-point": (
        calibration(scale=0.1, record=-9.0),
        E**-1,
        dict(scale=0.1 * E**0.3, phase=CALIBRATING, record=-1.0),
    ),
    "no record, no new record scale": (
        calibration(scale=0.4, record=-1.0, record_scale=0.1),
        E**-2,
        dict(scale=0.4 * E**0.6, record=-1.0, record_scale=0.1),
    ),
    "a hit calibrates, with the scale that was measured": (
        calibration(scale=0.5, record=-1.0),
        E**0.5,
        dict(scale=0.5 * E**-0.15, phase=ANNEALING, anchor=0.5),
    ),
    "a little below the set-point is a hit": (
        calibration(scale=0.5, record=-1.0),
        E**-0.09,
        dict(phase=ANNEALING, anchor=0.5),
    ),
    "peak guard: back to the scale of the record": (
        calibration(scale=1.3, record=-1.0, record_scale=0.1),
        E**-2,
        dict(scale=0.1, phase=ANNEALING, anchor=0.1),
    ),
    "the twelfth measurement within a tenth of the set-point ends the ramp where it is": (
        calibration(scale=0.4, record=-0.5, record_scale=0.1, close=11),
        E**-2,
        dict(scale=0.4, phase=ANNEALING, anchor=0.4, close=12),
    ),
    "the eleventh does not": (
        calibration(scale=0.4, record=-0.5, record_scale=0.1, close=10),
        E**-2,
        dict(scale=0.4 * E**0.6, phase=CALIBRATING, close=11),
    ),
    "a measurement further below does not count": (
        calibration(scale=0.4, record=-0.5, record_scale=0.1, close=11),
        0.09,
        dict(phase=CALIBRATING, close=11),
    ),
    "nor one that is not finite": (
        calibration(scale=0.4, record=-0.5, record_scale=0.1, close=11),
        np.nan,
        dict(scale=0.32, phase=CALIBRATING, close=11),
    ),
    "the twelfth is a hit as well": (
        calibration(scale=0.4, record=-0.5, record_scale=0.1, close=11),
        20.0,
        dict(phase=ANNEALING, anchor=0.04),
    ),
    "a jump far beyond the set-point: the anchor is where it was twice the set-point": (
        calibration(scale=0.5, hits=1, record=-1.0),
        20.0,
        dict(scale=0.05, phase=ANNEALING, anchor=0.05),
    ),
    "peak guard: not before 12 times the scale of the record": (
        calibration(scale=1.1, record=-1.0, record_scale=0.1),
        E**-2,
        dict(scale=1.1 * E**0.6, phase=CALIBRATING),
    ),
    "annealing rises by at most a tenth": (
        calibration(scale=0.3, anchor=0.5, phase=ANNEALING),
        E**-3,
        dict(scale=0.33, phase=ANNEALING, anchor=0.5),
    ),
    "annealing falls by at most half": (
        calibration(scale=0.5, anchor=0.5, phase=ANNEALING),
        E**6,
        dict(scale=0.25, phase=ANNEALING, anchor=0.5),
    ),
    "upper bound while the schedule is at its peak": (
        calibration(scale=0.49, anchor=0.5, phase=ANNEALING),
        E**-3,
        dict(scale=0.5),
    ),
    "lower bound": (
        calibration(scale=0.11, anchor=0.5, phase=ANNEALING),
        E**6,
        dict(scale=0.1),
    ),
    "calibrating, not finite: smaller, no hit, no record": (
        calibration(scale=0.5, hits=1, record=-1.0, record_scale=0.1),
        np.nan,
        dict(scale=0.4, phase=CALIBRATING, hits=0, record=-1.0, record_scale=0.1),
    ),
    "annealing, not finite: smaller, below the bounds if need be": (
        calibration(scale=0.1, anchor=0.5, phase=ANNEALING),
        np.inf,
        dict(scale=0.08, phase=ANNEALING, anchor=0.5),
    ),
    "annealing, after numbers that were not finite: it climbs back, and is not lifted": (
        calibration(scale=0.02, anchor=0.5, phase=ANNEALING),
        E**-3,
        dict(scale=0.022),
    ),
    "annealing, the same, and too fast: no lower": (
        calibration(scale=0.02, anchor=0.5, phase=ANNEALING),
        E**3,
        dict(scale=0.02),
    ),
    "exactly no motion is a number": (
        calibration(scale=0.1, record=-20.0),
        0.0,
        dict(scale=0.8, record=np.log(1e-8), record_scale=0.1),
    ),
    "nothing has moved yet: the guard waits": (
        calibration(scale=0.1, record=np.log(1e-8), record_scale=0.001),
        0.0,
        dict(scale=0.8, phase=CALIBRATING, record_scale=0.1),
    ),
    "nothing has moved yet: no further than the base rate": (
        calibration(scale=0.5, record=np.log(1e-8), record_scale=0.1),
        0.0,
        dict(scale=1.0, phase=CALIBRATING, record_scale=0.5),
    ),
    "nothing moves any more: the guard": (
        calibration(scale=0.5, record=-5.0, record_scale=0.04),
        0.0,
        dict(phase=ANNEALING, anchor=0.04),
    ),
    "never above a million": (
        calibration(scale=9e5, record=-9.0, record_scale=9e5),
        E**-8,
        dict(scale=1e6),
    ),
}


# The same with patience 2.
PATIENT = {
    "one hit does not calibrate": (
        calibration(scale=0.5, record=-1.0),
        E**0.5,
        dict(scale=0.5 * E**-0.15, phase=CALIBRATING, hits=1, anchor=0.01),
    ),
    "the second does, with the scale that was measured": (
        calibration(scale=0.5, hits=1, record=1.0, record_scale=0.5),
        E**0.5,
        dict(scale=0.5 * E**-0.15, phase=ANNEALING, anchor=0.5),
    ),
    "the twelfth measurement within a tenth of the set-point leaves one for the second hit": (
        calibration(scale=0.5, record=-0.5, close=11),
        E**0.5,
        dict(phase=CALIBRATING, hits=1, close=12),
    ),
    "a miss between two hits starts again": (
        calibration(scale=0.5, hits=1, record=1.0, record_scale=0.5),
        E**-1,
        dict(phase=CALIBRATING, hits=0, anchor=0.01),
    ),
}


SCHEDULES = [None, optax.constant_schedule(0.1), optax.linear_schedule(0.1, 0.0, 500)]


class TestCalibrated:
    @pytest.mark.parametrize(
        ("patience", "name"), [(1, name) for name in CALIBRATION] + [(2, name) for name in PATIENT]
    )
    def test_transition(self, patience, name):
        state, distance, expected = (CALIBRATION if patience == 1 else PATIENT)[name]
        # A constant schedule: known, and no decay.
        controller = controllers.calibrated(optax.constant_schedule(0.1), patience=patience, guard=12.0)
        scale, after = controller.update(measured(distance), state)
        assert scale == after.scale
        for field, value in expected.items():
            np.testing.assert_allclose(getattr(after, field), value, rtol=1e-5, err_msg=f"{name}: {field}")

    @pytest.mark.parametrize("gain", [0.1, 0.3, 0.6, 1.0])
    def test_a_proportional_distance_is_never_too_slow(self, gain):
        """The allowance for the last factor of ten ends no calibration that is on its way."""
        controller = controllers.calibrated(optax.constant_schedule(0.1), gain=gain)
        scale, state = controller.init()
        while state.phase == CALIBRATING:
            scale, state = controller.update(measured(scale / 50), state)
        np.testing.assert_allclose(state.anchor, 50, rtol=0.11)

    @pytest.mark.parametrize("schedule", SCHEDULES)
    def test_a_distance_that_stays_ends_the_ramp(self, schedule):
        """A decay that falls is no record of the network's, or the scale would run away."""
        for distance in (0.001, 0.01, 0.05):
            controller = controllers.calibrated(schedule)
            _, state = controller.init()
            for step in range(10, 500, 10):
                _, state = controller.update(measured(distance, step=step), state)
                assert state.scale <= 50 * 8 * 0.001
            assert state.phase == ANNEALING
            np.testing.assert_allclose(state.anchor, 0.001, rtol=1e-6)

    @pytest.mark.parametrize("schedule", SCHEDULES)
    def test_a_network_that_stands_still_gets_its_base_rate(self, schedule):
        controller = controllers.calibrated(schedule)
        _, state = controller.init()
        for step in range(10, 500, 10):
            _, state = controller.update(measured(0.0, step=step), state)
        assert (state.phase, state.scale) == (CALIBRATING, 1.0)

    def test_set_point_follows_the_schedule(self):
        controller = controllers.calibrated(optax.linear_schedule(0.4, 0.0, 100))
        state = calibration(scale=0.5, anchor=0.5, phase=ANNEALING, peak=0.4)
        # At half of its peak, half of the motion is wanted, and e times that is too fast.
        scale, _ = controller.update(measured(0.5 * E, step=50), state)
        np.testing.assert_allclose(scale, 0.5 * E**-0.3, rtol=1e-5)

    @pytest.mark.parametrize(("step", "highest"), [(0, 1.0), (50, 2.0), (90, 3.0)])
    def test_the_rate_stays_below_the_calibrated_one_and_the_scale_below_three_anchors(self, step, highest):
        controller = controllers.calibrated(optax.linear_schedule(0.4, 0.0, 100))
        state = calibration(scale=highest * 0.5, anchor=0.5, phase=ANNEALING, peak=0.4)
        scale, _ = controller.update(measured(E**-9, step=step), state)
        np.testing.assert_allclose(scale, highest * 0.5, rtol=1e-5)

    def test_warm_up_is_no_decay(self):
        controller = controllers.calibrated(optax.linear_schedule(0.0, 0.4, 100))
        _, state = controller.init()
        for step in (0, 10, 20, 50):
            before = state.scale
            scale, state = controller.update(measured(E**-1, step=step), state)
            np.testing.assert_allclose(scale, before * E**0.3, rtol=1e-5)

    def test_a_warm_up_that_outlasts_the_calibration_does_not_lift_the_rate(self):
        """A network whose distance is proportional to its rate, with its set-point at a rate of 0.05."""
        schedule = optax.linear_schedule(0.0, 0.4, 2000)
        controller = controllers.calibrated(schedule)
        _, state = controller.init()
        rates = []
        for step in range(10, 3000, 10):
            rates.append(state.scale * schedule(step))
            _, state = controller.update(measured(rates[-1] / 0.05, step=step), state)
        assert 0.04 < rates[-1] < max(rates) < 0.06
        np.testing.assert_allclose(state.anchor, 0.05 / 0.4, rtol=0.3)

    def test_without_a_schedule_it_brings_its_own_decay(self):
        controller = controllers.calibrated()
        state = calibration(scale=0.5, anchor=0.5, phase=ANNEALING, seen=24)
        # After 25 measurements half of the motion is wanted, and half of the scale is given.
        scale, after = controller.update(measured(0.5), state)
        np.testing.assert_allclose((scale, after.scale), (0.25, 0.5), rtol=1e-5)
        scale, after = controller.update(measured(0.5 * E), state)
        np.testing.assert_allclose((scale, after.scale), (0.25 * E**-0.3, 0.5 * E**-0.3), rtol=1e-5)
        assert after.measurements == 25

    def test_without_a_schedule_the_rates_are_those_of_robbins_and_monro(self):
        """The scale is a bounded multiple of 1 / (1 + m / 25), whatever the distances are."""
        controller = controllers.calibrated()
        distances = np.random.default_rng(0).lognormal(sigma=3, size=400)
        _, state = controller.init()
        for number, distance in enumerate(distances, start=1):
            scale, state = controller.update(measured(distance), state)
            if state.phase == ANNEALING:
                relative = scale * (1 + number / 25) / state.anchor
                assert 0.2 * (1 - 1e-5) <= relative <= 3 * (1 + 1e-5)
        assert state.phase == ANNEALING

    def test_never_nan(self):
        controller = controllers.calibrated()
        scale, state = controller.init()
        for distance in (np.nan, 0.0, np.inf, -1.0, 1e30, -np.inf, 1e-30):
            scale, state = controller.update(measured(distance), state)
            assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((scale, state)))
            assert scale > 0

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("target", 0.0),
            ("target", math.inf),
            ("start", 0.0),
            ("start", 2.0),
            ("gain", 0.0),
            ("gain", 1.5),
            ("patience", 0),
            ("patience", 1.5),
            ("guard", 1.0),
            ("guard", math.inf),
        ],
    )
    def test_refuses(self, argument, value):
        with pytest.raises(ValueError, match=f"^{argument} must be .* got {value!r}"):
            controllers.calibrated(**{argument: value})

    def test_refuses_a_number_for_a_schedule(self):
        with pytest.raises(
            ValueError, match=r"^schedule must be a function, step -> learning rate, or None, got 0\.1"
        ):
            controllers.calibrated(0.1)
