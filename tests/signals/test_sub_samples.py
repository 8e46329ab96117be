"""Births, deaths and barcodes of sub-samples: of one size, whatever the width of the layer."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from cgalr_jax import signals
from cgalr_jax.signals import connectome as of_connectomes

MAKE = [signals.births, signals.deaths, signals.barcode]


def independent(seed, width, samples=256):
    random = np.random.default_rng(seed)
    return jnp.asarray(random.standard_normal((samples, width)), jnp.float32)


def moved(signal, width):
    before = independent(0, width)
    after = before + 0.3 * independent(1, width)
    return float(signal.compare(*(signal.read({"layer": x}, None) for x in (before, after))))


@pytest.mark.parametrize("make", MAKE)
def test_the_distance_hardly_depends_on_the_width(make):
    sampled = [moved(make("max", sample=16), width) for width in (32, 1024)]
    assert abs(np.log(sampled[0] / sampled[1])) < 0.4


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("width", [9, 31, 32, 256])
def test_it_is_the_mean_over_the_sub_samples(make, width):
    """Each by the oracle; the mean is that of squares, births and deaths with half of the weight each."""
    sides = [independent(seed, width) for seed in range(2)]
    size, count = min(16, width), 1 if width < 32 else 6
    chosen = of_connectomes._sub_samples(width, 16)
    assert chosen.shape == (count, size)
    assert all(len(np.unique(units)) == size for units in chosen)
    squares = []
    for units in chosen:
        one, other = (oracles.barcode(oracles.connectome(np.asarray(x)[:, units])) for x in sides)
        squares.append([np.mean((a - b) ** 2) for a, b in zip(one, other, strict=True)])
    births, deaths = np.mean(squares, axis=0)
    expected = {"births": births, "deaths": deaths, "barcode": (births + deaths) / 2}[make.__name__]
    signal = make("max", sample=16)
    found = signal.compare(*(signal.read({"layer": x}, None) for x in sides))
    np.testing.assert_allclose(found, np.sqrt(expected), rtol=1e-3)


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize(("width", "lead", "units"), [(256, 6, 16), (32, 6, 16), (31, 1, 16), (9, 1, 9)])
def test_reading(make, width, lead, units):
    reading = make("max", sample=16).read({"layer": independent(0, width)}, None)["layer"]
    births, deaths = (lead, units - 1), (lead, (units - 1) * (units - 2) // 2)
    shapes = {"births": (births,), "deaths": (deaths,), "barcode": (births, deaths)}[make.__name__]
    assert tuple(x.shape for x in jax.tree.leaves(reading)) == shapes


@pytest.mark.parametrize("make", MAKE)
def test_the_largest_of_the_layers(make):
    signal = make("max", sample=16)
    still = independent(0, 32)
    before = {"still": still, "slow": still, "fast": still}
    after = {"still": still, "slow": still + 0.1 * independent(1, 32), "fast": still + 2 * independent(1, 32)}
    fastest = signal.compare(*(signal.read({"fast": x["fast"]}, None) for x in (before, after)))
    assert signal.compare(*(signal.read(x, None) for x in (before, after))) == fastest


@pytest.mark.parametrize("make", MAKE)
def test_a_layer_that_overflowed_is_seen(make):
    signal = make("max", sample=16)
    before = {"one": independent(0, 32), "other": independent(1, 32)}
    after = {"one": independent(2, 32), "other": before["other"].at[3, :].set(jnp.inf)}
    assert not np.isfinite(signal.compare(*(signal.read(x, None) for x in (before, after))))


def test_a_sample_of_two_units_is_one_edge():
    reading = signals.births("max", sample=2).read({"layer": independent(0, 12)}, None)
    assert reading["layer"].shape == (6, 1)


@pytest.mark.parametrize(("make", "least"), list(zip(MAKE, (2, 3, 3), strict=True)))
def test_sample(make, least):
    with pytest.raises(ValueError, match=f"sample must be an integer of at least {least}"):
        make("max", sample=least - 1)


@pytest.mark.parametrize("make", [signals.deaths, signals.barcode])
def test_the_published_distance_is_of_whole_connectomes(make):
    with pytest.raises(ValueError, match="normalise must be True with sample"):
        make(sample=16, normalise=False)
