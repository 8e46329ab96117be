import io
import os
import pickle
import re
import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import filled, same

from cgalr_jax import recorder

keys = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=8)
rows = st.lists(st.dictionaries(keys, st.floats(), max_size=4), max_size=5)


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


@pytest.mark.parametrize("write", ["save", "report", "jsonl"])
def test_what_ends_with_a_slash_is_no_file(tmp_path, write):
    path = f"{tmp_path}/new/"
    with pytest.raises(ValueError, match=f"must be a file, got {path}, which names a folder"):
        recorder.TraceRecorder(jsonl=path) if write == "jsonl" else getattr(recorder.TraceRecorder(), write)(
            path
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_a_file(tmp_path):
    for write in (recorder.TraceRecorder().save, recorder.TraceRecorder().report):
        with pytest.raises(ValueError, match="path must be a file, got .*, which is something else"):
            write(tmp_path)
    with pytest.raises(FileNotFoundError):
        recorder.TraceRecorder.load(tmp_path / "absent.npz")


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


def test_many_keys_are_loaded_again(tmp_path):
    rows = [{f"layer_{k}/grad_norm": float(k) for k in range(1000)}]
    filled(rows).save(tmp_path / "run.npz")
    assert same(recorder.TraceRecorder.load(tmp_path / "run.npz").arrays(), filled(rows).arrays())


def test_thousands_of_keys_are_loaded_again_without_a_warning(tmp_path):
    filled([{f"layer_{k:04}/grad_norm": 0.0 for k in range(3000)}]).save(tmp_path / "run.npz")
    assert len(recorder.TraceRecorder.load(tmp_path / "run.npz").arrays()) == 3000


@pytest.mark.parametrize("kind", [bool, np.int64, np.uint8, np.float16, np.longdouble])
def test_numbers_of_any_kind_are_loaded_as_floats(tmp_path, kind):
    (tmp_path / "run.npz").write_bytes(npz(trace=np.ones(2, [("loss", kind)])))
    loaded = recorder.TraceRecorder.load(tmp_path / "run.npz")
    assert loaded.summary() == "loss 1"
    assert type(loaded.arrays()["loss"].tolist()[0]) is float


class OfBytes:
    """As the entries of `os.scandir(b".")`."""

    def __fspath__(self):
        return b"run.npz"


@pytest.mark.parametrize("how", ["save", "load", "report", "to_tensorboard", "jsonl", "tensorboard"])
def test_a_path_of_bytes_is_refused(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    stream = how in ("jsonl", "tensorboard")
    call = (lambda path: recorder.TraceRecorder(**{how: path})) if stream else getattr(filled([]), how)
    for path in (b"run.npz", OfBytes()):
        with pytest.raises(ValueError, match=r"must be a (file|folder).*, a path, got "):
            call(path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "missing" / "run.npz"
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        filled([{"loss": 1.0}]).save(path)
