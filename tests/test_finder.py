"""The ramp alone: it follows the optimizer, reads the right point off its curve, says when there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cgalr_jax
from cgalr_jax import finder, signals

X = jax.random.normal(jax.random.key(0), (256, 8))
Y = jnp.sin(X.sum(axis=1))
PARAMS = {
    "w": jax.random.normal(jax.random.key(1), (8, 32)) / 3,
    "v": jax.random.normal(jax.random.key(2), (32,)) / 4,
}


def loss(params):
    return jnp.mean((jnp.tanh(X @ params["w"]) @ params["v"] - Y) ** 2)


def find(make=optax.sgd, unit=1.0, **kwargs):
    """The rate found where `rate` is counted in `unit`s."""

    def step(state, rate):
        params, opt_state = state
        updates, opt_state = make(rate * unit).update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    state = PARAMS, make(1.0).init(PARAMS)
    return cgalr_jax.find_learning_rate(
        step, state, lambda state: {"hidden": X[:128] @ state[0]["w"]}, **kwargs
    )


def test_the_unit_of_the_rate_does_not_matter():
    one, other = find(), find(unit=10.0, lowest=1e-6, highest=1.0)
    assert one.reached
    assert other.reached
    np.testing.assert_allclose(other.rate * 10, one.rate, rtol=0.02)  # near the edge rounding grows


def test_it_follows_the_optimizer():
    def momentum(rate):
        return optax.sgd(rate, momentum=0.9)

    # Momentum 0.9 takes steps ten times as long, once it is up to speed.
    assert 3 < find().rate / find(momentum).rate < 15


def test_the_rate_trains():
    rate = find().rate
    params = PARAMS
    for _ in range(100):
        params = jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))
    assert loss(params) < 0.5 * loss(PARAMS)


def test_the_curve_is_what_was_seen():
    curve = find(measurements=11, lowest=1e-4, highest=10.0)
    assert len(curve.rates) == len(curve.distances) <= 11
    np.testing.assert_allclose(curve.rates[:2], [1e-4, 10**-3.5], rtol=1e-5)
    assert curve.distances[-2:].min() >= 1  # where it stopped
    assert curve.distances[0] < 0.1
    assert curve.low <= curve.rate <= curve.high


def test_a_ramp_that_ends_too_early():
    curve = find(highest=1e-3)
    assert not curve.reached
    assert curve.rate == pytest.approx(1e-3)


class TestReadOff:
    RATES = np.geomspace(1e-4, 1.0, 9)

    def test_a_power_law_exactly(self):
        distances = (self.RATES / 0.02) ** 0.8
        curve = finder._read_off(self.RATES, distances)
        np.testing.assert_allclose([curve.rate, curve.low, curve.high], 0.02, rtol=1e-6)

    def test_more_noise_is_more_uncertainty(self):
        noise = np.random.default_rng(0).normal(size=9)
        curves = [finder._read_off(self.RATES, self.RATES / 0.02 * np.exp(s * noise)) for s in (0.05, 0.4)]
        widths = [curve.high / curve.low for curve in curves]
        assert 1 < widths[0] < widths[1]
        assert all(curve.low < 0.02 < curve.high for curve in curves)

    def test_no_line(self):
        flat = finder._read_off(self.RATES, np.full(9, 2.0))
        assert flat.rate == self.RATES[0]
        unmoved = finder._read_off(self.RATES, np.full(9, 0.1))
        assert unmoved.rate == self.RATES[8]
        assert not unmoved.reached

    def test_a_divergence_is_kept_away_from(self):
        distances = np.array([1e-3, 2e-3, 4e-3, 8e-3, 16e-3, 32e-3, 64e-3, 20.0, np.nan])
        curve = finder._read_off(self.RATES, distances)
        assert curve.reached
        assert curve.rate <= self.RATES[7] / 2

    @pytest.mark.parametrize("distance", [np.nan, 0.0])
    def test_nothing_to_read(self, distance):
        with pytest.raises(ValueError, match="^lowest and highest must enclose"):
            finder._read_off(self.RATES, np.full(9, distance))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("every", 0),
        ("lowest", 0.0),
        ("lowest", np.nan),
        ("highest", 1e-06),
        ("measurements", 4),
        ("signal", "births"),
        ("signal", signals.hybrid()),
    ],
)
def test_refuses(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        find(**{argument: value})
