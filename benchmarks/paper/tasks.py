"""The tasks: real images, citation graphs and a text, from the files that `examples.datasets` reads."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import scores
from benchmarks.paper import models
from benchmarks.study import problems
from benchmarks.study.tasks import Model, Parts, Problem, Task
from examples import datasets

# ------------------------------------------------------------------------------------------------------------
# Images: a tenth of the training set, another sub-sample for each seed, or all of it
# ------------------------------------------------------------------------------------------------------------

TENTH = {"train": 6000, "validation": 2000}
WHOLE = {"train": 50000, "validation": 10000}


def _fashion_mlp(folder: pathlib.Path, parts: dict[str, int] = TENTH) -> Problem:
    model = models.mlp((784, 256, 128, 10))
    return problems.images(datasets.fashion_mnist(folder), model, **parts, pool=60000)


def _fashion_cnn(folder: pathlib.Path, parts: dict[str, int] = TENTH) -> Problem:
    model = models.cnn(28, (1, 8, 16), (64, 10), strided=True, dense_only=False)
    return problems.images(datasets.fashion_mnist(folder), model, **parts, pool=60000)


def _cifar(folder: pathlib.Path) -> Problem:
    model = models.cnn(32, (3, 8, 16, 32), (256, 128, 10), strided=False, dense_only=True)
    return problems.images(datasets.cifar10(folder), model, train=5000, validation=2000, pool=20000)


def _fashion_unlabelled(folder: pathlib.Path) -> Problem:
    """A denoising autoencoder, which sees no label; scored by a linear read-out of its code."""
    held = datasets.fashion_mnist(folder)
    model = models.denoising_autoencoder((784, 256, 64))
    problem = problems.images(held, model, **TENTH, pool=60000)

    def take(data: Any, part: str, numbers: jax.Array) -> tuple[jax.Array, Any]:
        inputs, labels = problem.take(data, part, numbers)
        return inputs, (inputs.reshape(len(inputs), -1), labels)

    def loss(params: Any, outputs: Any, targets: Any) -> jax.Array:
        del params
        return jnp.mean((outputs[0] - targets[0]) ** 2)

    def score(outputs: Any, targets: Any) -> jax.Array:
        return problems.read_out(outputs[1], targets[1])

    return problem._replace(take=take, loss=loss, score=score)


# ------------------------------------------------------------------------------------------------------------
# Graphs: the public split; seeds differ in initial parameters and dropout
# ------------------------------------------------------------------------------------------------------------

_DECAY = 5e-4  # L2 of the first layer (Kipf & Welling)


def _graph(folder: pathlib.Path, name: str, *, sage: bool) -> Problem:
    """Kipf & Welling's network of 16 hidden units, or GraphSAGE's mean, on a Planetoid graph.

    The words of a document are 0 or 1, as published. With rows that sum to one, as Adam likes them, SGD with
    momentum needs rates at which it diverges.
    """
    held = datasets.planetoid(folder, name)
    nodes = len(held.labels)
    adjacency = held.adjacency()
    if sage:
        terms = [np.eye(nodes, dtype=np.float32), adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1)]
    else:
        terms = [datasets.normalised_adjacency(adjacency)]
    words = (held.features > 0).astype(np.float32)
    features = np.concatenate([term @ words for term in terms], 1)
    propagate = np.stack(terms)

    def view(outputs: np.ndarray) -> models.View:
        read = np.flatnonzero(propagate[:, outputs].any((0, 1)))
        return models.View(jnp.asarray(features[read]), jnp.asarray(propagate[:, outputs][:, :, read]))

    data = {
        part: (view(getattr(held, part)), jnp.asarray(held.labels[getattr(held, part)]))
        for part in ("train", "validation", "test")
    }
    # Hidden units only are read: a sub-sample of nodes, the same for all seeds.
    probed = np.random.default_rng(0).permutation(nodes)[: problems.PROBE]
    unread = jnp.zeros((len(terms), 1, len(probed)), jnp.float32)
    data["probe"] = (models.View(jnp.asarray(features[probed]), unread), jnp.zeros(1, jnp.int32))

    def split(seed: int) -> Parts:
        del seed
        return dict.fromkeys(("train", "validation", "test", "probe"), np.zeros(1, np.int32))  # one graph

    def take(data: Any, part: str, numbers: jax.Array) -> tuple[models.View, jax.Array]:
        del numbers
        return data[part]

    def loss(params: Any, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        return problems.cross_entropy(params, outputs, targets) + _DECAY / 2 * jnp.sum(params["first"] ** 2)

    classes = int(held.labels.max()) + 1
    model = models.graph_network(features.shape[1], 16, classes, len(terms))
    return Problem(data, split, take, model, loss, scores.error)


# ------------------------------------------------------------------------------------------------------------
# Text
# ------------------------------------------------------------------------------------------------------------


def _shakespeare(folder: pathlib.Path) -> Problem:
    def make(letters: int) -> Model:
        return models.transformer(letters, 64, problems.CONTEXT, blocks=2)

    return problems.shakespeare(folder, make, windows=6400, until=200_000)


def _graph_task(name: str, chance: float, *, sage: bool = False) -> Task:
    """200 epochs of one step each."""
    return Task(
        lambda folder: _graph(folder, name, sage=sage),
        epochs=200,
        batch=1,
        sgd=0.1,
        adam=0.01,
        chance=chance,
        points=40,
        paired=False,
        seeds=30,
    )


def _image_task(load: Callable[[pathlib.Path], Problem], sgd: float = 0.03, **rest: Any) -> Task:
    """20 epochs of a tenth of the images."""
    return Task(load, epochs=20, batch=50, sgd=sgd, adam=1e-3, chance=0.9, points=20, **rest)


def _long_image_task(load: Callable[..., Problem]) -> Task:
    """10 epochs of all images."""
    whole = functools.partial(load, parts=WHOLE)
    return Task(whole, epochs=10, batch=100, sgd=0.03, adam=1e-3, chance=0.9, points=10, one_by_one=True)


TASKS: dict[str, Task] = {
    "cora": _graph_task("cora", 0.70),
    "citeseer": _graph_task("citeseer", 0.79),
    "cora-sage": _graph_task("cora", 0.70, sage=True),
    "citeseer-sage": _graph_task("citeseer", 0.79, sage=True),
    "fashion-mlp": _image_task(_fashion_mlp),
    "fashion-cnn": _image_task(_fashion_cnn, one_by_one=True),
    "fashion-unlabelled": _image_task(_fashion_unlabelled, sgd=0.3),
    "fashion-mlp-all": _long_image_task(_fashion_mlp),
    "fashion-cnn-all": _long_image_task(_fashion_cnn),
    "cifar": _image_task(_cifar, one_by_one=True),
    "shakespeare": Task(
        _shakespeare,
        epochs=5,
        batch=32,
        sgd=0.1,
        adam=3e-3,
        chance=4.17,
        points=5,
        one_by_one=True,
        unit="nats",
    ),
}
