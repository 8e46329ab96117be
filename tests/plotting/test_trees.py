import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgalr_jax import topology

matplotlib = pytest.importorskip("matplotlib")
from cgalr_jax import plotting  # noqa: E402  after what it needs

LAYERS = {"first": 5, "second": 4, "third": 3}
UNITS = sum(LAYERS.values())


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_components_of_the_tree_are_contiguous_at_every_threshold(units, seed):
    rng = np.random.default_rng(seed)
    edges = np.array([[rng.integers(unit), unit] for unit in range(1, units)])
    weights = np.round(rng.random(units - 1), 1)
    order = plotting.tree_order(topology.Tree(edges, weights))
    assert sorted(order) == list(range(units))
    place = np.argsort(order)
    for threshold in np.append(weights, -1.0):
        component = np.arange(units)
        for i, j in edges[weights > threshold]:
            component[component == component[i]] = component[j]
        for name in np.unique(component):
            places = place[component == name]
            assert places.max() - places.min() == len(places) - 1


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32])
def test_weights_of_any_kind_are_ordered_alike(dtype):
    edges, weights = np.array([[0, 1], [1, 2], [1, 3]]), np.array([0, 0, 1])
    place = np.argsort(plotting.tree_order(topology.Tree(edges, weights.astype(dtype))))
    assert abs(place[1] - place[3]) == 1  # the strong edge, which comes last, is short


def test_one_unit_has_an_order(ax):
    tree = topology.Tree(np.zeros((0, 2), int), np.zeros(0))
    assert plotting.tree_order(tree).tolist() == [0]
    plotting.plot_connectome(ax, np.zeros((1, 1)))
    assert ax.images[0].get_array().shape == (1, 1)


def test_spanning_tree_draws_a_row_a_layer_and_a_curve_an_edge(ax, matrix):
    tree = topology.spanning_tree(matrix)
    assert plotting.plot_spanning_tree(ax, tree, layers=LAYERS) is ax
    (dots,) = (c for c in ax.collections if isinstance(c, matplotlib.collections.PathCollection))
    places = np.asarray(dots.get_offsets())
    np.testing.assert_array_equal(places[:, 1], np.repeat(range(3), list(LAYERS.values())))
    assert len(np.unique(places, axis=0)) == UNITS
    (lines,) = (c for c in ax.collections if isinstance(c, matplotlib.collections.LineCollection))
    order = np.argsort(tree.weights, kind="stable")
    for segment, edge, weight, drawn in zip(
        lines.get_segments(),
        np.asarray(tree.edges)[order],
        np.asarray(tree.weights)[order],
        lines.get_array(),
        strict=True,
    ):
        np.testing.assert_allclose(segment[[0, -1]], places[edge])
        assert drawn == weight
    widths = lines.get_linewidths()
    assert np.all(np.diff(widths) >= 0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first\n5", "second\n4", "third\n3"]
    low, high = ax.get_ylim()
    for segment in lines.get_segments():
        assert low <= segment[:, 1].min() <= segment[:, 1].max() <= high


def test_spanning_tree_without_layers_is_one_row(ax, matrix):
    plotting.plot_spanning_tree(ax, topology.spanning_tree(matrix))
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"{UNITS} units\n{UNITS}"]
