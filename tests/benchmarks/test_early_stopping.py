"""The stopping rules of `benchmarks.early_stopping`, on series written by hand."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("sklearn")

from benchmarks import early_stopping as rules

ROOT = pathlib.Path(__file__).parents[2]


def epochs(condition):
    return rules.first(np.atleast_2d(condition)).tolist()


def test_the_first_epoch_counts_from_one_and_never_is_the_last():
    assert epochs([[False, True, True], [False, False, False]]) == [2, 3]


def test_a_moving_average_starts_with_what_there_is():
    series = np.array([[4.0, 2.0, 0.0, 6.0]])
    np.testing.assert_allclose(rules.moving_average(series, 2), [[4, 3, 1, 3]])
    np.testing.assert_allclose(rules.moving_average(series, 1), series)


@pytest.mark.parametrize(
    ("series", "stop"),
    [
        ([1.0, 4.0, 2.0, 1.0, 1.0], 4),  # a quarter of the peak, not of the start
        ([1.0, 4.0, 2.0, 2.0, 2.0], 5),  # never
        ([4.0, 1.0, 4.0, 4.0, 4.0], 2),  # the future does not count
    ],
)
def test_settled_is_a_fraction_of_the_peak_so_far(series, stop):
    assert epochs(rules.settled(np.array([series]), 1, 0.25)) == [stop]


def test_patience_keeps_the_best_epoch_and_says_how_long_it_waited():
    losses = np.array([[3.0, 2.0, 2.5, 2.1, 1.0, 0.5], [3.0, 2.0, 1.0, 0.9, 0.8, 0.7]])
    used, kept = rules.patience(losses, 2)
    assert (used.tolist(), kept.tolist()) == ([4, 6], [2, 6])


def test_a_budget_beyond_the_end_is_the_end():
    curves = {
        name: np.linspace(1, 0.1, 12)[None] for name in ("error", "held back", *rules.MEASURED.values())
    }
    found = rules.outcomes(curves, curves)[rules.FIXED]
    assert found["100"][0].tolist() == found["to the end"][0].tolist() == [12]
    assert found["5"][0].tolist() == [5]


def test_images_that_would_not_be_read(tmp_path, capsys):
    with pytest.raises(SystemExit):
        rules.main(["--quick", "--data", str(tmp_path)])
    assert f"--data: {tmp_path} would not be read" in capsys.readouterr().err


def test_images_that_are_not_there(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        rules.main(["--data", str(tmp_path)])
    assert stopped.value.code == 2
    assert "--data" in (said := capsys.readouterr().err)
    assert "is not there. You find it at" in " ".join(said.split())


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path):
    command = [sys.executable, "-m", rules.__name__, "--quick", "--json", str(tmp_path / "records.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "TOP_error_vs_this" in (tmp_path / "records.json").read_text()
