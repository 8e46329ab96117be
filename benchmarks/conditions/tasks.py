"""One network, under one condition after the other: momentum, batch, noise in the labels, length, depth.

A Fashion-MNIST MLP of two hidden layers of 64 units, 50,000 images, five epochs of batches of 250 (1000
steps), SGD with a momentum of 0.9; each task changes one of these, large batches the epochs, too. None of
them was looked at when a default was chosen.
"""

import pathlib

import numpy as np

from benchmarks.real_size import models
from benchmarks.study import problems
from benchmarks.study.tasks import Problem, Task
from examples import datasets

SEEDS = 5
VALIDATION, POOL = 10_000, 60_000
MOMENTUM = 0.9


def noisy(labels: np.ndarray, share: float, classes: int = 10) -> np.ndarray:
    """The labels with that share of them drawn anew, i32[N]; a tenth of these are right all the same."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, classes, len(labels)).astype(labels.dtype)
    return np.where(generator.random(len(labels)) < share, drawn, labels)


def _task(
    epochs: int = 5,
    batch: int = 250,
    *,
    train: int = 50_000,
    sgd: float = 0.03,
    depth: int = 2,
    noise: float = 0.0,
) -> Task:
    def load(folder: pathlib.Path) -> Problem:
        held = datasets.fashion_mnist(folder)
        held = held._replace(y=noisy(held.y, noise))  # of training and validation; the test labels are right
        model = models.mlp((784, *depth * (64,), 10))
        return problems.images(held, model, train, VALIDATION, POOL)

    return Task(
        load,
        epochs,
        batch,
        sgd=sgd,
        adam=1e-3,
        chance=0.9,
        points=epochs,
        seeds=SEEDS,
        one_by_one=True,
    )


TASKS: dict[str, Task] = {
    "as it is": _task(),
    # A momentum of m makes 1 / (1 - m) of a rate.
    "momentum 0": _task(sgd=0.3),
    "momentum 0.5": _task(sgd=0.1),
    "momentum 0.99": _task(sgd=0.003),
    "batch 8": _task(batch=8),
    "batch 32": _task(batch=32),
    "batch 1000": _task(20, 1000),
    "batch 4096": _task(25, 4096),
    "20 % of the labels drawn": _task(noise=0.2),
    "40 % of the labels drawn": _task(noise=0.4),
    "200 steps": _task(train=10_000),
    "20,000 steps of 50": _task(20, 50),
    "depth 4": _task(depth=4),
    "depth 8": _task(depth=8),
    "depth 16": _task(depth=16),
}
MOMENTA = {"momentum 0": 0.0, "momentum 0.5": 0.5, "momentum 0.99": 0.99}


def momentum(label: str) -> float:
    """That of SGD on this task."""
    return MOMENTA.get(label, MOMENTUM)
