"""What happens early, to the parameters or to the first values of a schedule, must not stop the ramp."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cgalr_jax
from cgalr_jax import controllers

X = jax.random.normal(jax.random.key(0), (256, 8))
PARAMS = {"w": jax.random.normal(jax.random.key(1), (8, 32)) / 3, "v": jnp.zeros(32)}
OTHERS = {"w": jax.random.normal(jax.random.key(5), (8, 32)) / 3, "v": jnp.zeros(32)}


def probe(params):
    return {"hidden": X @ params["w"]}


def loss(params):
    return jnp.mean((jnp.tanh(X @ params["w"]) @ params["v"] - jnp.sin(X.sum(axis=1))) ** 2)


DISTURBANCES = (
    lambda params: params,
    lambda params: {**params, "w": 1.001 * params["w"]},
    lambda params: jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params),
    lambda params: {**params, "v": 0 * params["v"]},
    lambda params: OTHERS,
)


@functools.cache
def run(schedule, steps=None, length=300):
    """Runs side by side that meet one disturbance at one step -> the last metrics, and the loss."""
    tx = cgalr_jax.cgalr(schedule, {"hidden": 32}, optimizer=optax.adamw, steps=steps)

    @jax.jit
    @jax.vmap
    def ends(kind, at):
        def step(carry, i):
            params, state = carry
            changed = jax.lax.switch(kind, DISTURBANCES, params)
            params = jax.tree.map(lambda a, b: jnp.where(i == at, a, b), changed, params)
            updates, state = tx.update(jax.grad(loss)(params), state, params, probe=probe)
            return (optax.apply_updates(params, updates), state), None

        (params, state), _ = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), jnp.arange(length))
        return cgalr_jax.metrics(state), loss(params)

    return ends


@pytest.mark.parametrize("base", [1e-6, 1e-4])
def test_what_somebody_else_does_to_the_parameters_early_in_a_ramp(base):
    ends = run(optax.cosine_decay_schedule(base, 300))
    kinds, steps = (x.ravel() for x in np.meshgrid(np.arange(len(DISTURBANCES)), [1, 5, 9, 11, 15, 25]))
    metrics, losses = ends(kinds.astype(np.int32), steps.astype(np.int32))
    undisturbed = metrics["cgalr/anchor"][kinds == 0]
    assert np.all(metrics["cgalr/ended"] == controllers.REACHED)
    np.testing.assert_array_less(np.abs(np.log(metrics["cgalr/anchor"] / undisturbed[0])), np.log(2))
    assert np.all(losses < 0.5 * loss(PARAMS))


def cosine(step):
    return optax.cosine_decay_schedule(1e-3, 300)(step)


@pytest.mark.parametrize("at", [0, 1, 5, 10, 12])
@pytest.mark.parametrize("steps", [None, 300])
def test_one_value_far_too_large_at_the_start_of_a_schedule_is_no_peak(at, steps):
    nobody = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    right = run(cosine, steps)(*nobody)[0]["cgalr/anchor"][0]
    metrics, _ = run(lambda step: jnp.where(step == at, 1.0, cosine(step)), steps)(*nobody)
    assert metrics["cgalr/ended"][0] == controllers.REACHED
    assert 0.5 < metrics["cgalr/anchor"][0] / right < 2


def test_a_warm_up_over_nine_orders_of_magnitude():
    """At its beginning nothing moves that float32 could hold."""

    def schedule(step):
        return jnp.where(step < 60, 1e-12 * 10 ** (step / 60 * 9), 1e-3 * (1 - (step - 60) / 240))

    metrics, losses = run(schedule)(np.zeros(1, np.int32), np.full(1, -1, np.int32))
    assert metrics["cgalr/ended"][0] == controllers.REACHED
    assert metrics["cgalr/anchor"][0] >= 1e-6
    assert losses[0] < 0.7 * loss(PARAMS)


@pytest.mark.parametrize("steps", [None, 300])
def test_an_anchor_is_never_outside_of_what_a_scale_may_be(steps):
    """Whatever a schedule adds to its peak."""
    controller = cgalr_jax.calibrated(lambda step: 1e-30 * 1.5**step, steps=steps)
    scale, state = controller.init()
    for step in range(1, 200, 10):
        scale, state = controller.update(controllers.Measurement(jnp.float32(1e-9), jnp.int32(step)), state)
        assert 1e-6 <= state.anchor <= 1e6
        assert 1e-6 <= scale <= 1e6
