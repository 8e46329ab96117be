import html.parser
import math
import os
import re

import numpy as np
import pytest
from traces import filled


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
                "cgalr/motion": min(scale / 512, 1.0),
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
    from cgalr_jax.recorder import _pictures

    monkeypatch.setattr(_pictures, "svg", lambda *_: "")


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
        ({"cgalr/cut": 30, "cgalr/step": 100}, "", ": 30 of 100"),
        ({"cgalr/measurements": 20}, "", "20 measurements there is little to go by: .* there are 50 or more"),
        ({"cgalr/measurements": 3, "cgalr/step": 30}, "", "3 measurements .* so that there are 15 or more"),
    ],
)
def test_report_warns_and_says_what_to_try(tmp_path, last, warning, advice):
    page = reported(tmp_path / "run.html", a_run(**last))
    assert warning in page.text
    assert re.search(advice, page.text)
    assert "settings={" in page.text  # no seed was given


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(("steps", "measurements"), [(1, 0), (40, 39), (55, 49), (200, 199)])
def test_no_more_measurements_are_asked_for_than_there_can_be(tmp_path, steps, measurements):
    last = {"cgalr/step": steps, "cgalr/measurements": measurements}
    assert "little to go by" not in reported(tmp_path / "run.html", a_run(**last)).text


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


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("where", [0, 50, 100])
def test_a_row_of_your_own_keys_only_is_no_end_of_the_page(tmp_path, where):
    rows = a_run()
    rows.insert(where, {"test_error": 0.1})
    page = reported(tmp_path / "run.html", rows)
    assert "A run of 100 steps" in page.text
    assert "ended at step 11, at a learning rate of 0.0512." in page.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": 3}, "settings must be a mapping, got 3"),
        ({"connectomes": np.eye(2)}, "connectomes must be a mapping"),
        ({"set_point": 0.0}, "set_point must be positive and finite, got 0.0"),
        ({"connectomes": {0: np.full((2, 2), 2.0)}}, r"connectomes\[0\] must lie in \[0, 1\]"),
        ({"base_learning_rate": [1.0, 2.0]}, "base_learning_rate must have shape"),
        ({"base_learning_rate": math.nan}, "base_learning_rate must be finite and at least 0, .* got nan"),
        ({"base_learning_rate": -1}, "base_learning_rate must be finite and at least 0, .* got -1"),
        ({"connectomes": {0: "abc"}}, r"connectomes\[0\] must be an array of numbers, got 'abc'"),
        ({"connectomes": {0: None}}, r"connectomes\[0\] must be an array of numbers, got None"),
        ({"connectomes": {0: np.eye(2), 7: np.ones((2, 3))}}, r"connectomes\[7\] must be \[P, P\]"),
        ({"connectomes": {0: np.eye(2), "1": np.eye(2)}}, "steps of connectomes must be finite .* got '1'"),
        ({"connectomes": {None: np.eye(2)}}, "steps of connectomes must be finite and at least 0, got None"),
        ({"connectomes": {math.nan: np.eye(2)}}, "steps of connectomes must be finite .* got nan"),
        (
            {"connectomes": {k: np.eye(k) for k in range(1, 9)}},
            r"must have the same units, got \[1, 2, ",
        ),
        ({"connectomes": {0: np.eye(2), 1: np.full((3, 3), np.nan)}}, "must have the same units"),
        ({"layers": 3}, "layers must be a mapping of names to numbers of units, got 3"),
        ({"layers": {"a": 0}}, r"layers\['a'\] must be an integer of at least 1, got 0"),
        ({"bounds": lambda step: None}, r"bounds must return a pair, \(low, high\), got None"),
        ({"bounds": lambda step: (step, step, step)}, r"bounds must return a pair, \(low, high\), got"),
        ({"bounds": lambda step: (0.1, step[:7])}, r"bounds: high must have shape .* \(100,\), got \(7,\)"),
        ({"bounds": lambda step: ("low", 1.0)}, "bounds: low must be an array of numbers, got 'low'"),
    ],
)
def test_a_report_that_cannot_be_made_leaves_the_last_one(tmp_path, options, message):
    pytest.importorskip("matplotlib")
    path = tmp_path / "run.html"
    path.write_text("the last one")
    with pytest.raises(ValueError, match=message):
        filled(a_run()).report(path, **options)
    assert path.read_text() == "the last one"


def history(ended, anchors, **more):
    """Rows of a run by what `cgalr/ended` and `cgalr/anchor` were at each tenth step."""
    return [
        {
            "cgalr/step": 10 * row,
            "cgalr/ended": end,
            "cgalr/anchor": anchor,
            "cgalr/scale": anchor,
            "loss": 1.0,
        }
        | {"cgalr/learning_rate": 0.1 * anchor}
        | {key: values[row] for key, values in more.items()}
        for row, (end, anchor) in enumerate(zip(ended, anchors, strict=True))
    ]


def test_of_a_calibration_that_was_opened_again_the_last_one_counts(tmp_path):
    text = reported(tmp_path / "run.html", history([0, 1, 1, 0, 0, 1, 1], [1, 8, 8, 1, 1, 0.5, 0.5])).text
    assert "was opened again (1 time)" in text
    assert "at step 50, at a learning rate of 0.05" in text
    assert "0.8" not in text.split("What happened")[-1]


def test_one_that_is_still_open_has_not_ended(tmp_path):
    text = reported(tmp_path / "run.html", history([0, 1, 1, 0, 0], [1, 8, 8, 1, 1])).text
    assert "was opened again (1 time)" in text
    assert "The calibration is unfinished" in text
    assert "at step 10" not in text


@pytest.mark.parametrize("ended", [None, math.nan])
def test_how_it_ended_is_not_said_where_nobody_recorded_it(tmp_path, ended):
    rows = [{"cgalr/step": step, "cgalr/anchor": 1.0, "loss": 1.0} for step in range(5)]
    rows = rows if ended is None else [row | {"cgalr/ended": ended} for row in rows]
    assert "unfinished" not in reported(tmp_path / "run.html", rows).text


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float16])
def test_connectomes_of_any_kind_become_a_film(tmp_path, kind):
    connectomes = {step: np.eye(8)[step].astype(kind) * np.ones((8, 8), kind) for step in range(8)}
    page = reported(tmp_path / "run.html", [{"loss": 1.0}], connectomes=connectomes)
    assert "Correlations of 8 units" in page.text


@pytest.mark.usefixtures("no_pictures")
def test_a_name_that_is_no_unicode_does_not_lose_the_page(tmp_path):
    settings = {"data": os.fsdecode(b"/data/\xff.npz")}
    assert "/data/" in reported(tmp_path / "run.html", [{"loss": 1.0}], settings=settings).text


def test_a_run_that_was_lost_from_the_first_step_has_a_page(tmp_path):
    rows = [
        {"cgalr/step": step, "cgalr/scale": 1e-3, "cgalr/distance": math.inf, "loss": math.inf}
        for step in range(20)
    ]
    assert "not a finite number" in reported(tmp_path / "run.html", rows).text
