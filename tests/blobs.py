"""A small task of the studies, and outcomes that nobody trained."""

import numpy as np

from benchmarks.paper import models
from benchmarks.study import problems, runner
from benchmarks.study.tasks import Task
from examples import datasets

SEEDS = (0, 1)


def problem(folder=None):
    """Ten classes of blobs, as images of 4 x 4."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, 10, 400).astype(np.int32)
    x = (generator.normal(size=(10, 4, 4, 1))[y] + generator.normal(size=(400, 4, 4, 1))).astype(np.float32)
    held = datasets.Images(x[:300], y[:300], x[300:], y[300:])
    return problems.images(held, models.mlp((16, 12, 8, 10)), train=200, validation=100, pool=300)


TASK = Task(problem, epochs=4, batch=20, sgd=0.03, adam=1e-2, chance=0.9, points=2)


def untried(rate):
    """The validation error at a base rate that nothing was tried at."""
    return None


def outcome(validation, test):
    curve = np.full((len(test), 2), 0.5, np.float32)
    scores = (np.float32(validation), np.float32(test))
    return runner.Outcome(*scores, curve, curve, curve, curve, np.float32(test))
