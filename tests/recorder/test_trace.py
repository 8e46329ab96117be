import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from traces import filled, same

import cgalr_jax
from cgalr_jax import recorder


def test_rows_become_arrays_and_what_is_missing_is_nan():
    trace = recorder.TraceRecorder()
    trace.record({"cgalr/scale": jnp.float32(0.5), "a": 1}, loss=2)
    trace.record({"cgalr/scale": np.float64(0.25), "cgalr/phase": jnp.int32(1)})
    trace.record(loss=jnp.array([3.0], jnp.bfloat16), done=True)
    assert len(trace) == 3
    expected = {
        "cgalr/scale": [0.5, 0.25, math.nan],
        "a": [1.0, math.nan, math.nan],
        "loss": [2.0, math.nan, 3.0],
        "cgalr/phase": [math.nan, 1.0, math.nan],
        "done": [math.nan, math.nan, 1.0],
    }
    assert same(trace.arrays(), expected)
    assert {array.dtype for array in trace.arrays().values()} == {np.dtype(np.float64)}


def test_metrics_of_a_run_are_recorded_and_drawn():
    figure = pytest.importorskip("matplotlib.figure")
    tx = optax.chain(optax.sgd(0.1), cgalr_jax.scale_by_connectome({"dense": 4}, every=2))
    params = jax.random.normal(jax.random.key(0), (3, 4))
    state, trace = tx.init(params), recorder.TraceRecorder()
    samples = jax.random.normal(jax.random.key(1), (16, 3))
    step = jax.jit(
        lambda params, state: tx.update(params, state, params, probe=lambda p: {"dense": samples @ p}),
        donate_argnums=1,
    )
    for loss in (3.0, 2.0, 1.0, 0.5):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
        trace.record(cgalr_jax.metrics(state), loss=loss)
    assert trace.arrays()["cgalr/step"].tolist() == [1, 2, 3, 4]
    assert trace.summary().startswith("loss 0.5 · scale ")
    axes = trace.plot(figure.Figure().subplots(4, 1))
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), trace.arrays()["cgalr/scale"])


def test_your_own_scalar_wins():
    trace = recorder.TraceRecorder()
    trace.record({"loss": 1.0}, loss=2.0)
    assert trace.arrays()["loss"].tolist() == [2.0]


def test_a_state_may_be_donated_after_it_was_recorded():
    trace = recorder.TraceRecorder()
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    state = step(jnp.float32(0))
    for _ in range(3):
        trace.record({"state": state})
        state = step(state)
    assert trace.arrays()["state"].tolist() == [1, 2, 3]


def test_only_scalars_are_taken():
    with pytest.raises(ValueError, match=r"loss must be a scalar, got shape \(2,\)"):
        recorder.TraceRecorder().record(loss=jnp.zeros(2))


def test_what_a_scan_has_stacked_is_recorded_as_the_error_says():
    _, rows = jax.lax.scan(lambda x, _: (x + 1, {"loss": x}), jnp.float32(0), None, 3)
    trace = recorder.TraceRecorder()
    with pytest.raises(ValueError, match="What a lax.scan has stacked is recorded row by row"):
        trace.record(rows)
    for i in range(3):
        trace.record(jax.tree.map(lambda x, i=i: x[i], rows))
    assert trace.arrays()["loss"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("row", "keys", "line"),
    [
        ({}, (), ""),
        ({"cgalr/z": -0.5, "loss": 0.1234}, (), "loss 0.123 · z -0.5"),
        ({"cgalr/step": 120, "cgalr/phase": 1, "cgalr/scale": 2}, (), "scale 2"),
        ({"cgalr/step": 12345}, ("cgalr/step",), "step 12345"),
        ({"cgalr/skipped": 0, "cgalr/distance": math.nan}, (), "distance nan"),
        ({"cgalr/1/distance": 0.2, "cgalr/1/motion": 4.0}, (), "1/motion 4"),
        ({"cgalr/skipped": 3, "loss": math.inf}, (), "loss inf · skipped 3"),
        ({"cgalr/0/scale": 0.5, "cgalr/1/scale": 1e-9}, (), "0/scale 0.5 · 1/scale 1e-09"),
        ({"loss": 1.0, "accuracy": 0.5}, ("accuracy", "absent"), "accuracy 0.5"),
    ],
)
def test_summary_is_one_line(row, keys, line):
    assert filled([{"other": 1.0}, row]).summary(*keys) == line


def test_an_empty_trace_can_do_everything(tmp_path):
    trace = recorder.TraceRecorder()
    assert trace.arrays() == {}
    assert trace.summary() == ""
    trace.save(tmp_path / "empty.npz")
    assert len(recorder.TraceRecorder.load(tmp_path / "empty.npz")) == 0


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"cgalr/scale": 2, "cgalr/ended": 0}, "scale 2 · calibration unfinished"),
        ({"cgalr/scale": 2, "cgalr/ended": 1}, "scale 2"),
        ({"cgalr/scale": 2, "cgalr/ended": 2}, "scale 2 · calibration ended by time"),
        ({"cgalr/ended": 3, "cgalr/refused": 1}, "refused 1 · calibration ended by the guard"),
        ({"cgalr/0/ended": 1, "cgalr/1/ended": 2}, "1/calibration ended by time"),
        ({"cgalr/ended": math.nan, "ended": 2}, "ended 2"),
    ],
)
def test_summary_warns_of_a_calibration_that_did_not_reach_its_set_point(row, line):
    assert filled([row]).summary() == line


def test_summary_warns_whatever_is_shown():
    assert (
        filled([{"loss": 1, "cgalr/ended": 3}]).summary("loss") == "loss 1 · calibration ended by the guard"
    )


def test_plot_is_the_training_trace():
    figure = pytest.importorskip("matplotlib.figure")
    axes = figure.Figure().subplots(4, 1)
    trace = filled([{"cgalr/step": step, "loss": 1.0 / step} for step in (1, 2, 3)])
    assert trace.plot(axes, base_learning_rate=0.1) is axes
    assert axes[1].get_ylabel() == "learning rate"
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), trace.arrays()["loss"])


def test_recording_needs_neither_matplotlib_nor_tensorboard():
    program = "import sys; from cgalr_jax import recorder; recorder.TraceRecorder().record(loss=1.0); "
    program += "assert not {'matplotlib', 'tensorboardX'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_thread_may_record_while_another_reads(tmp_path):
    """A row that comes in while the arrays are made belongs to the next ones."""
    trace = recorder.TraceRecorder()

    class Row(dict):
        def get(self, key, default):
            trace._rows.append({"loss": 2.0, "late": 1.0})
            return super().get(key, default)

    trace._rows += [Row(loss=1.0), Row(other=1.0)]
    assert {key: len(values) for key, values in trace.arrays().items()} == {"loss": 2, "other": 2}
    rows = len(trace)
    trace.save(tmp_path / "run.npz")
    assert len(recorder.TraceRecorder.load(tmp_path / "run.npz")) == rows


def test_record_returns_the_row_as_other_loggers_take_it():
    row = recorder.TraceRecorder().record({"cgalr/scale": jnp.float32(0.5)}, loss=jnp.bfloat16(2))
    assert row == {"cgalr/scale": 0.5, "loss": 2.0}
    assert {type(value) for value in row.values()} == {float}


@pytest.mark.parametrize(
    "value",
    [2**70, -(2**70), np.uint64(2**64 - 1), np.array(2**70, object), np.longdouble(0.5), jnp.int4(-3), [2.0]],
)
def test_a_real_number_of_any_kind_is_its_float(value):
    row = recorder.TraceRecorder().record(loss=value)
    assert row == {"loss": float(np.asarray(value).reshape(()))}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.record(loss="low"), "loss must be a real number, got .*'low'"),
        (lambda r: r.record(loss=None), "loss must be a real number, got None"),
        (lambda r: r.record(loss=1j), "loss must be a real number"),
        (lambda r: r.record(loss=np.ma.masked), "loss must be a real number, got masked"),
        (lambda r: r.record(loss=np.ma.array([1.0])), "loss must be a real number, got an array of shape"),
        (lambda r: r.record(loss=jax.random.key(0)), "loss must be a real number, got .*key"),
        (lambda r: r.record(loss=[jax.random.key(0)]), "loss must be a real number, got .*key"),
        (lambda r: r.record(loss=[[1], [1, 2]]), r"loss must be a real number, got \[\[1\], \[1, 2\]\]"),
        (lambda r: r.record(loss={"a": 1.0}), "loss must be a real number, got {'a': 1.0}"),
        (lambda r: r.record(loss=10**400), "loss must be a real number, got 1000"),
        (lambda r: r.record(loss=np.timedelta64(1, "s")), "loss must be a real number"),
        (lambda r: r.record(loss=[]), r"loss must be a scalar, got shape \(0,\)"),
        (lambda r: r.record([1.0]), "metrics must be a mapping of keys to scalars, got"),
        (lambda r: r.record({"": 1.0}), "metrics must have keys that are not empty .*got ''"),
        (lambda r: jax.jit(lambda x: r.record(loss=x) and x)(1.0), r"outside of jit.*got traced \['loss'\]"),
        (lambda r: (r.close(), r.record(loss=1.0)), "before the recorder is closed"),
    ],
)
def test_wrong_rows_are_refused_and_leave_nothing_behind(call, message):
    trace = recorder.TraceRecorder()
    with pytest.raises(ValueError, match=message):
        call(trace)
    assert len(trace) == 0
