"""Matrices off the contract: what is no connectome gives one answer everywhere, or says what is wrong."""

import numpy as np
import pytest

from cgalr_jax import topology

METHODS = ("auto", "prim", "boruvka")
RNG = np.random.default_rng(7)
UPPER = np.triu(RNG.uniform(size=(9, 9)), 1).astype(np.float32)
SYMMETRIC = UPPER + UPPER.T
SIGNED = np.corrcoef(RNG.normal(size=(8, 12))).astype(np.float32)


def not_numbers():
    """NaN as 0 / 0 gives it on x86, sign bit and all, as NumPy writes it, and one with a payload."""
    bits = np.array([0xFFC00000, 0x7FC00000, 0x7F800001, 0xFF8ABCDE], np.uint32)
    return bits.view(np.float32)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "given",
    [UPPER, UPPER + 5 * np.tril(np.ones((9, 9), np.float32)), SYMMETRIC + np.eye(9, dtype=np.float32)],
    ids=["upper triangle", "another lower triangle", "ones on the diagonal"],
)
def test_only_the_edges_above_the_diagonal_are_read(given, method):
    expected = topology.compute_barcode(SYMMETRIC, method=method)
    found = topology.compute_barcode(given, method=method)
    np.testing.assert_array_equal(found.births, expected.births)
    np.testing.assert_array_equal(found.deaths, expected.deaths)
    np.testing.assert_array_equal(topology.compute_births(given, method), expected.births)
    np.testing.assert_array_equal(
        topology.compute_barcode(given, bins=16, method=method).deaths,
        topology.compute_barcode(SYMMETRIC, bins=16, method=method).deaths,
    )
    assert topology.frobenius_distance(given, SYMMETRIC) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", [(0, 1), (2, 7), (7, 8)])
@pytest.mark.parametrize("number", range(4))
def test_a_nan_is_seen_whatever_its_bits(number, place, method):
    holed = SYMMETRIC.copy()
    holed[place] = not_numbers()[number]
    assert np.isnan(topology.compute_births(holed, method)[-1])
    assert np.isnan(topology.compute_barcode(holed, bins=8, method=method).deaths).all()
    assert np.isnan(topology.frobenius_distance(holed, SYMMETRIC))


@pytest.mark.parametrize("place", [(1, 0), (3, 3)])
def test_a_nan_that_no_edge_has_is_not_seen(place):
    holed = SYMMETRIC.copy()
    holed[place] = np.nan
    np.testing.assert_array_equal(topology.compute_births(holed), topology.compute_births(SYMMETRIC))


@pytest.mark.parametrize(
    "given",
    [
        SIGNED,
        SYMMETRIC * 2,
        SYMMETRIC - 2e-7 - SYMMETRIC[SYMMETRIC > 0].min(),
        np.where(SYMMETRIC > 0, np.inf, 0),
    ],
    ids=["signed correlations", "above 1", "just below 0", "infinite"],
)
def test_weights_outside_the_unit_interval_have_no_binned_deaths(given):
    assert np.isnan(topology.compute_barcode(given, bins=8).deaths).all()


def test_signed_weights_have_exact_births_and_deaths_that_are_all_edges():
    bars = topology.compute_barcode(SIGNED)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([bars.births, bars.deaths])), np.sort(SIGNED[np.triu_indices(8, 1)])
    )
    for method in METHODS:
        np.testing.assert_array_equal(topology.compute_births(SIGNED, method), bars.births)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_large_integers_of_numpy_are_not_cut_to_32_bits(dtype):
    given = ((2**40 * SYMMETRIC) // 1).astype(dtype)
    expected = topology.compute_barcode(given.astype(np.float32))
    for method in METHODS:
        found = topology.compute_barcode(given, method=method)
        np.testing.assert_array_equal(found.births, expected.births)
        np.testing.assert_array_equal(found.deaths, expected.deaths)
    assert topology.frobenius_distance(given, given.astype(np.float32)) == 0
    assert topology.top_distance(np.sort(given[0]), np.sort(given[0]).astype(np.float32)) == 0
    np.testing.assert_allclose(
        topology.functional_connectome(given), topology.functional_connectome(given / 2**40), atol=1e-5
    )


@pytest.mark.parametrize(
    "given", [np.ones((2, 3)), np.ones(4), np.zeros((0, 0)), np.ones((2, 2, 2)), np.eye(3) * 1j, 3.0]
)
def test_what_is_no_real_matrix_is_our_error(given):
    for call in (topology.compute_births, topology.compute_barcode, topology.spanning_tree):
        with pytest.raises(ValueError, match="^connectome must be "):
            call(given)
    with pytest.raises(ValueError, match="^connectome_a must be "):
        topology.frobenius_distance(given, given)
