"""The benchmark under one condition after the other: each is what its name says, and the tables tell it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

for needed in ("sklearn", "networkx", "rich", "matplotlib"):
    pytest.importorskip(needed)

import blobs  # noqa: E402  after what they need

from benchmarks import pages, steps  # noqa: E402
from benchmarks.conditions import __main__ as conditions  # noqa: E402
from benchmarks.conditions import figures, methods, report, tasks  # noqa: E402
from benchmarks.study import comparison, lines, runner, store  # noqa: E402
from cgalr_jax import controllers  # noqa: E402
from examples import datasets  # noqa: E402


@pytest.fixture
def no_files(monkeypatch):
    """As many images as there are, of a pixel each."""
    x = np.zeros((70_000, 1, 1, 1), np.float32)
    y = (np.arange(70_000) % 10).astype(np.int32)
    held = datasets.Images(x[:60_000], y[:60_000], x[60_000:], y[60_000:])
    monkeypatch.setattr(datasets, "fashion_mnist", lambda folder: held)
    return held


STEPS = {
    "batch 8": 31_250,
    "batch 32": 7810,
    "batch 4096": 300,
    "200 steps": 200,
    "20,000 steps of 50": 20_000,
}


@pytest.mark.parametrize("label", tasks.TASKS)
def test_a_condition_is_what_its_name_says(label, no_files, tmp_path):
    task = tasks.TASKS[label]
    problem = task.load(tmp_path)
    parts = problem.split(0)
    assert len(parts["train"]) // task.batch * task.epochs == STEPS.get(label, 1000)
    assert not set(parts["train"]) & set(parts["validation"])
    params = jax.eval_shape(problem.model.init, jax.random.key(0))
    hidden = int(label.split()[1]) if label.startswith("depth") else 2
    assert len(params) == hidden + 1
    assert {params[f"dense{index}"]["kernel"].shape[1] for index in range(hidden)} == {64}
    images = jax.ShapeDtypeStruct((3, 28, 28, 1), np.float32)
    outputs, units = jax.eval_shape(lambda *given: problem.model.apply(*given, None), params, images)
    assert outputs.shape == (3, 10)
    assert len(units) == hidden
    if label.startswith("batch"):
        assert task.batch == int(label.split()[1])
    wrong = float(label.split()[0]) / 100 if label.endswith("drawn") else 0.0
    y = np.asarray(problem.data["y"])
    assert np.mean(y[:60_000] != no_files.y) == pytest.approx(0.9 * wrong, abs=0.01)
    np.testing.assert_array_equal(y[60_000:], no_files.y_test)


def test_each_condition_has_its_methods_with_its_momentum():
    for label in tasks.TASKS:
        mine = [name for name in methods.METHODS if methods.applies(label, name)]
        suffix = f", momentum {tasks.momentum(label):g}" if label in tasks.MOMENTA else ""
        names = methods.NAMES if label in methods.WITH_LOOSE else methods.NAMES[:-1]
        assert mine == [f"{name}{suffix}" for name in names]
    assert len(methods.METHODS) == len(methods.NAMES) * (1 + len(tasks.MOMENTA))
    assert set(methods.WITH_LOOSE) <= set(tasks.TASKS)
    assert {method.family for method in methods.METHODS.values()} == set(methods.FAMILIES)


def test_nothing_is_trained_with_the_momentum_of_another_condition(tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setitem(tasks.TASKS, "momentum 0", blobs.TASK)

    def train(self, method, rates, seeds):
        trained.append(method.family)
        return [blobs.outcome([0.5] * len(seeds), [0.5] * len(seeds)) for _ in rates]

    monkeypatch.setattr(runner.Runner, "train", train)
    conditions.main(["--tasks", "momentum 0", "--seeds", "1", "--data", ".", "--out", str(tmp_path)])
    assert set(trained) == {
        "SGD, momentum 0",
        "ours, momentum 0",
        "ours, steps known, momentum 0",
        "ours, end unknown, momentum 0",
        "ours, steps known, max_share=0.3, momentum 0",
    }
    assert "| momentum 0 | 50.00 % |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("label", "share"), [("momentum 0", 0.0), ("momentum 0.99", 0.99), ("as it is", 0.9)]
)
def test_momentum_reaches_the_optimizer(label, share):
    """Updates of the same gradient, without the scale, grow from 1 to 1 + m."""
    params = {"w": np.ones((3, 2), np.float32)}
    config = {"rate": np.float32(1e-6), "shape": jnp.ones(100)}
    for name in methods.NAMES:
        method = methods.METHODS[methods.at(name, tasks.momentum(label))]
        setting = methods.Setting(config, {"hidden": 2}, None, 100, 20, jax.random.key(0))
        tx = methods.FAMILIES[method.family].build(setting)
        state, moved = tx.init(params), []
        told = {"probe": lambda params: {"hidden": np.eye(3, dtype=np.float32) @ params["w"]}}
        for _ in range(2):
            extra = {} if name in (methods.REFERENCE, methods.OTHER) else told
            updates, state = tx.update(params, state, params, **extra)
            moved.append(float(np.sum(updates["w"]) / steps.observe(state, "cg_scale", 1.0)))
        assert moved[1] / moved[0] == pytest.approx(1 + share, rel=1e-3), name


# --- The report


def line(tests, rate=0.06, ended=controllers.BY_BOUND, validation=None):
    """At the six base rates; both seeds are the same."""
    rates = (0.003, 0.009, 0.03, 0.09, 0.3, 0.9)
    outcomes = []
    for chosen, test in zip(validation or tests, tests, strict=True):
        found = blobs.outcome([chosen] * 2, [test] * 2)
        curve = np.full((2, 5), rate / 2, np.float32)
        curve[:, 1] = rate
        outcomes.append(found._replace(rate=curve, ended=np.full(2, ended, np.float32)))
    return lines.Line(rates, tuple(outcomes), rates)


FOUND = {
    "momentum 0": {
        "SGD warm-up cosine, momentum 0": line([0.8, 0.4, 0.3, 0.5, 0.8, 0.9], validation=[5, 1, 4, 5, 5, 5]),
        "SGD cosine, momentum 0": line([0.8, 0.5, 0.8, 0.8, 0.8, 0.9]),
        "ours, momentum 0": line([0.2, 0.3, 0.2, 0.3, 0.2, 0.9]),
    },
    "depth 4": {"SGD cosine": line(6 * [0.5])},
}


def test_ours_is_a_mean_and_baselines_are_tuned():
    text = report.text(FOUND)
    assert "depth 4" not in text
    assert "| momentum 0 | 40.00 % | 0.009 | +25.0 [+25.0, +25.0] | -12.5 [-12.5, -12.5] | - |" in text
    assert "| momentum 0 | ours | 4.50 | 6.7 (6.7 to 6.7) | 0.40 | 17 % | bound 12 |" in text
    assert "Nothing to compare" in report.text({"depth 4": FOUND["depth 4"]})


def test_the_plot_has_a_panel_for_each_condition(tmp_path):
    figures.draw(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    figures.draw(tmp_path, FOUND)
    assert {path.name for path in tmp_path.iterdir()} == set(figures.PLOTS)


def test_the_page_has_a_place_for_the_report():
    for end in ("begin", "end"):
        assert report.PAGE.read_text().count(pages.mark(report.PAGE, end)) == 1


def test_a_quick_run_is_of_one_condition():
    (quick,), names, seeds = conditions.STUDY.quick
    assert all(methods.applies(quick, name) for name in names)
    study = store.Study(report.PAGE.parent, tasks.TASKS, methods.METHODS)
    assert {job.task for job in comparison.missing(study, quick, list(names), seeds)} == {quick}
