"""Activations -> units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cgalr_jax import layers, signals

pytestmark = pytest.mark.usefixtures("strict")


@pytest.mark.parametrize("shape", [(7, 3), (128, 28, 28, 2), (6, 5, 3), (97, 97, 1)])
@pytest.mark.parametrize("most", [1, 6, 8192])
def test_layer_units_keeps_at_most_so_many_rows_evenly(shape, most):
    activation = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    units = np.asarray(layers.layer_units(activation, most))
    rows = np.prod(shape[:-1])
    stride = next(s for s in range(1, rows + 2) if s * most >= rows and np.gcd(s, rows) == 1)
    np.testing.assert_array_equal(units, activation.reshape(rows, -1)[::stride])
    assert 1 <= len(units) <= most


def test_layer_units_visits_every_column_of_an_image():
    columns = jnp.broadcast_to(jnp.arange(32)[None, None, :, None], (64, 32, 32, 1))
    assert np.unique(layers.layer_units(columns, 4096)).size == 32


def test_layer_units_of_sharded_examples():
    mesh = jax.make_mesh((4,), ("data",))
    activation = jax.device_put(
        np.arange(8 * 9 * 2).reshape(8, 9, 2), NamedSharding(mesh, PartitionSpec("data"))
    )
    expected = layers.layer_units(np.asarray(activation), 40)
    np.testing.assert_array_equal(jax.jit(layers.layer_units, static_argnums=1)(activation, 40), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.layer_units(np.zeros(3)), "activation must be"),
        (lambda: layers.layer_units(np.zeros((4, 0))), r"activation must be .* got shape \(4, 0\)"),
        (
            lambda: layers.layer_units(np.zeros((3, 2)), 0),
            "max_samples must be an integer of at least 1, got 0",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("make", [signals.births, signals.deaths, signals.barcode, signals.frobenius])
@pytest.mark.parametrize("over", ["pooled", "min"])
@pytest.mark.parametrize("wrong", [None, {}, np.zeros((4, 3))])
def test_every_signal_of_connectomes_refuses_what_are_no_layers(make, over, wrong):
    with pytest.raises(ValueError, match="^layers must be a mapping of names to arrays, got"):
        make(over).read(wrong, None)
