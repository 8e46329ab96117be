import contextlib
import json
import math
import os
import struct
import subprocess
import sys
import time

import pytest
from traces import filled

from cgalr_jax import recorder


def events(folder):
    """Key, value and step of all scalars in the only event file of a folder."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.iterdir()
    content, read = file.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        read += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
        content = content[16 + length :]
    return read


def test_tensorboard_gets_each_scalar_at_its_step(tmp_path):
    pytest.importorskip("tensorboardX")
    rows = [{"cgalr/step": 10, "loss": 1.0}, {"loss": 0.5}, {"cgalr/step": 30, "cgalr/z": 2.0}]
    filled([*rows, {"cgalr/step": math.inf}, {"cgalr/step": 1e20}]).to_tensorboard(tmp_path)
    assert events(tmp_path) == [
        ("cgalr/step", 10, 10),
        ("loss", 1.0, 10),
        ("loss", 0.5, 1),
        ("cgalr/step", 30, 30),
        ("cgalr/z", 2.0, 30),
        ("cgalr/step", math.inf, 3),  # no step that a file can hold
        ("cgalr/step", pytest.approx(1e20), 4),
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


def lines(path):
    rows = [line for line in path.read_text().splitlines() if line.strip()]
    return [json.loads(row, parse_constant=pytest.fail) for row in rows]


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
        (b'{"loss": 2.0}\n\n', [{"loss": 2.0}]),  # an editor has been there
        (b'{"loss": 2}\n \r\n{"loss": null}\n  ', [{"loss": 2}, {"loss": None}]),
        (b"\n", []),
    ],
)
def test_half_a_row_is_cut_off_and_a_whole_one_is_kept(tmp_path, before, kept):
    path = tmp_path / "run.jsonl"
    path.write_bytes(before)
    with recorder.TraceRecorder(jsonl=path) as trace:
        trace.record(loss=1.0)
    assert lines(path) == [*kept, {"loss": 1.0}]


def test_a_row_that_was_cut_anywhere_is_cut_off(tmp_path):
    row = {"a": 1e-300, '\u03b1 "\\\n\x7f{': -1.5, "c": math.nan, "{}, ": 1e22, "b": 12345.678}
    path = tmp_path / "run.jsonl"
    with recorder.TraceRecorder(jsonl=path) as trace:
        trace.record(loss=1.0)
        trace.record(row)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for cut in range(first, len(content) - 1):  # the last byte but one ends the row
        path.write_bytes(content[:cut])
        recorder.TraceRecorder(jsonl=path).close()
        assert path.read_bytes() == content[:first], content[first:cut]


@pytest.mark.parametrize(
    "content",
    [
        b"my thesis",
        b"a,b\n1,2\n",
        b"[1, 2]\n",
        b"{oops}\n",
        b"\xff\xfe",
        b'{"lr": 0.1, "steps": 1000,}',
        b'{"lr": 0.1, "steps": 1000.0,}',
        b'{"lr": 0.1, "optimizer": "adamw',
        b'{"optimizer": "adamw", "lr": 0.1}',
        b'{"text": "a data set"}\n',
        b'{"lr":0.1,"momentum":',
        b'{\n  "lr": 0.1\n}',
        b"int main()\n{ return 0; }",
        b"int main()\n{",
        b'{"loss": 1.0}\n{"lo\n{"loss": 0.5}\n',
        b'{"loss": 1.0}\n{"lo\n',
        b'{"a": ' * 100_000,
        b"{'loss': 1.0",
        b'{"loss\xff',
    ],
)
def test_a_file_that_is_no_json_lines_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "thesis"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="jsonl must be a file of JSON lines, .* got .*thesis, which has"):
        recorder.TraceRecorder(jsonl=path, tensorboard=tmp_path / "logs")
    assert path.read_bytes() == content
    assert not (tmp_path / "logs").exists()


def test_a_run_is_streamed_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    with recorder.TraceRecorder(tensorboard=tmp_path) as trace:
        trace.record({"cgalr/step": 7, "cgalr/scale": 0.5})
        (file,) = tmp_path.iterdir()
        patience = time.monotonic() + 30
        while b"cgalr/scale" not in file.read_bytes():  # while the run goes on
            assert time.monotonic() < patience
            time.sleep(0.1)


def test_rows_that_come_fast_are_in_the_event_file_once_it_is_closed(tmp_path):
    pytest.importorskip("tensorboardX")
    with recorder.TraceRecorder(tensorboard=tmp_path / "logs" / "run") as trace:
        for step in range(50):
            trace.record({"cgalr/step": step})
    assert events(tmp_path / "logs" / "run") == [("cgalr/step", step, step) for step in range(50)]


@contextlib.contextmanager
def full_disk():
    """Files may not grow beyond 300 bytes: no fixture, since pytest may write to a file between the two."""
    resource = pytest.importorskip("resource", reason="this system has no such limit")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stream", ["jsonl", "tensorboard"])
@pytest.mark.parametrize("keys", [1, 40])
def test_a_full_disk_is_an_error_and_hangs_nothing(tmp_path, stream, keys):
    if stream == "tensorboard":
        pytest.importorskip("tensorboardX")
    trace = recorder.TraceRecorder(**{stream: tmp_path / "run"})
    row = {f"key_{key}": 1.0 for key in range(keys)}
    with full_disk():
        for _ in range(600):  # the run may go on
            with contextlib.suppress(OSError):
                trace.record(row)
        assert len(trace) == 600
        with pytest.raises(OSError, match="File too large"):
            trace.close()
    trace.close()  # it is closed by now


@pytest.mark.slow
def test_a_kill_loses_no_row(tmp_path):
    program = "import os, signal, sys; from cgalr_jax import recorder; "
    program += "trace = recorder.TraceRecorder(jsonl=sys.argv[1]); "
    program += "[trace.record(loss=float(k)) for k in range(3)]; os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "run.jsonl")], check=False)
    assert [row["loss"] for row in lines(tmp_path / "run.jsonl")] == [0, 1, 2]


def test_a_file_is_no_folder_for_events(tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="^tensorboard must be a folder, got .*file, which is no folder"):
        recorder.TraceRecorder(tensorboard=tmp_path / "file")
    with pytest.raises(ValueError, match="^directory must be a folder, got .*file, which is no folder"):
        recorder.TraceRecorder().to_tensorboard(tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_file_of_json_lines(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="jsonl must be a file, got .*pipe, which is something else"):
        recorder.TraceRecorder(jsonl=tmp_path / "pipe")
