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


def test_what_a_schedule_is_refused_is_counted_within_the_envelope():
    schedule = lambda step: jnp.where(step < 2, 0.1, jnp.nan)  # noqa: E731
    tx = block(controller=cgalr_jax.calibrated(schedule), every=1)
    state = tx.init(PARAMS)
    for _ in range(4):
        _, state = tx.update(PARAMS, state, PARAMS, activations={"hidden": jnp.eye(4)})
    assert cgalr_jax.metrics(state)["cgalr/refused"] == 2


def test_only_numbers_of_a_controller_are_its_metrics():
    numbers = {"anchor": jnp.ones(3), "phase": jnp.int32(1)}
    own = cgalr_jax.Controller(lambda: (jnp.float32(0.5), numbers), lambda m, s: (jnp.float32(0.5), s))
    read = lambda layers, params: {"ended": jnp.float32(2.0)}  # noqa: E731
    signal = cgalr_jax.Signal(read, lambda before, after: jnp.float32(1.0), 1.0)
    found = cgalr_jax.metrics(block(controller=own, signal=signal).init(PARAMS))
    assert found["cgalr/phase"] == 1
    assert "cgalr/anchor" not in found
    assert "cgalr/ended" not in found


def test_a_state_that_lacks_a_field_is_of_another_release():
    state = block().init(PARAMS)
    stored = state._asdict()
    del stored["cg_moves"]
    with pytest.raises(ValueError, match=r"^stored must have all fields .* without \['cg_moves'\]"):
        cgalr_jax.check_checkpoint(stored, state)


def test_metrics_of_runs_under_vmap_have_a_value_for_each():
    tx = cgalr_jax.cgalr(SCHEDULE, signal=cgalr_jax.signals.update_norm(), steps=200)
    several = jax.vmap(tx.init)(jax.tree.map(lambda x: jnp.stack([x] * 3), PARAMS))
    one, found = cgalr_jax.metrics(tx.init(PARAMS)), cgalr_jax.metrics(several)
    assert set(found) == set(one)
    assert {jnp.shape(value) for value in found.values()} == {(3,)}
    assert cgalr_jax.is_measurement_step(1, steps=200, opt_state=several)
