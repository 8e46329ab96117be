"""A linear model that starts at zero: for long its correlations say nothing of the rate."""

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
