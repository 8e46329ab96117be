import numpy as np
import pytest

from cgalr_jax import topology

matplotlib = pytest.importorskip("matplotlib")
from cgalr_jax import plotting  # noqa: E402  after what it needs

UNITS = 12  # of `matrix`
GRID = np.linspace(0, 1, 200)[1:-1]


def test_barcode_draws_each_bar_where_it_is(ax, matrix):
    bars = topology.compute_barcode(matrix)
    assert plotting.plot_barcode(ax, bars) is ax
    components, cycles = [c for c in ax.collections if isinstance(c, matplotlib.collections.PolyCollection)]
    assert [len(components.get_paths()), len(cycles.get_paths())] == [UNITS, 1]  # apart, and as one area
    spans = [(birth, 1) for birth in [0, *bars.births]], [(0, death) for death in bars.deaths]
    drawn = []
    for group, expected in zip((components, cycles), spans, strict=True):
        heights = np.concatenate([path.vertices[:, 1] for path in group.get_paths()])
        drawn.append((heights.min(), heights.max()))
        rows = np.linspace(heights.min(), heights.max(), len(expected) + 1)
        middles = rows[:-1] + 0.4 * np.diff(rows)  # below the gap
        seen = []
        for y in middles:
            inside = [any(path.contains_point((x, y)) for path in group.get_paths()) for x in GRID]
            seen.append(tuple(np.flatnonzero(inside)))
        wanted = [tuple(np.flatnonzero((left < GRID) & (right > GRID))) for left, right in expected]
        assert sorted(seen) == sorted(wanted)
    assert drawn[0][0] > drawn[1][1]


def test_barcode_of_two_units_has_no_cycles(ax):
    plotting.plot_barcode(ax, topology.compute_barcode(np.array([[0, 0.5], [0.5, 0]])))
    assert [len(c.get_paths()) for c in ax.collections] == [2, 0]


@pytest.mark.parametrize("bins", [None, 16])
def test_barcode_says_how_many_bars_there_are_even_of_quantiles(ax, matrix, bins):
    plotting.plot_barcode(ax, topology.compute_barcode(matrix, bins))
    edges = UNITS * (UNITS - 1) // 2
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"{UNITS}\ncomponents", f"{edges - UNITS + 1}\ncycles"]


def test_betti_curve_counts_the_components_that_are_left(ax, matrix):
    births = np.asarray(topology.compute_births(matrix))
    assert plotting.plot_betti_curve(ax, births, label="now") is ax
    (line,) = ax.lines
    assert line.get_drawstyle() == "steps-post"
    assert line.get_label() == "now"
    x, y = line.get_data()
    assert (x[0], x[-1], y[0], y[-1]) == (0, 1, 1, UNITS)
    for threshold, drawn in zip(x, y, strict=True):
        left = matrix > threshold
        reachable = np.linalg.matrix_power(left + np.eye(UNITS), UNITS) > 0
        assert drawn == len(np.unique(reachable, axis=0))
