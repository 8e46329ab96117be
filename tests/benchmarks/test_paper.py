"""The paper's benchmark: parts that do not meet, rates chosen on validation only, a run that goes on."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

for needed in ("sklearn", "networkx", "rich", "matplotlib"):
    pytest.importorskip(needed)

from benchmarks import arrays, pages  # noqa: E402
from benchmarks.paper import __main__ as paper  # noqa: E402  after what they need
from benchmarks.paper import (  # noqa: E402
    archive,
    comparison,
    figures,
    lines,
    methods,
    models,
    report,
    runner,
    store,
    tasks,
)
from benchmarks.training import models as training_models  # noqa: E402
from examples import datasets  # noqa: E402

SEEDS = (0, 1)


def problem(folder=None):
    """Ten classes of blobs, as images of 4 x 4."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, 400).astype(np.int32)
    x = (generator.normal(size=(10, 4, 4, 1))[y] + generator.normal(size=(400, 4, 4, 1))).astype(np.float32)
    held = datasets.Images(x[:300], y[:300], x[300:], y[300:])
    return tasks.images(held, models.mlp((16, 12, 8, 10)), train=200, validation=100, pool=300)


TASK = tasks.Task(problem, epochs=4, batch=20, sgd=0.03, adam=1e-2, chance=0.9, points=2)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "small", TASK)


def untried(rate):
    """The validation error at a base rate that nothing was tried at."""
    return None


def outcome(validation, test):
    curve = np.full((len(test), 2), 0.5, np.float32)
    scores = (np.float32(validation), np.float32(test))
    return runner.Outcome(*scores, curve, curve, curve, curve, np.float32(test))


def study(folder):
    """The paper's, with its outcomes in that folder."""
    return store.Study(folder, tasks.TASKS, methods.METHODS)


def test_what_is_trained_chosen_and_reported_on_does_not_meet():
    parts = problem().split(0)
    apart = [set(parts[name]) for name in ("train", "validation", "test")]
    assert sum(map(len, apart)) == len(set.union(*apart)) == 400
    assert set(parts["probe"]) <= apart[0]
    assert set(problem().split(1)["train"]) != apart[0]


@pytest.mark.parametrize(
    ("name", "epochs"),
    [("paper deaths", 4), ("gate on noise", 4), ("DoG, averaged", 40), ("our default", 40)],
)
@pytest.mark.slow
def test_a_method_learns(name, epochs):
    method = methods.METHODS[name]
    rate = method.rates(TASK, untried)[2]
    (found,) = runner.Runner(TASK._replace(epochs=epochs), problem()).train(method, (rate,), SEEDS)
    assert found.test.shape == (2,)
    assert found.test_curve.shape == (2, TASK.points)
    assert found.test.mean() < 0.6
    np.testing.assert_allclose(found.test, found.test_curve[:, -1], atol=1e-6)
    if "paper" in name:
        assert np.all(found.distance > 0)


@pytest.mark.slow
def test_one_seed_after_the_other_is_the_same():
    method = methods.METHODS["SGD cosine"]
    together, apart = (
        runner.Runner(task, problem()).train(method, (0.03,), SEEDS)[0]
        for task in (TASK, TASK._replace(one_by_one=True))
    )
    np.testing.assert_allclose(together.test, apart.test, atol=0.011)  # a sample at the border


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper deaths", "our default"])
def test_base_rates_side_by_side_are_the_same(name):
    method, rates = methods.METHODS[name], (0.01, 0.03)
    trainer = runner.Runner(TASK._replace(epochs=8), problem())
    together = trainer.train(method, rates, SEEDS)
    for rate, outcome in zip(rates, together, strict=True):
        (apart,) = trainer.train(method, (rate,), SEEDS)
        np.testing.assert_allclose(outcome.rate, apart.rate, rtol=1e-3)
        np.testing.assert_allclose(outcome.test, apart.test, atol=0.011)  # a sample at the border


@pytest.mark.parametrize(("accelerator", "jobs"), [(False, 6), (True, 1)])
def test_an_accelerator_trains_the_base_rates_of_a_method_together(
    accelerator, jobs, tmp_path, small, monkeypatch
):
    monkeypatch.setattr(runner, "side_by_side", lambda: accelerator)
    found = comparison.missing(study(tmp_path), "small", ["SGD cosine"], 2)
    assert len(found) == jobs
    rates = sum((job.rates for job in found), ())
    assert rates == methods.METHODS["SGD cosine"].rates(tasks.TASKS["small"], untried)
    held = outcome([0.2, 0.2], [0.2, 0.2])
    store.save(study(tmp_path), "small", "SGD cosine", rates[0], (0, 1), held)
    assert (
        sum((job.rates for job in comparison.missing(study(tmp_path), "small", ["SGD cosine"], 2)), ())
        == rates[1:]
    )


@pytest.mark.slow
def test_the_control_that_hears_the_distance_is_the_paper():
    method = methods.METHODS["paper deaths"]
    trainer = runner.Runner(TASK._replace(epochs=8), problem())
    presets, controlled = (
        trainer.train(each, (0.03,), SEEDS)[0] for each in (method, method._replace(family="gate control"))
    )
    np.testing.assert_allclose(presets.rate, controlled.rate, rtol=1e-5)
    np.testing.assert_allclose(presets.distance, controlled.distance, rtol=1e-4)


def test_a_graph_view_holds_what_its_nodes_read():
    nodes, width = 6, 3
    generator = np.random.default_rng(0)
    features = jnp.asarray(generator.normal(size=(nodes, 5)), jnp.float32)
    propagate = jnp.asarray(generator.random((1, nodes, nodes)) < 0.3, jnp.float32)
    model = models.graph_network(5, width, 2, terms=1)
    params = model.init(jax.random.key(0))
    whole, _ = model.apply(params, models.View(features, propagate), None)
    read = np.flatnonzero(propagate[0, 1])
    part, _ = model.apply(params, models.View(features[read], propagate[:, 1:2][:, :, read]), None)
    np.testing.assert_allclose(part[0], whole[1], rtol=1e-5)


@pytest.mark.slow
def test_convolutions_hand_out_their_units():
    for dense_only, names in ((True, {"dense0", "dense1"}), (False, {"conv0", "conv1", "dense0", "dense1"})):
        for strided, side in ((False, 8), (True, 4)):
            model = models.cnn(8, (3, 4, 5), (7, 6, 10), strided=strided, dense_only=dense_only)
            outputs, units = model.apply(model.init(jax.random.key(0)), jnp.ones((2, 8, 8, 3)), None)
            assert outputs.shape == (2, 10)
            assert set(units) == names
            if not dense_only:
                assert units["conv0"].shape == (2, side, side, 4)


def test_a_convolution_is_that_of_jax():
    generator = np.random.default_rng(0)
    images, kernel = generator.normal(size=(2, 6, 6, 3)), generator.normal(size=(3, 3, 3, 4))
    images, kernel = jnp.asarray(images, jnp.float32), jnp.asarray(kernel, jnp.float32)
    right = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    for stride in (1, 2):
        found = training_models.patches(images, stride) @ kernel.reshape(27, 4)
        np.testing.assert_allclose(found, right[:, ::stride, ::stride], atol=1e-4)


def test_a_read_out_finds_what_a_code_tells():
    labels = np.random.default_rng(0).integers(0, 10, 400)
    telling = jnp.eye(12)[labels] + 0.1 * jax.random.normal(jax.random.key(0), (400, 12))
    assert tasks.read_out(telling, jnp.asarray(labels)) < 0.02
    assert tasks.read_out(jax.random.normal(jax.random.key(1), (400, 12)), jnp.asarray(labels)) > 0.8


def test_a_denoising_autoencoder_is_shown_a_part_and_asked_for_all():
    model = models.denoising_autoencoder((12, 8, 5))
    params, images = model.init(jax.random.key(0)), jnp.ones((3, 3, 4, 1))
    (whole, code), units = model.apply(params, images, None)
    assert whole.shape == (3, 12)
    assert set(units) == {"dense0", "dense1", "dense2"}
    np.testing.assert_array_equal(code, units["dense1"])
    assert code.shape == (3, 5)
    (other, _), _ = model.apply(params, images, jax.random.key(1))
    assert not np.allclose(whole, other)


def test_all_methods_have_the_same_budget():
    for task in tasks.TASKS.values():
        grids = [np.array(method.rates(task, untried)) for method in methods.METHODS.values()]
        assert {len(grid) for grid in grids} == {6}
        for grid in grids:
            np.testing.assert_allclose(grid / grid[2], grids[0] / grids[0][2], rtol=1e-5)


@pytest.mark.parametrize(
    ("best", "tried", "ends"),
    [
        (0.03, 6, (0.003, 0.9)),  # within the grid: the middle
        (0.0003, 8, (0.0003, 0.9)),  # two steps below it, where the ladder ends
        (0.001, 8, (0.0003, 0.9)),  # one step below, and the next to know that
        (3.0, 8, (0.003, 9.0)),
        (1e9, 8, (0.003, 9.0)),
    ],
)
def test_a_best_at_the_end_of_the_grid_is_looked_beyond(best, tried, ends):
    method = methods.METHODS["SGD cosine"]
    known, rates = {}, method.rates(TASK, untried)
    while set(rates) - set(known):
        known |= {rate: abs(np.log(rate / best)) for rate in rates}
        rates = method.rates(TASK, known.get)
    assert len(known) == len(rates) == tried
    np.testing.assert_allclose((rates[0], rates[-1]), ends, rtol=1e-5)
    assert list(rates) == sorted(rates)


def test_a_rate_is_chosen_on_validation_and_reported_on_test():
    line = lines.Line((0.1, 0.2), (outcome([0.3, 0.3], [0.1, 0.1]), outcome([0.2, 0.2], [0.25, 0.35])))
    assert line.best == 1
    text = report.text({"cora": {"SGD cosine": line}})
    assert "| SGD cosine | 0.2 (edge) | 30.00 %" in text
    chosen = [record["chosen"] for record in lines.records({"cora": {"SGD cosine": line}})]
    assert chosen == [0, 0, 1, 1]


def test_a_claim_is_counted_where_its_interval_tells(monkeypatch):
    labels = ("won", "lost", "equal", "alone")
    for label in labels:
        monkeypatch.setitem(tasks.TASKS, label, TASK)
    good, bad, reference = outcome([0.1], [0.1, 0.1]), outcome([0.1], [0.3, 0.3]), outcome([0.1], [0.2, 0.2])
    held = [lines.Line((0.1,), (each,)) for each in (good, bad, reference, reference)]
    found = {
        label: {report.OURS: ours, "SGD cosine": held[2]}
        for label, ours in zip(labels, (*held[:3], held[1]), strict=True)
    }
    del found["alone"]["SGD cosine"]
    found["won"]["SGD step"] = held[2]
    text = report.text(found)
    assert "| claim | won | lost | equal | alone | tasks |" in text
    assert (
        "| than a cosine | -50.0 [-50.0, -50.0] | +50.0 [+50.0, +50.0] | +0.0 [+0.0, +0.0] | not run |"
        in text
    )
    assert "| 1 better, 1 worse, 1 undecided |" in text
    assert "| 1 better, 0 worse, 0 undecided |" in text


def test_what_is_published_lies_between_the_marks_of_its_page(tmp_path):
    page, plot = tmp_path / "paper.md", tmp_path / "error.png"
    marks = [pages.mark(page, end) for end in ("begin", "end")]
    page.write_text(f"above\n{marks[0]}\nold\n{marks[1]}\nbelow\n")
    plot.write_bytes(b"plot")
    for text in ("first", "second"):
        pages.publish(page, text, [plot], [{"a": 1}, {"a": None}])
    assert page.read_text() == f"above\n{marks[0]}\n\nsecond\n\n{marks[1]}\nbelow\n"
    assert (tmp_path / "paper_error.png").read_bytes() == b"plot"
    assert json.loads((tmp_path / "paper.json").read_text()) == [{"a": 1}, {"a": None}]


def test_the_page_has_a_place_for_the_report():
    for end in ("begin", "end"):
        assert report.PAGE.read_text().count(pages.mark(report.PAGE, end)) == 1


def test_a_batch_of_seeds_that_a_method_lacks_is_left_out_of_all(tmp_path, small):
    batches = [(0, 1), (2, 3)]
    for name, held in (("SGD cosine", batches), ("SGD step", batches[:1])):
        for rate in methods.METHODS[name].rates(TASK, untried):
            for batch in held:
                store.save(study(tmp_path), "small", name, rate, batch, outcome([0.2, 0.2], [0.2, 0.2]))
    found = lines.collect(study(tmp_path), ["SGD cosine", "SGD step", "Prodigy"], {"small": batches})
    assert {name: len(line.chosen.test) for name, line in found["small"].items()} == {
        "SGD cosine": 2,
        "SGD step": 2,
    }
    figures.draw(tmp_path, found)
    assert (tmp_path / "distance.png").exists()


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(tmp_path, small, monkeypatch, capsys):
    given = ["--tasks", "small", "--methods", "SGD cosine", "--seeds", "2", "--out", str(tmp_path)]
    paper.main([*given, "--data", str(tmp_path), "--json", str(tmp_path / "records.json")])
    first = capsys.readouterr().out
    assert "### small, 2 paired seeds, 4 epochs" in first
    monkeypatch.setattr(runner.Runner, "train", lambda *_: pytest.fail("trained again"))
    paper.main([*given, "--data", str(tmp_path)])
    paper.main([*given, "--report"])
    assert (tmp_path / "records.json").stat().st_size > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--data: must name the folder of the data sets"),
        (
            ["--data", "nowhere", "--tasks", "cora"],
            "is not there. You find it at https://github.com/kimiyoung",
        ),
        (["--tasks", "unheard"], "--tasks: invalid choice"),
        (["--seeds", "0"], "--seeds: must be an integer of at least 1"),
    ],
)
def test_it_refuses(given, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        paper.main([*given, "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_nothing_to_report(tmp_path):
    for folder in (tmp_path, tmp_path / "mistyped"):
        with pytest.raises(SystemExit, match="Nothing to report"):
            paper.main(["--report", "--out", str(folder)])
    assert list(tmp_path.iterdir()) == []


def test_a_report_takes_the_seeds_that_there_are(tmp_path, small, capsys):
    for rate in methods.METHODS["SGD cosine"].rates(TASK, untried):
        for batch in ((0, 1), (0, 1, 2), (3, 4)):
            values = np.full(len(batch), 0.2)
            store.save(study(tmp_path), "small", "SGD cosine", rate, batch, outcome(values, values))
    assert store.batches(study(tmp_path), "small") == [(0, 1, 2), (3, 4)]
    paper.main(["--report", "--out", str(tmp_path), "--tasks", "small"])
    assert "### small, 5 paired seeds" in capsys.readouterr().out


def test_results_of_other_settings_are_not_taken(tmp_path, small, monkeypatch):
    given = study(tmp_path), "small", "SGD cosine", 0.03, (0, 1)
    store.save(*given, outcome([0.2, 0.2], [0.2, 0.2]))
    assert store.load(*given) is not None
    monkeypatch.setitem(tasks.TASKS, "small", TASK._replace(epochs=8))
    assert store.load(*given) is None
    monkeypatch.setitem(tasks.TASKS, "small", TASK)
    monkeypatch.setitem(methods.METHODS, "SGD cosine", methods.METHODS["SGD step"])
    assert store.load(*given) is None


def test_results_of_an_edition_that_noted_less_are_not_taken(tmp_path, small):
    given = study(tmp_path), "small", "SGD cosine", 0.03, (0, 1)
    fields = outcome([0.2, 0.2], [0.2, 0.2])._asdict()
    del fields["ended"]
    settings = {arrays.SETTINGS: store.settings_of(*given[:3])}
    arrays.write(store.path_of(tmp_path, *given[1:]), fields | settings)
    assert store.load(*given) is None


def test_who_has_what_is_published_goes_on_from_there(tmp_path, small):
    made, other, runs = study(tmp_path / "made"), study(tmp_path / "other"), tmp_path / "runs"
    batches = [(0, 1), (2, 3, 4)]
    given = [("small", name, 0.03, batch) for name in ("SGD cosine", "our default") for batch in batches]
    for number, each in enumerate(given):
        values = np.full(len(each[-1]), 0.1 * number)
        store.save(made, *each, outcome(values, values))
    mine = outcome([0.9, 0.9], [0.9, 0.9])
    store.save(other, *given[0], mine)
    archive.pack(made.folder, runs, ["small"])
    archive.unpack(runs, other.folder)
    for each in given[1:]:
        for one, same in zip(store.load(other, *each), store.load(made, *each), strict=True):
            np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(store.load(other, *given[0]).test, mine.test)  # what is there stays
    tasks.TASKS["small"] = TASK._replace(epochs=8)
    assert store.load(other, *given[1]) is None  # the settings went with it


def test_a_damaged_result_is_named(tmp_path, small):
    given = study(tmp_path), "small", "SGD cosine", 0.03, (0, 1)
    store.save(*given, outcome([0.2, 0.2], [0.2, 0.2]))
    path = store.path_of(tmp_path, *given[1:])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SystemExit, match="cannot be read .* delete it"):
        store.load(*given)


def test_a_part_is_not_published(tmp_path, capsys):
    before = report.PAGE.read_text()
    for part in (["--tasks", "cora"], ["--seeds", "3"], ["--quick"], ["--methods", "SGD cosine"]):
        with pytest.raises(SystemExit) as stopped:
            paper.main(["--report", "--publish", "--out", str(tmp_path), *part])
        assert stopped.value.code == 2
        assert "--publish: puts the whole report" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="Nothing to report"):
        paper.main(["--report", "--publish", "--out", str(tmp_path)])
    page = tmp_path / "paper.md"
    page.write_text("".join(pages.mark(page, end) for end in ("begin", "end")))
    with pytest.raises(SystemExit, match="missing.png must be there"):
        pages.publish(page, "text", [tmp_path / "missing.png"], [])
    assert "text" not in page.read_text()
    assert report.PAGE.read_text() == before


@pytest.mark.slow
def test_real_data_where_it_is():
    folder = pathlib.Path("/usr/share/datasets")
    if not (folder / "fashion-mnist").exists():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    trainer = runner.Runner(
        tasks.TASKS["fashion-mlp"]._replace(epochs=1, points=1), tasks.TASKS["fashion-mlp"].load(folder)
    )
    assert trainer.train(methods.METHODS["SGD cosine"], (0.03,), (0,))[0].test[0] < 0.35
