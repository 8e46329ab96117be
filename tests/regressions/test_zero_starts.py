"""What starts at zero: for long the correlations, or the matrices, of a network say nothing of its rate."""

import jax
import jax.numpy as jnp
import optax
import pytest
from sklearn import datasets

import cgalr_jax

BATCH, CLASSES = 32, 10


def _digits():
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    return jnp.asarray(images, jnp.float32), jnp.asarray(labels)


IMAGES, LABELS = _digits()


def _logits(params, images):
    return {"logits": images @ params["w"] + params["b"]}


def _loss(params, images, labels):
    logits = _logits(params, images)["logits"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


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

    def step(carry, number):
        params, state = carry
        batch = jax.random.randint(jax.random.fold_in(jax.random.key(1), number), (BATCH,), 0, len(LABELS))
        grads = jax.grad(_loss)(params, IMAGES[batch], LABELS[batch])
        updates, state = tx.update(grads, state, params, probe=_logits, samples=IMAGES[batch])
        return (optax.apply_updates(params, updates), state), None

    params = {"w": jnp.zeros((IMAGES.shape[1], CLASSES)), "b": jnp.zeros(CLASSES)}
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(steps))[0])
    params, state = run((params, tx.init(params)))
    # SGD by itself, at a rate of 0.1: 0.04 after 1000 steps, 0.08 after 300.
    assert _loss(params, IMAGES, LABELS) < (0.2 if steps == 1000 else 0.35)
    assert cgalr_jax.metrics(state)["cgalr/ended"] == cgalr_jax.controllers.REACHED


@pytest.mark.parametrize("steps", [200, 600])
@pytest.mark.parametrize("shape", [(32,), (32, 1)], ids=["a vector", "a matrix"])
def test_a_head_of_zeros_on_a_squared_loss(shape, steps):
    """Vectors are no matrices: as long as the head is near zero nothing is seen to move, at any rate."""
    x = jax.random.normal(jax.random.key(0), (64, 8))
    first = jax.random.normal(jax.random.key(1), (8, 32)) / 3

    def loss(params):
        outputs = (jnp.tanh(x @ params["w"]) @ params["v"]).reshape(-1)
        return jnp.mean((outputs - jnp.sin(x.sum(1))) ** 2)

    def probe(params):
        return {"hidden": x @ params["w"]}

    schedule = optax.cosine_decay_schedule(1e-3, steps)
    tx = cgalr_jax.cgalr(schedule, {"hidden": 32}, steps=steps)

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
