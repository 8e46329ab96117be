"""The paper's benchmark: its networks and methods, and what its report says."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

for needed in ("sklearn", "networkx", "rich", "matplotlib"):
    pytest.importorskip(needed)

import blobs  # noqa: E402  after what they need

from benchmarks import pages  # noqa: E402
from benchmarks.paper import methods, models, report, tasks  # noqa: E402
from benchmarks.study import lines, runner  # noqa: E402
from benchmarks.training import models as training_models  # noqa: E402


@pytest.mark.parametrize(
    ("name", "epochs"),
    [("paper deaths", 4), ("gate on noise", 4), ("DoG, averaged", 40), ("our default", 40)],
)
@pytest.mark.slow
def test_a_method_learns(name, epochs):
    method = methods.METHODS[name]
    rate = method.rates(blobs.TASK, blobs.untried)[2]
    (found,) = runner.Runner(blobs.TASK._replace(epochs=epochs), blobs.problem(), methods.FAMILIES).train(
        method, (rate,), blobs.SEEDS
    )
    assert found.test.shape == (2,)
    assert found.test_curve.shape == (2, blobs.TASK.points)
    assert found.test.mean() < 0.6
    np.testing.assert_allclose(found.test, found.test_curve[:, -1], atol=1e-6)
    if "paper" in name:
        assert np.all(found.distance > 0)


@pytest.mark.slow
def test_the_control_that_hears_the_distance_is_the_paper():
    method = methods.METHODS["paper deaths"]
    trainer = runner.Runner(blobs.TASK._replace(epochs=8), blobs.problem(), methods.FAMILIES)
    presets, controlled = (
        trainer.train(each, (0.03,), blobs.SEEDS)[0]
        for each in (method, method._replace(family="gate control"))
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
        grids = [np.array(method.rates(task, blobs.untried)) for method in methods.METHODS.values()]
        assert {len(grid) for grid in grids} == {6}
        for grid in grids:
            np.testing.assert_allclose(grid / grid[2], grids[0] / grids[0][2], rtol=1e-5)


def test_a_rate_is_chosen_on_validation_and_reported_on_test():
    outcomes = (blobs.outcome([0.3, 0.3], [0.1, 0.1]), blobs.outcome([0.2, 0.2], [0.25, 0.35]))
    line = lines.Line((0.1, 0.2), outcomes, (0.1, 0.2))
    assert line.best == 1
    text = report.text({"cora": {"SGD cosine": line}})
    assert "| SGD cosine | 0.2 (edge) | 30.00 %" in text
    chosen = [record["chosen"] for record in lines.records({"cora": {"SGD cosine": line}})]
    assert chosen == [0, 0, 1, 1]


def test_a_claim_is_counted_where_its_interval_tells(monkeypatch):
    labels = ("won", "lost", "equal", "alone")
    for label in labels:
        monkeypatch.setitem(tasks.TASKS, label, blobs.TASK)
    good, bad, reference = (
        blobs.outcome([0.1], [0.1, 0.1]),
        blobs.outcome([0.1], [0.3, 0.3]),
        blobs.outcome([0.1], [0.2, 0.2]),
    )
    held = [lines.Line((0.1,), (each,), (0.1,)) for each in (good, bad, reference, reference)]
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


def test_the_page_has_a_place_for_the_report():
    for end in ("begin", "end"):
        assert report.PAGE.read_text().count(pages.mark(report.PAGE, end)) == 1


@pytest.mark.slow
def test_real_data_where_it_is():
    folder = pathlib.Path("/usr/share/datasets")
    if not (folder / "fashion-mnist").exists():
        pytest.skip("needs Debian's dataset-fashion-mnist")
    trainer = runner.Runner(
        tasks.TASKS["fashion-mlp"]._replace(epochs=1, points=1),
        tasks.TASKS["fashion-mlp"].load(folder),
        methods.FAMILIES,
    )
    assert trainer.train(methods.METHODS["SGD cosine"], (0.03,), (0,))[0].test[0] < 0.35
