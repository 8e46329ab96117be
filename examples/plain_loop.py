"""A plain training loop: parameters in a dictionary, no neural-network library, AdamW with warm-up.

The base rate is far too small on purpose: CG-ALR finds the height. The same loop without it is the baseline.
"""

import itertools

import console
import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax

import cgalr_jax

SIZES = (64, 64, 64, 10)


def init(key):
    """Weights of unit gain, and biases, of each layer."""
    params = {}
    for number, (n, m) in enumerate(itertools.pairwise(SIZES)):
        key, chosen = jax.random.split(key)
        params[f"w{number}"] = jax.random.normal(chosen, (n, m)) * (2 / n) ** 0.5
        params[f"b{number}"] = jnp.zeros(m)
    return params


def forward(params, x):
    """Pixels [N, 64] -> logits [N, 10], and the hidden layers by name."""
    hidden = {}
    for number in range(len(SIZES) - 2):
        x = jax.nn.relu(x @ params[f"w{number}"] + params[f"b{number}"])
        hidden[f"layer {number}"] = x
    last = len(SIZES) - 2
    return x @ params[f"w{last}"] + params[f"b{last}"], hidden


def probe(params, samples):
    """What CG-ALR watches."""
    return forward(params, samples)[1]


def loss_fn(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(forward(params, x)[0], y).mean()


def train(data, steps, seed, rate, with_cgalr):
    """Trains once; returns the test error and the last metrics."""
    x = data.x.reshape(-1, 64)
    schedule = optax.warmup_cosine_decay_schedule(rate / 100, rate, steps // 20, steps)
    tx = optax.adamw(schedule)
    if with_cgalr:
        example = jax.eval_shape(probe, init(jax.random.key(0)), x[:32])
        tx = cgalr_jax.cgalr(schedule, example, optimizer=optax.adamw, samples=x[:32], steps=steps)
    tx = optax.with_extra_args_support(tx)  # plain AdamW takes no probe
    params = init(jax.random.key(seed))
    opt_state = tx.init(params)

    @jax.jit
    def step(params, opt_state, x, y):
        grads = jax.grad(loss_fn)(params, x, y)
        updates, opt_state = tx.update(grads, opt_state, params, probe=probe, samples=x)
        return optax.apply_updates(params, updates), opt_state

    rng = np.random.default_rng(seed)
    for _ in console.steps(steps, "AdamW with CG-ALR" if with_cgalr else "AdamW"):
        batch = rng.choice(len(x), 64, replace=False)
        params, opt_state = step(params, opt_state, x[batch], data.y[batch])
    logits = forward(params, data.x_test.reshape(-1, 64))[0]
    error = float(jnp.mean(jnp.argmax(logits, -1) != data.y_test))
    return error, cgalr_jax.metrics(opt_state) if with_cgalr else {}


def main(argv=None):
    """Returns the test errors with CG-ALR and without."""
    parser = console.parser(__doc__, "300 steps instead of 1000")
    parser.add_argument(
        "--learning-rate", type=console.positive, default=1e-5, help="of AdamW (default 1e-5)"
    )
    args = parser.parse_args(argv)
    data, steps = datasets.digits(args.seed), 300 if args.quick else 1000
    plain, _ = train(data, steps, args.seed, args.learning_rate, with_cgalr=False)
    error, found = train(data, steps, args.seed, args.learning_rate, with_cgalr=True)
    print(f"test error at a base rate of {args.learning_rate:g}: AdamW {plain:.1%}, with CG-ALR {error:.1%}")
    print(f"the rate was multiplied by up to about {float(found['cgalr/anchor']):.3g}")
    return {"error": error, "baseline": plain}


if __name__ == "__main__":
    main()
