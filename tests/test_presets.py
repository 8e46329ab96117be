"""The paper in one call: its distances as published, its gate inside its envelope, once an epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cgalr_jax
from cgalr_jax import presets, topology
from cgalr_jax.controllers import Measurement
from cgalr_jax.layers import Layers


def units(seed, count=6):
    return jax.random.normal(jax.random.key(seed), (40, count))


def distance(name, before, after):
    signal = presets.paper_signal(name)
    return signal.compare(
        *(signal.read(Layers({"a": x[:, :3], "b": x[:, 3:]}), None) for x in (before, after))
    )


def test_the_distances_are_the_plain_norms_of_one_pooled_connectome():
    bars = [topology.compute_barcode(topology.functional_connectome(units(seed))) for seed in (0, 1)]
    gaps = [np.asarray(x) - np.asarray(y) for x, y in zip(*bars, strict=True)]
    np.testing.assert_allclose(distance("deaths", units(0), units(1)), np.linalg.norm(gaps[1]), rtol=1e-5)
    both = np.linalg.norm(np.concatenate(gaps))
    np.testing.assert_allclose(distance("barcode", units(0), units(1)), both, rtol=1e-5)


def test_the_wasserstein_distance_is_of_cycles_only():
    pytest.importorskip("gph")
    from cgalr_jax.topology import rips

    pair = [topology.functional_connectome(units(seed, 12)) for seed in (0, 1)]
    cycles = [rips.vietoris_rips(np.asarray(c), metric="reciprocal")[1] for c in pair]
    found = distance("wasserstein", units(0, 12), units(1, 12))
    np.testing.assert_allclose(found, rips.diagram_distance(*cycles), rtol=1e-5)


def run(gate, distances, every=10):
    """The scales after each of the measurements, one an epoch of `every` steps."""
    (scale, state), update = gate.init(), jax.jit(gate.update)
    scales = [float(scale)]
    for epoch, heard in enumerate(distances):
        scale, state = update(Measurement(jnp.float32(heard), jnp.int32(epoch * every)), state)
        scales.append(float(scale))
    return np.array(scales)


def test_a_gate_that_hears_nothing_follows_the_envelope():
    scales = run(presets.paper_gate(10, tau=5.0), [1.0] * 30)[1:]
    np.testing.assert_allclose(scales, 1 / (1 + np.arange(30) / 5.0), rtol=1e-6)


def test_a_gate_that_turns_is_heard_at_once():
    steady = [1.0, 1.1, 0.9, 1.05, 0.95] * 6
    scales = run(presets.paper_gate(10, tau=5.0), [*steady, 100.0])
    assert scales[-1] == pytest.approx(0.8 * scales[-2], rel=1e-5)  # though the envelope had clipped it


def test_it_stays_inside_the_envelope_whatever_it_hears():
    noise = np.exp(3 * np.random.default_rng(0).normal(size=200))
    scales = run(presets.paper_gate(10), noise)[1:]
    decay = 1 / (1 + np.arange(200) / 10)
    assert np.all(scales <= decay * (1 + 1e-5))
    assert np.all(scales >= 0.1 * decay * (1 - 1e-5))


@pytest.mark.parametrize("optimizer", [None, optax.adamw])
def test_it_measures_once_an_epoch_on_any_optimizer(optimizer):
    x = units(0, 4)
    params = {"w": units(1, 5)[:4]}

    def probe(params):
        return {"hidden": jax.nn.relu(x @ params["w"])}

    tx = presets.paper(0.1, jax.eval_shape(probe, params), steps_per_epoch=7, optimizer=optimizer)
    step = jax.jit(lambda params, state: tx.update(params, state, params, probe=probe))
    state = tx.init(params)
    for _ in range(22):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
    assert int(optax.tree.get(state, "cg_measurements")) == 3  # the first has nothing to compare with
    assert 0 < cgalr_jax.metrics(state)["cgalr/learning_rate"] <= 0.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"steps_per_epoch": 0}, "steps_per_epoch must be"),
        ({"topology": "births"}, "topology must be 'deaths', 'barcode' or 'wasserstein', got 'births'"),
        ({"window": 4}, "window must be"),
        ({"tau": 0.0}, "tau must be"),
        ({"learning_rate": optax.constant_schedule(0.1)}, "learning_rate must be a number"),
    ],
)
def test_it_refuses(arguments, said):
    with pytest.raises(ValueError, match=said):
        presets.paper(**{"learning_rate": 0.1, "example": {"hidden": 4}, "steps_per_epoch": 5} | arguments)
