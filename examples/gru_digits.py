"""A GRU that reads handwritten digits row by row; a fixed probe set.

The connectome of a recurrent layer moves at rates that are far too small. The default signal, `hybrid()`,
asks the update norm too; `--signal frobenius` shows what happens without it.
"""

import argparse

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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=SIGNALS, default="hybrid")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="of SGD with momentum 0.9")
    args = parser.parse_args()
    steps = 60 if args.quick else 2000
    data = datasets.digits(args.seed)
    x, x_test = data.x[..., 0], data.x_test[..., 0]  # 8 rows of 8 pixels

    model = Reader(48, nnx.Rngs(args.seed))
    schedule = optax.cosine_decay_schedule(args.learning_rate, steps)
    x_probe = x[:128]
    example = capture.example(capture.nnx_probe(model, x_probe), model)
    controller = cgalr_jax.calibrated(schedule)
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.sgd(schedule, momentum=0.9),
        cgalr_jax.scale_by_connectome(
            example, every=10, controller=controller, signal=SIGNALS[args.signal]()
        ),
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    rng = np.random.default_rng(args.seed)
    for step in range(steps):
        batch = rng.choice(len(x), 32, replace=False)
        loss = train_step(model, optimizer, x[batch], data.y[batch], x_probe)
        if step % max(steps // 5, 1) == 0 or step == steps - 1:
            found = cgalr_jax.metrics(optimizer)
            print(f"step {step:4d}  loss {float(loss):.4f}  scale {float(found['cgalr/scale']):.3g}")
    error = jnp.mean(jnp.argmax(model(x_test), -1) != data.y_test)
    print(f"test error {float(error):.4f}")


if __name__ == "__main__":
    main()
