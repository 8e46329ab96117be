"""The average of the parameters: its formula, its dtypes, its place in a chain and in Flax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cgalr_jax


def run(tx, params, gradients):
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize(("eta", "given"), [(0.0, (0.0,)), (3.0, (3.0,)), (8.0, ())])
def test_weights_are_those_of_shamir_and_zhang(eta, given):
    steps = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    tx = optax.chain(optax.sgd(1.0), cgalr_jax.polynomial_averaging(*given))
    params, state = run(tx, jnp.zeros(3), [jnp.array(-step) for step in steps])
    iterates = np.cumsum(steps, 0, dtype=np.float64)
    # Unrolled: x_t counts (eta + 1) / (t + eta), times what each later step leaves, (s - 1) / (s + eta).
    shares = [
        (eta + 1) / (t + eta) * np.prod([(s - 1) / (s + eta) for s in range(t + 1, 21)]) for t in range(1, 21)
    ]
    np.testing.assert_allclose(sum(shares), 1)
    average = cgalr_jax.averaged_params(state, params)
    np.testing.assert_allclose(average, np.array(shares) @ iterates, rtol=1e-5, atol=1e-6)


def test_the_updates_pass_and_the_start_is_forgotten():
    tx = cgalr_jax.polynomial_averaging()
    params = {"w": jnp.full(2, 100.0), "none": None}
    updates, state = tx.update({"w": jnp.array([-99.0, -98.0]), "none": None}, tx.init(params), params)
    np.testing.assert_array_equal(updates["w"], [-99.0, -98.0])
    np.testing.assert_array_equal(cgalr_jax.averaged_params(state, params)["w"], [1.0, 2.0])


def test_parameters_of_few_digits_are_averaged_in_float32():
    tx = optax.chain(optax.sgd(2.0**-6), cgalr_jax.polynomial_averaging(0.0))
    params, state = run(tx, jnp.ones(4, jnp.bfloat16), [-jnp.ones(4, jnp.bfloat16)] * 3)
    assert state[1].averaging_params.dtype == jnp.float32
    np.testing.assert_allclose(state[1].averaging_params, 1 + 2 * 2.0**-6)
    assert cgalr_jax.averaged_params(state, params).dtype == jnp.bfloat16


def test_scan_donation_and_one_compilation():
    tx = optax.chain(optax.adam(0.1), cgalr_jax.polynomial_averaging())
    params = {"w": jnp.arange(3.0)}

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params, value=0.0)
        return (optax.apply_updates(params, updates), state), None

    jitted = jax.jit(lambda carry: jax.lax.scan(step, carry, None, 5)[0], donate_argnums=0)
    once = jitted((params, tx.init(params)))
    twice = jitted(once)
    assert jitted._cache_size() == 1
    assert twice[1][1].averaging_step == 10


@pytest.mark.slow
def test_beside_ours_and_on_a_vmapped_rate():
    def train(rate):
        x = jax.random.normal(jax.random.key(0), (16, 4))
        params = {"w": jax.random.normal(jax.random.key(1), (4, 8))}

        def probe(params):
            return {"hidden": x @ params["w"]}

        tx = optax.chain(
            optax.sgd(rate),
            cgalr_jax.scale_by_connectome({"hidden": 8}, every=1),
            cgalr_jax.polynomial_averaging(),
        )
        state = tx.init(params)
        for _ in range(3):
            grads = jax.grad(lambda params: jnp.mean(probe(params)["hidden"] ** 2))(params)
            updates, state = tx.update(grads, state, params, probe=probe)
            params = optax.apply_updates(params, updates)
        return cgalr_jax.averaged_params(state, params)["w"], params["w"]

    averages, params = jax.vmap(train)(jnp.array([0.1, 10.0]))
    assert averages.shape == (2, 4, 8)
    assert not jnp.allclose(averages[0], averages[1])
    assert not jnp.allclose(averages, params)


def test_an_nnx_optimizer():
    nnx = pytest.importorskip("flax.nnx")
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx = optax.chain(optax.sgd(0.1), cgalr_jax.polynomial_averaging(0.0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    kernels = []
    for _ in range(2):
        optimizer.update(model, nnx.grad(lambda model: jnp.sum(model(jnp.ones((1, 3))) ** 2))(model))
        kernels.append(model.kernel[...])
    params = nnx.state(model, nnx.Param)
    for form in (optimizer, nnx.state(optimizer), nnx.to_pure_dict(nnx.state(optimizer))):
        found = cgalr_jax.averaged_params(form, params)
        np.testing.assert_allclose(found["kernel"][...], (kernels[0] + kernels[1]) / 2, rtol=1e-6)
    nnx.update(model, found)
    np.testing.assert_allclose(model.kernel[...], (kernels[0] + kernels[1]) / 2, rtol=1e-6)


@pytest.mark.parametrize("eta", [-1.0, float("inf"), float("nan"), "8"])
def test_refuses_an_eta_out_of_range(eta):
    with pytest.raises(ValueError, match="eta must be finite and at least 0, got"):
        cgalr_jax.polynomial_averaging(eta)


def test_refuses_to_do_without_parameters():
    tx = cgalr_jax.polynomial_averaging()
    with pytest.raises(ValueError, match="params must be passed"):
        tx.update({"w": jnp.ones(2)}, tx.init({"w": jnp.ones(2)}))


@pytest.mark.parametrize("count", [0, 2])
def test_averaged_params_wants_exactly_one(count):
    tx = optax.chain(optax.sgd(1.0), *(cgalr_jax.polynomial_averaging() for _ in range(count)))
    with pytest.raises(ValueError, match=f"one state of polynomial_averaging, got {count}"):
        cgalr_jax.averaged_params(tx.init(jnp.ones(2)), jnp.ones(2))


def test_the_average_outlives_the_state_that_kept_it():
    tx = optax.chain(optax.sgd(0.1), cgalr_jax.polynomial_averaging())

    def step(params, state):
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    donated = jax.jit(step, donate_argnums=(0, 1))
    params = {"w": jnp.ones(3)}
    params, state = donated(params, tx.init(params))
    average = cgalr_jax.averaged_params(state, params)
    params, state = donated(params, state)
    assert np.all(np.isfinite(average["w"]))
    donated(average, state)  # two arguments, no buffer in both


def test_a_parameter_may_be_called_value():
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self):
            self.value = nnx.Param(jnp.ones(3))
            self.other = nnx.Param(jnp.ones(2))

    model = Model()
    tx = cgalr_jax.polynomial_averaging()
    params = nnx.state(model, nnx.Param)
    state = tx.init(params)
    for given in (params, nnx.to_pure_dict(params)):
        shapes = jax.tree.map(jnp.shape, cgalr_jax.averaged_params(state, given))
        assert shapes == jax.tree.map(jnp.shape, given)
