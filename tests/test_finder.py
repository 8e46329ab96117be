"""The ramp only: it follows the optimizer, reads the right point off its curve, says when there is none."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cgalr_jax
from cgalr_jax import signals
from cgalr_jax.controllers import BY_TIME, REACHED, UNFINISHED, calibrated
from cgalr_jax.finder import _fit, ramp

X = jax.random.normal(jax.random.key(0), (256, 8))
Y = jnp.sin(X.sum(axis=1))
PARAMS = {
    "w": jax.random.normal(jax.random.key(1), (8, 32)) / 3,
    "v": jax.random.normal(jax.random.key(2), (32,)) / 4,
}


class TrainState(NamedTuple):
    """A state that names its parameters, as Flax's does."""

    step: int
    params: Any
    opt_state: Any


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


CHEAP = signals.relative_update()  # it compiles fast


@functools.cache
def found():
    """By a ramp of one measurement a step."""
    return find(signal=CHEAP)


def test_the_unit_of_the_rate_does_not_matter():
    other = find(unit=10.0, lowest=1e-6, highest=1.0, signal=CHEAP)
    assert found().reached
    assert other.reached
    np.testing.assert_allclose(other.rate * 10, found().rate, rtol=0.02)  # near the edge rounding grows


def test_it_follows_the_optimizer():
    # Adam moves each weight by the rate, whatever its gradient, which is small here.
    assert find(optax.adam, signal=CHEAP).rate < found().rate / 3


def test_the_rate_trains():
    rate = find().rate
    params = PARAMS
    for _ in range(100):
        params = jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))
    assert loss(params) < 0.5 * loss(PARAMS)


def test_the_curve_is_what_was_seen():
    curve = found()
    assert len(curve.rates) == len(curve.distances)
    assert curve.rates[0] == pytest.approx(1e-5)
    assert curve.distances[0] < 0.1
    assert curve.low <= curve.rate / 3
    assert 3 * curve.rate <= curve.high


def test_a_ramp_that_ends_too_early():
    with pytest.warns(DeprecationWarning, match="^measurements= has no effect any more") as caught:
        curve = find(highest=1e-3, signal=CHEAP, measurements=5)
    assert caught[0].filename == __file__
    assert not curve.reached
    assert curve.rate <= 1e-3


def descend(params, rate):
    return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))


def climb(step=descend, state=PARAMS, probe=lambda params: {"hidden": X @ params["w"]}, **kwargs):
    return cgalr_jax.find_learning_rate(step, state, probe, **{"signal": CHEAP, **kwargs})


class TestRate:
    """A step has to use it."""

    @pytest.mark.parametrize(
        "step",
        [
            lambda params, rate: descend(params, 0.1),
            jax.jit(lambda params, rate: descend(params, 0.1)),
            jax.jit(jax.jit(lambda params, rate: (rate, descend(params, 0.1))[1])),
            lambda params, rate: params,
        ],
        ids=["its own", "jitted", "twice", "nothing"],
    )
    def test_a_step_without_it_is_refused(self, step):
        with pytest.raises(ValueError, match="^step must use its learning rate, .* got .* build the optimiz"):
            climb(step)

    @pytest.mark.parametrize(
        "step",
        [
            jax.jit(descend),
            lambda params, rate: jax.lax.fori_loop(0, 2, lambda _, p: descend(p, rate), params),
            lambda params, rate: jax.lax.cond(rate > 0, lambda p: descend(p, 0.1), lambda p: p, params),
            lambda params, rate: jax.lax.scan(lambda p, r: (descend(p, r), None), params, rate[None])[0],
            lambda params, rate: {**params, "v": params["v"] * (1 - rate)},
        ],
        ids=["jitted", "a loop", "a branch", "a scan", "one leaf"],
    )
    def test_a_step_that_uses_it_passes(self, step):
        _fit.check_rate_is_used(step, _fit.check_step(step, PARAMS))

    def test_an_optimizer_that_is_told_its_rate_passes(self):
        tx = optax.inject_hyperparams(optax.sgd)(1.0)

        def step(state, rate):
            params, opt_state = state
            opt_state.hyperparams["learning_rate"] = rate
            updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        _fit.check_rate_is_used(step, _fit.check_step(step, (PARAMS, tx.init(PARAMS))))


def nan_in(name):
    return {**PARAMS, name: PARAMS[name].at[0].set(jnp.nan)}


class TestBlame:
    """An error names the argument that is to blame."""

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ({"probe": lambda p: None}, "probe must return activations, .*, got None"),
            ({"probe": lambda p: {}}, "probe must return activations, .*, got {}"),
            ({"probe": loss}, r"probe must return activations, .* \[N, ..., F\], got ShapeDtypeStruct"),
            ({"probe": lambda p: X[:, :1]}, "probe must return activations, .*at least 2 units .* got 1 in"),
            ({"probe": lambda p: {"a": {"b": X}, "a/b": X}}, "probe must .* a different name for each layer"),
            ({"probe": lambda p: p.params}, "probe must be a function of the state, .* AttributeError: "),
            ({"step": lambda p, r: p.params}, "step must be one training step, .* got .* AttributeError: "),
            ({"step": lambda p, r: p["x"]}, "step must be one training step, .* which fails: KeyError: 'x'"),
            (
                {"params": lambda p: p["w"]["x"]},
                "params must be a function that finds the parameters, .* TypeError: JAX does not support str",
            ),
            (
                {"params": lambda p: p.params, "signal": signals.hybrid()},
                "params must be a function that finds the parameters, .* AttributeError: ",
            ),
            (
                {"params": lambda p: p.params, "signal": signals.frobenius()},
                "params must be a function that finds the parameters, .* AttributeError: ",
            ),
            ({"state": nan_in("v")}, r"state must not hold NaN, got some at state\['v'\]"),
            (
                {"state": nan_in("w"), "signal": signals.frobenius()},
                r"state must not hold NaN, got some at state\['w'\]",
            ),
            (
                {"probe": lambda p: {"h": jnp.log(X @ p["w"])}, "signal": signals.frobenius()},
                r"probe must return finite activations, .* at probe\(state\)\['h'\]",
            ),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    def test_it_is_named(self, given, sentence):
        with pytest.raises(ValueError, match=f"^{sentence}"):
            climb(**given)

    @pytest.mark.parametrize("under", [jax.jit, jax.grad, jax.vmap], ids=lambda under: under.__name__)
    def test_it_is_no_part_of_a_program(self, under):
        def inside(scale):
            return climb(state=jax.tree.map(lambda p: scale * p, PARAMS)).rate

        with pytest.raises(ValueError, match="^state must be known, got traced values: call find_learning_r"):
            under(inside)(jnp.ones(1 if under is jax.vmap else ()))

    def test_nor_with_a_state_that_is_known(self):
        with pytest.raises(ValueError, match="^state must be known, got traced values"):
            jax.jit(lambda x: x * climb().rate)(1.0)


class TestParameters:
    """Where they are looked for."""

    @pytest.mark.parametrize(
        "state",
        [
            TrainState(0, PARAMS, ()),
            {"params": PARAMS, "opt_state": ()},
            (PARAMS, (), 0),
            [PARAMS, optax.adam(1.0).init(PARAMS)],
            PARAMS,
        ],
        ids=["attribute", "key", "first", "first of a list", "all"],
    )
    def test_by_name_or_by_place(self, state):
        assert _fit.usual_parameters(state) is PARAMS

    def test_a_list_of_layers_is_all_of_them(self):
        layers = [(PARAMS["w"], jnp.zeros(32)), (PARAMS["v"],)]
        _fit.check_parameters(_fit.usual_parameters, layers, are_read=True)
        assert _fit.usual_parameters(layers) is layers

    @pytest.mark.parametrize(
        ("state", "params"),
        [
            ((optax.adam(1.0).init(PARAMS), PARAMS), None),
            ([optax.adam(1.0).init(PARAMS), PARAMS], None),
            ({"model": PARAMS, "opt": optax.adam(1.0).init(PARAMS)}, None),
            ({"model": PARAMS, "more": [{"opt": optax.sgd(1.0).init(PARAMS)}]}, None),
            ((0, PARAMS), None),
            ((PARAMS, 0), lambda state: state[1]),
        ],
        ids=[
            "an optimizer first",
            "first in a list",
            "an optimizer by another name",
            "one without numbers",
            "a counter first",
            "not them",
        ],
    )
    def test_what_is_none_is_refused(self, state, params):
        with pytest.raises(ValueError, match="^params must be a function that finds the parameters"):
            cgalr_jax.find_learning_rate(
                lambda state, rate: state, state, lambda state: {"hidden": X}, params=params
            )


class TestReadOff:
    RATES = np.geomspace(1e-4, 1.0, 9)
    CONTROL = calibrated().init()[1]

    def read(self, pointed, distances, ended=REACHED):
        """What is read off a ramp whose measurements point to these rates, at most 10."""
        kept = jnp.zeros(64).at[: len(pointed)].set(-jnp.log(jnp.array(pointed) / 10))
        control = self.CONTROL._replace(
            sensitivities=kept, counted=jnp.int32(len(pointed)), ended=jnp.int32(ended)
        )
        return ramp._read_off(control, self.RATES[: len(distances)], np.array(distances), 10.0)

    def test_two_thirds_of_the_median(self):
        curve = self.read([0.02, 0.03, 0.9], 9 * [0.5])
        assert curve.reached
        np.testing.assert_allclose([curve.rate, curve.low], [0.02, 0.02 / 3], rtol=1e-5)

    def test_scatter_is_uncertainty(self):
        curve = self.read([0.003, 0.004, 0.03, 0.8, 0.9], 9 * [0.5])
        np.testing.assert_allclose(curve.rate, 0.02, rtol=1e-5)
        assert curve.low < 0.02 / 3
        assert curve.high > 3 * 0.02

    def test_never_above_what_was_tried(self):
        assert self.read([5.0, 6.0], 9 * [0.1], BY_TIME).rate == self.RATES[-1]
        assert not self.read([5.0, 6.0], 9 * [0.1], BY_TIME).reached
        assert self.read([], 9 * [0.1], UNFINISHED).rate == self.RATES[-1]

    @pytest.mark.parametrize("end", [[2.0, 20.0], [np.nan], [np.inf]])
    def test_a_divergence_is_kept_away_from(self, end):
        distances = [1e-3, 2e-3, 4e-3, 8e-3, *end]
        curve = self.read([5.0, 6.0], distances, UNFINISHED)
        assert curve.reached
        assert curve.rate == pytest.approx(self.RATES[3] / 2)

    @pytest.mark.parametrize("distance", [np.nan, 0.0])
    def test_nothing_to_read(self, distance):
        with pytest.raises(ValueError, match="^lowest and highest must enclose"):
            self.read([], 9 * [distance], UNFINISHED)


def test_a_range_that_the_ramp_cannot_span_is_refused():
    climb = functools.partial(
        cgalr_jax.find_learning_rate, lambda p, r: p, PARAMS, lambda p: {"h": X @ p["w"]}
    )
    with pytest.raises(ValueError, match=r"lowest must be at least a millionth of highest = 10.0, got 1e-12"):
        climb(lowest=1e-12, highest=10.0)
    with pytest.raises(ValueError, match=r"start must be in \[1e-6, 1\], got 1e-09"):
        calibrated(start=1e-9)


def test_a_signal_of_doubles():
    reading = signals.Signal(
        lambda layers, params: {name: jnp.mean(layer, 0) for name, layer in layers.items()},
        lambda before, after: sum(jnp.abs(before[name] - after[name]).mean() for name in before),
        0.1,
    )

    def step(params, rate):
        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), PARAMS)
        curve = cgalr_jax.find_learning_rate(step, params, lambda p: {"h": X @ p["w"]}, signal=reading)
    assert np.isfinite(curve.rate)


@pytest.mark.parametrize("dtype", [">f4", np.longdouble], ids=["another byte order", "another precision"])
def test_a_state_of_numpy_arrays_that_jax_has_not(dtype):
    def step(params, rate):
        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

    def rate(params):
        return cgalr_jax.find_learning_rate(
            step, params, lambda p: {"h": X @ p["w"]}, signal=signals.relative_update(), lowest=1e-2
        ).rate

    assert rate(jax.tree.map(lambda p: np.asarray(p).astype(dtype), PARAMS)) == rate(PARAMS)
