"""The judge is only as good as its arithmetic: tasks, pairing, statistics, controls, a small run."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("networkx")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from benchmarks import estimates, pages, schedules
from benchmarks.training import __main__ as training
from benchmarks.training import (
    controllers,
    methods,
    models,
    picture,
    report,
    runner,
    seconds,
    store,
    tasks,
    tuning,
    workers,
)
from cgalr_jax import controllers as library


def measurement(distance, step=0):
    return library.Measurement(jnp.float32(distance), jnp.int32(step))


def test_every_task_has_finite_loss_and_layers_worth_measuring():
    for label, task in tasks.catalogue().items():
        split = jax.eval_shape(task.split, jax.random.key(0))
        params = jax.eval_shape(task.model.init, jax.random.key(0))
        outputs, layers = jax.eval_shape(task.model.apply, params, split.inputs)
        assert layers, label
        assert all(leaf.ndim >= 2 and leaf.shape[-1] >= 2 for leaf in layers.values()), label
        assert jax.eval_shape(task.loss, outputs, split.targets).shape == (), label
        assert split.inputs.shape[0] >= task.batch, label
        assert task.steps % runner.CHECKPOINTS == 0, label


def test_labels_are_unique():
    assert len(tasks.catalogue()) == len(tasks._build())


def test_methods_and_experiments_name_what_there_is():
    experiments = {f"{each}: {name}": m for each, ms in tuning.EXPERIMENTS.items() for name, m in ms.items()}
    for name, method in (methods.METHODS | experiments).items():
        assert method.family in tuning.FAMILIES, name
        for choice, names in methods.CHOICES.items():
            chosen = method.settings.get(choice, names[0])
            assert chosen in names, f"{name}: {chosen} is not in SHARED of {choice}s.py"


def test_whatever_is_chosen_has_something_to_be_compared_with():
    assert list(training.plan_of(["cancer"], ["AdamW cosine"])["cancer"]) == ["SGD cosine", "AdamW cosine"]
    assert list(training.plan_of(["cancer"], list(methods.METHODS))["cancer"]) == list(methods.METHODS)


def test_the_page_counts_what_there_is():
    text = report.PAGE.read_text()
    plan = training.plan_of(training.reported(), list(methods.METHODS))
    for end in ("begin", "end"):
        assert text.count(pages.mark(report.PAGE, end)) == 1
    assert report.scope(plan) in text, "what is reported changed: run and publish it again"


NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
)
NUMBERS = (*NUMBERS.split(), "seventeen", "eighteen", "nineteen", "twenty")


@pytest.mark.parametrize(
    "page", ["README.md", "docs/index.md", "docs/results/index.md", "docs/results/defaults.md"]
)
def test_other_pages_count_the_same_tasks(page):
    labels = [label for label in training.reported() if not tasks.catalogue()[label].variant]
    text = (report.PAGE.parents[2] / page).read_text().lower()
    assert set(re.findall(r"(\w+) small (?:tasks|networks)", text)) & set(NUMBERS) == {NUMBERS[len(labels)]}


def test_readme_tells_the_size_of_what_is_trained():
    reported = [tasks.catalogue()[label] for label in training.reported()]
    steps = [task.steps for task in reported]
    text = (report.PAGE.parents[2] / "README.md").read_text()
    assert f"{min(steps)} to {max(steps)} steps, {len(training.SEEDS['reporting'])} seeds" in text
    for task in reported:
        params = jax.eval_shape(task.model.init, jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) <= 10_000, tasks.label(task)
    assert "at most ten thousand parameters" in text


def test_asking_how_to_draw_readmes_picture_draws_nothing():
    before = picture.PICTURE.stat().st_mtime_ns
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training.picture", "--help"],
        cwd=picture.report.PAGE.parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--out FILE" in done.stdout
    assert picture.PICTURE.stat().st_mtime_ns == before


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        picture.main(["--out", str(tmp_path / "picture.xls")])
    assert stopped.value.code == 2
    assert "argument --out: must end in ." in capsys.readouterr().err


def test_readmes_picture_is_of_what_is_published(tmp_path):
    records = json.loads(picture.PUBLISHED.read_text())
    spread = {name: np.ptp(np.log(picture.valley(records, name)[1])) for name in picture.VALLEYS}
    assert min(spread, key=spread.get) == "CG-ALR hybrid"
    picture.draw(tmp_path / "picture.png", records)
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert picture.PICTURE.exists()


def test_epochs_visit_every_sample_once():
    order = runner.batches(jax.random.key(0), 12, 4, 6)
    assert order.shape == (6, 4)
    for epoch in np.asarray(order).reshape(2, 12):
        assert sorted(epoch) == list(range(12))


def test_red_of_equal_errors_is_zero_and_pairing_removes_common_noise():
    noise = np.random.default_rng(0).uniform(0.5, 1.5, 30)
    same = estimates.red(noise, noise)
    assert same == estimates.Estimate(0.0, 0.0, 0.0)
    better = estimates.red(0.9 * noise, noise)
    np.testing.assert_allclose([better.value, better.low, better.high], -0.1, atol=1e-9)


def test_interval_covers_the_truth():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(50):
        baseline = random.uniform(0.5, 1.5, 40)
        ours = 0.8 * baseline + random.normal(0, 0.1, 40)
        found = estimates.red(ours, baseline)
        hits += found.low <= -0.2 <= found.high
    assert hits >= 40


def test_steps_to_target_are_the_first_checkpoint_at_or_below():
    curve = np.array([[0.9, 0.5, 0.6, 0.2], [0.9, 0.8, 0.7, 0.6]])
    np.testing.assert_array_equal(estimates.steps_to_target(curve, 0.5, 40), [20, np.nan])


def test_schedules_peak_at_one():
    for name, table in schedules.shapes(40).items():
        assert table.shape == (40,), name
        assert table.max() == pytest.approx(1.0), name


@pytest.mark.parametrize("name", ["SGD cosine", "DoG", "Prodigy", "schedule-free SGD", "SGD on plateau"])
@pytest.mark.slow
def test_every_kind_of_baseline_learns(name):
    task = tasks.catalogue()["graph (karate club)"]
    method = methods.METHODS[name]
    configs = methods.configurations(task, [method], 1)
    train, _ = runner.compile_family(task, methods.FAMILIES[method.family], (0,), configs)
    assert train().score.min() < 0.5 * task.chance


@pytest.mark.slow
def test_scales_are_recorded_and_replayed():
    task = tasks.catalogue()["graph (karate club)"]
    configs = methods.configurations(task, [methods.METHODS["yoked hybrid"]._replace(rates=(0.1,))], 1)
    configs["replayed"] = np.linspace(0.5, 1.5, task.steps, dtype=np.float32)[None, None]
    train, _ = runner.compile_family(task, methods.FAMILIES["yoked"], (0,), configs)
    every = schedules.every(task.steps)
    measured = np.arange(task.steps) // every * every  # a scale holds until the next measurement
    np.testing.assert_allclose(train().scale[0, 0], configs["replayed"][0, 0][measured])


@pytest.mark.slow
def test_signals_that_share_a_compilation_are_the_librarys():
    task = tasks.catalogue()["graph (karate club)"]
    for name, single in (
        ("CG-ALR hybrid", methods.connectome_family("hybrid")),
        ("CG-ALR births, each layer", methods.connectome_family("births over min")),
    ):
        configs = methods.configurations(task, [methods.METHODS[name]._replace(rates=(0.03,))], 1)
        outcomes = [
            runner.compile_family(task, family, (0,), configs)[0]()
            for family in (methods.FAMILIES["ours on SGD"], single)
        ]
        # The first measurements agree to rounding; later ones amplify it.
        scales = [outcome.scale[0, 0, : task.steps // 10] for outcome in outcomes]
        np.testing.assert_allclose(*scales, rtol=1e-3)


@pytest.mark.slow
def test_gate_hears_the_opposite():
    for listen, direction in ((1.0, 1), (-1.0, -1)):
        gate = controllers.gate({"listen": listen}, jax.random.key(0))
        before, state = gate.init()
        for distance in (1.0, 1.1, 0.9, 1.0, 1.05, 0.5):  # the last is calmer than the others
            scale, state = gate.update(measurement(distance, step=10), state)
        assert np.sign(scale - before) == direction


@pytest.mark.slow
def test_a_timed_run_is_not_optimised_away():
    task = seconds.unscored("cancer")._replace(steps=20)
    method = methods.BASELINES["SGD cosine"]._replace(rates=(0.01, 0.1))
    configs = methods.configurations(task, [method], 1)
    train, _ = runner.compile_family(task, seconds.FAMILIES["SGD cosine"], (0,), configs)
    slow, fast = train().score[0]
    assert slow != fast


def test_what_an_experiment_selects_is_measured():
    for label, name, shape in (("gru", "last step", (5, 24)), ("transformer", "attention", (5, 12, 24))):
        task = tasks.catalogue()[label]
        family = methods.connectome_family("hybrid", select=tuning.SELECTIONS[name], samples=5)

        def measured(key, task=task, family=family):
            split = task.split(key)
            extras = family.extras(task, split, split.inputs[:16])
            return extras["probe"](task.model.init(key), extras["samples"])

        layers = jax.eval_shape(measured, jax.random.key(0))
        assert [layer.shape for layer in layers.values()] == [shape]


@pytest.mark.slow
def test_measurements_stay_a_branch_under_vmap():
    task = tasks.catalogue()["graph (karate club)"]._replace(steps=20)
    family = methods.FAMILIES["ours on SGD"]
    configs = methods.configurations(task, [methods.METHODS["CG-ALR hybrid"]], 1)
    prepared = jax.tree.map(lambda leaf: leaf[0], runner.prepare("graph (karate club)", (0,)))
    prepared = (*prepared[:2], prepared[2][:20], prepared[3])
    one = jax.vmap(lambda config: runner._train_one(task, family, prepared, config))
    program = str(jax.make_jaxpr(one)(jax.tree.map(lambda leaf: leaf[0], configs)))
    assert " cond[" in program


@pytest.mark.slow
def test_quick_run_writes_records_tables_and_plots(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "QUICK_TASKS", ("graph (karate club)",))
    monkeypatch.setattr(training, "QUICK_METHODS", ("SGD cosine", "update norm"))
    file = tmp_path / "runs.json"
    arguments = ["--quick", "--processes", "1", "--out", str(tmp_path), "--json", str(file)]
    training.main(arguments)
    records = json.loads(file.read_text())
    fields = {
        "task",
        "variant",
        "method",
        "base_rate",
        "seed",
        "error",
        "steps_to_target",
        "seconds",
        "at_chance",
    }
    assert {record["method"] for record in records} == {"SGD cosine", "update norm"}
    assert all(set(record) == fields for record in records)
    assert all(0 <= record["error"] <= tasks.catalogue()["graph (karate club)"].chance for record in records)
    assert (tmp_path / "quick" / "report.md").exists()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    training.main(arguments)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}


def test_a_record_of_other_settings_is_not_taken(tmp_path):
    method, seeds = methods.METHODS["SGD cosine"], (0, 1)
    shape = len(seeds), len(method.rates)
    record = store.Record(
        np.array(seeds),
        np.float32(method.rates),
        *(np.zeros((*shape, 1)[: 2 + (n > 0)]) for n in range(4)),
        np.float32(0),
    )
    store.save(tmp_path, "cancer", "SGD cosine", method, record)
    plan = {"cancer": {"SGD cosine": method}}
    assert workers.pending(tmp_path, plan, seeds) == []
    for other in (
        method._replace(shape="step"),
        method._replace(family="adamw"),
        method._replace(rates=method.rates[:3]),
        method._replace(settings={"target": 2.0}),
    ):
        assert len(workers.pending(tmp_path, {"cancer": {"SGD cosine": other}}, seeds)) == 1
    assert len(workers.pending(tmp_path, plan, (0, 1, 2))) == 1


def test_pairs_are_of_the_same_seeds():
    with pytest.raises(ValueError, match="pairs must be of the same seeds"):
        estimates.red(np.ones(2), np.ones(8))


def test_layers_are_taken_in_their_order_however_many():
    """The tenth comes after the ninth, not after the first."""
    sizes = tuple(range(2, 15))
    model = models.mlp(sizes)
    outputs, layers = jax.eval_shape(
        lambda inputs: model.apply(model.init(jax.random.key(0)), inputs), jnp.ones((5, 2))
    )
    assert outputs.shape == (5, 14)
    assert [layers[f"dense{index}"].shape[1] for index in range(len(layers))] == list(sizes[1:-1])
