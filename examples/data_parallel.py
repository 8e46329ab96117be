"""Data-parallel training on a mesh, with Auto and with Explicit axes, against the same run on one device.

Under `jit` arrays are global, so nothing has to be said about the mesh: the connectome is that of the whole
batch. The scales agree to rounding. Plain SGD at the same base rate is the baseline. On a machine with one
CPU device, four virtual ones are made.
"""

import functools
import os

if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):  # read once, when jax is imported
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import console
import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import cgalr_jax
from cgalr_jax import capture

RATE = 1e-3  # far too small on purpose
NETWORK = linen.Sequential([linen.Dense(64), linen.relu, linen.Dense(64), linen.relu, linen.Dense(10)])


def train(name, mesh, data, steps, seed, with_cgalr=True):
    """Trains on a mesh; returns the scale after every step and the test error."""
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    samples = jax.device_put(data.x[:32], split)
    params = jax.device_put(NETWORK.init(jax.random.key(seed), data.x[:1])["params"], whole)
    schedule = optax.cosine_decay_schedule(RATE, steps)
    tx = optax.with_extra_args_support(optax.sgd(schedule, momentum=0.9))
    if with_cgalr:
        example = capture.example(capture.linen_probe(NETWORK), params, samples)
        tx = cgalr_jax.cgalr(schedule, example, samples=samples, steps=steps)
    # The state begins where it will stay, replicated, and each step leaves it there: one compilation.
    opt_state = jax.jit(tx.init, out_shardings=whole)(params)

    @functools.partial(jax.jit, out_shardings=whole)
    def step(params, opt_state, x, y):
        def loss_fn(params):
            logits = NETWORK.apply({"params": params}, x)
            # one-hot: a gather of labels along a split axis is ambiguous on an Explicit mesh
            return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(y, 10), axis=-1))

        grads = jax.grad(loss_fn)(params)
        probe = capture.linen_probe(NETWORK)
        updates, opt_state = tx.update(grads, opt_state, params, probe=probe, samples=x)
        return optax.apply_updates(params, updates), opt_state

    rng = np.random.default_rng(seed)
    scales = []
    for _ in console.steps(steps, name):
        batch = rng.choice(len(data.x), 32, replace=False)
        x, y = jax.device_put((data.x[batch], data.y[batch]), split)
        params, opt_state = step(params, opt_state, x, y)
        scales.append(cgalr_jax.metrics(opt_state)["cgalr/scale"] if with_cgalr else 1.0)
    logits = NETWORK.apply({"params": jax.device_get(params)}, data.x_test)
    return np.array([float(scale) for scale in scales]), float(np.mean(logits.argmax(-1) != data.y_test))


def main(argv=None):
    """Returns the test errors and the largest relative difference of a scale from that on one device."""
    args = console.parser(__doc__, "100 steps instead of 400").parse_args(argv)
    steps = 100 if args.quick else 400
    data = datasets.digits(args.seed)
    data = data._replace(x=data.x.reshape(-1, 64), x_test=data.x_test.reshape(-1, 64))

    count, auto, explicit = jax.device_count(), (AxisType.Auto,), (AxisType.Explicit,)
    one_device = jax.make_mesh((1,), ("data",), axis_types=auto, devices=jax.devices()[:1])
    meshes = {
        "one device": one_device,
        f"{count} devices, Auto": jax.make_mesh((count,), ("data",), axis_types=auto),
        f"{count} devices, Explicit": jax.make_mesh((count,), ("data",), axis_types=explicit),
    }
    with jax.set_mesh(one_device):
        _, baseline = train("plain SGD", one_device, data, steps, args.seed, with_cgalr=False)
    runs = {}
    for name, mesh in meshes.items():
        with jax.set_mesh(mesh):
            runs[name] = train(name, mesh, data, steps, args.seed)
    print(f"{'plain SGD':22s} test error {baseline:.1%}")
    reference, difference = runs["one device"][0], 0.0
    for name, (scales, error) in runs.items():
        here = float(np.max(np.abs(scales / reference - 1)))
        difference = max(difference, here)
        print(
            f"{name:22s} test error {error:.1%}  last scale {scales[-1]:8.4f}  differs by at most {here:.1e}"
        )
    return {
        "error": max(error for _, error in runs.values()),
        "baseline": baseline,
        "difference": difference,
    }


if __name__ == "__main__":
    main()
