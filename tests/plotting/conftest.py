"""Axes to draw on, and a connectome of twelve units."""

import numpy as np
import pytest

from cgalr_jax import topology


@pytest.fixture
def matrix():
    rng = np.random.default_rng(0)
    return np.asarray(topology.functional_connectome(rng.normal(size=(32, 12)).astype(np.float32)))


@pytest.fixture
def axes():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    plt = pytest.importorskip("matplotlib.pyplot")  # after the choice of the backend
    figure, axes = plt.subplots(4, 1)
    style, figures = dict(matplotlib.rcParams), plt.get_fignums()
    yield axes
    assert dict(matplotlib.rcParams) == style
    assert plt.get_fignums() == figures
    figure.canvas.draw()  # whatever was drawn can be rendered
    plt.close(figure)


@pytest.fixture
def ax(axes):
    return axes[0]
