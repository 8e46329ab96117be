import numpy as np
import pytest

from cgalr_jax import controllers

matplotlib = pytest.importorskip("matplotlib")
from cgalr_jax import plotting  # noqa: E402  after what it needs


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
    rows = []
    for patch in ax.patches:
        drawn = patch.get_xy()  # closed by its first corner, if it does not end there
        for corners in drawn[: len(drawn) // 4 * 4].reshape(-1, 4, 2):
            left, right = corners[0, 0], corners[2, 0]
            np.testing.assert_array_equal(corners, [(left, 0), (left, 1), (right, 1), (right, 0)])
            rows.append((left, right, patch.get_facecolor()[:3]))
    return sorted(rows)


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


def test_the_motion_is_drawn_where_it_is_known_and_1_is_its_set_point(axes):
    motion = np.array([np.nan, 0.01, 0.1, 0.9, 0.5, 0.2])
    plotting.plot_training_trace(axes, a_trace(**{"cgalr/motion": motion}), set_point=3.0)
    drawn, set_point = axes[2].lines
    np.testing.assert_array_equal(drawn.get_ydata(), motion)
    assert set(set_point.get_ydata()) == {1.0}
    assert axes[2].get_ylabel() == "motion"


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


def test_a_phase_that_comes_and_goes_is_one_patch(axes):
    rows = 400
    trace = {"cgalr/step": np.arange(rows), "cgalr/scale": np.ones(rows), "cgalr/anchor": np.ones(rows)}
    plotting.plot_training_trace(axes, trace | {"cgalr/phase": np.arange(rows) % 2})
    assert len(axes[0].patches) == 2
    assert [row[:2] for row in shaded(axes[0])] == [(row, row + 1) for row in range(rows - 1)] + [(399, 399)]


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


@pytest.mark.parametrize("nowhere", [[0], [5], [2, 3], [0, 1, 2, 4, 5]])
@pytest.mark.parametrize("step", [np.nan, np.inf])
def test_rows_without_a_step_are_left_out(axes, nowhere, step):
    trace = {key: np.array(value, dtype=float) for key, value in a_trace().items()}
    trace["cgalr/step"][nowhere] = step
    base = np.linspace(0.1, 0.6, 6)
    plotting.plot_training_trace(axes, trace, base_learning_rate=base, bounds=lambda step: (0.1, 1 / step))
    rest = np.delete(np.arange(6), nowhere)
    for ax, drawn in ((axes[0], trace["loss"]), (axes[1], base * trace["cgalr/scale"])):
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), trace["cgalr/step"][rest])
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), drawn[rest])
    first, last = trace["cgalr/step"][rest[[0, -1]]]
    assert {ax.get_xlim() for ax in axes} == {(first, max(last, first + 1))}
    spans = [edge for left, right, _ in shaded(axes[0]) for edge in (left, right)]
    assert (min(spans), max(spans)) == (first, last)


def test_a_scale_of_somebody_else_may_be_infinite(axes):
    trace = {key: np.array(value, dtype=float) for key, value in a_trace().items()}
    trace["cgalr/learning_rate"] = 0.1 * trace["cgalr/scale"]
    trace["cgalr/scale"][2] = trace["cgalr/learning_rate"][2] = np.inf
    plotting.plot_training_trace(axes, trace, bounds=lambda step: (0.1, 2.0))
    drawn = np.asarray(axes[1].lines[0].get_ydata())
    assert np.isfinite(drawn).tolist() == [True, True, False, True, True, True]


def test_a_base_learning_rate_may_be_unknown_in_some_rows(axes):
    base = np.array([0.1, np.nan, 0.0, 0.1, 0.1, 0.1])
    plotting.plot_training_trace(axes, a_trace(), base_learning_rate=base)
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), base * a_trace()["cgalr/scale"])


@pytest.mark.parametrize("rate", [np.nan, -1.0, np.inf, [0.1] * 5 + [-0.1], [0.1] * 5 + [np.inf]])
@pytest.mark.parametrize("trace", [a_trace(), {}])
def test_a_base_learning_rate_that_is_none_is_refused(axes, rate, trace):
    with pytest.raises(ValueError, match="base_learning_rate must be finite and at least 0"):
        plotting.plot_training_trace(axes, trace, base_learning_rate=rate)


def test_where_no_row_has_a_step_the_axis_is_the_row(axes):
    plotting.plot_training_trace(axes, a_trace(**{"cgalr/step": np.full(6, np.nan)}))
    np.testing.assert_array_equal(axes[0].lines[0].get_xdata(), np.arange(6))


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
