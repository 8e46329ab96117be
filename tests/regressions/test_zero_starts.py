"""What starts at zero: for long the correlations, or the matrices, of a network say nothing of its rate."""

import jax
import jax.numpy as jnp
import optax
import pytest
from digits import IMAGES, LABELS

import cgalr_jax

BATCH, CLASSES = 32, 10


def _logits(params, images):
    return {"logits": images @ params["w"] + params["b"]}


def _loss(params, images, labels):
    logits = _logits(params, images)["logits"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _trained(tx, params, loss, probe, x, y, steps):
    """Parameters and state after so many steps on batches of these samples, paired."""

    def step(carry, number):
        params, state = carry
        batch = jax.random.randint(jax.random.fold_in(jax.random.key(1), number), (BATCH,), 0, len(y))
        grads = jax.grad(loss)(params, x[batch], y[batch])
        updates, state = tx.update(grads, state, params, probe=probe, samples=x[batch])
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(steps))[0])
    return run((params, tx.init(params)))


@pytest.mark.parametrize(
    ("rate", "steps", "known"),
    [
        (1e-3, 1000, True),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in ((1e-3, 1000, False), (0.1, 1000, False), (0.1, 1000, True), (0.1, 300, True))
        ),
    ],
)
def test_logistic_regression_from_zeros(rate, steps, known):
    schedule = optax.cosine_decay_schedule(rate, steps)
    controller = cgalr_jax.calibrated(schedule, steps=steps if known else None)
    block = cgalr_jax.scale_by_connectome({"logits": CLASSES}, samples=IMAGES[:BATCH], controller=controller)
    tx = optax.chain(optax.sgd(schedule, momentum=0.9), block)

    params = {"w": jnp.zeros((IMAGES.shape[1], CLASSES)), "b": jnp.zeros(CLASSES)}
    params, state = _trained(tx, params, _loss, _logits, IMAGES, LABELS, steps)
    # SGD by itself, at a rate of 0.1: 0.04 after 1000 steps, 0.08 after 300.
    assert _loss(params, IMAGES, LABELS) < (0.2 if steps == 1000 else 0.35)
    assert cgalr_jax.metrics(state)["cgalr/ended"] == cgalr_jax.controllers.REACHED


@pytest.mark.parametrize(("count", "momentum", "steps"), [(64, 0.9, 200), (64, 0.9, 600), (256, 0.95, 1000)])
@pytest.mark.parametrize("shape", [(32,), (32, 1)], ids=["a vector", "a matrix"])
def test_a_head_of_zeros_on_a_squared_loss(shape, count, momentum, steps):
    """A vector is no matrix: no signal sees it move, and as long as it is near zero nothing else moves.

    Only the bound on one step sees it.
    """
    x = jax.random.normal(jax.random.key(0), (count, 8))
    first = jax.random.normal(jax.random.key(1), (8, 32)) / 3

    def loss(params):
        outputs = (jnp.tanh(x @ params["w"]) @ params["v"]).reshape(-1)
        return jnp.mean((outputs - jnp.sin(x.sum(1))) ** 2)

    def probe(params):
        return {"hidden": x @ params["w"]}

    schedule = optax.cosine_decay_schedule(1e-3, steps)
    tx = cgalr_jax.cgalr(schedule, {"hidden": 32}, momentum=momentum, steps=steps)

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, probe=probe)
        return (optax.apply_updates(params, updates), state), value

    params = {"w": first, "v": jnp.zeros(shape)}
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps))
    (params, state), losses = run((params, tx.init(params)))
    assert jnp.max(losses) < 3 * losses[0]
    assert loss(params) < 0.01
    assert cgalr_jax.metrics(state)["cgalr/ended"] != cgalr_jax.controllers.UNFINISHED


X = jax.random.normal(jax.random.key(0), (256, 16))
Y = jnp.argmax(X @ jax.random.normal(jax.random.key(1), (16, 5)), axis=1)


def _matrix(number, *shape):
    return jax.random.normal(jax.random.key(number), shape) / jnp.sqrt(shape[0])


def _residual(params, x):
    """Three residual branches whose last layers start at zero."""
    layers, h = {}, x @ params["in"]
    for i in range(3):
        layers[f"up{i}"] = jax.nn.standardize(h) @ params[f"up{i}"]
        layers[f"down{i}"] = jax.nn.gelu(layers[f"up{i}"]) @ params[f"down{i}"]
        h = h + layers[f"down{i}"]
    return h @ params["out"], layers


def _adapted(params, x):
    """Two frozen layers, each with an adapter of rank four that starts at zero."""
    layers, h = {}, x
    for i, width in enumerate((16, 64)):
        layers[f"base{i}"] = h @ _matrix(20 + i, width, 64)
        layers[f"a{i}"] = h @ params[f"a{i}"]
        layers[f"b{i}"] = layers[f"a{i}"] @ params[f"b{i}"]
        h = jax.nn.relu(layers[f"base{i}"] + layers[f"b{i}"])
    return h @ _matrix(30, 64, 5), layers


RESIDUAL = {"in": _matrix(2, 16, 64), "out": jnp.zeros((64, 5))} | {
    f"{name}{i}": matrix
    for i in range(3)
    for name, matrix in (("up", _matrix(3 + i, 64, 128)), ("down", jnp.zeros((128, 64))))
}
ADAPTERS = {
    f"{name}{i}": matrix
    for i, width in enumerate((16, 64))
    for name, matrix in (("a", _matrix(10 + i, width, 4)), ("b", jnp.zeros((4, 64))))
}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("forward", "params", "bound"), [(_residual, RESIDUAL, 0.1), (_adapted, ADAPTERS, 0.8)]
)
def test_layers_of_zeros_that_are_measured_by_themselves(forward, params, bound, known):
    """Their outputs are tiny, and their correlations, which know no sizes, move at any rate."""
    steps = 300

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(forward(params, x)[0], y).mean()

    def probe(params, x):
        return forward(params, x)[1]

    schedule = optax.cosine_decay_schedule(1e-5, steps)
    example = jax.eval_shape(probe, params, X[:BATCH])
    tx = cgalr_jax.cgalr(
        schedule, example, optimizer=optax.adam, samples=X[:BATCH], steps=steps if known else None
    )

    params, _ = _trained(tx, params, loss, probe, X, Y, steps)
    assert loss(params, X, Y) < bound
