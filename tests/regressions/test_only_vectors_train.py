"""Networks of which only biases, or gains, train: no matrix moves, and the block has to see what does."""

import flax.linen as nn
import jax
import optax
import pytest
from digits import IMAGES, LABELS

import cgalr_jax
from cgalr_jax import capture

STEPS, BATCH = 400, 32


class Network(nn.Module):
    """Two hidden layers behind LayerNorm."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.LayerNorm()(nn.Dense(64)(x)))
        return nn.Dense(10)(x)


NETWORK = Network()
PARAMS = NETWORK.init(jax.random.key(0), IMAGES[:2])["params"]
PROBE = capture.linen_probe(NETWORK, samples=IMAGES[:BATCH])


def _loss(params, images, labels):
    logits = NETWORK.apply({"params": params}, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@pytest.mark.parametrize("optimizer", [lambda rate: optax.sgd(rate, 0.9), optax.adam], ids=["sgd", "adam"])
@pytest.mark.parametrize(("name", "bound"), [("bias", 1.6), ("scale", 0.9)])
def test_it_learns(name, bound, optimizer):
    """From 2.5; the best of five rates without CG-ALR gives 1.4 and, of gains, 0.9 (SGD) and 0.6 (Adam)."""
    trains = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == name, PARAMS)
    schedule = optax.cosine_decay_schedule(1e-3, STEPS)
    tx = cgalr_jax.cgalr(schedule, capture.example(PROBE, PARAMS), optimizer=optimizer, steps=STEPS)

    def step(carry, key):
        params, state = carry
        batch = jax.random.randint(key, (BATCH,), 0, len(LABELS))
        grads = jax.grad(_loss)(params, IMAGES[batch], LABELS[batch])
        grads = jax.tree.map(lambda grad, does: grad * does, grads, trains)
        updates, state = tx.update(grads, state, params, probe=PROBE)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, jax.random.split(jax.random.key(1), STEPS))[0])
    params, state = run((PARAMS, tx.init(PARAMS)))
    assert _loss(params, IMAGES, LABELS) < bound
    assert cgalr_jax.metrics(state)["cgalr/ended"] != cgalr_jax.controllers.UNFINISHED
