"""A paired step on a mesh: were its samples stored on other devices than before, it would compile again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compilations import compilations
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import cgalr_jax
from cgalr_jax import layers


def probe(params, samples):
    return {"hidden": samples @ params["w"]}


@pytest.mark.parametrize(
    "axis_type", [pytest.param(AxisType.Auto, marks=pytest.mark.slow), AxisType.Explicit]
)
def test_a_step_whose_outputs_are_replicated_is_compiled_once(axis_type):
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(axis_type,))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    with jax.set_mesh(mesh):
        x = jax.device_put(jax.random.normal(jax.random.key(0), (16, 3)), split)
        params = jax.device_put({"w": jnp.ones((3, 5))}, whole)
        tx = cgalr_jax.scale_by_connectome(
            jax.eval_shape(probe, params, x), samples=x, every=1, signal=cgalr_jax.signals.frobenius()
        )
        opt_state = jax.jit(tx.init, out_shardings=whole)(params)

        @functools.partial(jax.jit, out_shardings=whole)
        def step(params, opt_state, x):
            updates, opt_state = tx.update(params, opt_state, params, probe=probe, samples=x)
            return optax.apply_updates(params, updates), opt_state

        with compilations() as compiled:
            for _ in range(3):
                params, opt_state = step(params, opt_state, x)
    assert sum("jit(step)" in name for name in compiled) == 1, compiled
    assert cgalr_jax.metrics(opt_state)["cgalr/measurements"] == 2


@pytest.mark.parametrize("most", [8192, 5], ids=["all rows", "every fifth"])
@pytest.mark.parametrize("split", [(None, "data", None), ("data", None, None), (None, None, "data")])
def test_positions_may_be_split_as_samples_and_units_may(split, most):
    size = len(jax.devices())
    mesh = jax.make_mesh((size,), ("data",), axis_types=(AxisType.Explicit,))
    activation = jax.random.normal(jax.random.key(0), (size, size, size))
    placed = jax.device_put(activation, NamedSharding(mesh, PartitionSpec(*split)))
    found = jax.jit(lambda x: layers.layer_units(x, most))(placed)
    np.testing.assert_array_equal(found, layers.layer_units(activation, most))
