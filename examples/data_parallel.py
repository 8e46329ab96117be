"""Data-parallel training on a mesh, with Auto and with Explicit axes, against the same run on one device.

Under `jit` arrays are global, so nothing has to be said about the mesh: the connectome is that of the whole
batch. The scales agree to rounding. On a machine with one CPU device, four virtual ones are made.
"""

import argparse
import os

if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):  # read once, when jax is imported
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import cgalr_jax
from cgalr_jax import capture

NETWORK = linen.Sequential([linen.Dense(64), linen.relu, linen.Dense(64), linen.relu, linen.Dense(10)])


def train(mesh, data, steps, seed):
    """Trains on a mesh; returns the scale after every step and the test error."""
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    samples = jax.device_put(data.x[:32], split)
    params = jax.device_put(NETWORK.init(jax.random.key(seed), data.x[:1])["params"], whole)
    schedule = optax.cosine_decay_schedule(1e-2, steps)
    example = capture.example(capture.linen_probe(NETWORK), params, samples)
    tx = cgalr_jax.cgalr(schedule, example, samples=samples, every=5)
    # The state begins where it will stay: replicated. Otherwise the second step is compiled again.
    opt_state = jax.jit(tx.init, out_shardings=whole)(params)

    @jax.jit
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
    for _ in range(steps):
        batch = rng.choice(len(data.x), 32, replace=False)
        x, y = jax.device_put((data.x[batch], data.y[batch]), split)
        params, opt_state = step(params, opt_state, x, y)
        scales.append(cgalr_jax.metrics(opt_state)["cgalr/scale"])
    logits = NETWORK.apply({"params": jax.device_get(params)}, data.x_test)
    return np.array([float(scale) for scale in scales]), float(np.mean(logits.argmax(-1) != data.y_test))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    steps = 40 if args.quick else 400
    data = datasets.digits(args.seed)
    data = data._replace(x=data.x.reshape(-1, 64), x_test=data.x_test.reshape(-1, 64))

    count = jax.device_count()
    meshes = {
        "one device": jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1]),
        f"{count} devices, Auto": jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,)),
        f"{count} devices, Explicit": jax.make_mesh((count,), ("data",), axis_types=(AxisType.Explicit,)),
    }
    alone = None
    for name, mesh in meshes.items():
        with jax.set_mesh(mesh):
            scales, error = train(mesh, data, steps, args.seed)
        alone = scales if alone is None else alone
        difference = np.max(np.abs(scales / alone - 1))
        print(f"{name:22s} last scale {scales[-1]:8.4f}  test error {error:.4f}  difference {difference:.1e}")
        if args.quick and difference > 1e-2:
            raise SystemExit(f"The scale must be that of one device, got a difference of {difference:.1e}.")


if __name__ == "__main__":
    main()
