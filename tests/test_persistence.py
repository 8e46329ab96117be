"""Barcodes against SciPy, bit for bit."""

import jax
import numpy as np
import oracles
import pytest

from cgalr_jax import persistence

pytestmark = pytest.mark.usefixtures("strict")


def symmetric(size, seed=0, levels=None):
    """A random connectome; with `levels`, few distinct weights and so many ties."""
    rng = np.random.default_rng(seed)
    weights = rng.random((size, size)) if levels is None else rng.integers(0, levels, (size, size)) / levels
    upper = np.triu(weights, 1).astype(np.float32)
    return upper + upper.T


@pytest.mark.parametrize("size", [1, 2, 3, 16, 65])
@pytest.mark.parametrize("levels", [None, 1, 3])
def test_barcode_equals_scipy(size, levels):
    weights = symmetric(size, levels=levels)
    births, deaths = oracles.barcode(weights)
    bars = jax.jit(persistence.barcode)(weights)
    np.testing.assert_array_equal(bars.births, births)
    np.testing.assert_array_equal(bars.deaths, deaths)
