"""The engine of the studies: parts that do not meet, runs that go on, results that are kept and published."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

for needed in ("sklearn", "networkx", "rich", "matplotlib"):
    pytest.importorskip(needed)

import blobs  # noqa: E402  after what they need

from benchmarks import arrays, pages  # noqa: E402
from benchmarks.paper import __main__ as paper  # noqa: E402
from benchmarks.paper import figures, gates, methods, report, tasks  # noqa: E402
from benchmarks.study import archive, comparison, lines, problems, runner, store  # noqa: E402
from benchmarks.study.methods import Family, Method  # noqa: E402


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "small", blobs.TASK)


def study(folder):
    """The paper's, with its outcomes in that folder."""
    return store.Study(folder, tasks.TASKS, methods.METHODS)


def test_what_is_trained_chosen_and_reported_on_does_not_meet():
    parts = blobs.problem().split(0)
    apart = [set(parts[name]) for name in ("train", "validation", "test")]
    assert sum(map(len, apart)) == len(set.union(*apart)) == 400
    assert set(parts["probe"]) <= apart[0]
    assert set(blobs.problem().split(1)["train"]) != apart[0]


@pytest.mark.slow
def test_one_seed_after_the_other_is_the_same():
    method = methods.METHODS["SGD cosine"]
    together, apart = (
        runner.Runner(task, blobs.problem(), methods.FAMILIES).train(method, (0.03,), blobs.SEEDS)[0]
        for task in (blobs.TASK, blobs.TASK._replace(one_by_one=True))
    )
    np.testing.assert_allclose(together.test, apart.test, atol=0.011)  # a sample at the border


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper deaths", "our default"])
def test_base_rates_side_by_side_are_the_same(name):
    method, rates = methods.METHODS[name], (0.01, 0.03)
    trainer = runner.Runner(blobs.TASK._replace(epochs=8), blobs.problem(), methods.FAMILIES)
    together = trainer.train(method, rates, blobs.SEEDS)
    for rate, outcome in zip(rates, together, strict=True):
        (apart,) = trainer.train(method, (rate,), blobs.SEEDS)
        np.testing.assert_allclose(outcome.rate, apart.rate, rtol=1e-3)
        np.testing.assert_allclose(outcome.test, apart.test, atol=0.011)  # a sample at the border


class Told(NamedTuple):
    cg_scale: jax.Array  # which the engine records


@pytest.mark.parametrize(("batches", "same"), [(1, True), (4, False)])
def test_the_loss_that_an_optimizer_may_ask_for_is_of_the_next_batch(batches, same):
    def update(updates, state, params, *, value, value_fn):
        return updates, Told(value_fn(params) / value)

    tx = optax.GradientTransformationExtraArgs(lambda params: Told(jnp.ones(())), update)
    families = {"told": Family(lambda setting: optax.chain(optax.sgd(1e-3), tx), "loss")}
    problem = blobs.problem()
    task = blobs.TASK._replace(batch=len(problem.split(0)["train"]) // batches, epochs=2, points=2)
    (outcome,) = runner.Runner(task, problem, families).train(Method("told", "constant"), (1.0,), (0,))
    assert np.all(np.isclose(outcome.rate, 1.0, rtol=1e-5) == same)


@pytest.mark.parametrize(("accelerator", "jobs"), [(False, 6), (True, 1)])
def test_an_accelerator_trains_the_base_rates_of_a_method_together(
    accelerator, jobs, tmp_path, small, monkeypatch
):
    monkeypatch.setattr(runner, "side_by_side", lambda: accelerator)
    found = comparison.missing(study(tmp_path), "small", ["SGD cosine"], 2)
    assert len(found) == jobs
    rates = sum((job.rates for job in found), ())
    assert rates == methods.METHODS["SGD cosine"].rates(tasks.TASKS["small"], blobs.untried)
    held = blobs.outcome([0.2, 0.2], [0.2, 0.2])
    store.save(study(tmp_path), "small", "SGD cosine", rates[0], (0, 1), held)
    assert (
        sum((job.rates for job in comparison.missing(study(tmp_path), "small", ["SGD cosine"], 2)), ())
        == rates[1:]
    )


def test_a_read_out_finds_what_a_code_tells():
    labels = np.random.default_rng(0).integers(0, 10, 400)
    telling = jnp.eye(12)[labels] + 0.1 * jax.random.normal(jax.random.key(0), (400, 12))
    assert problems.read_out(telling, jnp.asarray(labels)) < 0.02
    assert problems.read_out(jax.random.normal(jax.random.key(1), (400, 12)), jnp.asarray(labels)) > 0.8


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
    known, rates = {}, method.rates(blobs.TASK, blobs.untried)
    while set(rates) - set(known):
        known |= {rate: abs(np.log(rate / best)) for rate in rates}
        rates = method.rates(blobs.TASK, known.get)
    assert len(known) == len(rates) == tried
    np.testing.assert_allclose((rates[0], rates[-1]), ends, rtol=1e-5)
    assert list(rates) == sorted(rates)


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


def test_a_batch_of_seeds_that_a_method_lacks_is_left_out_of_all(tmp_path, small):
    batches = [(0, 1), (2, 3)]
    for name, held in (("SGD cosine", batches), ("SGD step", batches[:1])):
        for rate in methods.METHODS[name].rates(blobs.TASK, blobs.untried):
            for batch in held:
                store.save(study(tmp_path), "small", name, rate, batch, blobs.outcome([0.2, 0.2], [0.2, 0.2]))
    found = lines.collect(study(tmp_path), ["SGD cosine", "SGD step", "Prodigy"], {"small": batches})
    assert {name: len(line.chosen.test) for name, line in found["small"].items()} == {
        "SGD cosine": 2,
        "SGD step": 2,
    }
    figures.draw(tmp_path, found)
    assert (tmp_path / "distance.png").exists()


def test_epochs_of_reorganisation_are_those_below_the_top_of_the_envelope():
    """The envelope of the preset falls as 1 / (1 + epoch / 10)."""
    task = blobs.TASK
    ends = np.arange(1, task.points + 1) * (task.epochs // task.points)
    top = 0.3 / (1 + (ends - 1) / 10)
    rate = np.stack([top, 0.8 * top, np.where(ends == ends[1], 0.1 * top, top)]).astype(np.float32)
    outcome = blobs.outcome([0.2] * 3, [0.2] * 3)._replace(rate=rate)
    below = gates.is_below_the_top(task, lines.Line((0.3,), (outcome,), (0.3,)))
    assert below.tolist() == [[False] * task.points, [True] * task.points, (ends == ends[1]).tolist()]


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
    for rate in methods.METHODS["SGD cosine"].rates(blobs.TASK, blobs.untried):
        for batch in ((0, 1), (0, 1, 2), (3, 4)):
            values = np.full(len(batch), 0.2)
            store.save(study(tmp_path), "small", "SGD cosine", rate, batch, blobs.outcome(values, values))
    assert store.batches(study(tmp_path), "small") == [(0, 1, 2), (3, 4)]
    paper.main(["--report", "--out", str(tmp_path), "--tasks", "small"])
    assert "### small, 5 paired seeds" in capsys.readouterr().out


def test_results_of_other_settings_are_not_taken(tmp_path, small, monkeypatch):
    given = study(tmp_path), "small", "SGD cosine", 0.03, (0, 1)
    store.save(*given, blobs.outcome([0.2, 0.2], [0.2, 0.2]))
    assert store.load(*given) is not None
    monkeypatch.setitem(tasks.TASKS, "small", blobs.TASK._replace(epochs=8))
    assert store.load(*given) is None
    monkeypatch.setitem(tasks.TASKS, "small", blobs.TASK)
    monkeypatch.setitem(methods.METHODS, "SGD cosine", methods.METHODS["SGD step"])
    assert store.load(*given) is None


def test_results_of_an_edition_that_noted_less_are_not_taken(tmp_path, small):
    given = study(tmp_path), "small", "SGD cosine", 0.03, (0, 1)
    fields = blobs.outcome([0.2, 0.2], [0.2, 0.2])._asdict()
    del fields["ended"]
    settings = {arrays.SETTINGS: store.settings_of(*given[:3])}
    arrays.write(store.path_of(tmp_path, *given[1:]), fields | settings)
    assert store.load(*given) is None


def test_who_has_what_is_published_goes_on_from_there(tmp_path, small, monkeypatch):
    monkeypatch.setattr(arrays, "commit", lambda: "first")
    made, other, runs = study(tmp_path / "made"), study(tmp_path / "other"), tmp_path / "runs"
    batches = [(0, 1), (2, 3, 4)]
    given = [("small", name, 0.03, batch) for name in ("SGD cosine", "our default") for batch in batches]
    for number, each in enumerate(given):
        values = np.full(len(each[-1]), 0.1 * number)
        store.save(made, *each, blobs.outcome(values, values))
    mine = blobs.outcome([0.9, 0.9], [0.9, 0.9])
    store.save(other, *given[0], mine)
    monkeypatch.setattr(arrays, "commit", lambda: "later")
    archive.pack(made.folder, runs, ["small"])
    archive.unpack(runs, other.folder)
    for each in given[1:]:
        for one, same in zip(store.load(other, *each), store.load(made, *each), strict=True):
            np.testing.assert_array_equal(one, same)
    np.testing.assert_array_equal(store.load(other, *given[0]).test, mine.test)  # what is there stays
    said = arrays.made_by((other.folder / "small").glob("*/*.npz"))
    assert said == "Outcomes, by the commit of the code that made them: first (4)."
    tasks.TASKS["small"] = blobs.TASK._replace(epochs=8)
    assert store.load(other, *given[1]) is None  # the settings went with it


def test_a_damaged_result_is_named(tmp_path, small):
    given = study(tmp_path), "small", "SGD cosine", 0.03, (0, 1)
    store.save(*given, blobs.outcome([0.2, 0.2], [0.2, 0.2]))
    path = store.path_of(tmp_path, *given[1:])
    whole, named = path.read_bytes(), 0
    cut = [whole[:length] for length in (0, 100, len(whole) - 30)]
    for damaged in cut + [
        whole[:k] + bytes([whole[k] ^ 16]) + whole[k + 1 :] for k in range(8, len(whole), 9)
    ]:
        path.write_bytes(damaged)
        try:  # some flips hit what is not read, as a date
            store.load(*given)
        except SystemExit as stopped:
            named += "cannot be read" in str(stopped) and "delete it" in str(stopped)
    assert named > len(whole) / 20


def test_a_file_of_another_name_is_no_result(tmp_path, small):
    store.save(study(tmp_path), "small", "SGD cosine", 0.03, (0, 1), blobs.outcome([0.2, 0.2], [0.2, 0.2]))
    held = store.path_of(tmp_path, "small", "SGD cosine", 0.03, (0, 1))
    for name in ("copy_seeds.npz", f"{held.stem} (copy).npz", "notes.npz"):
        held.with_name(name).touch()
    assert store.batches(study(tmp_path), "small") == [(0, 1)]


def test_a_run_that_is_stopped_says_that_it_goes_on(tmp_path, small, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.Runner, "train", interrupt)
    given = ["--tasks", "small", "small", "--methods", "SGD cosine", "--data", str(tmp_path)]
    with pytest.raises(SystemExit, match="Stopped; what is done is kept"):
        paper.main([*given, "--seeds", "2", "--out", str(tmp_path)])


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
