import numpy as np
import pytest

from cgalr_jax import signals, topology

pytest.importorskip("matplotlib")
from cgalr_jax import plotting

UNITS = 12  # of `matrix`
TRACE = {"loss": np.ones(6)}


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
