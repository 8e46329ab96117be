"""Bounds: the envelope of Robbins and Monro as a theorem, and what keeps any controller usable."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scalars import f32, i32

from cgalr_jax import controllers
from cgalr_jax.controllers import Controller, Measurement

pytestmark = pytest.mark.usefixtures("strict")


class TestRobbinsMonroBounds:
    def test_formula(self):
        low, high = controllers.robbins_monro_bounds(0.1, 2.0, tau=50, exponent=0.75)(i32(100))
        np.testing.assert_allclose(low, 0.1 * 3**-0.75, rtol=1e-6)
        np.testing.assert_allclose(high, 2.0 * 3**-0.75, rtol=1e-6)

    @pytest.mark.parametrize("exponent", [0.6, 0.75, 1.0])
    def test_sums(self, exponent):
        """The lower bounds sum to infinity, the squares of the upper ones do not: by the integral test."""
        bounds = controllers.robbins_monro_bounds(0.5, 2.0, tau=10.0, exponent=exponent)
        sums = []
        for power in (4, 5):
            low, high = (np.asarray(b, np.float64) for b in bounds(jnp.arange(10**power, dtype=jnp.int32)))
            sums.append((low.sum(), (high**2).sum()))
        limit = 4.0 * (1 + 10.0 / (2 * exponent - 1))  # first term + integral of the rest
        assert sums[1][1] < limit
        # A decade more of steps adds what the integral of the lower bound says, which grows without end.
        n, m = 10**4, 10**5
        if exponent == 1.0:
            growth = 0.5 * 10.0 * np.log((1 + m / 10.0) / (1 + n / 10.0))
        else:
            power = 1 - exponent
            growth = 0.5 * 10.0 / power * ((1 + m / 10.0) ** power - (1 + n / 10.0) ** power)
        np.testing.assert_allclose(sums[1][0] - sums[0][0], growth, rtol=1e-2)

    # Ever larger distances are unstable, ever smaller ones stable, and stay within float32.
    ADVERSARIES = {
        "always unstable": lambda time, z: jnp.exp(0.02 * time),
        "always stable": lambda time, z: jnp.exp(-0.004 * time),
        "random": lambda time, z: jnp.exp(3 * z),
        "not finite": lambda time, z: jnp.full_like(z, jnp.nan),
    }

    @pytest.mark.parametrize("adversary", ADVERSARIES)
    def test_noisy_quadratic_converges_whatever_the_gate_does(self, adversary):
        """Polyak-Lojasiewicz: f(x) = |x|^2 / 2 with unit noise in the gradient, under the bounds."""
        values = self.values_of_all()[list(self.ADVERSARIES).index(adversary)]
        assert values[0] == 4.5
        assert values[-1] < 0.02
        assert values[-1] < values[400:500].mean() / 3  # still falling, not at a noise floor

    @classmethod
    @functools.cache
    def values_of_all(cls):
        """The values along the run against each adversary, in one program."""
        bounds = controllers.robbins_monro_bounds(0.5, 1.0, tau=10.0)
        gate = controllers.envelope(controllers.hysteresis_gate(), bounds)

        def step(carry, t):
            x, state = carry
            noise, z = jax.random.normal(jax.random.fold_in(jax.random.key(0), t), (2, 256))
            time = t.astype(jnp.float32)
            distances = jnp.stack([distance(time, z[0]) for distance in cls.ADVERSARIES.values()])
            scale, state = jax.vmap(lambda *of_one: gate.update(Measurement(of_one[0], t), of_one[1]))(
                distances, state
            )
            return (x - scale[:, None] * (x + noise[None]), state), jnp.mean(x**2, axis=1) / 2

        number = len(cls.ADVERSARIES)
        states = jax.tree.map(lambda leaf: jnp.stack([leaf] * number), gate.init()[1])
        start = jnp.full((number, 256), 3.0), states
        return np.asarray(jax.lax.scan(step, start, jnp.arange(4000, dtype=jnp.int32))[1]).T

    # What is no number at all is in the table of wrong arguments.
    @pytest.mark.parametrize(
        ("argument", "last", "beyond"),
        [
            ("lower", 1e-3, 0.0),
            ("upper", 0.1, 0.09),  # lower
            ("tau", 1e-3, 0.0),
            ("exponent", 0.51, 0.5),
            ("exponent", 1.0, 1.1),
        ],
    )
    def test_the_ends_of_each_range(self, argument, last, beyond):
        made = functools.partial(
            controllers.robbins_monro_bounds, **{"lower": 0.1, "upper": 1.0, "tau": 10.0}
        )
        made(**{argument: last})
        with pytest.raises(ValueError, match=f"^{argument} must be .* got {beyond!r}"):
            made(**{argument: beyond})


BAD = (np.nan, np.inf, -np.inf, 0.0, -1.0)


def echo():
    """A controller that wants the distance as its scale, and counts what it was told."""

    def update(measurement, state):
        return measurement.distance, state + 1

    return Controller(lambda: (f32(1.0), i32(0)), update)


class TestEnvelope:
    @pytest.mark.parametrize("bad", BAD)
    def test_a_scale_that_cannot_be_used_is_refused_and_counted(self, bad):
        controller = controllers.envelope(echo())
        scale, state = controller.init()
        scales = []
        for distance in (0.5, bad, bad, 2.0):
            scale, state = controller.update(Measurement(f32(distance), i32(0)), state)
            scales.append(float(scale))
        assert scales == [0.5, 0.5, 0.5, 2.0]
        assert state.refused == 2
        assert state.controller == 2  # the state that belongs to a refused scale is not kept

    @pytest.mark.parametrize("bad", [(bad, 1.0) for bad in BAD] + [(0.1, bad) for bad in BAD] + [(0.9, 0.2)])
    def test_bounds_that_cannot_be_used_leave_the_scale_where_it_is(self, bad):
        def bounds(step):
            return tuple(
                jnp.where(step == 10, wrong, good) for wrong, good in zip(bad, (0.1, 1.0), strict=True)
            )

        controller = controllers.envelope(echo(), bounds)
        scale, state = controller.init()
        scales = []
        for step, distance in ((0, 0.5), (10, 0.7), (20, 3.0), (30, 0.01)):
            scale, state = controller.update(Measurement(f32(distance), i32(step)), state)
            scales.append(float(scale))
        np.testing.assert_allclose(scales, [0.5, 0.5, 1.0, 0.1])
        assert state.refused == 1

    @pytest.mark.parametrize("bad", [(np.nan, 1.0), (0.0, 1.0), (0.1, np.inf), (0.9, 0.2)])
    def test_bounds_that_are_wrong_at_the_first_step_are_refused_when_it_is_made(self, bad):
        with pytest.raises(ValueError, match="^bounds at step 0: (low|high) must be"):
            controllers.envelope(echo(), lambda step: bad)

    def test_bounds_that_are_no_function(self):
        with pytest.raises(ValueError, match=r"^bounds must be a function, .*got \(0.1, 1.0\)"):
            controllers.envelope(echo(), (0.1, 1.0))


def test_bounds_are_a_pair_and_may_be_one_number():
    with pytest.raises(ValueError, match=r"^bounds must return a pair, \(low, high\), got \(0.1, 0.5, 1.0\)"):
        controllers.envelope(controllers.hysteresis_gate(), lambda step: (0.1, 0.5, 1.0))
    pinned = controllers.envelope(controllers.hysteresis_gate(), lambda step: (0.5, 0.5))
    assert float(pinned.init()[0]) == 0.5


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -1.0, 0.0])
def test_a_first_scale_that_is_known_in_a_trace_only_is_replaced_by_one(bad):
    def first(value):
        held = Controller(lambda: (value, jnp.zeros((), jnp.int32)), lambda _, state: (value, state))
        return controllers.envelope(held).init()

    scale, state = jax.jit(first)(f32(bad))
    assert scale == state.scale == 1
    assert state.refused == 1


def test_a_controller_that_does_not_calibrate_says_so():
    held = Controller(lambda: (f32(1.0), i32(0)), lambda _, state: (f32(1.0), state))
    assert not controllers.envelope(held).init()[1].calibrating
    assert controllers.envelope(controllers.calibrated()).init()[1].calibrating


def test_bounds_may_halve_within_a_step():
    low, high = controllers.robbins_monro_bounds(0.1, 1.0, tau=0.5)(i32(1))
    np.testing.assert_allclose([low, high], [0.1 / 3, 1 / 3], rtol=1e-6)


@pytest.mark.parametrize("step", ["a", None, -5, np.nan, np.inf, i32(-1), np.array([3, -1])])
def test_bounds_refuse_what_is_no_step(step):
    with pytest.raises(ValueError, match=r"^step must be .*, got"):
        controllers.robbins_monro_bounds(0.1, 1.0, tau=10.0)(step)


def test_bounds_of_many_steps_are_those_of_each():
    bounds = controllers.robbins_monro_bounds(0.1, 1.0, tau=10.0)
    each = np.transpose([bounds(step) for step in (0, 3, 10**12)])
    np.testing.assert_array_equal(bounds(np.array([0, 3, 10**12])), each)
