"""Barcodes against SciPy and giotto-ph, bit for bit, by both spanning-tree algorithms."""

import functools
import logging

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.sharding import PartitionSpec

from cgalr_jax import topology
from cgalr_jax.topology.barcode import _histogram
from cgalr_jax.topology.spanning_tree import _prim, _prim_of_each

pytestmark = pytest.mark.usefixtures("strict")

METHODS = ["prim", "boruvka"]
# The smallest even and odd connectomes, and one that takes Boruvka several rounds; with five bins wherever
# their number does not matter: each is compiled once for all tests.
SIZES, BINS = [2, 3, 10], 5
TREACHEROUS = np.array(
    [0, 1, 0.5, np.nextafter(np.float32(0.5), 1), 1e-45, 1e-40, 1e-38, 1 - 1e-7], np.float32
)


def symmetric(size, seed=0, levels=None):
    """A random connectome; with `levels`, few distinct weights and so many ties."""
    rng = np.random.default_rng(seed)
    weights = rng.random((size, size)) if levels is None else rng.integers(0, levels, (size, size)) / levels
    upper = np.triu(weights, 1).astype(np.float32)
    return upper + upper.T


@st.composite
def connectome_matrices(draw):
    """Ties, zeros, ones, denormals, or any numbers in [0, 1]; few sizes, to compile few times."""
    size = draw(st.sampled_from(SIZES))
    any_weight = st.floats(0, 1, width=32, allow_subnormal=True)
    weight = draw(
        st.sampled_from([st.sampled_from(TREACHEROUS), st.sampled_from(TREACHEROUS[:2]), any_weight])
    )
    edges = size * (size - 1) // 2
    matrix = np.zeros((size, size), np.float32)
    matrix[np.triu_indices(size, 1)] = draw(st.lists(weight, min_size=edges, max_size=edges))
    return matrix + matrix.T


def assert_same_bits(actual, expected):
    np.testing.assert_array_equal(np.asarray(actual).view(np.int32), np.asarray(expected).view(np.int32))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, *SIZES, 65, 256])
@pytest.mark.parametrize("levels", [None, pytest.param(1, marks=pytest.mark.slow), 3])
def test_barcode_equals_scipy(method, size, levels):
    weights = symmetric(size, levels=levels)
    births, deaths = oracles.barcode(weights)
    bars = topology.compute_barcode(weights, method=method)
    assert_same_bits(bars.births, births)
    assert_same_bits(bars.deaths, deaths)


@pytest.mark.parametrize("method", METHODS)
@hypothesis.given(weights=connectome_matrices())
def test_barcode_equals_scipy_whatever_the_weights(method, weights):
    births, deaths = oracles.barcode(weights)
    bars = topology.compute_barcode(weights, method=method)
    assert_same_bits(bars.births, births)
    assert_same_bits(bars.deaths, deaths)
    assert_same_bits(topology.compute_births(weights, method=method), births)


@hypothesis.given(weights=connectome_matrices())
def test_births_equal_giotto_ph(weights):
    gph = pytest.importorskip("gph")
    values, rank = np.unique(weights, return_inverse=True)
    # Distances are ranks from the heaviest down, from 1 on: exact, and no bar has the zero length it drops.
    lengths = (values.size - rank).reshape(weights.shape).astype(np.float32)
    np.fill_diagonal(lengths, 0)
    (bars,) = gph.ripser_parallel(lengths, maxdim=0, metric="precomputed", n_threads=1)["dgms"]
    died = np.sort(bars[np.isfinite(bars[:, 1]), 1])[::-1].astype(int)
    assert_same_bits(topology.compute_births(weights), values[values.size - died])


@pytest.mark.parametrize("method", METHODS)
@hypothesis.given(weights=connectome_matrices())
def test_the_tree_spans_and_weighs_what_it_says(method, weights):
    tree = topology.spanning_tree(weights, method=method)
    edges = np.asarray(tree.edges)
    assert_same_bits(tree.weights, weights[edges[:, 0], edges[:, 1]])
    assert (edges[:, 0] < edges[:, 1]).all()
    component = np.arange(weights.shape[0])
    for low, high in edges:
        assert component[low] != component[high]
        component[component == component[high]] = component[low]


@pytest.mark.parametrize("method", METHODS)
def test_a_component_reachable_only_by_weight_zero_is_reached(method):
    weights = symmetric(10)
    weights[:4, 4:] = weights[4:, :4] = 0
    assert_same_bits(topology.compute_births(weights, method=method), oracles.births(weights))
    assert topology.compute_births(weights, method=method)[0] == 0


# Any bits; the last ones are the next to those of minus infinity.
NANS = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0xFF800001], np.uint32).view(np.float32)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("nan", NANS, ids=["positive", "negative", "signalling", "all ones", "lowest"])
@pytest.mark.parametrize("symmetrise", [True, False])
def test_a_nan_shows_in_the_barcode_whatever_its_bits(method, nan, symmetrise):
    one, unit = symmetric(10), symmetric(10)
    one[2, 5] = one[5, 2] = nan
    unit[3, :] = unit[:, 3] = nan
    for weights, edges in ((one, 1), (unit, 9)):
        births = topology.compute_births(weights, method, symmetrise=symmetrise)
        assert np.isnan(births[-edges:]).all()
        assert not np.isnan(births[:-edges]).any()
        assert np.isnan(topology.compute_barcode(weights, BINS, method, symmetrise=symmetrise).deaths).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_only_the_upper_triangle_is_read(method, size):
    expected = symmetric(size)
    heavier = np.triu(expected, 1) + np.tril(np.full((size, size), np.float32(7)))
    lost = np.triu(expected, 1) + np.tril(np.full((size, size), np.float32(np.nan)))
    for weights in (np.triu(expected, 1), heavier, lost):
        for bins in (None, BINS):
            found = topology.compute_barcode(weights, bins, method)
            for part, other in zip(found, topology.compute_barcode(expected, bins, method), strict=True):
                assert_same_bits(part, other)
        assert_same_bits(topology.compute_births(weights, method), oracles.births(expected))
        tree = topology.spanning_tree(weights, method)
        assert_same_bits(tree.weights, oracles.births(expected))
        assert_same_bits(tree.weights, expected[tree.edges[:, 0], tree.edges[:, 1]])


def test_boruvka_survives_a_cycle_of_heaviest_edges():
    weights = np.array([[0, 3, 2], [2, 0, 3], [3, 2, 0]], np.float32)  # each row's heaviest
    tree = topology.spanning_tree(weights, method="boruvka")
    assert_same_bits(tree.weights, oracles.births(weights))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [pytest.param(3, marks=pytest.mark.slow), 10])
def test_without_mirroring_a_symmetric_matrix_gives_the_same(method, size):
    weights = symmetric(size, levels=5)
    for bins in (None, BINS):
        mirrored, as_it_is = (
            topology.compute_barcode(weights, bins, method, symmetrise=choice) for choice in (True, False)
        )
        for part, other in zip(mirrored, as_it_is, strict=True):
            assert_same_bits(part, other)


@pytest.mark.parametrize("method", METHODS)
def test_signed_weights_have_exact_bars(method):
    weights = symmetric(10) - symmetric(10, seed=1)
    births, deaths = oracles.barcode(weights)
    bars = topology.compute_barcode(weights, method=method)
    assert_same_bits(bars.births, births)
    assert_same_bits(bars.deaths, deaths)


@pytest.mark.parametrize("method", METHODS)
def test_minus_infinity_is_the_lightest_weight(method):
    weights = symmetric(10)
    weights[4, :] = weights[:, 4] = -np.inf
    births, deaths = oracles.barcode(weights)
    assert births[0] == deaths[0] == -np.inf
    bars = topology.compute_barcode(weights, method=method)
    assert_same_bits(bars.births, births)
    assert_same_bits(bars.deaths, deaths)


def test_boruvka_follows_a_chain_along_which_each_unit_hooks_onto_the_next():
    """The longest there is: pointers have to jump over all units within one round."""
    size = 512
    births = np.arange(1, size, dtype=np.float32)
    assert_same_bits(topology.compute_births(np.diag(births, 1), "boruvka"), births)


def test_boruvka_has_a_round_for_each_halving():
    """Units are pairs of pairs of pairs of pairs: each round joins two trees, and no more."""
    unit = np.arange(16)
    levels = np.frexp(unit[:, None] ^ unit[None, :])[1]  # of the smallest group that holds both
    weights = np.triu(1 - levels / 8, 1).astype(np.float32)
    births = np.repeat([0.5, 0.625, 0.75, 0.875], [1, 2, 4, 8]).astype(np.float32)
    assert_same_bits(topology.compute_births(weights, "boruvka"), births)


@pytest.mark.parametrize("wrong", [-0.01, -1e-45, np.nextafter(np.float32(1), 2), np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("edge", [(0, 1), (5, 6), (0, 8), (3, 8), (2, 6)])
def test_binned_deaths_of_a_weight_outside_of_the_unit_interval_are_nan(wrong, edge):
    weights = symmetric(9)
    weights[edge] = wrong
    assert np.isnan(topology.compute_barcode(weights, bins=8).deaths).all()
    weights[edge] = -0.0  # which is 0
    assert not np.isnan(topology.compute_barcode(weights, bins=8).deaths).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "bins"),
    [("prim", None), ("prim", 16), ("boruvka", None), ("boruvka", 16)],
)
def test_jit_vmap_scan_and_eager_agree_to_the_bit(method, bins):
    batch = np.stack([symmetric(10, seed, levels=40) for seed in range(5)])

    def barcode(weights):
        return topology.compute_barcode(weights, bins=bins, method=method)

    one_by_one = [barcode(weights) for weights in batch]
    for together in (
        jax.vmap(barcode)(batch),
        jax.jit(jax.vmap(barcode))(batch),
        jax.lax.map(barcode, batch),
    ):
        for births, deaths, alone in zip(*together, one_by_one, strict=True):
            assert_same_bits(births, alone.births)
            assert_same_bits(deaths, alone.deaths)
    with jax.disable_jit():
        assert_same_bits(topology.compute_births(batch[0], method=method), one_by_one[0].births)


def test_inside_shard_map_every_device_finds_its_own_barcode():
    batch = np.stack([symmetric(9, seed) for seed in range(4)])
    mesh = jax.make_mesh((4,), ("layer",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("layer")
    sharded = jax.shard_map(jax.vmap(topology.compute_births), mesh=mesh, in_specs=spec, out_specs=spec)
    assert_same_bits(sharded(batch), jax.vmap(topology.compute_births)(batch))


def test_the_second_call_compiles_nothing(caplog):
    functions = (
        topology.compute_births,
        topology.spanning_tree,
        lambda w: topology.compute_barcode(w, bins=8),
    )
    for size, function in enumerate(functions, 11):  # births are a part of the tree: of another size each
        compiled = []
        for seed in range(2):
            weights = jnp.asarray(symmetric(size, seed))
            caplog.clear()
            with caplog.at_level(logging.WARNING), jax.log_compiles():
                jax.block_until_ready(function(weights))
            compiled.append(sum("Finished XLA compilation" in message for message in caplog.messages))
        assert compiled[0] > 0
        assert compiled[1] == 0


@pytest.mark.parametrize(
    ("platform", "units", "method"),
    [
        ("cpu", 8, "prim"),
        ("cpu", 65, "prim"),
        ("cuda", 64, "prim"),
        ("cuda", 65, "boruvka"),
        ("tpu", 64, "prim"),
        ("tpu", 65, "boruvka"),
    ],
)
def test_auto_lowers_to_the_algorithm_of_the_platform(platform, units, method):
    def lowered(method):
        traced = jax.jit(functools.partial(topology.compute_births, method=method)).trace(symmetric(units))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    other = next(name for name in METHODS if name != method)
    whiles = {name: lowered(name).count("stablehlo.while") for name in ("auto", method, other)}
    assert whiles["auto"] == whiles[method] != whiles[other]
    assert "custom_call" not in lowered("auto")  # nothing that could wait for the host


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 2), ("cuda", 1)])
def test_an_accelerator_grows_the_trees_of_a_batch_together(platform, loops):
    traced = jax.jit(jax.vmap(topology.compute_births)).trace(jnp.stack([symmetric(16)] * 3))
    assert traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.while") == loops


def test_trees_that_grow_together_are_those_that_grow_alone():
    batch = jnp.stack([symmetric(16, seed) for seed in range(4)])
    together, alone = (jax.vmap(grow)(batch) for grow in (_prim, _prim_of_each))
    for one, other in zip(together, alone, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("method", METHODS)
def test_every_trip_count_is_static(method):
    text = (
        jax.jit(functools.partial(topology.compute_births, method=method))
        .lower(symmetric(8))
        .compile()
        .as_text()
    )
    assert text.count(" while(") == text.count("known_trip_count") > 0


@hypothesis.given(weights=connectome_matrices(), seed=st.integers(0, 99))
def test_permuting_units_leaves_the_barcode(weights, seed):
    order = np.random.default_rng(seed).permutation(weights.shape[0])
    before, after = topology.compute_barcode(weights), topology.compute_barcode(weights[np.ix_(order, order)])
    assert_same_bits(after.births, before.births)
    assert_same_bits(after.deaths, before.deaths)


@hypothesis.given(weights=connectome_matrices())
def test_a_monotone_map_of_the_weights_maps_the_barcode(weights):
    def rise(weights):
        return np.sqrt(np.asarray(weights) + np.float32(0.25))

    before, after = topology.compute_barcode(weights), topology.compute_barcode(rise(weights))
    assert_same_bits(after.births, rise(before.births))
    assert_same_bits(after.deaths, rise(before.deaths))


@hypothesis.given(seed=st.integers(0, 99))
def test_permuting_rescaling_and_flipping_units_leaves_the_barcode(seed):
    rng = np.random.default_rng(seed)
    units = rng.normal(size=(20, 7)).astype(np.float32)
    factors = rng.choice([-1, 1], 7) * rng.uniform(0.1, 10, 7)
    changed = (units * factors.astype(np.float32))[:, rng.permutation(7)]
    before, after = (topology.compute_births(topology.functional_connectome(x)) for x in (units, changed))
    np.testing.assert_allclose(after, before, atol=1e-6)


def quantiles(values, levels):
    """Step quantile function: each sorted value holds for an equal share of the levels."""
    return values[np.floor(np.asarray(levels) * values.size).astype(int)]


@hypothesis.given(weights=connectome_matrices(), bins=st.sampled_from([1, 5, 16]))
def test_binned_deaths_are_quantiles_within_half_a_bin(weights, bins):
    births, deaths = oracles.barcode(weights)
    bars = topology.compute_barcode(weights, bins=bins)
    assert_same_bits(bars.births, births)
    if deaths.size == 0:
        assert bars.deaths.shape == (0,)
        return
    assert bars.deaths.shape == (bins,)
    exact = quantiles(deaths, (2 * np.arange(bins) + 1) / (2 * bins))
    np.testing.assert_allclose(bars.deaths, exact, rtol=0, atol=0.5 / bins * (1 + 1e-6))


@pytest.mark.slow
@hypothesis.given(
    weights=st.tuples(connectome_matrices(), connectome_matrices()), bins=st.sampled_from([5, 16])
)
def test_binned_distances_keep_their_bounds(weights, bins):
    exact = [oracles.barcode(matrix)[1] for matrix in weights]
    hypothesis.assume(all(deaths.size for deaths in exact))
    binned = [topology.compute_barcode(matrix, bins=bins).deaths for matrix in weights]
    edges = np.arange(bins + 1) / bins
    # The rise within a step: from just after its left end to just before its right end.
    rise = max((quantiles(d, edges[1:] - 1e-9) - quantiles(d, edges[:-1] + 1e-9)).max() for d in exact)
    for order, bound in ((1, 2 / bins), (2, (1 + np.sqrt(2 * rise * bins)) / bins)):
        error = topology.top_distance(*binned, order=order) - topology.top_distance(*exact, order=order)
        assert abs(error) <= bound + 1e-6


@pytest.mark.slow
def test_binned_deaths_of_a_large_connectome_err_by_far_less_than_the_bound():
    a, b = (symmetric(200, seed) for seed in range(2))
    b = b**2
    exact, binned = (
        topology.top_distance(*(topology.compute_barcode(w, bins=bins).deaths for w in (a, b)))
        for bins in (None, 64)
    )
    assert abs(exact - binned) < 0.25 / 64


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetrise", [True, False])
def test_the_diagonal_is_not_read(method, symmetrise):
    weights = symmetric(10)
    with_diagonal = weights + np.eye(10, dtype=np.float32)
    for read in (topology.spanning_tree, functools.partial(topology.compute_barcode, bins=BINS)):
        found, expected = (read(x, method=method, symmetrise=symmetrise) for x in (with_diagonal, weights))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("size", [2, 3, 16, 17])
@pytest.mark.parametrize("by_rows", [True, False])
def test_histogram_counts_every_edge_once(size, by_rows):
    weights = symmetric(size)
    weights[0, 1] = weights[1, 0] = -0.5
    edges = weights[np.triu_indices(size, 1)]
    expected = [1, *np.histogram(edges, bins=8, range=(0, 1))[0]]
    histogram = jax.jit(_histogram, static_argnums=(1, 2))
    np.testing.assert_array_equal(histogram(weights, 8, by_rows), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: topology.compute_births(np.zeros((2, 3))), r"connectome must be \[P, P\]"),
        (lambda: topology.spanning_tree(np.zeros((0, 0))), r"connectome must be \[P, P\]"),
        (lambda: topology.compute_barcode(np.zeros(4)), r"connectome must be \[P, P\]"),
        (
            lambda: topology.compute_births(np.eye(3), method="kruskal"),
            r"method must be 'auto', 'prim' or 'boruvka', got 'kruskal'",
        ),
        (
            lambda: topology.compute_barcode(np.eye(3), bins=0),
            "bins must be an integer from 1 to 1024, got 0",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
