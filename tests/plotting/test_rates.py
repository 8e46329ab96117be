import numpy as np
import pytest

from cgalr_jax import finder

pytest.importorskip("matplotlib")
from cgalr_jax import plotting


def test_learning_rate_curve_draws_every_rate_and_what_was_found(ax):
    rates, distances = np.geomspace(0.01, 1, 5), np.array([0.1, 0.4, 1.2, 3.0, np.nan])
    curve = finder.LearningRateCurve(0.08, 0.06, 0.1, True, rates, distances)
    assert plotting.plot_learning_rate_curve(ax, curve) is ax
    line, lost, set_point, found = ax.lines
    np.testing.assert_array_equal(line.get_data(), (rates[:4], distances[:4]))
    assert list(lost.get_xdata()) == [1.0]
    assert set(set_point.get_ydata()) == {1.0}
    assert set(found.get_xdata()) == {0.08}
    assert found.get_label() == "rate 0.08 (0.06 to 0.1)"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_learning_rate_curve_says_that_it_ended_early(ax):
    curve = finder.LearningRateCurve(1.0, 1.0, 1.0, False, np.array([0.1, 1.0]), np.array([0.1, 0.2]))
    plotting.plot_learning_rate_curve(ax, curve)
    assert "rate 1, the set-point was not reached" in ax.get_legend_handles_labels()[1]
