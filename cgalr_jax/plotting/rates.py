"""What `find_learning_rate` found."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cgalr_jax import _checks
from cgalr_jax.plotting import _inputs
from cgalr_jax.plotting._style import BLUE, GREY, ORANGE, SMALL, VERMILION, clean

__all__ = ["plot_learning_rate_curve"]


def plot_learning_rate_curve(ax: Axes, curve: Any) -> Axes:
    """Draws what `find_learning_rate` saw: the distance at each rate, and the rate that was found.

    A rate at which the distance was not finite is a cross at the upper edge.

    Args:
        ax: where to draw.
        curve: a `cgalr_jax.LearningRateCurve`.

    Returns:
        The Axes.

    Raises:
        ValueError: if the curve is of another type, or what it holds is not numbers, one distance a rate.

    Example:
        >>> import matplotlib.figure
        >>> from cgalr_jax import LearningRateCurve
        >>> rates, distances = np.array([0.01, 0.1, 1.0]), np.array([0.2, 0.9, 4.0])
        >>> ax = matplotlib.figure.Figure().subplots()
        >>> ax = plot_learning_rate_curve(ax, LearningRateCurve(0.1, 0.08, 0.13, True, rates, distances))
        >>> ax.get_legend_handles_labels()[1]
        ['set-point', 'rate 0.1 (0.08 to 0.13)']
    """
    _inputs.check_axes("ax", ax)
    if not all(hasattr(curve, name) for name in ("rate", "low", "high", "reached", "rates", "distances")):
        raise ValueError(f"curve must be a cgalr_jax.LearningRateCurve, got {_checks.shown(curve)}.")
    for name in ("rate", "low", "high"):
        _checks.real_scalar(f"curve.{name}", getattr(curve, name))
    series = {name: getattr(curve, name) for name in ("rates", "distances")}
    rates, distances = _inputs.as_series("curve", series).values()
    finite = np.isfinite(distances)
    ax.plot(rates[finite], distances[finite], color=BLUE, marker="o", markersize=3.5, linewidth=1.1)
    for rate in rates[~finite]:
        ax.plot(rate, 0.97, "x", color=VERMILION, transform=ax.get_xaxis_transform())
    ax.axhline(1.0, color=GREY, linewidth=0.9, linestyle=":", label="set-point")
    found = f"rate {curve.rate:.2g}"
    found += f" ({curve.low:.2g} to {curve.high:.2g})" if curve.reached else ", the set-point was not reached"
    ax.axvline(curve.rate, color=ORANGE, linewidth=1.3, label=found)
    ax.axvspan(curve.low, curve.high, color=ORANGE, alpha=0.15, linewidth=0)
    ax.set(xscale="log", xlabel="learning rate", ylabel="distance, in set-points")
    if np.any(distances[finite] > 0):
        ax.set_yscale("log", nonpositive="mask")
    legend = ax.legend(fontsize=SMALL, frameon=False, loc="best")
    legend.set_in_layout(False)  # it may be wider than narrow axes, which shall not shrink for it
    return clean(ax)
