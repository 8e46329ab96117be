"""The state: found in any tree by the names of its fields together, and what it tells."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from light import LIGHT

import cgalr_jax

PARAMS = {"w": jnp.ones((3, 4))}
SCHEDULE = optax.linear_schedule(0.1, 0.0, 10)


def block(**kwargs):
    return cgalr_jax.scale_by_connectome({"hidden": 4}, **{"signal": LIGHT, **kwargs})


def test_tuples_that_became_mappings_or_lists():
    state = optax.chain(optax.identity(), block()).init(PARAMS)
    as_mapping = {"0": {}, "1": state[1]._asdict()}
    for tree in (as_mapping, [None, state[1]._asdict()], {"step": 3, "opt_state": as_mapping}):
        assert cgalr_jax.metrics(tree)["cgalr/scale"] == 0.001


class TestLearningRate:
    """What is my learning rate now? The rate of the step that was taken, wherever it can be known."""

    def applied(self, tx, state, steps=4, **extra):
        """The rate by what became of a gradient of ones, and the rate that metrics tells."""
        grads = jax.tree.map(jnp.ones_like, PARAMS)
        for _ in range(steps):
            updates, state = tx.update(grads, state, PARAMS, **extra)
        return -updates["w"][0, 0], cgalr_jax.metrics(state)["cgalr/learning_rate"]

    @pytest.mark.parametrize("rate", [0.1, SCHEDULE], ids=["constant", "schedule"])
    def test_of_cgalr(self, rate):
        tx = cgalr_jax.cgalr(rate, optimizer=optax.sgd, signal=cgalr_jax.signals.update_norm())
        applied, shown = self.applied(tx, tx.init(PARAMS))
        np.testing.assert_allclose(applied, shown, rtol=1e-6)

    def test_of_a_connectome_schedule(self):
        acts = {"hidden": jnp.eye(4)}
        schedule = cgalr_jax.connectome_schedule(SCHEDULE, {"hidden": 4}, every=1)
        tx = optax.inject_hyperparams(optax.sgd)(learning_rate=schedule)
        applied, shown = self.applied(tx, tx.init(PARAMS), activations=acts)
        np.testing.assert_allclose(applied, shown, rtol=1e-6)

    def test_of_inject_hyperparams_beside_the_block(self):
        signal = cgalr_jax.signals.update_norm()
        tx = optax.chain(optax.inject_hyperparams(optax.sgd)(learning_rate=SCHEDULE), block(signal=signal))
        applied, shown = self.applied(tx, tx.init(PARAMS))
        np.testing.assert_allclose(applied, shown, rtol=1e-6)

    def test_elsewhere_by_one_line(self):
        signal = cgalr_jax.signals.update_norm()
        tx = optax.chain(optax.sgd(SCHEDULE), block(signal=signal))
        state = tx.init(PARAMS)
        grads = jax.tree.map(jnp.ones_like, PARAMS)
        for _ in range(3):
            updates, state = tx.update(grads, state, PARAMS)
        shown = cgalr_jax.metrics(state)
        assert "cgalr/learning_rate" not in shown
        rate = SCHEDULE(shown["cgalr/step"] - 1) * shown["cgalr/scale"]
        np.testing.assert_allclose(-updates["w"][0, 0], rate, rtol=1e-6)


def test_what_is_refused_is_counted_wherever_it_was():
    bounds = cgalr_jax.robbins_monro_bounds(0.1, 1.0, tau=10.0)
    bad = cgalr_jax.Controller(lambda: (jnp.float32(0.5), ()), lambda m, s: (jnp.float32(jnp.nan), s))
    tx = block(controller=cgalr_jax.controllers.envelope(bad, bounds), every=1)
    state = tx.init(PARAMS)
    update = jax.jit(functools.partial(tx.update, activations={"hidden": jnp.eye(4)}))
    for _ in range(4):
        _, state = update(PARAMS, state, PARAMS)
    found = cgalr_jax.metrics(state)
    assert found["cgalr/refused"] == 3  # the first reading is compared with nothing
    assert found["cgalr/scale"] == 0.5


def test_metrics_of_runs_under_vmap_have_a_value_for_each():
    tx = cgalr_jax.cgalr(SCHEDULE, signal=cgalr_jax.signals.update_norm(), steps=200)
    several = jax.vmap(tx.init)(jax.tree.map(lambda x: jnp.stack([x] * 3), PARAMS))
    one, found = cgalr_jax.metrics(tx.init(PARAMS)), cgalr_jax.metrics(several)
    assert set(found) == set(one)
    assert {jnp.shape(value) for value in found.values()} == {(3,)}
    assert cgalr_jax.is_measurement_step(1, steps=200, opt_state=several)
