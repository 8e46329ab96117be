import html.parser
import io
import json
import math
import os
import pickle
import re
import stat
import subprocess
import sys
import time

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


# --- What is recorded.


def test_record_returns_the_row_as_other_loggers_take_it():
    row = recorder.TraceRecorder().record({"cgalr/scale": jnp.float32(0.5)}, loss=jnp.bfloat16(2))
    assert row == {"cgalr/scale": 0.5, "loss": 2.0}
    assert {type(value) for value in row.values()} == {float}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.record(loss="low"), "loss must be a real number, got .*'low'"),
        (lambda r: r.record(loss=None), "loss must be a real number, got None"),
        (lambda r: r.record(loss=1j), "loss must be a real number"),
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


# --- Streams.


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def test_each_row_is_in_the_file_at_once(tmp_path):
    path = tmp_path / "run.jsonl"
    with recorder.TraceRecorder(jsonl=path) as trace:
        for number, loss in enumerate((2.0, math.nan, -math.inf), start=1):
            trace.record({"cgalr/scale": 0.5}, loss=loss)
            assert len(lines(path)) == number
    assert lines(path) == [{"cgalr/scale": 0.5, "loss": loss} for loss in (2.0, None, None)]
    assert len(trace) == 3
    trace.save(tmp_path / "run.npz")  # closed, but all there


def test_a_second_run_goes_on_where_the_first_ended(tmp_path):
    path = tmp_path / "run.jsonl"
    for loss in (2.0, 1.0):
        with recorder.TraceRecorder(jsonl=path) as trace:
            trace.record(loss=loss)
    assert lines(path) == [{"loss": 2.0}, {"loss": 1.0}]


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (b'{"loss": 2.0}\n{"lo', [{"loss": 2.0}]),  # killed within a row
        (b'{"lo', []),
        (b'{"loss": 2.0}', [{"loss": 2.0}]),  # and before its end of line
        (b"", []),
    ],
)
def test_half_a_row_is_cut_off_and_a_whole_one_is_kept(tmp_path, before, kept):
    path = tmp_path / "run.jsonl"
    path.write_bytes(before)
    with recorder.TraceRecorder(jsonl=path) as trace:
        trace.record(loss=1.0)
    assert lines(path) == [*kept, {"loss": 1.0}]


@pytest.mark.parametrize("content", [b"my thesis", b"a,b\n1,2\n", b"[1, 2]\n", b"{oops}\n", b"\xff\xfe"])
def test_a_file_that_is_no_json_lines_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "thesis"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="jsonl must be a file of JSON lines, got .*thesis, which ends"):
        recorder.TraceRecorder(jsonl=path)
    assert path.read_bytes() == content


def test_a_run_is_streamed_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    with recorder.TraceRecorder(tensorboard=tmp_path) as trace:
        trace.record({"cgalr/step": 7, "cgalr/scale": 0.5})
        (file,) = tmp_path.iterdir()
        patience = time.monotonic() + 30
        while b"cgalr/scale" not in file.read_bytes():  # while the run goes on
            assert time.monotonic() < patience
            time.sleep(0.1)


@pytest.mark.slow
def test_a_kill_loses_no_row(tmp_path):
    program = "import os, signal, sys; from cgalr_jax import recorder; "
    program += "trace = recorder.TraceRecorder(jsonl=sys.argv[1]); "
    program += "[trace.record(loss=float(k)) for k in range(3)]; os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "run.jsonl")], check=False)
    assert [row["loss"] for row in lines(tmp_path / "run.jsonl")] == [0, 1, 2]


# --- Files that are replaced whole, or not at all.


class FullError(OSError):
    pass


def test_a_full_disk_leaves_the_previous_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    filled([{"loss": 1.0}]).save(path)
    before = path.read_bytes()

    def fail_midway(file, **arrays):
        file.write(b"PK half of it")
        raise FullError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail_midway)
    with pytest.raises(FullError):
        filled([{"loss": 2.0}]).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


def test_a_kill_on_the_way_leaves_the_previous_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    filled([{"loss": 1.0}]).save(path)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        filled([{"loss": 2.0}]).save(path)
    assert recorder.TraceRecorder.load(path).arrays()["loss"].tolist() == [1.0]
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


@pytest.mark.skipif(os.name != "posix", reason="modes and links")
def test_a_link_stays_a_link_and_modes_stay(tmp_path):
    real, link = tmp_path / "real.npz", tmp_path / "link.npz"
    link.symlink_to(real)
    filled([{"loss": 1.0}]).save(link)
    assert stat.S_IMODE(real.stat().st_mode) & 0o400
    real.chmod(0o640)
    filled([{"loss": 2.0}]).save(link)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert recorder.TraceRecorder.load(real).arrays()["loss"].tolist() == [2.0]


def test_a_folder_is_not_a_file(tmp_path):
    for write in (recorder.TraceRecorder().save, recorder.TraceRecorder().report):
        with pytest.raises(ValueError, match="path must be a file, got .*, which is none"):
            write(tmp_path)
    with pytest.raises(FileNotFoundError):
        recorder.TraceRecorder.load(tmp_path / "absent.npz")


# --- Files that are damaged or others.


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"hello", "it is no npz file, it begins b'hello'"),
        (npy(np.zeros(3)), "it is no npz file, it begins"),
        (pickle.dumps({"loss": [1.0]}), "it is no npz file but a pickle"),
        (npz(other=np.zeros(3)), r"it holds no array 'trace', only \['other.npy'\]"),
        (npz(trace=np.zeros(3)), r"its 'trace' is no row of named numbers, but has shape \(3,\)"),
        (npz(trace=np.zeros(3, [("loss", "U3")])), "no row of named numbers"),
        (npz(trace=np.zeros(3, [("loss", float, 2)])), "no row of named numbers"),
        (npz(trace=np.zeros((2, 2), [("loss", float)])), r"no row of named numbers, but has shape \(2, 2\)"),
        (npz(trace=np.array([{}, {}])), "its 'trace' is pickled, and nothing is unpickled"),
        (npz(trace=np.zeros(3, [("loss", float)]))[:-30], "it is damaged or cut short"),
    ],
)
def test_other_files_are_refused_with_their_path_and_what_is_wrong(tmp_path, content, reason):
    path = tmp_path / "run.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"got {re.escape(str(path))}: (its .trace. is )?{reason}"):
        recorder.TraceRecorder.load(path)


def test_damaged_files_are_read_right_or_refused(tmp_path):
    path, rng = tmp_path / "run.npz", np.random.default_rng(0)
    trace = filled([{"loss": value, "cgalr/scale": 2 * value} for value in rng.random(40)])
    trace.save(path)
    content = path.read_bytes()
    cut = [content[:length] for length in range(0, len(content), 7)]
    flipped = []
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        flipped.append(bytes(changed))
    refused = 0
    for damaged in cut + flipped:
        path.write_bytes(damaged)
        try:
            loaded = recorder.TraceRecorder.load(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017  some flips hit what is not read, as a date
            refused += 1
        else:
            assert same(loaded.arrays(), trace.arrays())
    assert refused > 0.8 * len(cut + flipped)


# --- Report.


class Page(html.parser.HTMLParser):
    """Its tags are balanced, its names are unique, and it loads nothing."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.text, self.tags = [], [], "", []
        self.feed(text)
        assert self.stack == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("meta", "br"):
            self.stack.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("#", "data:")), value

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.stack):
            self.text += data


def reported(path, rows, **options):
    pytest.importorskip("matplotlib")
    filled(rows).report(path, **options)
    page = Page(path.read_text())
    page.text = " ".join(page.text.split())
    return page


def a_run(**last):
    """Calibrates for ten steps, then follows its anchor; the last row is changed."""
    rows = []
    for step in range(1, 101):
        scale = min(2.0 ** (step - 1), 512.0)
        rows.append(
            {
                "loss": 1 / step,
                "cgalr/step": step,
                "cgalr/scale": scale,
                "cgalr/learning_rate": 1e-4 * scale,
                "cgalr/anchor": scale,
                "cgalr/phase": step > 10,
                "cgalr/ended": step > 10,
                "cgalr/distance": min(scale / 512, 1.0) * 0.05,
                "cgalr/measurements": step,
                "cgalr/skipped": 0,
            }
        )
    rows[-1] |= last
    return rows


def test_report_tells_the_run_and_loads_nothing(tmp_path):
    path = tmp_path / "run.html"
    rng = np.random.default_rng(0)
    units = rng.normal(size=(8, 64, 6)).cumsum(axis=0)
    connectomes = {10 * k: np.abs(np.corrcoef(x.T)) * (1 - np.eye(6)) for k, x in enumerate(units)}
    page = reported(
        path,
        a_run(),
        settings={"seed": 0, "optimizer": "<sgd>"},
        set_point=0.05,
        connectomes={**connectomes, 80: np.full((6, 6), np.nan)},
        layers={"first": 4, "second": 2},
    )
    assert "A run of 100 steps" in page.text
    assert "The loss fell from 0.333 to 0.0102." in page.text
    assert (
        "The calibration reached its set-point and ended at step 11, at a learning rate of 0.0512."
        in page.text
    )
    assert "moved by at most 1 set-points" in page.text
    assert "optimizer<sgd>" in page.text
    assert "begins at a base learning rate of 0.0512" in page.text
    assert page.tags.count("svg") == 2
    text = path.read_text()
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    assert set(re.findall(r"https?://[^\"' )]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


@pytest.fixture
def no_pictures(monkeypatch):
    """Only the sentences: pictures take a second each."""
    pytest.importorskip("matplotlib")
    from cgalr_jax import _report

    monkeypatch.setattr(_report, "_picture", lambda *_: "")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("last", "warning", "advice"),
    [
        ({"cgalr/ended": 0}, "The calibration is unfinished", "Let it run longer"),
        ({"cgalr/ended": 2}, "The calibration ended by time", "base learning rate ten times as large"),
        ({"cgalr/ended": 3}, "The calibration ended by the guard", "clip the gradients"),
        ({"loss": math.nan}, "The loss was not a finite number in 1 row.", "Find the first row"),
        ({"cgalr/skipped": 3}, "", "Measurements that were skipped: 3"),
        ({"cgalr/refused": 2}, "", "Values that were refused: 2"),
        ({"cgalr/measurements": 20}, "", "With 20 measurements there is little to go by"),
    ],
)
def test_report_warns_and_says_what_to_try(tmp_path, last, warning, advice):
    page = reported(tmp_path / "run.html", a_run(**last))
    assert warning in page.text
    assert advice in page.text
    assert "settings={" in page.text  # no seed was given
    assert "set_point=" in page.text


def test_report_of_nothing_is_a_page(tmp_path):
    assert "Nothing was recorded." in reported(tmp_path / "run.html", []).text


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"accuracy": 0.5}], "There was no calibration to follow"),
        ([{"loss": 1.0}, {"loss": 2.0}], "The loss rose from 1 to 2."),
        ([{"loss": 1.0}, {"loss": 1.0}], "The loss stayed at 1."),
        ([{"loss": math.nan}], "The loss was not a finite number in 1 row."),
        ([{"cgalr/scale": 1.0, "cgalr/anchor": 1.0, "cgalr/phase": 0}], "The calibration is unfinished"),
        (
            [{"cgalr/scale": 1.0, "cgalr/anchor": 2.0, "cgalr/phase": 1, "cgalr/step": 5}],
            "The calibration ended at step 5, at a scale of 2.",
        ),
        ([{"loss": 1.0}, {"other": 1.0}, {"loss": 0.5}], "The loss fell from 1 to 0.5."),
    ],
)
def test_report_says_what_it_can_of_little(tmp_path, rows, text):
    page = reported(tmp_path / "run.html", rows)
    assert text in page.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": 3}, "settings must be a mapping, got 3"),
        ({"connectomes": np.eye(2)}, "connectomes must be a mapping"),
        ({"set_point": 0.0}, "set_point must be positive and finite, got 0.0"),
        ({"connectomes": {0: np.full((2, 2), 2.0)}}, r"connectomes must lie in \[0, 1\]"),
        ({"base_learning_rate": [1.0, 2.0]}, "base_learning_rate must have shape"),
    ],
)
def test_a_report_that_cannot_be_made_leaves_the_last_one(tmp_path, options, message):
    pytest.importorskip("matplotlib")
    path = tmp_path / "run.html"
    path.write_text("the last one")
    with pytest.raises(ValueError, match=message):
        filled(a_run()).report(path, **options)
    assert path.read_text() == "the last one"
