import numpy as np
import pytest

from cgalr_jax import topology

pytest.importorskip("matplotlib")
from cgalr_jax import plotting

LAYERS = {"first": 5, "second": 4, "third": 3}
UNITS = sum(LAYERS.values())


def test_the_colour_map_falls_evenly_in_lightness():
    weights = np.linspace(0, 1, 101)
    rgb = plotting.COLOR_MAP(weights)[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    dark = luminance * 24389 / 27
    lightness = np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, dark)  # CIE L*
    np.testing.assert_allclose(lightness, 100 * (1 - weights), atol=4)


def test_connectome_shows_every_unit_in_the_order_of_the_tree(ax, matrix):
    assert plotting.plot_connectome(ax, matrix) is ax
    order = plotting.tree_order(topology.spanning_tree(matrix))
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array(), matrix[np.ix_(order, order)])
    assert image.get_clim() == (0, 1)
    assert len(ax.child_axes) == 1
    assert not ax.lines


def test_layers_stay_apart_and_are_named(ax, matrix):
    plotting.plot_connectome(ax, matrix, layers=LAYERS, colorbar=False)
    shown = ax.images[0].get_array()
    start = 0
    for size in LAYERS.values():
        block = slice(start, start + size)
        np.testing.assert_array_equal(
            np.sort(shown[block, block], axis=None), np.sort(matrix[block, block], axis=None)
        )
        start += size
    borders = {line.get_xdata()[0] for line in ax.lines if line.get_xdata()[0] == line.get_xdata()[1]}
    assert borders == {4.5, 8.5}
    assert [label.get_text() for label in ax.get_xticklabels()] == list(LAYERS)
    assert not ax.child_axes


def test_a_given_order_is_kept(ax, matrix):
    plotting.plot_connectome(ax, matrix, order=np.arange(UNITS)[::-1])
    np.testing.assert_array_equal(ax.images[0].get_array(), matrix[::-1, ::-1])


def test_a_film_keeps_each_unit_in_its_place(axes, matrix):
    frames = [matrix, np.roll(matrix, 1, axis=(0, 1)), 0.5 * matrix, matrix**2]
    order = plotting.tree_order(topology.spanning_tree(frames[-1]))
    assert plotting.plot_film(axes, frames, titles=list("abcd")) == list(axes)
    for ax, frame, title in zip(axes, frames, "abcd", strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), frame[np.ix_(order, order)])
        assert ax.get_title() == title
    assert [len(ax.child_axes) for ax in axes] == [0, 0, 0, 1]
