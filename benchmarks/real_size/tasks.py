"""The tasks: widths, depths, normalisations, kinds of network and of loss, a thousand steps of most.

None of them was looked at when a default was chosen: they are for reporting.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.datasets

from benchmarks import scores
from benchmarks.paper import tasks as paper
from benchmarks.real_size import models
from benchmarks.study import problems
from benchmarks.study.tasks import Model, Problem, Task, deterministic
from benchmarks.training import models as training_models
from examples import datasets

SEEDS = 5

# ------------------------------------------------------------------------------------------------------------
# Images
# ------------------------------------------------------------------------------------------------------------

LARGE = {"train": 50000, "validation": 10000, "pool": 60000}  # 5 epochs of 200 steps
SMALL = {"train": 2000, "validation": 2000, "pool": 60000}  # 25 epochs of 40 steps
CIFAR = {"train": 25600, "validation": 4000, "pool": 50000}  # 5 epochs of 200 steps


def _fashion(model: Model, parts: dict[str, int] = LARGE) -> Callable[[pathlib.Path], Problem]:
    return lambda folder: problems.images(datasets.fashion_mnist(folder), model, **parts)


def _cifar(model: Model) -> Callable[[pathlib.Path], Problem]:
    return lambda folder: problems.images(datasets.cifar10(folder), model, **CIFAR)


def _image_task(
    load: Callable[[pathlib.Path], Problem], epochs: int = 5, batch: int = 250, **rest: Any
) -> Task:
    return Task(
        load,
        epochs,
        batch,
        sgd=0.03,
        adam=1e-3,
        chance=0.9,
        points=epochs,
        seeds=SEEDS,
        one_by_one=True,
        **rest,
    )


def _width(*hidden: int, normalise: str | None = None) -> Model:
    return models.mlp((784, *hidden, 10), normalise)


def contrastive_loss(params: Any, outputs: Any, targets: Any) -> jax.Array:
    """NT-Xent at a temperature of 0.5 (Chen et al. 2020): each view is to find the other of its image."""
    del params, targets
    both = jnp.concatenate([outputs[0][:, 0], outputs[0][:, 1]])
    both = both / jnp.linalg.norm(both + 1e-12, axis=-1, keepdims=True)
    alike = both @ both.T / 0.5 - 1e9 * jnp.eye(len(both))
    partner = jnp.roll(jnp.arange(len(both)), len(both) // 2)
    return scores.cross_entropy(alike, partner)


def _contrastive(folder: pathlib.Path) -> Problem:
    """No label is seen; scored by a linear read-out of the code."""
    model = models.contrastive((1, 16, 32), 28, code=128, projected=64)
    problem = problems.images(datasets.fashion_mnist(folder), model, **LARGE)

    def score(outputs: Any, targets: jax.Array) -> jax.Array:
        return problems.read_out(outputs[1], targets)

    return problem._replace(loss=contrastive_loss, score=score)


def _fine_tuning(folder: pathlib.Path) -> Problem:
    """Low-rank adapters for images upside down, in an MLP that has learnt them as they are."""
    held = datasets.fashion_mnist(folder)
    inner = _width(512, 512)
    before = problems.images(held, inner, **LARGE)
    optimizer = optax.adam(1e-3)

    def step(carry: Any, numbers: jax.Array) -> tuple[Any, None]:
        params, state = carry

        def objective(params: Any) -> jax.Array:
            inputs, targets = before.take(before.data, "train", numbers)
            return problems.cross_entropy(params, inner.apply(params, inputs, None)[0], targets)

        updates, state = optimizer.update(jax.grad(objective)(params), state)
        return (optax.apply_updates(params, updates), state), None

    params = inner.init(jax.random.key(0))
    order = before.split(0)["train"][:50000].reshape(500, 100)
    (frozen, _), _ = jax.jit(lambda *carry: jax.lax.scan(step, carry, order))(params, optimizer.init(params))
    upside_down = held._replace(x=held.x[:, ::-1], x_test=held.x_test[:, ::-1])
    return problems.images(upside_down, models.adapted(inner, frozen, rank=8), **LARGE)


# ------------------------------------------------------------------------------------------------------------
# Texts, graphs, tables
# ------------------------------------------------------------------------------------------------------------


def _text(make: Callable[[int], Model]) -> Task:
    def load(folder: pathlib.Path) -> Problem:
        return problems.shakespeare(folder, make, windows=3200, until=900_000)

    return paper.TASKS["shakespeare"]._replace(load=load, epochs=10, points=10, seeds=SEEDS)


def _transformer(vocabulary: int, width: int, blocks: int) -> Model:
    return deterministic(training_models.transformer(vocabulary, width, problems.CONTEXT, blocks, heads=4))


class Graph(NamedTuple):
    """All nodes of a graph, and which are read.

    Attributes:
        features: f32[V, F].
        edges: i32[E, 2], from and to, with self-loops and both directions.
        read: i32[N].
    """

    features: jax.Array
    edges: jax.Array
    read: jax.Array


def _attention(folder: pathlib.Path, name: str) -> Problem:
    held = datasets.planetoid(folder, name)
    nodes = len(held.labels)
    loops = np.stack([np.arange(nodes)] * 2, 1)
    edges = np.unique(np.concatenate([held.edges, held.edges[:, ::-1], loops]), axis=0).astype(np.int32)
    words = (held.features > 0).astype(np.float32)
    graph = Graph(jnp.asarray(words), jnp.asarray(edges), jnp.zeros(1, jnp.int32))
    read = {part: jnp.asarray(getattr(held, part), jnp.int32) for part in ("train", "validation", "test")}
    data = {
        part: (graph._replace(read=nodes), jnp.asarray(held.labels)[nodes]) for part, nodes in read.items()
    }
    data["probe"] = data["train"]
    problem = paper.TASKS[name].load(folder)
    model = models.attention_network(words.shape[1], 8, 8, int(held.labels.max()) + 1)
    return problem._replace(data=data, model=model)


def _table(inputs: np.ndarray, targets: np.ndarray, model: Model, train: int, rest: int) -> Problem:
    """Regression with a squared loss; targets of variance 1 over all parts: a constant scores about 1.

    That of a part may differ: a constant scores 0.86 on the test part of `_diabetes`.
    """
    inputs = ((inputs - inputs.mean(0)) / inputs.std(0)).astype(np.float32)
    targets = ((targets - targets.mean()) / targets.std()).astype(np.float32)[:, None]
    known = train + rest
    held = datasets.Images(inputs[:known], targets[:known], inputs[known:], targets[known:])
    problem = problems.images(held, model, train=train, validation=rest, pool=known)

    def squared(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.mean((outputs - targets) ** 2)

    return problem._replace(loss=lambda params, *both: squared(*both), score=squared)


def _teacher(folder: pathlib.Path) -> Problem:
    """What another network answers, with noise of a tenth of its variance."""
    del folder
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(14_000, 32))
    hidden = np.tanh(inputs @ generator.normal(size=(32, 64)) / np.sqrt(8))
    targets = np.tanh(hidden @ generator.normal(size=(64, 64)) / np.sqrt(16)) @ generator.normal(size=64)
    targets = targets / targets.std() + np.sqrt(0.1) * generator.normal(size=len(targets))
    model = models.mlp((32, 512, 512, 1), activation=jnp.tanh)
    return _table(inputs, targets, model, train=10_000, rest=2000)


def _diabetes(folder: pathlib.Path) -> Problem:
    """A disease's progress from ten figures of 442 people (Efron et al. 2004)."""
    del folder
    inputs, targets = sklearn.datasets.load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(targets))
    model = models.mlp((10, 128, 128, 1), activation=jnp.tanh)
    return _table(inputs[order], targets[order], model, train=240, rest=80)


def _regression(
    load: Callable[[pathlib.Path], Problem], epochs: int, batch: int, chance: float = 1.0
) -> Task:
    return Task(
        load,
        epochs,
        batch,
        sgd=0.01,
        adam=1e-3,
        chance=chance,
        points=5,
        unit="squared",
        one_by_one=True,
        seeds=SEEDS,
    )


def _graph(name: str) -> Task:
    return paper.TASKS[name]._replace(seeds=2 * SEEDS)


TASKS: dict[str, Task] = {
    "mlp 2 x 64": _image_task(_fashion(_width(64, 64))),
    "mlp 2 x 512": _image_task(_fashion(_width(512, 512))),
    "mlp 2 x 2048": _image_task(_fashion(_width(2048, 2048))),
    "mlp 6 x 256": _image_task(_fashion(_width(*6 * (256,)))),
    "mlp 16 residual": _image_task(_fashion(models.residual_mlp(784, 256, 8, 10))),
    "mlp 2 x 512 LayerNorm": _image_task(_fashion(_width(512, 512, normalise="layer"))),
    "mlp 2 x 512 BatchNorm": _image_task(_fashion(_width(512, 512, normalise="batch"))),
    "mlp 2 x 512, 2000 images": _image_task(_fashion(_width(512, 512), SMALL), epochs=25, batch=50),
    "cifar cnn": _image_task(_cifar(models.cnn(32, (3, 32, 64, 64), 128, 10)), batch=128),
    "cifar cnn BatchNorm": _image_task(
        _cifar(models.cnn(32, (3, 32, 64, 64), 128, 10, normalise=True)), batch=128
    ),
    "cifar resnet": _image_task(_cifar(models.resnet((3, 16, 32, 64), 10)), batch=128),
    "transformer": _text(lambda letters: _transformer(letters, 128, 4)),
    "transformer, 3 million": _text(lambda letters: _transformer(letters, 256, 6)),
    "lstm": _text(lambda letters: models.lstm(letters, 64, 256)),
    "gcn cora": _graph("cora"),
    "gcn citeseer": _graph("citeseer"),
    "gat cora": _graph("cora")._replace(load=functools.partial(_attention, name="cora")),
    "gat citeseer": _graph("citeseer")._replace(load=functools.partial(_attention, name="citeseer")),
    "denoising autoencoder": paper.TASKS["fashion-unlabelled"]._replace(seeds=SEEDS),
    "contrastive": _image_task(_contrastive),
    "teacher": _regression(_teacher, epochs=5, batch=50),
    "diabetes": _regression(_diabetes, epochs=50, batch=12, chance=0.865),
    "fine-tuning": _image_task(_fine_tuning),
}

# Numbers that are trained; a test counts them.
PARAMETERS: dict[str, int] = {
    "mlp 2 x 64": 55_050,
    "mlp 2 x 512": 669_706,
    "mlp 2 x 2048": 5_824_522,
    "mlp 6 x 256": 532_490,
    "mlp 16 residual": 1_253_888,
    "mlp 2 x 512 LayerNorm": 670_730,
    "mlp 2 x 512 BatchNorm": 670_730,
    "mlp 2 x 512, 2000 images": 669_706,
    "cifar cnn": 188_832,
    "cifar cnn BatchNorm": 188_832,
    "cifar resnet": 70_608,
    "transformer": 552_769,
    "transformer, 3 million": 3_206_209,
    "lstm": 349_504,
    "gcn cora": 23_063,
    "gcn citeseer": 59_366,
    "gat cora": 92_366,
    "gat citeseer": 237_580,
    "denoising autoencoder": 435_536,
    "contrastive": 213_744,
    "teacher": 280_065,
    "diabetes": 18_049,
    "fine-tuning": 22_736,
}
