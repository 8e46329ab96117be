"""The signal that the host measures."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cgalr_jax
from cgalr_jax import topology
from cgalr_jax.layers import Layers
from cgalr_jax.signals import rips


@pytest.fixture(scope="module")
def gph():
    return pytest.importorskip("gph", reason="giotto-ph has no wheel for this Python")


def test_without_giotto_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gph", None)
    with pytest.raises(ImportError, match=r"cgalr-jax\[giotto\].*Python 3\.8 to 3\.12"):
        rips.wasserstein()


@pytest.mark.usefixtures("gph")
def test_the_signal_reads_connectomes_and_compares_them_on_the_host():
    signal = rips.wasserstein()
    layers = [{"dense": jax.random.normal(jax.random.key(seed), (32, 8))} for seed in (0, 1)]
    before, after = (signal.read(Layers(layer), None) for layer in layers)
    expected = topology.rips.wasserstein_distance(
        *(topology.functional_connectome(layer["dense"]) for layer in layers)
    )
    np.testing.assert_array_equal(jax.jit(signal.compare)(before, after), expected)
    assert signal.compare(before, before) == 0
    assert rips.wasserstein(set_point=0.5).set_point == 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("gph")
def test_the_transformation_follows_it_under_jit_scan_and_vmap():
    weights = 0.3 * jax.random.normal(jax.random.key(0), (2, 6, 8))  # two seeds
    samples = jax.random.normal(jax.random.key(1), (32, 6))
    tx = cgalr_jax.scale_by_connectome({"dense": 8}, every=2, signal=rips.wasserstein())

    def probe(params):
        return {"dense": jnp.tanh(samples @ params)}

    def run(params):
        def step(carry, key):
            params, state = carry
            updates = 0.1 * jax.random.normal(key, params.shape)
            updates, state = tx.update(updates, state, params, probe=probe)
            return (params + updates, state), cgalr_jax.metrics(state)["cgalr/distance"]

        keys = jax.random.split(jax.random.key(2), 6)
        return jax.lax.scan(step, (params, tx.init(params)), keys)[1]

    alone = jnp.stack([jax.jit(run)(w) for w in weights])
    assert jnp.all(alone[:, 3:] > 0)
    assert jnp.all(jnp.isfinite(alone))
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(weights), alone, rtol=1e-4, atol=1e-6)
