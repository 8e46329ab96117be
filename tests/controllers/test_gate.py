"""The gate: z-score against NumPy, the trigger and the gate as transition tables."""

import jax.numpy as jnp
import numpy as np
import pytest
from scalars import f32, i32

from cgalr_jax import controllers
from cgalr_jax.controllers import FAST, HOLD, SLOW, Measurement
from cgalr_jax.controllers.gate import GateState

pytestmark = pytest.mark.usefixtures("strict")


def measured(distance=1.0, step=100):
    return Measurement(f32(distance), i32(step))


# Median 0 and a median absolute deviation of 0.5.
HISTORY = np.array([-1.0, -0.75, -0.5, -0.25, -0.0, 0.0, 0.25, 0.5, 0.75, 1.0])


def of_score(z):
    """The distance whose logarithm has this z-score in that history."""
    return np.exp(z * (1.4826 * 0.5 + 1e-6))


class TestRobustZScore:
    @pytest.mark.parametrize("count", [5, 7, 10, 23])
    def test_is_median_and_mad(self, count):
        values = np.random.default_rng(count).normal(-3, 2, 10).astype(np.float32)
        valid = values[: min(count, 10)].astype(np.float64)
        median = np.median(valid)
        spread = 1.4826 * np.median(np.abs(valid - median)) + 1e-3 * abs(median) + 1e-6
        z = controllers.robust_z_score(f32(-1.5), jnp.array(values), i32(count))
        np.testing.assert_allclose(z, (-1.5 - median) / spread, rtol=1e-5)

    def test_is_zero_while_there_are_few(self):
        assert controllers.robust_z_score(f32(5.0), jnp.zeros(10), i32(4)) == 0

    @pytest.mark.parametrize("count", [0, -1])
    def test_is_zero_without_a_history(self, count):
        assert controllers.robust_z_score(f32(5.0), jnp.zeros(10), i32(count), min_count=0) == 0

    def test_one_value_is_a_history_where_one_is_enough(self):
        history = jnp.array([2.0, 9.0, 9.0])
        assert controllers.robust_z_score(f32(5.0), history, i32(1), min_count=0) == 10
        assert controllers.robust_z_score(f32(2.0), history, i32(1), min_count=0) == 0

    def test_among_zeros_the_unit_is_a_millionth(self):
        np.testing.assert_allclose(
            controllers.robust_z_score(f32(5e-6), jnp.zeros(10), i32(10)), 5, rtol=1e-5
        )

    def test_a_history_has_room_for_a_value(self):
        with pytest.raises(ValueError, match=r"history must be f32\[W\] with W at least 1"):
            controllers.robust_z_score(f32(5.0), jnp.zeros(0), i32(0))

    @pytest.mark.parametrize(("value", "z"), [(2.0, 0.0), (2.5, 10.0), (-9.0, -10.0)])
    def test_stays_finite_on_a_constant_history(self, value, z):
        assert controllers.robust_z_score(f32(value), jnp.full(10, 2.0), i32(10)) == z


class TestSchmittTrigger:
    # enter = 1, leave = 0.25
    TABLE = (
        # mode, z, next
        (HOLD, 0.9, HOLD),
        (HOLD, 1.1, SLOW),
        (HOLD, -1.1, FAST),
        (SLOW, 0.3, SLOW),  # between leave and enter: the mode is kept, this is the hysteresis
        (SLOW, 0.2, HOLD),
        (SLOW, -0.9, HOLD),
        (SLOW, -1.1, FAST),
        (FAST, -0.3, FAST),
        (FAST, -0.2, HOLD),
        (FAST, 0.9, HOLD),
        (FAST, 1.1, SLOW),
        # At a threshold nothing is entered, and what is in a mode leaves it.
        (HOLD, 1.0, HOLD),
        (HOLD, -1.0, HOLD),
        (SLOW, 0.25, HOLD),
        (FAST, -0.25, HOLD),
    )

    @pytest.mark.parametrize(("mode", "z", "expected"), TABLE)
    def test_transition(self, mode, z, expected):
        assert controllers.schmitt_trigger(i32(mode), f32(z), enter=1.0, leave=0.25) == expected


class TestHysteresisGate:
    TABLE = (
        # scale, mode, distance, z, next scale, next mode
        (1.0, HOLD, 1.0, 0.0, 1.0, HOLD),
        (1.0, HOLD, 1.0, 2.0, 0.8, SLOW),
        (1.0, HOLD, 1.0, -2.0, 1.1, FAST),
        (0.8, SLOW, 1.0, 0.5, 0.64, SLOW),
        (0.8, SLOW, 1.0, -0.5, 0.8, HOLD),
        (9.9, FAST, 1.0, -2.0, 10.0, FAST),  # ceiling
        (0.11, SLOW, 1.0, 2.0, 0.1, SLOW),  # floor
        (1.0, FAST, np.nan, 0.0, 0.8, HOLD),
        (1.0, FAST, np.inf, 0.0, 0.8, HOLD),
    )

    @pytest.mark.parametrize(("scale", "mode", "distance", "z", "next_scale", "next_mode"), TABLE)
    def test_transition(self, scale, mode, distance, z, next_scale, next_mode):
        gate = controllers.hysteresis_gate()
        state = GateState(f32(scale), i32(mode), f32(0.0), f32(HISTORY), i32(10))
        value, state = gate.update(measured(distance * of_score(z)), state)
        np.testing.assert_allclose(value, next_scale, rtol=1e-6)
        assert state.scale == value
        assert state.phase == next_mode

    def test_starts_at_one(self):
        scale, state = controllers.hysteresis_gate().init()
        assert scale == 1
        assert state.phase == HOLD
        assert state.history.shape == (10,)

    def test_forgets_the_unit_of_the_distance(self):
        # Relative: what it does depends on z only, so a rate that is 100 times wrong looks the same.
        gate = controllers.hysteresis_gate()
        scales = []
        for unit in (1e-3, 1e3):
            _, state = gate.init()
            for distance in (1.0, 1.1, 0.9, 1.05, 0.95, 0.1):
                scale, state = gate.update(measured(distance * unit), state)
            scales.append(float(scale))
        assert scales[0] == scales[1] > 1

    def test_z_is_that_of_the_logarithms_before_it(self):
        gate = controllers.hysteresis_gate(window=6)
        _, state = gate.init()
        logarithms = np.random.default_rng(0).normal(size=14)
        for i, logarithm in enumerate(logarithms):
            _, state = gate.update(measured(np.exp(logarithm)), state)
            last = logarithms[max(i - 6, 0) : i]
            if len(last) < 5:
                assert state.z == 0
                continue
            median = np.median(last)
            mad = np.median(np.abs(last - median))
            z = (logarithm - median) / (1.4826 * mad + 1e-3 * abs(median) + 1e-6)
            np.testing.assert_allclose(state.z, np.clip(z, -10, 10), rtol=1e-3)

    def test_what_is_not_finite_joins_no_history(self):
        gate = controllers.hysteresis_gate()
        _, state = gate.init()
        _, state = gate.update(measured(1.0), state)
        _, after = gate.update(measured(np.nan), state)
        assert after.measurements == state.measurements == 1
        np.testing.assert_array_equal(after.history, state.history)
        assert after.z == 0

    # What is no number at all is in the table of wrong arguments.
    @pytest.mark.parametrize(
        ("argument", "last", "beyond"),
        [
            ("enter", 1e-3, 0.0),
            ("leave", 0.0, -0.1),
            ("leave", 1.0, 1.1),  # enter
            ("up", 1.0, 0.9),
            ("down", 1e-3, 0.0),
            ("down", 1.0, 1.1),
            ("floor", 1e-3, 0.0),
            ("floor", 1.0, 1.1),
            ("ceiling", 1.0, 0.9),
            ("window", 5, 4),
        ],
    )
    def test_the_ends_of_each_range(self, argument, last, beyond):
        controllers.hysteresis_gate(**{argument: last})
        with pytest.raises(ValueError, match=f"^{argument} must be .* got {beyond!r}"):
            controllers.hysteresis_gate(**{argument: beyond})


class TestStandstill:
    """A network that does not move says nothing of its rate."""

    def scales(self, distances):
        gate = controllers.hysteresis_gate()
        scale, state = gate.init()
        found = []
        for distance in distances:
            scale, state = gate.update(measured(distance), state)
            found.append(float(scale))
        return found, state

    def test_the_scale_is_held(self):
        lively = [1, 1.1, 0.9, 1, 1.05, 0.95]
        found, state = self.scales([*lively, *[0.0] * 30])
        assert found[len(lively) :] == [found[len(lively) - 1]] * 30
        assert state.phase == HOLD
        assert state.measurements == len(lively)  # what did not move is not compared with

    @pytest.mark.parametrize(("distance", "counted"), [(1e-8, 0), (1.5e-8, 1)])
    def test_up_to_a_hundred_millionth_of_the_set_point_nothing_moved(self, distance, counted):
        assert self.scales([distance])[1].measurements == counted

    def test_a_single_outlier_does_not_slow_for_ever(self):
        found, state = self.scales([*[1.0] * 6, 5.0, *[1.0] * 15])
        assert state.phase == HOLD
        assert found[-1] > 0.5
