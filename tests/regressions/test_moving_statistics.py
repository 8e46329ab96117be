"""Moving statistics, of BatchNorm or of a user's own, are no motion: nnx and linen, fixed and paired."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from light import ECHO, PLAIN

import cgalr_jax
from cgalr_jax import capture, signals

X = 3 + 2 * jax.random.normal(jax.random.key(1), (16, 5))


class OwnAverage(linen.Module):
    """Divides by a moving average that the user wrote."""

    @linen.compact
    def __call__(self, x):
        size = self.variable("averages", "size", lambda: jnp.ones(()))
        size.value = 0.9 * size.value + 0.1 * jnp.abs(x).mean()
        return x / size.value


class LinenNet(linen.Module):
    own: bool = False

    @linen.compact
    def __call__(self, x, train=True):
        x = OwnAverage()(x) if self.own else linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dense(2)(jnp.tanh(linen.Dense(6)(x)))


class NnxNet(nnx.Module):
    def __init__(self, own=False):
        rngs = nnx.Rngs(0)
        self.size = nnx.Variable(jnp.ones(()))
        self.own = own
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.first, self.second = nnx.Linear(5, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        if self.own:
            self.size.set_value(0.9 * self.size.get_value() + 0.1 * jnp.abs(x).mean())
            x = x / self.size.get_value()
        else:
            x = self.norm(x)
        return self.second(jnp.tanh(self.first(x)))


def block(example, samples):
    return cgalr_jax.scale_by_connectome(
        example, samples=samples, every=1, signal=signals.frobenius(), controller=ECHO
    )


def distances_linen(own, paired, move):
    """Distances of four measurements while the statistics move, and the parameters only where asked."""
    net = LinenNet(own)
    variables = net.init(jax.random.key(0), X)
    params, moving = variables["params"], {k: v for k, v in variables.items() if k != "params"}
    kept = capture.linen_samples(moving, X)
    example = capture.example(capture.linen_probe(net), params, kept)
    tx = block(example, kept if paired else None)
    state, found = tx.init(params), []
    for step in range(4):
        batch = X * (1 + step) + step
        _, moving = net.apply({"params": params, **moving}, batch, mutable=list(moving))
        now = capture.linen_samples(moving, batch)
        if paired:
            extra = {"probe": capture.linen_probe(net), "samples": now}
        else:
            extra = {"probe": capture.linen_probe(net, moving if not own else None, kept)}
        _, state = tx.update(params, state, params, **extra)
        found.append(float(state.cg_distance))
        params = jax.tree.map(lambda p: p + 0.1 * jnp.sin(7 * p), params) if move else params
    assert int(state.cg_measurements) == 3
    return found


def distances_nnx(own, paired, move):
    model = NnxNet(own)
    kept = capture.nnx_samples(model, X)
    tx = block(capture.example(model, X), kept if paired else None)
    state, found = tx.init(nnx.state(model, nnx.Param)), []
    for step in range(4):
        batch = X * (1 + step) + step
        model(batch)
        params = nnx.state(model, nnx.Param)
        if paired:
            extra = {"probe": capture.nnx_probe(model), "samples": capture.nnx_samples(model, batch)}
        else:
            extra = {"probe": capture.nnx_probe(model, kept)}
        _, state = tx.update(params, state, params, **extra)
        found.append(float(state.cg_distance))
        if move:
            nnx.update(model, jax.tree.map(lambda p: p + 0.1 * jnp.sin(7 * p), params))
    assert int(state.cg_measurements) == 3
    return found


DISTANCES = {"linen": distances_linen, "nnx": distances_nnx}
# Each pair of an API, a kind of statistics and a way; the other half is slow.
SEEN = [("linen", False, False), ("linen", True, True), ("nnx", False, True), ("nnx", True, False)]


@pytest.mark.parametrize("paired", [False, True], ids=["fixed", "paired"])
@pytest.mark.parametrize("own", [False, True], ids=["BatchNorm", "of the user's own"])
@pytest.mark.parametrize("api", DISTANCES)
def test_nothing_moves_where_the_statistics_do(api, own, paired):
    assert max(DISTANCES[api](own, paired, move=False)) == 0


@pytest.mark.parametrize(
    ("api", "own", "paired"),
    [
        pytest.param(*case, marks=() if case in SEEN else pytest.mark.slow)
        for case in itertools.product(DISTANCES, (False, True), (False, True))
    ],
)
def test_the_parameters_are_seen_to_move(api, own, paired):
    assert min(DISTANCES[api](own, paired, move=True)[1:]) > 0.01


@pytest.mark.parametrize("train", [False, True])
def test_the_mode_of_the_model_makes_no_difference(train):
    net = LinenNet()
    variables = net.init(jax.random.key(0), X)
    found = capture.linen_probe(net, forward=lambda model, x: model(x, train=train))(variables["params"], X)
    expected = capture.linen_probe(net)(variables["params"], X)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_model_is_as_it_was():
    model = NnxNet()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    capture.nnx_probe(model)(nnx.state(model, nnx.Param), X)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model)), before)
    assert not model.norm.use_running_average


def test_a_step_as_everybody_writes_it():
    model = NnxNet()
    tx = optax.chain(
        optax.sgd(0.01),
        cgalr_jax.scale_by_connectome(capture.example(model, X), samples=X, every=2, **PLAIN),
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        grads = nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model)
        optimizer.update(model, grads, probe=capture.nnx_probe(model), samples=x)

    for number in range(5):
        step(model, optimizer, X + number)
    assert int(cgalr_jax.metrics(optimizer)["cgalr/measurements"]) == 2
    assert jnp.any(model.norm.mean.get_value() != 0)
