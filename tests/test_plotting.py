import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgalr_jax import controllers, finder, topology

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  after the choice of the backend

from cgalr_jax import plotting  # noqa: E402

LAYERS = {"first": 5, "second": 4, "third": 3}
UNITS = sum(LAYERS.values())
GRID = np.linspace(0, 1, 200)[1:-1]


@pytest.fixture(scope="module")
def sheet():
    """Axes on which nothing is drawn, for arguments that are refused."""
    figure, axes = plt.subplots(4, 1)
    yield axes
    plt.close(figure)


@pytest.fixture
def matrix():
    rng = np.random.default_rng(0)
    return np.asarray(topology.functional_connectome(rng.normal(size=(32, UNITS)).astype(np.float32)))


@pytest.fixture
def axes():
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


def collections(ax, kind):
    return [c for c in ax.collections if isinstance(c, kind)]


# --- Order.


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


def test_one_unit_has_an_order(ax):
    tree = topology.Tree(np.zeros((0, 2), int), np.zeros(0))
    assert plotting.tree_order(tree).tolist() == [0]
    plotting.plot_connectome(ax, np.zeros((1, 1)))
    assert ax.images[0].get_array().shape == (1, 1)


# --- Connectome and film.


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


# --- Barcode and Betti-0 curve.


def test_barcode_draws_each_bar_where_it_is(ax, matrix):
    bars = topology.compute_barcode(matrix)
    assert plotting.plot_barcode(ax, bars) is ax
    components, cycles = collections(ax, matplotlib.collections.PolyCollection)
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


# --- Spanning tree.


def test_spanning_tree_draws_a_row_a_layer_and_a_curve_an_edge(ax, matrix):
    tree = topology.spanning_tree(matrix)
    assert plotting.plot_spanning_tree(ax, tree, layers=LAYERS) is ax
    (dots,) = collections(ax, matplotlib.collections.PathCollection)
    places = np.asarray(dots.get_offsets())
    np.testing.assert_array_equal(places[:, 1], np.repeat(range(3), list(LAYERS.values())))
    assert len(np.unique(places, axis=0)) == UNITS
    (lines,) = collections(ax, matplotlib.collections.LineCollection)
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


# --- Training trace.


def a_trace(**changes):
    steps = np.arange(1, 7)
    trace = {
        "loss": 1.0 / steps,
        "cgalr/step": steps,
        "cgalr/scale": np.array([0.1, 0.2, 0.4, 0.4, 0.3, 0.2]),
        "cgalr/anchor": np.array([0.1, 0.1, 0.1, 0.4, 0.4, 0.4]),
        "cgalr/distance": np.array([np.nan, 0.1, 1.0, 1.0, 0.5, 0.2]),
        "cgalr/z": np.array([0.0, 1, 2, -1, 0, 0]),
        "cgalr/phase": np.array([0, 0, 0, 1, 1, 1]),
    }
    return {key: value for key, value in (trace | changes).items() if value is not None}


def shaded(ax):
    return [(p.get_x(), p.get_x() + p.get_width(), p.get_facecolor()[:3]) for p in ax.patches]


def rgb(color):
    return matplotlib.colors.to_rgb(color)


def test_training_trace_draws_each_series_in_its_panel(axes):
    trace = a_trace()
    assert plotting.plot_training_trace(axes, trace, set_point=1.0) is axes
    for ax, key in zip(axes, ("loss", "cgalr/scale", "cgalr/distance", "cgalr/z"), strict=True):
        drawn = [np.asarray(line.get_ydata(), float) for line in ax.lines]
        assert any(np.array_equal(line, trace[key], equal_nan=True) for line in drawn), key
    assert [ax.get_ylabel() for ax in axes] == ["loss", "scale", "distance", "z"]
    anchor = next(line for line in axes[1].lines if line.get_label() == "anchor")
    np.testing.assert_array_equal(
        anchor.get_ydata(), [np.nan] * 3 + [0.4] * 3
    )  # none before it is calibrated
    set_point = next(line for line in axes[2].lines if line.get_label() == "set-point")
    assert set(set_point.get_ydata()) == {1.0}
    for ax in axes:
        assert shaded(ax) == [(1, 4, rgb(plotting.ORANGE)), (4, 6, rgb(plotting.SKY))]
    assert axes[0].get_legend_handles_labels()[1] == ["calibrating", "annealing"]


def test_the_learning_rate_multiplies_scale_anchor_and_envelope(axes):
    trace = a_trace()
    bounds = controllers.robbins_monro_bounds(0.1, 2.0, tau=10.0)
    plotting.plot_training_trace(axes, trace, base_learning_rate=0.5, bounds=bounds)
    assert axes[1].get_ylabel() == "learning rate"
    scale, anchor = (np.asarray(line.get_ydata()) for line in axes[1].lines)
    np.testing.assert_allclose(scale, 0.5 * trace["cgalr/scale"])
    assert np.nanmax(anchor) == 0.2
    (envelope,) = axes[1].collections
    drawn = envelope.get_paths()[0].vertices[:, 1]
    ends = 0.5 * np.concatenate([np.ravel(bounds(step)) for step in (1, 6)])
    np.testing.assert_allclose([drawn.min(), drawn.max()], [ends.min(), ends.max()], rtol=1e-6)


def test_the_phases_of_the_gate_are_shaded_by_what_they_do(axes):
    phase = np.array(
        [
            controllers.HOLD,
            controllers.SLOW,
            controllers.SLOW,
            controllers.HOLD,
            controllers.FAST,
            controllers.FAST,
        ]
    )
    plotting.plot_training_trace(axes, a_trace(**{"cgalr/anchor": None, "cgalr/phase": phase}))
    for ax in axes:
        assert shaded(ax) == [(2, 4, rgb(plotting.VERMILION)), (5, 6, rgb(plotting.SKY))]


@pytest.mark.parametrize(
    "trace",
    [
        {},
        {"loss": []},
        {"loss": [1.0]},
        {"loss": [np.nan, np.nan]},
        {"accuracy": [0.1, 0.2]},
        {
            key: np.full_like(value, np.nan, dtype=float)
            for key, value in a_trace().items()
            if key != "cgalr/step"
        },
        a_trace(loss=-np.ones(6)),
        a_trace(**{"cgalr/scale": None, "cgalr/phase": None}),
    ],
)
def test_what_is_missing_leaves_its_panel_empty(axes, trace):
    plotting.plot_training_trace(
        axes, trace, set_point=1.0, bounds=controllers.robbins_monro_bounds(0.1, 2.0, tau=10.0)
    )
    drawn = [bool(np.isfinite(np.asarray(line.get_ydata(), float)).any()) for line in axes[0].lines]
    assert drawn == [bool(np.isfinite(np.asarray(trace.get("loss", []), float)).any())]


def test_a_rate_that_the_trace_knows_is_drawn(axes):
    trace = a_trace()
    rate = 0.5 * trace["cgalr/scale"]
    plotting.plot_training_trace(axes, trace | {"cgalr/learning_rate": rate})
    assert axes[1].get_ylabel() == "learning rate"
    drawn, anchor = (np.asarray(line.get_ydata()) for line in axes[1].lines)
    np.testing.assert_allclose(drawn, rate)
    np.testing.assert_allclose(anchor[3:], 0.2)


def test_three_axes_leave_out_z(axes):
    plotting.plot_training_trace(axes[:3], a_trace())
    assert [ax.get_ylabel() for ax in axes] == ["loss", "scale", "distance", ""]
    assert axes[2].get_xlabel() == "step"


def test_the_loss_of_a_long_run_is_smoothed(axes):
    loss = np.random.default_rng(0).random(150)
    loss[[7, 40, 41, 42]] = np.nan, np.inf, np.nan, np.nan
    plotting.plot_training_trace(axes, {"loss": loss})
    raw, smooth = (np.asarray(line.get_ydata(), float) for line in axes[0].lines)
    np.testing.assert_array_equal(raw, loss)
    for t in (0, 1, 2, 8, 39, 41, 43, 149):
        last = loss[max(t - 2, 0) : t + 1]
        np.testing.assert_allclose(smooth[t], last[np.isfinite(last)].mean(), err_msg=str(t))
    assert np.isnan(smooth[42])


# --- Learning rate curve.


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


# --- What is refused.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda axes, m: plotting.plot_connectome(axes[0], m, layers={"a": 3}),
            "layers must have 12 units .*'a': 3",
        ),
        (
            lambda axes, m: plotting.plot_connectome(axes[0], m, order=[0] * UNITS),
            "order must be a permutation of 12",
        ),
        (
            lambda axes, m: plotting.plot_film(axes, [m]),
            r"equally many, got \(4, 1, 1\)",
        ),
        (lambda axes, m: plotting.plot_film([], []), r"equally many, got \(0, 0, 0\)"),
        (lambda axes, m: plotting.plot_training_trace(axes[:2], {}), "axes must be three or four, got 2"),
        (lambda axes, m: plotting.plot_connectome(None, m), "ax must be matplotlib Axes, got None"),
        (
            lambda axes, m: plotting.plot_connectome(axes[0], m[:3]),
            r"matrix must have shape \[P, P\], got \(3, 12\)",
        ),
        (
            lambda axes, m: plotting.plot_connectome(axes[0], m - 1),
            r"matrix must lie in \[0, 1\], got -1.0 to",
        ),
        (lambda axes, m: plotting.plot_connectome(axes[0], m * np.nan), "got nan to nan"),
        (lambda axes, m: plotting.plot_connectome(axes[0], "matrix"), "matrix must be an array of numbers"),
        (
            lambda axes, m: plotting.plot_connectome(axes[0], m, layers=[12]),
            r"layers must be a mapping .*got \[12\]",
        ),
        (
            lambda axes, m: plotting.plot_connectome(axes[0], m, layers={"a": 13, "b": -1}),
            r"layers\['b'\] must be an integer of at least 1, got -1",
        ),
        (lambda axes, m: plotting.plot_film(axes[:2], [m, m[:3, :3]]), r"the same units, got \[3, 12\]"),
        (lambda axes, m: plotting.plot_barcode(axes[0], m), "bars must be a cgalr_jax.topology.Barcode"),
        (
            lambda axes, m: plotting.plot_betti_curve(axes[0], m),
            r"births must be a row of numbers in \[0, 1\]",
        ),
        (lambda axes, m: plotting.plot_spanning_tree(axes[0], m), "tree must have edges"),
        (
            lambda axes, m: plotting.tree_order(topology.Tree(np.array([[0, 1], [0, 1]]), np.ones(2))),
            r"connect the units 0 to 2, got the edge \(0, 1\)",
        ),
        (
            lambda axes, m: plotting.plot_training_trace(axes, {"loss": [1.0], "z": [1.0, 2.0]}),
            "trace must hold arrays .* of one length",
        ),
        (lambda axes, m: plotting.plot_training_trace(axes, [1.0]), "trace must be a mapping"),
        (
            lambda axes, m: plotting.plot_training_trace(axes, a_trace(), base_learning_rate=[1, 2]),
            r"base_learning_rate must have shape \(\) or \(6,\), got \(2,\)",
        ),
        (
            lambda axes, m: plotting.plot_training_trace(axes, a_trace(), set_point=-1.0),
            "set_point must be positive and finite, got -1.0",
        ),
        (
            lambda axes, m: plotting.plot_training_trace(axes, a_trace(), bounds=2),
            "bounds must be a function",
        ),
        (
            lambda axes, m: plotting.plot_learning_rate_curve(axes[0], 0.1),
            "curve must be .*LearningRateCurve, got 0.1",
        ),
    ],
)
def test_errors_name_the_argument_and_what_was_received(sheet, matrix, call, message):
    with pytest.raises(ValueError, match=message):
        call(sheet, matrix)


def test_public_names_are_listed_and_are_nobody_elses():
    functions = [
        name for name in plotting.__all__ if callable(getattr(plotting, name)) and name != "COLOR_MAP"
    ]
    assert functions == [name for name in functions if name.startswith("plot_") or name == "tree_order"]


@pytest.mark.parametrize(
    "name", ["barcode", "betti_curve", "connectome", "film", "spanning_tree", "training_trace"]
)
def test_an_old_name_warns_and_says_where_to_go(name):
    with pytest.warns(DeprecationWarning, match=f"plotting.{name} is now cgalr_jax.plotting.plot_{name}"):
        assert getattr(plotting, name) is getattr(plotting, f"plot_{name}")


def test_a_name_that_never_was_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'heat'"):
        _ = plotting.heat
