"""Every example learns what it claims, beside its baseline, and its command line ends in sentences."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("console", "datasets"))
sys.path.insert(0, str(FOLDER))  # as Python does for a script

import console  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_is_written_unasked(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert list((tmp_path / "here").iterdir()) == []


def figures(script, *arguments):
    main = pytest.importorskip(script).main
    return main(list(map(str, arguments)))


# --- They learn. The bounds hold on each seed, with a margin of half for other versions and machines.

QUICK = {
    "plain_loop": 0.05,
    "equinox_network": 0.06,
    "graph_network": 0.2,
}
SLOW = {
    "gru_digits": 0.08,
    "linen_cnn": 0.05,
    "data_parallel": 0.12,
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("script", "bound"), (QUICK | SLOW).items())
def test_it_learns_from_a_base_rate_that_is_too_small(script, bound, seed):
    found = figures(script, "--quick", "--seed", seed)
    assert found["error"] < bound
    assert found["error"] < found["baseline"]


@pytest.mark.parametrize(
    ("script", "bound"),
    [
        pytest.param(*item, marks=() if item[0] == "plain_loop" else pytest.mark.slow)
        for item in QUICK.items()
    ],
)
def test_it_learns(script, bound):
    found = figures(script, "--quick", "--seed", 3)
    assert found["error"] < min(bound, found["baseline"])


@pytest.mark.slow
def test_devices_agree():
    assert figures("data_parallel", "--quick")["difference"] < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_quickstart_is_flat_where_the_schedule_is_a_valley(seed):
    found = figures("quickstart", "--seed", seed)
    assert max(found["error"].values()) < 0.06
    assert max(found["error"].values()) < max(found["baseline"].values()) / 3
    rates = list(found["found"].values())
    assert max(rates) < 4 * min(rates)


@pytest.mark.slow
def test_quickstart_draws_where_it_is_told(tmp_path):
    found = figures("quickstart", "--quick", "--out", tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert max(found["error"].values()) < min(0.08, max(found["baseline"].values()))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_transformer_learns(seed):
    found = figures("nnx_transformer", "--quick", "--seed", seed)
    assert found["loss"] < 3.3
    assert found["loss"] < found["baseline"] - 0.5


@pytest.mark.slow
def test_a_killed_run_ends_as_the_unbroken_one_and_has_learned(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    found = figures("resume", "--quick", "--seed", 1)
    assert found["error"] < min(0.15, found["baseline"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_anatomy_learns_and_reports_what_it_did(seed, tmp_path):
    found = figures("anatomy", "--quick", "--seed", seed, "--out", tmp_path / "pages")
    assert found["error"] < 0.06
    page = (tmp_path / "pages" / "anatomy.html").read_text()
    assert f"<td>{found['error']:.1%}</td>" in page
    assert "Correlations of 90 units" in page
    assert (tmp_path / "pages" / "anatomy.png").read_bytes().startswith(b"\x89PNG")


# --- They are short, and say what they do.


@pytest.mark.parametrize("script", SCRIPTS)
def test_example_is_short_and_has_a_main(script):
    source = (FOLDER / f"{script}.py").read_text()
    assert len(source.splitlines()) <= 165
    assert "def main(argv=None):" in source
    assert source.startswith('"""')


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_it_does(script, capsys):
    with pytest.raises(SystemExit) as end:
        figures(script, "--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert {"--quick", "--seed"} <= set(shown.replace(",", " ").split())
    assert importlib.import_module(script).__doc__.split()[0] in shown


def test_an_example_runs_as_a_script():
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent), "MPLBACKEND": "Agg"}
    command = [sys.executable, str(FOLDER / "plain_loop.py"), "--help"]
    assert (
        "AdamW" in subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    )


# --- Command lines end in a sentence, never in a traceback.


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("plain_loop", ["--seed", "-1"], "--seed: must be a whole number of at least 0, got '-1'"),
        ("plain_loop", ["--seed", "one"], "--seed: must be a whole number of at least 0, got 'one'"),
        ("plain_loop", ["--seed", str(2**32)], "--seed: must be a whole number"),
        ("plain_loop", ["--learning-rate", "0"], "--learning-rate: must be a positive number, got '0'"),
        ("plain_loop", ["--learning-rate", "nan"], "--learning-rate: must be a positive number, got 'nan'"),
        ("plain_loop", ["--learning-rate", "fast"], "--learning-rate: must be a positive number"),
        ("plain_loop", ["--learning-rate", "1e-50"], "--learning-rate: must be a positive number"),
        ("graph_network", ["--learning-rate", "1e39"], "--learning-rate: must be a positive number"),
        ("graph_network", ["--data", ".."], "--data .. would not be read: say --graph cora or citeseer, too"),
        ("linen_cnn", ["--data", ".."], "--data .. would not be read: say --images mnist or"),
        ("nnx_transformer", ["--data", ".."], "--data .. would not be read: say --text shakespeare, too"),
        ("linen_cnn", ["--data", 300 * "a"], "--data: must be a folder that is there"),
        ("quickstart", ["--out", f"{300 * 'a'}/x.png"], "--out: must be a .pdf or .png or .svg file"),
        ("quickstart", ["--out", f"{300 * 'a'}.png"], "--out: must be a file that can be written"),
        ("linen_cnn", ["--images", "cifar10"], "this data set needs --data FOLDER"),
        ("linen_cnn", ["--images", "cifar10", "--data", "absent"], "--data: must be a folder that is there"),
        ("linen_cnn", ["--images", "fashion", "--data", ".."], "You find it at https://github.com/zalando"),
        ("graph_network", ["--graph", "cora", "--data", ".."], "You find it at https://github.com/kimiyoung"),
        ("nnx_transformer", ["--text", "shakespeare", "--data", ".."], "github.com/karpathy/char-rnn"),
        ("gru_digits", ["--signal", "births"], "--signal: invalid choice"),
        (
            "quickstart",
            ["--out", ".."],
            "--out: must be a .pdf or .png or .svg file in a folder that is there, got '..'",
        ),
        ("quickstart", ["--out", "picture"], "--out: must be a .pdf or .png or .svg file in a folder"),
        (
            "quickstart",
            ["--out", "absent/picture.png"],
            "--out: must be a .pdf or .png or .svg file in a folder",
        ),
        ("linen_cnn", ["--data", ""], "--data: must be a folder that is there, got ''"),
        (
            "linen_cnn",
            ["--data", "~nobody_of_that_name"],
            "--data: must be a folder that is there, got '~nob",
        ),
        ("quickstart", ["--out", "~nobody_of_that_name/x.png"], "--out: must be a .pdf or .png or .svg file"),
        ("anatomy", ["--out", ""], "--out: must be a folder that can be written into, got ''"),
        ("anatomy", ["--out", __file__], "--out: must be a folder that can be written into, got"),
        ("anatomy", ["--out", f"{__file__}/pages"], "--out: must be a folder that can be written into, got"),
        ("resume", ["--run", f"{__file__}/run"], "--run: must be a folder that can be written into, got"),
        ("resume", ["--steps", "3"], "--steps must be at least 10, got 3"),
        ("resume", ["--kill-at", "20"], "--kill-at needs --run FOLDER"),
        ("resume", ["--run", "..", "--steps", "10", "--kill-at", "10"], "and a step below 10; got 10"),
    ],
)
def test_wrong_arguments_end_in_a_sentence(script, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        figures(script, *arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_progress_is_shown_while_it_runs(capsys):
    shown = []
    for _ in console.steps(8, "training"):
        shown.append(capsys.readouterr().out)
    shown.append(capsys.readouterr().out)
    assert "compiling, then 8 steps" in shown[0]
    assert [number for number, text in enumerate(shown) if "of 8" in text] == [2, 4, 6, 8]
