"""An update without jit runs as it is: nothing is compiled again at each call."""

import jax
import jax.numpy as jnp
import optax
import pytest
from compilations import compilations
from light import PLAIN

import cgalr_jax
from cgalr_jax import signals

X = jax.random.normal(jax.random.key(0), (16, 4))
PARAMS = {"w": jax.random.normal(jax.random.key(1), (4, 6))}


def probe(params):
    return {"hidden": X @ params["w"]}


def paired(params, x):
    return {"hidden": x @ params["w"]}


def test_that_compilations_are_heard():
    with compilations() as names:
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(3))
    assert names


# The block as it is used, once; then each way, each kind of signal and the gate by themselves.
WAYS = {
    "paired": ({"samples": X}, {"probe": paired, "samples": X}),
    "fixed": (PLAIN, {"probe": probe}),
    "given": (PLAIN, {"activations": probe(PARAMS)}),
    "births": ({**PLAIN, "signal": signals.births()}, {"probe": probe}),
    "update norm": ({**PLAIN, "signal": signals.update_norm()}, {}),
    "gate": ({**PLAIN, "controller": cgalr_jax.hysteresis_gate()}, {"probe": probe}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_second_round_of_eager_updates_compiles_nothing(way):
    options, extra = WAYS[way]
    tx = optax.chain(optax.sgd(0.1), cgalr_jax.scale_by_connectome({"hidden": 6}, every=2, **options))

    def rounds(state, steps):
        for _ in range(steps):
            _, state = tx.update(PARAMS, state, PARAMS, **extra)
        return state

    state = rounds(tx.init(PARAMS), 3)  # with a measurement, and without
    with compilations() as names:
        rounds(state, 4)
    assert names == []


def test_an_eager_schedule_compiles_nothing_twice():
    schedule = cgalr_jax.connectome_schedule(0.1, {"hidden": 6}, every=2)
    state = schedule.init()
    for _ in range(3):
        state = schedule.update(state, activations=probe(PARAMS))
    with compilations() as names:
        for _ in range(4):
            state = schedule.update(state, activations=probe(PARAMS))
    assert names == []


def test_a_probe_that_is_new_at_each_call_compiles_nothing_either():
    """A lambda in the loop, as everybody writes it."""
    tx = cgalr_jax.scale_by_connectome({"hidden": 6}, every=1, **PLAIN)
    state = tx.init(PARAMS)
    for _ in range(2):
        _, state = tx.update(PARAMS, state, PARAMS, probe=lambda params: {"hidden": X @ params["w"]})
    with compilations() as names:
        for _ in range(2):
            _, state = tx.update(PARAMS, state, PARAMS, probe=lambda params: {"hidden": X @ params["w"]})
    assert names == []
