"""An Equinox model: the probe takes its arrays, and puts them back into the model.

The base rate is far too small on purpose; the same run without CG-ALR is the baseline.
"""

import console
import datasets
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import cgalr_jax


class Network(eqx.Module):
    """A multilayer perceptron that returns its hidden layers too."""

    layers: list

    def __init__(self, key, sizes=(64, 64, 64, 10)):
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = [
            eqx.nn.Linear(n, m, key=k) for n, m, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        ]

    def __call__(self, x):
        """One image [64] -> logits [10] and hidden layers."""
        hidden = {}
        for number, layer in enumerate(self.layers[:-1]):
            x = jax.nn.relu(layer(x))
            hidden[f"layer {number}"] = x
        return self.layers[-1](x), hidden


def train(data, steps, seed, rate, with_cgalr):
    """Trains once; returns the test error."""
    x = data.x.reshape(-1, 64)
    # The optimizer sees the arrays of the model; what is static is put back where the model is called.
    params, static = eqx.partition(Network(jax.random.key(seed)), eqx.is_inexact_array)

    def forward(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    def probe(params, samples):
        return forward(params, samples)[1]

    schedule = optax.cosine_decay_schedule(rate, steps)
    tx = optax.sgd(schedule, momentum=0.9)
    if with_cgalr:
        example = jax.eval_shape(probe, params, x[:32])
        tx = cgalr_jax.cgalr(schedule, example, samples=x[:32], steps=steps)
    tx = optax.with_extra_args_support(tx)  # plain SGD takes no probe
    opt_state = tx.init(params)

    @eqx.filter_jit
    def step(params, opt_state, x, y):
        def loss_fn(params):
            return optax.softmax_cross_entropy_with_integer_labels(forward(params, x)[0], y).mean()

        grads = jax.grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params, probe=probe, samples=x)
        return eqx.apply_updates(params, updates), opt_state

    rng = np.random.default_rng(seed)
    for _ in console.steps(steps, "SGD with CG-ALR" if with_cgalr else "SGD"):
        batch = rng.choice(len(x), 64, replace=False)
        params, opt_state = step(params, opt_state, x[batch], data.y[batch])
    logits, _ = forward(params, data.x_test.reshape(-1, 64))
    return float(jnp.mean(jnp.argmax(logits, -1) != data.y_test))


def main(argv=None):
    """Returns the test errors with CG-ALR and without."""
    parser = console.parser(__doc__, "300 steps instead of 1000")
    parser.add_argument("--learning-rate", type=console.positive, default=1e-3, help="of SGD (default 1e-3)")
    args = parser.parse_args(argv)
    data, steps = datasets.digits(args.seed), 300 if args.quick else 1000
    plain, error = (train(data, steps, args.seed, args.learning_rate, chosen) for chosen in (False, True))
    print(f"test error at a base rate of {args.learning_rate:g}: SGD {plain:.1%}, with CG-ALR {error:.1%}")
    return {"error": error, "baseline": plain}


if __name__ == "__main__":
    main()
