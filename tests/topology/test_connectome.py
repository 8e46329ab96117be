"""The connectome against np.corrcoef in float64; its moments, devices and edge cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cgalr_jax import topology

pytestmark = pytest.mark.usefixtures("strict")

TOLERANCE = 2e-6  # a few float32 ulps of 1, times the square root of the samples


def merge_tolerance(offset):
    """Moments keep the mean in float32, and the smallest standard deviation drawn is about 1."""
    return TOLERANCE + np.finfo(np.float32).eps / 2 * offset


def draw(samples, units, seed=0, offset=0.0):
    """Correlated units of very different scales, in float32."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(samples, units)) @ (np.eye(units) + 0.3 * rng.normal(size=(units, units)))
    return (mixed * np.geomspace(1, 30, units) + offset).astype(np.float32)


def moments_of(units):
    return topology.update_moments(topology.init_moments(units.shape[1]), units)


# Each number with each offset, and half of the pairs; the other half is slow.
@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(
    ("samples", "units"),
    [
        pytest.param(samples, units, marks=pytest.mark.slow if (row + column) % 2 else ())
        for row, samples in enumerate([2, 3, 64, 257])
        for column, units in enumerate([1, 2, 17, 64])
    ],
)
def test_equals_corrcoef_in_float64(samples, units, offset):
    x = draw(samples, units, offset=offset)
    expected = oracles.connectome(x)
    np.testing.assert_allclose(topology.functional_connectome(x), expected, atol=TOLERANCE)
    np.testing.assert_allclose(topology.connectome_from_moments(moments_of(x)), expected, atol=TOLERANCE)


@pytest.mark.parametrize(("samples", "units"), [(8, 5), (100, 64), (100, 129), (512, 300)])
def test_is_symmetric_to_the_bit_bounded_and_float32(samples, units):
    result = np.asarray(topology.functional_connectome(draw(samples, units)))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, result.T)
    np.testing.assert_array_equal(np.diagonal(result), 0)
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_rescaling_and_flipping_units_changes_nothing(scale):
    x = draw(32, 6)
    factors = np.where(np.arange(6) % 2, scale, -1).astype(np.float32)
    np.testing.assert_allclose(
        topology.functional_connectome(x * factors), oracles.connectome(x), atol=TOLERANCE
    )


@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_the_range_of_the_docstring_holds(end, offset):
    x = np.random.default_rng(0).normal(size=(64, 5)) + offset
    scale = 1e-33 / x.std(axis=0).min() if end == "smallest" else 0.99e38 / np.abs(x).sum(axis=0).max()
    x = (x * scale).astype(np.float32)
    expected = oracles.connectome(x.astype(np.float64) / scale)
    np.testing.assert_allclose(topology.functional_connectome(x), expected, atol=TOLERANCE)


@pytest.mark.parametrize("constant", [0.0, 7.0, -1e4, 0.1])
def test_dead_units_have_zero_rows(constant):
    x = draw(50, 4)
    x[:, 2] = constant
    expected = np.zeros((4, 4))
    alive = np.ix_([0, 1, 3], [0, 1, 3])
    expected[alive] = oracles.connectome(x[:, [0, 1, 3]])
    np.testing.assert_allclose(topology.functional_connectome(x), expected, atol=TOLERANCE)
    np.testing.assert_array_equal(topology.functional_connectome(x)[2], 0)
    np.testing.assert_array_equal(topology.connectome_from_moments(moments_of(x))[:, 2], 0)


def test_a_batch_of_one_is_all_zero():
    np.testing.assert_array_equal(topology.functional_connectome(draw(1, 5)), 0)
    np.testing.assert_array_equal(topology.connectome_from_moments(moments_of(draw(1, 5))), 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_sample_makes_its_unit_nan(bad):
    x = draw(20, 4)
    x[:, 0] = 3.0  # dead, and yet NaN where it meets the bad one
    x[5, 1] = bad
    off_diagonal = ~np.eye(4, dtype=bool)
    for result in (topology.functional_connectome(x), topology.connectome_from_moments(moments_of(x))):
        np.testing.assert_array_equal(np.isnan(result)[1], off_diagonal[1])
        assert np.isnan(result).sum() == 6


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int8])
def test_other_dtypes_are_computed_in_float32(dtype):
    x = jnp.asarray(draw(64, 8) * 2).astype(dtype)
    expected = oracles.connectome(np.asarray(x.astype(jnp.float32)))
    np.testing.assert_allclose(topology.functional_connectome(x), expected, atol=TOLERANCE)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moments_merge_to_those_of_one_pass(offset):
    x = draw(96, 7, offset=offset)
    parts = [moments_of(part) for part in np.split(x, [1, 40, 41])]
    forward = functools.reduce(topology.merge_moments, parts)
    backward = functools.reduce(lambda a, b: topology.merge_moments(b, a), parts)
    nothing = topology.init_moments(7)
    for merged in (forward, backward, topology.merge_moments(nothing, forward)):
        assert merged.count == 96
        np.testing.assert_allclose(merged.mean, x.astype(np.float64).mean(0), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            topology.connectome_from_moments(merged), oracles.connectome(x), atol=merge_tolerance(offset)
        )
    np.testing.assert_array_equal(topology.merge_moments(nothing, nothing).comoment, nothing.comoment)


@pytest.mark.parametrize("constant", [0.1, 0.7, 1e4 + 0.3])
@pytest.mark.parametrize("samples", [1000, 4096])
def test_the_mean_of_a_constant_is_that_constant_to_the_bit(samples, constant):
    """A mean in float32 is off by up to four ulps here, and so would be what is centred by it."""
    x = np.full((samples, 2), constant, np.float32)
    moments = moments_of(x)
    np.testing.assert_array_equal(moments.mean, x[0])
    np.testing.assert_array_equal(moments.comoment, 0)
    devices = np.broadcast_to(x[:4], (7, 4, 2))
    gathered = jax.vmap(lambda part: topology.gather_moments(moments_of(part), "data"), axis_name="data")
    np.testing.assert_array_equal(gathered(devices).mean, devices[:, 0])


@pytest.mark.parametrize("samples", [0, 1])
def test_the_moments_of_the_only_device_are_those_of_all(samples):
    alone = moments_of(draw(1, 3)) if samples else topology.init_moments(3)
    gathered = jax.vmap(lambda moments: topology.gather_moments(moments, "data"), axis_name="data")(
        jax.tree.map(lambda x: x[None], alone)
    )
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one[0], other), gathered, alone)


@pytest.mark.parametrize(
    "shapes",
    [
        ((1,), (3,), (3, 3)),
        ((), (3,), (3, 4)),
        ((), (3, 1), (3, 3)),
        ((), (2, 3), (2, 3, 2, 3)),
        ((), (), ()),
    ],
)
def test_moments_of_other_shapes_are_refused(shapes):
    moments = topology.Moments(*map(np.zeros, shapes))
    with pytest.raises(ValueError, match=r"^moments must have shapes \[\], \[P\] and \[P, P\], got"):
        topology.connectome_from_moments(moments)


@pytest.mark.parametrize("through", ["units", "moments"])
def test_the_gradient_of_a_unit_that_does_not_vary_is_0(through):
    units = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    units[:, 2] = 7.0

    def total(x):
        if through == "units":
            return topology.functional_connectome(x).sum()
        moments = topology.update_moments(topology.init_moments(4), x)
        return topology.connectome_from_moments(moments).sum()

    gradient = np.asarray(jax.grad(total)(units))
    assert np.isfinite(gradient).all()
    assert np.all(gradient[:, 2] == 0)
    step = np.zeros_like(units)
    step[3, 0] = 1e-2
    slope = (total(units + step) - total(units - step)) / 2e-2
    np.testing.assert_allclose(gradient[3, 0], slope, rtol=0.02)


def gathered_by_vmap(local, x):
    return jax.jit(jax.vmap(local, axis_name="data"))(x.reshape(4, -1, x.shape[1]))[3]


def gathered_by_pmap(local, x):
    return jax.pmap(local, axis_name="data")(x.reshape(4, -1, x.shape[1]))[3]


def gathered_by_shard_map(local, x):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(local, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec())
    return jax.jit(mapped)(x)


@pytest.mark.parametrize("gathered", [gathered_by_vmap, gathered_by_pmap, gathered_by_shard_map])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_gathered_moments_are_those_of_all_devices(gathered, offset):
    x = draw(64, 6, offset=offset)

    def local(units):
        return topology.connectome_from_moments(topology.gather_moments(moments_of(units), "data"))

    def at_once(units):
        return topology.functional_connectome(units, axis_name="data")

    for function in (local, at_once):
        np.testing.assert_allclose(gathered(function, x), oracles.connectome(x), atol=merge_tolerance(offset))


def test_over_two_axes_the_connectome_is_that_of_all_devices():
    mesh = jax.make_mesh((2, 2), ("data", "host"), axis_types=(AxisType.Auto,) * 2)
    spec = PartitionSpec(("data", "host"))
    over = functools.partial(topology.functional_connectome, axis_name=("data", "host"))
    x = draw(32, 5)
    for function in (over, jax.jit(over)):
        result = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=PartitionSpec())(x)
        np.testing.assert_allclose(result, oracles.connectome(x), atol=merge_tolerance(0))


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", [PartitionSpec("data"), PartitionSpec("data", "model")])
def test_sharded_samples_give_the_global_connectome(axis_type, spec):
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(axis_type,) * 2)
    x = draw(32, 6)
    sharded = jax.device_put(x, NamedSharding(mesh, spec))
    result = jax.jit(topology.functional_connectome)(sharded)
    np.testing.assert_allclose(result, oracles.connectome(x), atol=TOLERANCE)
    if axis_type == AxisType.Explicit:
        assert result.sharding.is_fully_replicated


def test_the_product_asks_for_the_highest_precision():
    text = jax.jit(topology.functional_connectome).lower(draw(4, 3)).as_text()
    assert text.count("dot_general") == 1
    assert "precision = [HIGHEST, HIGHEST]" in text


def test_identical_under_jit_vmap_and_eager():
    x = np.stack([draw(16, 5, seed) for seed in range(3)])
    eager = [topology.functional_connectome(one) for one in x]
    np.testing.assert_allclose(jax.vmap(topology.functional_connectome)(x), eager, atol=TOLERANCE)
    np.testing.assert_allclose(jax.lax.map(topology.functional_connectome, x), eager, atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 3), (3, 0)])
def test_units_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match="units must be"):
        topology.functional_connectome(np.zeros(shape))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: topology.init_moments(0), "units must be an integer of at least 1, got 0"),
        (
            lambda: topology.update_moments(topology.init_moments(2), np.zeros((4, 3))),
            r"units must be \[N, 2\]",
        ),
    ],
)
def test_other_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "of", [topology.functional_connectome, lambda x: topology.connectome_from_moments(moments_of(x))]
)
def test_a_unit_is_dead_up_to_a_millionth_of_its_mean(of):
    """Standard deviations of a half and of three millionths of the mean, over many samples."""
    random = np.random.default_rng(0)
    sign = random.permutation(np.repeat([-1.0, 1.0], 2000))
    steps = 2.0**-23  # one ulp of 1
    units = np.stack([1 + 4 * steps * sign, 1 + 24 * steps * sign, sign], axis=1).astype(np.float32)
    assert topology.connectome.DEAD == 1e-6
    found = of(units)
    np.testing.assert_array_equal(found[0], 0)
    np.testing.assert_allclose(found[1, 2], 1, atol=0.05)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("form", [np.ndarray.tolist, np.float64, np.float16], ids=lambda form: form.__name__)
def test_moments_of_any_form_are_those_of_float32(form, x64):
    """Sums in float16 would overflow, and lists have no arithmetic."""
    plain = topology.Moments(np.float32(4), np.array([1, 2], np.float32), 4e4 * np.eye(2, dtype=np.float32))
    with jax.enable_x64(x64):
        moments = topology.Moments(*map(form, map(np.asarray, plain)))
        units = np.array([[1, 2], [3, 4]], form if form is np.float64 else np.float32)
        for call in (
            topology.connectome_from_moments,
            lambda moments: topology.merge_moments(moments, moments),
            lambda moments: topology.update_moments(moments, units),
        ):
            for found, expected in zip(
                jax.tree.leaves(call(moments)), jax.tree.leaves(call(plain)), strict=True
            ):
                assert found.dtype == jnp.float32
                np.testing.assert_allclose(found, expected, rtol=1e-3)
