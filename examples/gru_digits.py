"""A GRU that reads handwritten digits row by row; a fixed probe set.

The connectome of a recurrent layer moves at rates that are far too small. The default signal, `hybrid()`,
also reads how far the matrices moved; `--signal frobenius` shows what happens without that. The same schedule
without CG-ALR is the baseline, at a base rate that is far too small.
"""

import console
import datasets
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cgalr_jax
from cgalr_jax import capture, signals

SIGNALS = {"hybrid": signals.hybrid, "frobenius": signals.frobenius, "update_norm": signals.update_norm}


class Reader(nnx.Module):
    """Reads off the digit from the last state of a GRU."""

    def __init__(self, width, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(8, width, rngs=rngs), rngs=rngs)
        self.out = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, rows):
        """Rows [N, T, F] -> logits [N, 10]."""
        return self.out(self.rnn(rows)[:, -1])


@nnx.jit
def train_step(model, optimizer, x, y, x_probe):
    def loss_fn(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads, probe=capture.nnx_probe(model, x_probe))
    return loss


def train(data, steps, seed, rate, signal_name):
    """Trains once, without CG-ALR if there is no signal; returns the test error."""
    x, x_test = data.x[..., 0], data.x_test[..., 0]  # 8 rows of 8 pixels
    model, x_probe = Reader(48, nnx.Rngs(seed)), x[:128]
    schedule = optax.cosine_decay_schedule(rate, steps)
    tx = optax.sgd(schedule, momentum=0.9)
    if signal_name is not None:
        example = capture.example(capture.nnx_probe(model, x_probe), model)
        # Without `steps=`: at 2000 steps the ramp of a run of unknown length does as well here.
        tx = cgalr_jax.cgalr(schedule, example, signal=SIGNALS[signal_name]())
    tx = optax.chain(optax.clip_by_global_norm(1.0), tx)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    rng = np.random.default_rng(seed)
    for _ in console.steps(steps, f"CG-ALR, {signal_name}" if signal_name else "the schedule only"):
        batch = rng.choice(len(x), 32, replace=False)
        train_step(model, optimizer, x[batch], data.y[batch], x_probe)
    return float(jnp.mean(jnp.argmax(model(x_test), -1) != data.y_test))


def main(argv=None):
    """Returns the test errors with CG-ALR and without."""
    parser = console.parser(__doc__, "400 steps instead of 2000")
    parser.add_argument("--signal", choices=SIGNALS, default="hybrid")
    parser.add_argument("--learning-rate", type=console.positive, default=1e-3, help="of SGD (default 0.001)")
    args = parser.parse_args(argv)
    data, steps = datasets.digits(args.seed), 400 if args.quick else 2000
    plain = train(data, steps, args.seed, args.learning_rate, None)
    error = train(data, steps, args.seed, args.learning_rate, args.signal)
    print(f"test error at a base rate of {args.learning_rate:g}: SGD {plain:.1%}, with CG-ALR {error:.1%}")
    return {"error": error, "baseline": plain}


if __name__ == "__main__":
    main()
