import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cgalr_jax import topology

pytestmark = pytest.mark.usefixtures("strict")

ORDERS = [1.0, 2.0, np.inf]
barcode = jax.jit(topology.compute_barcode)
TOLERANCE = 1e-5  # a few hundred float32 roundings of values in [0, 1]

weights = st.floats(0.0, 1.0, width=32)
lengths = st.sampled_from([1, 2, 3])  # few, as each pair of lengths is compiled
sorted_arrays = lengths.flatmap(lambda n: hnp.arrays(np.float32, n, elements=weights)).map(np.sort)
equal_lengths = lengths.flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float32, n, elements=weights).map(np.sort)] * 3)
)
orders = st.sampled_from(ORDERS)


@st.composite
def connectomes(draw, count):
    units = draw(st.sampled_from([2, 3, 6]))
    drawn = []
    for _ in range(count):
        upper = np.triu(draw(hnp.arrays(np.float32, (units, units), elements=weights)), k=1)
        drawn.append(upper + upper.T)
    return drawn


def brute_force(a, b, order):
    """The distance on the least common grid, where every step has the same width."""
    common = np.lcm(len(a), len(b))
    gaps = np.abs(np.repeat(a, common // len(a)) - np.repeat(b, common // len(b))).astype(np.float64)
    return gaps.max() if order == np.inf else np.mean(gaps**order) ** (1 / order)


def distances(a, b):
    """Every distance of two connectomes of one size that is bounded by the largest change of an edge."""
    barcode_a, barcode_b = barcode(jnp.asarray(a)), barcode(jnp.asarray(b))
    for order in ORDERS:
        yield topology.top_distance(barcode_a.births, barcode_b.births, order=order)
        yield topology.barcode_distance(barcode_a, barcode_b, order=order)
        if len(barcode_a.deaths):
            yield topology.top_distance(barcode_a.deaths, barcode_b.deaths, order=order)
    yield topology.frobenius_distance(a, b)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (5, 1), (6, 6), (4, 6), (7, 5), (63, 31)])
def test_top_distance_is_the_distance_of_the_quantile_functions(order, n, m):
    rng = np.random.default_rng(n * m)
    a, b = (np.sort(rng.random(k, dtype=np.float32)) for k in (n, m))
    got = topology.top_distance(a, b, order=order)
    assert got.shape == ()
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, brute_force(a, b, order), rtol=1e-5)


@given(a=sorted_arrays, b=sorted_arrays)
def test_order_one_is_scipys_wasserstein_distance(a, b):
    expected = scipy.stats.wasserstein_distance(a, b)
    np.testing.assert_allclose(topology.top_distance(a, b, order=1), expected, atol=TOLERANCE)


@given(triple=equal_lengths, order=orders)
def test_a_sum_is_the_mean_times_the_number_of_pairs(triple, order):
    a, b, _ = triple
    factor = 1.0 if order == np.inf else len(a) ** (1 / order)
    summed = topology.top_distance(a, b, order=order, normalise=False)
    np.testing.assert_allclose(
        summed, factor * topology.top_distance(a, b, order=order), rtol=1e-5, atol=1e-6
    )


@given(a=sorted_arrays, b=sorted_arrays, c=sorted_arrays, order=orders)
def test_top_distance_is_a_metric_on_distributions(a, b, c, order):
    ab, ba, bc, ac = (topology.top_distance(*pair, order=order) for pair in ((a, b), (b, a), (b, c), (a, c)))
    np.testing.assert_allclose(ab, ba, rtol=1e-6)
    assert ab >= 0
    assert ac <= ab + bc + TOLERANCE
    assert topology.top_distance(a, a, order=order) == 0
    assert topology.top_distance(a, np.repeat(a, 3), order=order) == 0
    assert ab <= topology.top_distance(a, b, order=np.inf) + TOLERANCE


@given(triple=equal_lengths, order=orders)
def test_different_arrays_are_apart(triple, order):
    a, b, _ = triple
    largest = np.abs(a.astype(np.float64) - b).max()
    if largest > 1e-37:  # the difference is a normal float32, in which nothing is flushed
        assert topology.top_distance(a, b, order=order) > 0


@given(connectomes(2))
def test_no_distance_exceeds_the_largest_change_of_an_edge(pair):
    perturbation = np.abs(pair[0] - pair[1]).max()
    for d in distances(*pair):
        assert 0 <= d <= perturbation + TOLERANCE


@given(connectomes(2), st.randoms(use_true_random=False))
def test_reordering_the_units_changes_no_distance(pair, random):
    order = list(range(len(pair[0])))
    random.shuffle(order)
    reordered = [c[np.ix_(order, order)] for c in pair]
    for before, after in zip(distances(*pair), distances(*reordered), strict=True):
        np.testing.assert_allclose(before, after, atol=TOLERANCE)
    # The barcode does not even ask for the two orders to be the same.
    barcodes = [barcode(jnp.asarray(c)) for c in (pair[0], reordered[0])]
    assert topology.barcode_distance(*barcodes) == 0


@given(connectomes(3))
def test_frobenius_distance_is_a_metric(triple):
    a, b, c = triple
    ab = topology.frobenius_distance(a, b)
    edges = np.triu_indices(len(a), k=1)
    expected = np.sqrt(np.mean((a[edges].astype(np.float64) - b[edges]) ** 2))
    np.testing.assert_allclose(ab, expected, rtol=1e-5, atol=1e-15)
    assert ab == topology.frobenius_distance(b, a)
    assert topology.frobenius_distance(a, a) == 0
    assert topology.frobenius_distance(a, c) <= ab + topology.frobenius_distance(b, c) + TOLERANCE


@given(connectomes(2))
def test_barcode_distance_summed_pairs_every_edge(pair):
    a, b = (barcode(jnp.asarray(c)) for c in pair)
    pairs = [np.abs(np.asarray(x) - np.asarray(y)) for x, y in zip(a, b, strict=True)]
    expected = np.sqrt(np.sum(np.concatenate(pairs) ** 2))
    np.testing.assert_allclose(topology.barcode_distance(a, b, normalise=False), expected, atol=TOLERANCE)


def test_the_published_distance_is_the_plain_norm_of_births_and_deaths():
    a, b = (barcode(jnp.asarray(np.triu(np.random.default_rng(seed).random((9, 9)), 1))) for seed in range(2))
    births, deaths = (np.asarray(x, np.float64) - np.asarray(y) for x, y in zip(a, b, strict=True))
    published = topology.barcode_distance(a, b, normalise=False)
    np.testing.assert_allclose(published, np.linalg.norm([*births, *deaths]), rtol=1e-6)
    of_births = topology.top_distance(a.births, b.births, normalise=False)
    np.testing.assert_allclose(of_births, np.linalg.norm(births), rtol=1e-6)


@given(connectomes(3), orders, st.booleans())
def test_barcode_distance_is_a_metric(triple, order, normalise):
    a, b, c = (barcode(jnp.asarray(x)) for x in triple)

    def measure(x, y):
        return topology.barcode_distance(x, y, order=order, normalise=normalise)

    assert measure(a, a) == 0
    np.testing.assert_allclose(measure(a, b), measure(b, a), rtol=1e-6)
    assert measure(a, c) <= measure(a, b) + measure(b, c) + TOLERANCE * len(triple[0])


def test_barcode_distance_across_sizes_weighs_births_and_deaths_alike():
    a = topology.Barcode(births=jnp.array([0.5, 0.5]), deaths=jnp.array([0.25]))
    b = topology.Barcode(births=jnp.array([0.75, 0.75, 0.75]), deaths=jnp.array([0.5, 0.5, 0.5]))
    assert topology.barcode_distance(a, b) == 0.25
    assert topology.barcode_distance(a, b, order=1) == 0.25
    assert topology.barcode_distance(a, b, order=np.inf) == 0.25


def test_deaths_may_be_quantiles():
    rng = np.random.default_rng(0)
    upper = np.triu(rng.random((2, 24, 24), dtype=np.float32), k=1)
    pair = upper + upper.transpose(0, 2, 1)
    exact, approximate = (
        topology.barcode_distance(*(topology.compute_barcode(jnp.asarray(c), bins) for c in pair))
        for bins in (None, 512)
    )
    np.testing.assert_allclose(approximate, exact, rtol=0.05)


def test_two_units_have_births_only():
    a, b = (barcode(jnp.array([[0.0, w], [w, 0.0]])) for w in (0.25, 0.75))
    assert topology.barcode_distance(a, b) == 0.5
    three = barcode(jnp.full((3, 3), 0.5) - 0.5 * jnp.eye(3))
    with pytest.raises(ValueError, match="births_a must have shape"):
        topology.barcode_distance(a, three)


def test_nan_is_never_hidden():
    bad = jnp.array([0.5, jnp.nan])
    good = jnp.array([0.5, 0.5])
    for order in ORDERS:
        assert jnp.isnan(topology.top_distance(bad, good, order=order))
        assert jnp.isnan(topology.top_distance(bad, jnp.array([0.5]), order=order))
    square = jnp.zeros((2, 2))
    assert jnp.isnan(topology.frobenius_distance(square.at[0, 1].set(jnp.nan), square))


@pytest.mark.parametrize("scale", [3e-34, 1e-24, 1e-20, 1e-15, 1e15, 1e20, 1e38])
@pytest.mark.parametrize("normalise", [True, False])
def test_every_distance_grows_with_the_scale_of_its_arguments(scale, normalise):
    """Where squares, sums of many or shares of one are no float32, too."""
    units = np.float32(scale)
    a, b = np.linspace(0, 1, 40, dtype=np.float32), np.linspace(0, 1, 40, dtype=np.float32) ** 2
    if scale == 1e38 and not normalise:
        a, b = a / 40, b / 40  # of the sum of 40 gaps
    rng = np.random.default_rng(0)
    square = np.triu(rng.random((2, 9, 9), dtype=np.float32), 1)

    def measured(factor):
        x, y = factor * a, factor * b
        barcodes = topology.Barcode(x, x[:20]), topology.Barcode(y, y[:20])
        for order in ORDERS:
            yield topology.top_distance(x, y, order=order, normalise=normalise)
            yield topology.top_distance(x, y[::3], order=order)
            yield topology.barcode_distance(*barcodes, order=order, normalise=normalise)
        if 1e-17 < scale < 1e17:  # the range that it states
            yield topology.frobenius_distance(*(factor * square))

    for small, large in zip(measured(np.float32(1)), measured(units), strict=True):
        np.testing.assert_allclose(np.float64(large) / units, np.float64(small), rtol=1e-5)


def test_a_distance_too_large_for_a_float32_is_nan():
    a = np.array([-3e38, 3e38], np.float32)
    for order in ORDERS:
        assert jnp.isnan(topology.top_distance(a, a[::-1], order=order))
    barcodes = topology.Barcode(0 * a, 0 * a), topology.Barcode(abs(a) / 2, abs(a) / 2)
    assert jnp.isnan(topology.barcode_distance(*barcodes, order=1, normalise=False))


def test_no_gradient_flows_and_none_is_nan_at_zero_distance():
    a, square = jnp.array([0.25, 0.5]), jnp.array([[0.0, 0.5], [0.5, 0.0]])
    np.testing.assert_array_equal(jax.grad(lambda x: topology.top_distance(x, a))(a), jnp.zeros_like(a))
    gradient = jax.grad(lambda x: topology.frobenius_distance(x, square))(square)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(square))


def test_jit_and_vmap_agree_with_plain_calls():
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.random((4, 9), dtype=np.float32)), np.sort(rng.random((4, 6), dtype=np.float32))
    mapped = jax.jit(jax.vmap(topology.top_distance))(a, b)
    for got, x, y in zip(mapped, a, b, strict=True):
        np.testing.assert_allclose(got, topology.top_distance(x, y), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_every_input_dtype_is_measured_in_float32(dtype):
    a, b = jnp.array([0, 0], dtype=dtype), jnp.array([1, 1], dtype=dtype)
    assert topology.top_distance(a, b).dtype == jnp.float32
    assert topology.top_distance(a, b) == 1
    assert topology.frobenius_distance(jnp.diag(a), jnp.diag(b)) == 0  # the diagonal is not read


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: topology.top_distance(a, a, order=3), "order must be 1, 2 or infinity, got 3"),
        (lambda a: topology.top_distance(a[None], a), r"births_a must have shape \[n\].*got \(1, 3\)"),
        (lambda a: topology.top_distance(a, a[:0]), r"births_b must have shape \[n\].*got \(0,\)"),
        (lambda a: topology.top_distance(a, a[:2], normalise=False), "normalise must be True .* 3 and 2"),
        (lambda a: topology.frobenius_distance(a, a), r"connectome_a must be \[P, P\].*\(3,\)"),
        (lambda a: topology.frobenius_distance(a[:1, None], a[:1, None]), "P at least 2"),
        (lambda a: topology.frobenius_distance(jnp.zeros((2, 2)), a), "connectome_b must have"),
    ],
)
def test_errors_name_the_argument_and_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros(3))
