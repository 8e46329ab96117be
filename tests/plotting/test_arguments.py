import numpy as np
import pytest

from cgalr_jax import LearningRateCurve, signals, topology

pytest.importorskip("matplotlib")
from cgalr_jax import plotting

UNITS = 12  # of `matrix`
TRACE = {"loss": np.ones(6)}
CURVE = LearningRateCurve(0.1, 0.08, 0.13, True, np.array([0.01, 0.1]), np.array([0.2, 0.9]))


def tree(weights):
    return topology.Tree(np.array([[0, 1], [1, 2]]), np.array(weights))


@pytest.fixture(scope="module")
def sheet():
    """Axes on which nothing is drawn, for arguments that are refused."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    plt = pytest.importorskip("matplotlib.pyplot")  # after the choice of the backend
    figure, axes = plt.subplots(4, 1)
    yield axes
    plt.close(figure)


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
        (lambda axes, m: plotting.plot_connectome(None, m), "ax must be matplotlib Axes, .*got None"),
        (
            lambda axes, m: plotting.plot_connectome(axes[0], m[:3]),
            r"matrix must be \[P, P\] .*, got shape \(3, 12\)",
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
            lambda axes, m: plotting.plot_training_trace(axes, TRACE, base_learning_rate=[1, 2]),
            r"base_learning_rate must have shape \(\) or \(6,\), got \(2,\)",
        ),
        (
            lambda axes, m: plotting.plot_training_trace(axes, TRACE, set_point=-1.0),
            "set_point must be positive and finite, got -1.0",
        ),
        (
            lambda axes, m: plotting.plot_training_trace(axes, TRACE, set_point=signals.frobenius),
            "set_point must be positive and finite, got <function frobenius",
        ),
        (
            lambda axes, m: plotting.plot_training_trace(axes, TRACE, bounds=2),
            "bounds must be a function",
        ),
        (
            lambda axes, m: plotting.plot_learning_rate_curve(axes[0], 0.1),
            "curve must be .*LearningRateCurve, got 0.1",
        ),
        *(
            (lambda axes, m, curve=curve: plotting.plot_learning_rate_curve(axes[0], curve), message)
            for curve, message in (
                (CURVE._replace(rates=np.ones(3)), r"curve must hold arrays .*'rates': \(3,\), 'dist"),
                (CURVE._replace(distances=None), r"curve\['distances'\] must be an array of numbers"),
                (CURVE._replace(low=None), "curve.low must be an array of numbers, got None"),
            )
        ),
        *(
            (lambda axes, m, weights=weights: plotting.plot_spanning_tree(axes[0], tree(weights)), message)
            for weights, message in (
                (["a", "b"], "tree.weights must be an array of numbers"),
                ([None, 1], "tree.weights must be an array of numbers"),
                ([np.nan, 1], r"tree.weights must be a row of numbers in \[0, 1\]"),
                ([-1, 1], r"tree.weights must be a row of numbers in \[0, 1\]"),
            )
        ),
    ],
)
def test_errors_name_the_argument_and_what_was_received(sheet, matrix, call, message):
    with pytest.raises(ValueError, match=message):
        call(sheet, matrix)


@pytest.mark.parametrize("kind", ["removed", "round"])
@pytest.mark.parametrize("name", ["connectome", "barcode", "film", "training_trace"])
def test_axes_that_cannot_be_drawn_on(matrix, kind, name):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots(3, subplot_kw={"projection": "polar"} if kind == "round" else None)
    if kind == "removed":
        axes[2].remove()
    call = {
        "connectome": lambda: plotting.plot_connectome(axes[2], matrix),
        "barcode": lambda: plotting.plot_barcode(axes[2], topology.compute_barcode(matrix)),
        "film": lambda: plotting.plot_film(axes, [matrix] * 3),
        "training_trace": lambda: plotting.plot_training_trace(axes, TRACE),
    }[name]
    with pytest.raises(ValueError, match="must be matplotlib Axes, rectangular ones of a figure, got"):
        call()


@pytest.mark.parametrize("as_given", [dict.values, lambda axes: iter(axes.values())])
def test_axes_of_a_mosaic(matrix, as_given):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplot_mosaic("a;b;c")
    plotting.plot_training_trace(as_given(axes), TRACE)
    assert [ax.get_ylabel() for ax in axes.values()] == ["loss", "scale", "distance"]
    figure.clear()
    axes = figure.subplot_mosaic("a;b;c")
    assert plotting.plot_film(as_given(axes), [matrix] * 3) == list(axes.values())


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
