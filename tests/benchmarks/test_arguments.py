"""What is wrong with an argument is said by argparse, before any work; importing a benchmark does nothing."""

import os
import pathlib
import subprocess
import sys

import pytest

for needed in ("sklearn", "networkx", "rich", "matplotlib"):
    pytest.importorskip(needed)

from benchmarks import arguments  # noqa: E402  after what they need
from benchmarks.training import __main__ as training  # noqa: E402
from benchmarks.training import seconds  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
# All that have a command line; and by the name that `python -m` takes.
PARSERS = ("arguments.parser(", "comparison.main(")
FILES = sorted(
    path
    for path in (ROOT / "benchmarks").rglob("*.py")
    if 'if __name__ == "__main__"' in path.read_text() and any(each in path.read_text() for each in PARSERS)
)
COMMANDS = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES]
MODULES = [name.removesuffix(".__main__") for name in COMMANDS]


def parsed(*given):
    return arguments.parser("benchmarks.x", "", quick="", records="").parse_args(given)


@pytest.mark.parametrize("name", ["", ".", "folder", "file/records.json", "a\0b", 300 * "a"])
def test_a_file_that_cannot_be_written_is_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        parsed("--json", name)
    assert "argument --json: must name a file that can be written" in capsys.readouterr().err


def test_asking_for_a_file_neither_makes_nor_empties_it(tmp_path):
    held, new = tmp_path / "held.json", tmp_path / "new" / "records.json"
    held.write_text("[1]")
    assert [parsed("--json", str(path)).json for path in (held, new)] == [held, new]
    assert (held.read_text(), new.exists()) == ("[1]", False)
    arguments.write(new, [{"a": 1}])
    assert new.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--tuning-seeds", "0"], "--tuning-seeds: must be an integer of at least 1, got '0'"),
        (["--tuning-seeds", "-1"], "--tuning-seeds: must be an integer of at least 1, got '-1'"),
        (["--processes", "0"], "--processes: must be an integer of at least 1, got '0'"),
        (["--processes", str(10**20)], f"--processes: must be an integer of at least 1, got '{10**20}'"),
        (["--processes", "two"], "--processes: must be an integer of at least 1, got 'two'"),
        (["--json", "FOLDER"], "--json: must name a file"),
        (["--out", "FOLDER/file"], "--out: must name a folder that can be written into, got"),
        (["--out", 300 * "a"], "--out: must name a folder that can be written into, got 'aaa"),
        (["--out", "FOLDER/a\0b"], "--out: must name a folder that can be written into, got"),
        (["--out", ""], "--out: must name a folder, got ''"),
        (["--tasks", "unheard"], "--tasks: invalid choice"),
        (["--methods"], "--methods: expected at least one argument"),
        (["--tune", "share", "--quick"], "--tune: goes with --tasks"),
        (["--quick", "--publish"], "--publish: puts the whole report"),
        (["--tuning-seeds", "3"], "--tuning-seeds: goes with --tune"),
        (["--seconds"], "--seconds: measures, and then reports; --report only reports"),
    ],
)
def test_the_training_benchmark_refuses(given, said, tmp_path, capsys):
    (tmp_path / "file").touch()
    given = [each.replace("FOLDER", str(tmp_path)) for each in given]
    with pytest.raises(SystemExit) as stopped:
        training.main([*given, "--report"])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_what_is_named_twice_is_trained_once():
    made = arguments.parser("benchmarks.x", "", quick="", records="")
    arguments.add_comparison(made, "out", tasks=["a", "b"], methods=["c"])
    options = made.parse_args(["--tasks", "b", "a", "b", "--methods", "c", "c"])
    assert (options.tasks, options.methods) == (["b", "a"], ["c"])


def test_seconds_that_cannot_be_read_are_named(tmp_path):
    assert seconds.load(tmp_path / "seconds.json") == {}
    (tmp_path / "seconds.json").write_text('{"gru": {"SGD')
    with pytest.raises(SystemExit, match="seconds.json cannot be read .* delete it"):
        seconds.load(tmp_path / "seconds.json")


@pytest.mark.parametrize("more", [[], ["--tune", "probe"]])
def test_a_report_of_nothing_says_so(more, tmp_path):
    for folder in (tmp_path, tmp_path / "mistyped" / "twice"):
        with pytest.raises(SystemExit, match="Nothing to report"):
            training.main(["--report", "--out", str(folder), *more])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("page", ["__init__.py", "README.md"])
def test_every_benchmark_is_listed(module, page):
    assert f"python -m {module}" in (ROOT / "benchmarks" / page).read_text()


@pytest.mark.slow
def test_importing_the_benchmarks_does_nothing():
    script = f"""
import importlib, os, sys
before = dict(os.environ), list(sys.path), getattr(os, "sched_getaffinity", lambda _: 0)(0)
for name in {COMMANDS}:
    importlib.import_module(name)
import jax
from jax._src import xla_bridge
assert not xla_bridge._backends, "a backend was started"
for name in ("XLA_FLAGS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    assert os.environ.get(name) == before[0].get(name), name
assert before[1:] == (list(sys.path), getattr(os, "sched_getaffinity", lambda _: 0)(0))
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_every_benchmark_has_the_same_options(module):
    for given, code in ((["--help"], 0), (["--json", "."], 2)):
        command = [sys.executable, "-m", module, *given]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert f"python -m {module}" in done.stdout + done.stderr
        assert "--quick" in done.stdout + done.stderr
