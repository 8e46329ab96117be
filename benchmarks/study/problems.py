"""Data that several studies read, and how it is scored: images, a text, a linear read-out of codes."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import scores
from benchmarks.study.tasks import Model, Parts, Problem
from examples import datasets

PROBE = 1000  # samples of the fixed probe; how many the paper has is not known
CONTEXT = 64  # characters that a text is read by


def cross_entropy(params: Any, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """The loss of a `Problem` that looks at no parameters: nats."""
    del params
    return scores.cross_entropy(outputs, targets)


def images(held: datasets.Images, model: Model, train: int, validation: int, pool: int) -> Problem:
    """Classifies images: the first `pool` of the training set to draw from, all of the test set."""
    data = {
        name: jnp.concatenate([jnp.asarray(first[:pool]), jnp.asarray(last)])
        for name, first, last in (("x", held.x, held.x_test), ("y", held.y, held.y_test))
    }

    def split(seed: int) -> Parts:
        order = np.random.default_rng(seed).permutation(pool).astype(np.int32)
        return {
            "train": order[:train],
            "validation": order[train : train + validation],
            "test": np.arange(pool, len(data["x"]), dtype=np.int32),
            "probe": order[: min(PROBE, train)],
        }

    def take(data: Any, part: str, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        del part
        return data["x"][numbers], data["y"][numbers]

    return Problem(data, split, take, model, cross_entropy, scores.error)


def read_out(codes: jax.Array, labels: jax.Array, classes: int = 10) -> jax.Array:
    """The error of a linear read-out of codes f32[N, F]: ridge regression on half, tried on the rest."""
    codes = (codes - codes.mean(0)) / (codes.std(0) + 1e-6)
    codes = jnp.concatenate([codes, jnp.ones((len(codes), 1))], 1)
    fitted, tried = codes[::2], codes[1::2]
    ridge = 1e-3 * len(fitted) * jnp.eye(codes.shape[1])
    targets = jax.nn.one_hot(labels[::2], classes)
    weights = jnp.linalg.solve(fitted.T @ fitted + ridge, fitted.T @ targets)
    return scores.error(tried @ weights, labels[1::2])


def shakespeare(folder: pathlib.Path, make: Callable[[int], Model], windows: int, until: int) -> Problem:
    """The next character: trained on windows that start at any of the first characters."""
    letters, codes = np.unique(datasets.tiny_shakespeare(folder), return_inverse=True)
    regions = {"train": (0, until), "validation": (900_000, 950_000), "test": (1_000_000, 1_100_000)}
    data = jnp.asarray(codes, jnp.int32)

    def split(seed: int) -> Parts:
        generator = np.random.default_rng(seed)
        first, last = regions["train"]
        parts = {"train": generator.integers(first, last - CONTEXT, windows).astype(np.int32)}
        for part in ("validation", "test"):
            parts[part] = np.arange(*regions[part], 4 * CONTEXT, dtype=np.int32)[:-1]
        return parts | {"probe": parts["train"][:64]}

    def take(data: Any, part: str, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
        del part
        windows = data[numbers[:, None] + jnp.arange(CONTEXT + 1)]
        return windows[:, :-1], windows[:, 1:]

    return Problem(data, split, take, make(len(letters)), cross_entropy, scores.cross_entropy)
