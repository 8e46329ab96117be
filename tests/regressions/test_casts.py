"""Casts of samples and activations: none that loses what the numbers say, without a word."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from light import PLAIN

import cgalr_jax
from cgalr_jax import signals, topology

PARAMS = {"w": jax.random.normal(jax.random.key(1), (4, 6))}
RAW = (np.random.default_rng(0).uniform(size=(16, 4)) * 255).astype(np.uint8)


def probe(params, x):
    return {"hidden": jnp.asarray(x, jnp.float32) @ params["w"]}


def first_step(example, batch):
    tx = cgalr_jax.scale_by_connectome({"hidden": 6}, samples=example, **PLAIN)
    return tx.update(PARAMS, tx.init(PARAMS), PARAMS, probe=probe, samples=batch)[1].cg_samples


LOSSY = {
    "floats as bytes": (RAW, RAW / np.float32(255), "uint8", "float32"),
    "floats as integers": (RAW.astype(np.int32), RAW / np.float32(255), "int32", "float32"),
    "integers as bytes": (RAW, RAW.astype(np.int32), "uint8", "int32"),
    "signed as unsigned": (RAW, RAW.astype(np.int8), "uint8", "int8"),
    "complex as real": (RAW.astype(np.float32), RAW.astype(np.complex64), "float32", "complex64"),
    "integers as truth values": (RAW > 3, RAW, "bool", "uint8"),
    "integers as few digits": (RAW.astype(jnp.bfloat16), RAW.astype(np.int32), "bfloat16", "int32"),
    "integers as half": (RAW.astype(np.float16), RAW.astype(np.int16), "float16", "int16"),
    "floats as half": (RAW.astype(np.float16), RAW.astype(np.float32), "float16", "float32"),
    "bytes as eight bits": (RAW.astype(jnp.float8_e4m3fn), RAW, "float8_e4m3fn", "uint8"),
}


@pytest.mark.parametrize("name", LOSSY)
def test_a_cast_that_loses_is_refused_with_both_dtypes(name):
    example, batch, stored, given = LOSSY[name]
    with pytest.raises(ValueError, match=f"^samples must have the dtype .*{stored}, got {given}"):
        first_step(example, batch)


KEPT = {
    "as it is": (RAW, RAW),
    "bytes as integers": (RAW.astype(np.int32), RAW),
    "bytes as floats": (RAW.astype(np.float32), RAW),
    "wider floats": (RAW.astype(np.float32), RAW / np.float32(255)),
    "fewer digits": (RAW.astype(jnp.bfloat16), RAW / np.float32(255)),
    "bytes as few digits": (RAW.astype(jnp.bfloat16), RAW),
    "bytes as half": (RAW.astype(np.float16), RAW),
    "half as few digits": (RAW.astype(jnp.bfloat16), RAW.astype(np.float16)),
    "truth values as floats": (RAW.astype(np.float16), RAW > 3),
    "truth values": (RAW > 3, RAW > 3),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_cast_that_keeps_is_made(name):
    example, batch = KEPT[name]
    stored = first_step(example, batch)
    assert stored.dtype == example.dtype
    np.testing.assert_allclose(np.asarray(stored, np.float32), np.asarray(batch, np.float32), rtol=1e-2)


def test_each_leaf_of_a_tree_of_samples_is_checked():
    with pytest.raises(ValueError, match="^samples must have the dtype .*int32, got float32"):
        first_step((RAW, np.zeros(16, np.int32)), (RAW, np.zeros(16, np.float32)))


Z = (lambda r: (r.normal(size=(20, 3)) + 1j * r.normal(size=(20, 3))).astype(np.complex64))(
    np.random.default_rng(1)
)


@pytest.mark.parametrize(
    "call",
    [
        lambda: topology.functional_connectome(Z),
        lambda: topology.update_moments(topology.init_moments(3), Z),
        lambda: signals.frobenius().read({"hidden": Z}, None),
        lambda: signals.births("min").read({"hidden": Z}, None),
    ],
    ids=["connectome", "moments", "signal", "births"],
)
def test_complex_activations_are_refused_not_halved(call):
    with pytest.raises(ValueError, match="must be real, got complex64"):
        call()


def test_complex_parameters_are_averaged_whole():
    params = {"z": jnp.array([1 + 2j, 3 - 1j], jnp.complex64), "w": jnp.ones(2)}
    tx = cgalr_jax.polynomial_averaging()
    state = tx.init(params)
    _, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    found = cgalr_jax.averaged_params(state, params)
    np.testing.assert_allclose(found["z"], params["z"])
    assert found["z"].dtype == jnp.complex64


@pytest.mark.parametrize("index", [jnp.arange(4), np.arange(4), jnp.ones(4, jnp.bool_)])
def test_what_does_not_train_is_not_averaged(index):
    params = {"w": jnp.ones(4), "index": index}
    tx = cgalr_jax.polynomial_averaging()
    state = tx.init(params)
    _, state = tx.update({"w": -jnp.ones(4), "index": None}, state, params)
    found = cgalr_jax.averaged_params(state, params)
    np.testing.assert_allclose(found["w"], 0)
    assert found["index"] is index


def test_a_complex_reading_is_not_kept_as_a_real_one():
    """Complex activations of real examples: a signal of the user's own may read them."""
    signal = signals.Signal(
        lambda layers, params: layers["hidden"].mean(), lambda before, after: abs(after - before), 0.1
    )
    tx = cgalr_jax.scale_by_connectome({"hidden": 6}, every=1, signal=signal)
    with pytest.raises(ValueError, match="^activations must be real .* float32 .* got .* complex64"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, activations={"hidden": 1j * jnp.ones((4, 6))})


@pytest.mark.parametrize("keys", [jax.random.key(3), jax.random.split(jax.random.key(3), 16)])
def test_random_keys_are_samples(keys):
    def noisy(params, samples):
        noise = jax.vmap(jax.random.normal)(jnp.broadcast_to(samples["key"], 16))
        return {"hidden": (samples["x"] + noise[:, None]) @ params["w"]}

    samples = {"x": jnp.asarray(RAW, jnp.float32), "key": keys}
    tx = cgalr_jax.scale_by_connectome({"hidden": 6}, samples=samples, every=1, **PLAIN)
    state = tx.init(PARAMS)
    for _ in range(2):
        _, state = jax.jit(tx.update, static_argnames="probe")(
            PARAMS, state, PARAMS, probe=noisy, samples=samples
        )
    assert (state.cg_measurements, state.cg_distance) == (1, 0)
    assert jnp.array_equal(state.cg_samples["key"], keys)
