"""Births of sub-samples: trees of one size, whatever the width of the layer."""

import jax.numpy as jnp
import numpy as np
import pytest

from cgalr_jax import signals


def independent(seed, width, samples=256):
    random = np.random.default_rng(seed)
    return jnp.asarray(random.standard_normal((samples, width)), jnp.float32)


def moved(signal, width):
    before = independent(0, width)
    after = before + 0.3 * independent(1, width)
    return float(signal.compare(*(signal.read({"layer": x}, None) for x in (before, after))))


def test_the_distance_hardly_depends_on_the_width():
    sampled = [moved(signals.births("max", sample=16), width) for width in (32, 1024)]
    assert abs(np.log(sampled[0] / sampled[1])) < 0.4


@pytest.mark.parametrize(("width", "shape"), [(256, (6, 15)), (32, (6, 15)), (31, (1, 15)), (9, (1, 8))])
def test_reading(width, shape):
    reading = signals.births("max", sample=16).read({"layer": independent(0, width)}, None)
    assert reading["layer"].shape == shape


def test_the_largest_of_the_layers():
    signal = signals.births("max", sample=16)
    still = independent(0, 32)
    before = {"still": still, "slow": still, "fast": still}
    after = {"still": still, "slow": still + 0.1 * independent(1, 32), "fast": still + 2 * independent(1, 32)}
    fastest = signal.compare(*(signal.read({"fast": x["fast"]}, None) for x in (before, after)))
    assert signal.compare(*(signal.read(x, None) for x in (before, after))) == fastest


def test_a_sample_of_two_units_is_one_edge():
    reading = signals.births("max", sample=2).read({"layer": independent(0, 12)}, None)
    assert reading["layer"].shape == (6, 1)


def test_sample():
    with pytest.raises(ValueError, match="sample must be an integer of at least 2"):
        signals.births("max", sample=1)
