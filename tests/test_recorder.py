import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cgalr_jax
from cgalr_jax import recorder

keys = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=8)
rows = st.lists(st.dictionaries(keys, st.floats(), max_size=4), max_size=5)


def filled(rows):
    trace = recorder.TraceRecorder()
    for row in rows:
        trace.record(row)
    return trace


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[key], b[key], equal_nan=True) for key in a)


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
    axes = trace.plot(figure.Figure().subplots(4, 1), set_point=1.0)
    np.testing.assert_array_equal(axes[1].lines[0].get_ydata(), trace.arrays()["cgalr/scale"])


def test_your_own_scalar_wins():
    trace = recorder.TraceRecorder()
    trace.record({"loss": 1.0}, loss=2.0)
    assert trace.arrays()["loss"].tolist() == [2.0]


@given(rows)
def test_what_is_saved_is_loaded(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("trace") / "run"  # without a suffix, and none is added
    trace = filled(rows)
    trace.save(path)
    loaded = recorder.TraceRecorder.load(path)
    assert len(loaded) == len(trace)
    assert same(loaded.arrays(), trace.arrays())
    loaded.record(another=1.0)
    assert len(loaded.arrays()["another"]) == len(rows) + 1


def test_the_file_is_one_structured_array(tmp_path):
    filled([{"cgalr/scale": 0.5}, {"loss": 1.0}]).save(tmp_path / "run.npz")
    with np.load(tmp_path / "run.npz") as file:
        assert file["trace"]["loss"].tolist()[1:] == [1.0]
        assert file["trace"].dtype.names == ("cgalr/scale", "loss")


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


@pytest.mark.parametrize(
    ("row", "keys", "line"),
    [
        ({}, (), ""),
        ({"cgalr/z": -0.5, "loss": 0.1234}, (), "loss 0.123 · z -0.5"),
        ({"cgalr/step": 120, "cgalr/phase": 1, "cgalr/scale": 2}, (), "scale 2"),
        ({"cgalr/step": 12345}, ("cgalr/step",), "step 12345"),
        ({"cgalr/skipped": 0, "cgalr/distance": math.nan}, (), "distance nan"),
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


def test_plot_is_the_training_trace():
    figure = pytest.importorskip("matplotlib.figure")
    axes = figure.Figure().subplots(4, 1)
    trace = filled([{"cgalr/step": step, "loss": 1.0 / step} for step in (1, 2, 3)])
    assert trace.plot(axes, base_learning_rate=0.1) is axes
    assert axes[1].get_ylabel() == "learning rate"
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), trace.arrays()["loss"])


def test_tensorboard_gets_each_scalar_at_its_step(tmp_path, monkeypatch):
    tensorboardX = pytest.importorskip("tensorboardX")
    written = []
    monkeypatch.setattr(
        tensorboardX.SummaryWriter,
        "add_scalar",
        lambda _, key, value, step: written.append((key, value, step)),
    )
    rows = [{"cgalr/step": 10, "loss": 1.0}, {"loss": 0.5}, {"cgalr/step": 30, "cgalr/z": 2.0}]
    filled(rows).to_tensorboard(tmp_path)
    assert written == [
        ("cgalr/step", 10, 10),
        ("loss", 1.0, 10),
        ("loss", 0.5, 1),
        ("cgalr/step", 30, 30),
        ("cgalr/z", 2.0, 30),
    ]


def test_tensorboard_writes_an_event_file(tmp_path):
    pytest.importorskip("tensorboardX")
    filled([{"cgalr/scale": 0.5, "loss": math.nan}]).to_tensorboard(tmp_path)
    (file,) = tmp_path.iterdir()
    assert b"cgalr/scale" in file.read_bytes()


def test_without_tensorboard_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="pip install tensorboardX"):
        recorder.TraceRecorder().to_tensorboard(tmp_path)


def test_recording_needs_neither_matplotlib_nor_tensorboard():
    program = "import sys; from cgalr_jax import recorder; recorder.TraceRecorder().record(loss=1.0); "
    program += "assert not {'matplotlib', 'tensorboardX'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
