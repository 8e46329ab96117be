"""A linen CNN with BatchNorm and dropout, trained through a TrainState; paired measurements.

The base rate is far too small on purpose: the calibration finds the height, the cosine gives the shape. The
same schedule without CG-ALR is the baseline.
"""

import console
import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

import cgalr_jax
from cgalr_jax import capture

SETS = {"mnist": datasets.mnist, "fashion": datasets.fashion_mnist, "cifar10": datasets.cifar10}


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


def evaluate(model, x):
    """The forward pass of the probe, which normalises by its own samples: it needs no moving statistics."""
    return model(x, train=False)


PROBE = capture.linen_probe(Cnn(), forward=evaluate)


class TrainState(capture.TrainState):
    """capture.TrainState lets `probe` and `samples` through to the optimizer."""

    batch_stats: dict


@jax.jit
def train_step(state, x, y, key):
    def loss_fn(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        rngs = {"dropout": jax.random.fold_in(key, state.step)}
        logits, changed = state.apply_fn(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), changed

    (loss, changed), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    return state.apply_gradients(grads=grads, probe=PROBE, samples=x, **changed), loss


@jax.jit
def test_error(state, x, y):
    logits = state.apply_fn({"params": state.params, "batch_stats": state.batch_stats}, x, train=False)
    return jnp.mean(jnp.argmax(logits, -1) != y)


def train(data, steps, seed, rate, with_cgalr):
    """Trains once; returns the test error."""
    schedule = optax.cosine_decay_schedule(rate, steps)
    key = jax.random.key(seed)
    samples = data.x[:32]
    variables = Cnn().init(key, samples, train=False)
    tx = optax.sgd(schedule, momentum=0.9)
    if with_cgalr:
        example = capture.example(PROBE, variables["params"], samples)
        tx = cgalr_jax.cgalr(schedule, example, samples=samples, steps=steps)
    state = TrainState.create(apply_fn=Cnn().apply, tx=tx, **variables)
    rng = np.random.default_rng(seed)
    for _ in console.steps(steps, "SGD with CG-ALR" if with_cgalr else "SGD"):
        batch = rng.choice(len(data.x), 32, replace=False)
        state, _ = train_step(state, data.x[batch], data.y[batch], key)
    parts = np.array_split(np.arange(len(data.x_test)), max(len(data.x_test) // 1000, 1))
    wrong = [test_error(state, data.x_test[part], data.y_test[part]) * len(part) for part in parts]
    return float(sum(wrong)) / len(data.x_test)


def main(argv=None):
    """Returns the test errors with CG-ALR and without."""
    parser = console.parser(__doc__, "300 steps instead of 1000")
    parser.add_argument("--images", choices=["digits", *SETS], default="digits")
    parser.add_argument(
        "--data", type=console.folder, metavar="FOLDER", help="of other images, see datasets.py"
    )
    parser.add_argument(
        "--learning-rate", type=console.positive, default=1e-4, help="of SGD (default 0.0001)"
    )
    args = parser.parse_args(argv)
    if args.images == "digits":
        console.need_no_data(parser, args.data, f"--images {' or '.join(SETS)}")
        data = datasets.digits(args.seed)
    else:
        data = console.load(parser, SETS[args.images], args.data)
    steps = 300 if args.quick else 1000
    plain, error = (train(data, steps, args.seed, args.learning_rate, chosen) for chosen in (False, True))
    print(f"test error at a base rate of {args.learning_rate:g}: SGD {plain:.1%}, with CG-ALR {error:.1%}")
    return {"error": error, "baseline": plain}


if __name__ == "__main__":
    main()
