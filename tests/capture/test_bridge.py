"""Models of both of Flax's interfaces: linen modules inside nnx models, and the other way round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import cgalr_jax
from cgalr_jax import capture

X = jax.random.normal(jax.random.key(0), (4, 3))


class Inner(linen.Module):
    train: bool = True

    @linen.compact
    def __call__(self, x):
        x = linen.BatchNorm(use_running_average=not self.train)(linen.Dense(6)(x))
        return linen.Dropout(0.5, deterministic=not self.train)(x)


class Around(nnx.Module):
    """A linen layer, a linen network called twice, and an nnx layer; `mutable` as in training."""

    def __init__(self, rngs, train=True):
        self.dense = nnx.bridge.ToNNX(linen.DenseGeneral((2, 3)), rngs=rngs).lazy_init(X)
        self.inner = nnx.bridge.ToNNX(Inner(train), rngs=rngs).lazy_init(jnp.ones((4, 6)))
        self.out = nnx.Linear(6, 2, rngs=rngs)
        self.mutable = ["batch_stats"] if train else False

    def __call__(self, x):
        x = self.dense(x).reshape(-1, 6)
        for _ in range(2):
            x = self.inner(x, mutable=self.mutable)
        return self.out(x)


def test_a_bridge_is_a_layer_if_its_linen_module_is_one():
    model = Around(nnx.Rngs(0, dropout=1))
    assert jax.tree.map(jnp.shape, capture.example(model, X)) == {"dense": (4, 6)}
    both = capture.example(model, X, layers=["dense", "inner"])
    assert jax.tree.map(jnp.shape, both) == {"dense": (4, 6), "inner": (4, 2, 6)}
    assert list(capture.example(model, X, layers=[nnx.bridge.ToNNX])) == ["dense", "inner"]


def test_a_bridge_by_itself_is_told_what_to_do():
    model = nnx.bridge.ToNNX(linen.Sequential([linen.Dense(6), linen.Dense(2)]), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="^model must have layers inside, got a layer by itself"):
        capture.example(model.lazy_init(X), X)


def test_a_probe_holds_linen_modules_still_and_changes_nothing():
    readings = []
    for train in (True, False):
        model = Around(nnx.Rngs(0, dropout=1), train)
        model.inner(10 * jnp.ones((4, 6)) + X[:, :1], mutable=["batch_stats"])  # other averages, other keys
        before = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState)))
        probe = capture.nnx_probe(model, layers=["dense", "inner"])
        readings += [probe(model, X), jax.jit(probe)(nnx.state(model, nnx.Param), X)]
        jax.tree.map(
            np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))), before
        )
    for reading in readings[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), reading, readings[0])


def test_a_forward_pass_through_a_bridge_is_the_models_own():
    ours, flaxs = (Around(nnx.Rngs(0, dropout=1)) for _ in range(2))
    output, activations = capture.nnx_forward(ours, X)
    np.testing.assert_array_equal(output, flaxs(X))
    assert list(activations) == ["dense"]
    a, b = (nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)) for model in (ours, flaxs))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert vars(ours.inner).keys() == vars(flaxs.inner).keys()


def test_an_nnx_layer_inside_a_linen_model_is_measured_by_name():
    model = linen.Sequential([nnx.bridge.to_linen(nnx.Linear, 3, 6, rngs=nnx.Rngs(0)), linen.Dense(2)])
    params = model.init(jax.random.key(0), X)["params"]
    found = capture.example(model, params, X, layers=["layers_0"])
    assert jax.tree.map(jnp.shape, found) == {"layers_0": (4, 6)}


def test_a_model_that_is_one_bridge_is_measured_by_the_linen_probe():
    """Its parameters come as an nnx.State, in `example` and in the optimizer's update."""
    net = linen.Sequential([linen.Dense(6), linen.relu, linen.Dense(2)])
    model = nnx.bridge.ToNNX(net, rngs=nnx.Rngs(0)).lazy_init(X)
    probe = capture.linen_probe(net)
    with pytest.raises(ValueError, match=r"ToNNX of a linen model, .*capture\.linen_probe"):
        capture.example(model, X)
    params = nnx.state(model, nnx.Param)
    expected = probe(nnx.to_pure_dict(params), X)
    np.testing.assert_array_equal(probe(params, X)["layers_0"], expected["layers_0"])
    tx = cgalr_jax.cgalr(0.1, capture.example(probe, params, X), samples=X, every=1)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        grads = nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model)
        optimizer.update(model, grads, probe=probe, samples=x)

    for _ in range(3):
        step(model, optimizer, X)
    found = cgalr_jax.metrics(optimizer.opt_state)
    assert (found["cgalr/measurements"], found["cgalr/skipped"]) == (2, 0)
