"""The rate finder's benchmark: readings of a loss curve, the table, and data that has to be named."""

import json

import numpy as np
import pytest

from benchmarks import rate_finder

RATES = np.geomspace(1e-4, 1e2, 601)


def test_readings_of_a_loss_curve():
    x = np.log10(RATES)
    losses = 2 - 1 / (1 + np.exp(-6 * (x + 1))) + np.where(x > 0, (3 * x) ** 2, 0.0)
    lowest, steepest = rate_finder.from_losses(RATES, losses)
    assert 0.03 < lowest < 0.3
    assert 0.03 < steepest < 0.4


@pytest.mark.parametrize("losses", [np.r_[1.0, np.full(600, bad)] for bad in (np.nan, 1e9)])
def test_a_loss_curve_that_diverges_at_once(losses):
    assert np.isfinite(rate_finder.from_losses(RATES, losses)).all()


def test_the_report():
    def records(rate, error, low, high):
        shared = {"oracle_rate": 0.1, "oracle_error": 0.2, "rate": rate, "error": error}
        return [
            {"finder": finder} | shared | ({"low": low, "high": high, "reached": True} if not number else {})
            for number, finder in enumerate(rate_finder.FINDERS)
        ]

    groups = {
        ("net", "SGD"): records(0.09, 0.21, 0.03, 0.3),
        ("net", "AdamW"): records(0.01, 0.24, 3e-3, 0.03),
    }
    report = rate_finder.report(groups)
    assert "| net | SGD | 0.1: 0.200 | 0.03 to 0.3 | 0.09: +5.0 |" in report
    assert "| **mean** | | | | +12.5 |" in report
    assert "| **within 10 %** | | | | 1 of 2 |" in report
    assert "held the oracle's rate in 1 of 2; the set-point was reached in 2." in report


@pytest.mark.parametrize("given", [[], ["--data", "nowhere"], ["--data", ""], ["--quick", "--data", "."]])
def test_the_data_has_to_be_there(given, capsys):
    with pytest.raises(SystemExit):
        rate_finder.main(given)
    assert "argument --data" in capsys.readouterr().err


def test_a_quick_run_is_not_of_what_is_tuned_on(capsys):
    with pytest.raises(SystemExit):
        rate_finder.main(["--quick", "--tuning"])
    assert "argument --tuning: --quick is of one network" in capsys.readouterr().err


@pytest.mark.slow
def test_a_quick_run_compares_all_finders(tmp_path, capsys):
    rate_finder.main(["--quick", "--json", str(tmp_path / "records.json")])
    records = json.loads((tmp_path / "records.json").read_text())
    assert len(records) == len(rate_finder.OPTIMIZERS) * len(rate_finder.FINDERS)
    assert all(0 < record["error"] <= 1 for record in records)
    assert "| digits-10% | SGD |" in capsys.readouterr().out
