"""A linen CNN with BatchNorm and dropout, trained through a TrainState; paired measurements.

The base rate is 100 times too small on purpose: the calibration finds the height, the cosine gives the shape.
"""

import argparse

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

import cgalr_jax
from cgalr_jax import capture


class Cnn(linen.Module):
    """Two convolutions and a dense layer."""

    classes: int = 10

    @linen.compact
    def __call__(self, x, train):
        """Images [N, H, W, C] -> logits [N, classes]."""
        for features in (16, 32):
            x = linen.Conv(features, (3, 3))(x)
            x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
            x = linen.avg_pool(x, (2, 2), (2, 2))
        x = linen.relu(linen.Dense(64)(x.reshape(len(x), -1)))
        x = linen.Dropout(0.2, deterministic=not train)(x)
        return linen.Dense(self.classes)(x)


class TrainState(capture.TrainState):
    """capture.TrainState lets `probe` and `samples` through to the optimizer."""

    batch_stats: dict


def evaluate(model, x):
    """The forward pass of the probe and of the test."""
    return model(x, train=False)


@jax.jit
def train_step(state, x, y, key):
    def loss_fn(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        rngs = {"dropout": jax.random.fold_in(key, state.step)}
        logits, changed = state.apply_fn(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), changed

    (loss, changed), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    probe = capture.linen_probe(Cnn(), forward=evaluate)
    return state.apply_gradients(grads=grads, probe=probe, samples=x, **changed), loss


@jax.jit
def test_error(state, x, y):
    logits = state.apply_fn({"params": state.params, "batch_stats": state.batch_stats}, x, train=False)
    return jnp.mean(jnp.argmax(logits, -1) != y)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=["digits", "mnist", "fashion", "cifar10"], default="digits")
    parser.add_argument("--folder", help="where the files of --data are, see datasets.py")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of SGD with momentum 0.9")
    args = parser.parse_args()
    data = {
        "digits": lambda: datasets.digits(args.seed),
        "mnist": lambda: datasets.mnist(args.folder),
        "fashion": lambda: datasets.mnist(args.folder, datasets.FASHION_MNIST),
        "cifar10": lambda: datasets.cifar10(args.folder),
    }[args.data]()
    steps = 60 if args.quick else 1000

    schedule = optax.cosine_decay_schedule(args.learning_rate, steps)
    key = jax.random.key(args.seed)
    samples = data.x[:32]
    variables = Cnn().init(key, samples, train=False)
    example = capture.example(capture.linen_probe(Cnn(), forward=evaluate), variables["params"], samples)
    tx = optax.chain(
        optax.sgd(schedule, momentum=0.9),
        cgalr_jax.scale_by_connectome(
            example, samples=samples, every=5, controller=cgalr_jax.calibrated(schedule)
        ),
    )
    state = TrainState.create(apply_fn=Cnn().apply, tx=tx, **variables)
    rng = np.random.default_rng(args.seed)
    for step in range(steps):
        batch = rng.choice(len(data.x), 32, replace=False)
        state, loss = train_step(state, data.x[batch], data.y[batch], key)
        if step % max(steps // 5, 1) == 0 or step == steps - 1:
            shown = {name: f"{float(value):.3g}" for name, value in cgalr_jax.metrics(state).items()}
            print(f"step {step:4d}  loss {float(loss):.4f}  scale {shown['cgalr/scale']}")
    print(f"test error {float(test_error(state, data.x_test, data.y_test)):.4f}")


if __name__ == "__main__":
    main()
