"""Data that is always there: scikit-learn's sets, networkx's graphs, the standard library's source."""

import functools
import pathlib
import sysconfig
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets

from examples import datasets as local


class Split(NamedTuple):
    """One seed's data: inputs and targets for training, inputs and targets for testing."""

    inputs: jax.Array
    targets: jax.Array
    test_inputs: jax.Array
    test_targets: jax.Array


def permuted_split(
    key: jax.Array,
    inputs: np.ndarray,
    targets: np.ndarray,
    train: int,
    test: int | None = None,
    noise: float = 0.0,
) -> Split:
    """A random split by rows; ``noise`` is the share of training labels drawn at random instead."""
    order_key, noise_key, label_key = jax.random.split(key, 3)
    order = jax.random.permutation(order_key, len(inputs))
    train_rows, test_rows = order[:train], order[train:][:test]
    classes = int(targets.max()) + 1
    inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
    labels = targets[train_rows]
    if noise:
        drawn = jax.random.randint(label_key, labels.shape, 0, classes, labels.dtype)
        labels = jnp.where(jax.random.uniform(noise_key, labels.shape) < noise, drawn, labels)
    return Split(inputs[train_rows], labels, inputs[test_rows], targets[test_rows])


@functools.cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """1797 images of 8 x 8, pixel values 0 ... 16 as they come, and their classes 0 ... 9."""
    pixels, classes = datasets.load_digits(return_X_y=True)
    return pixels.astype(np.float32), classes.astype(np.int32)


def standardised(inputs: np.ndarray, each_column: bool = True) -> np.ndarray:
    """Zero mean and unit variance, of every column or of the whole array."""
    axis = 0 if each_column else None
    return ((inputs - inputs.mean(axis)) / inputs.std(axis)).astype(np.float32)


@functools.cache
def cancer() -> tuple[np.ndarray, np.ndarray]:
    """569 biopsies of 30 standardised measurements, benign or malignant."""
    measurements, classes = datasets.load_breast_cancer(return_X_y=True)
    return standardised(measurements), classes.astype(np.int32)


@functools.cache
def classification(random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's synthetic task: 5000 points, 30 columns, 6 classes of 3 clusters, 5 % flipped labels."""
    points, classes = datasets.make_classification(
        5000,
        30,
        n_informative=12,
        n_redundant=4,
        n_classes=6,
        n_clusters_per_class=3,
        class_sep=1.2,
        flip_y=0.05,
        random_state=random_state,
    )
    return standardised(points), classes.astype(np.int32)


@functools.cache
def teacher(points: int = 6000, columns: int = 16, classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Normal points labelled by a random two-layer network whose logits are balanced."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(points, columns))
    hidden = np.maximum(inputs @ random.normal(size=(columns, 24)) * 1.5 / np.sqrt(columns), 0)
    hidden = np.maximum(hidden @ random.normal(size=(24, 24)) / np.sqrt(12), 0)
    logits = standardised(hidden @ random.normal(size=(24, classes)))
    return inputs.astype(np.float32), logits.argmax(1).astype(np.int32)


def waves(points: int = 2000, columns: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Normal points and a noisy sine of a random projection of them, [points, 1]."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(points, columns))
    targets = np.sin(inputs @ random.normal(size=columns)) + 0.1 * random.normal(size=points)
    return inputs.astype(np.float32), targets.astype(np.float32)[:, None]


VOCABULARY = 49  # the 48 most frequent characters and one for all others


@functools.cache
def characters(length: int = 120_000) -> np.ndarray:
    """The running Python's standard library, its modules in order of name, as int32 tokens."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    text = ""
    for path in sorted(library.glob("*.py")):
        text += path.read_text(encoding="utf-8", errors="ignore")
        if len(text) >= length:
            break
    letters, counts = np.unique(list(text[:length]), return_counts=True)
    frequent = letters[np.argsort(-counts, kind="stable")][: VOCABULARY - 1]
    token = {letter: index for index, letter in enumerate(frequent)}
    return np.array([token.get(letter, VOCABULARY - 1) for letter in text[:length]], np.int32)


def character_split(key: jax.Array, context: int, train: int = 4096, test: int = 256) -> Split:
    """Windows of the text and the same one character later; the last sixth of the text is for testing."""
    tokens = jnp.asarray(characters())
    border = len(tokens) * 5 // 6
    train_key, test_key = jax.random.split(key)
    first = jax.random.randint(train_key, (train,), 0, border - context)
    second = jax.random.randint(test_key, (test,), border, len(tokens) - context)
    window = jnp.arange(context)
    here, there = first[:, None] + window, second[:, None] + window
    return Split(tokens[here], tokens[here + 1], tokens[there], tokens[there + 1])


@functools.cache
def karate() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Zachary's karate club: adjacency [34, 34], one-hot features, and which of two clubs a member joined."""
    club = local.karate_club()
    return club.adjacency(), club.features, club.labels


@functools.cache
def block_model(
    nodes: int = 200, blocks: int = 4, columns: int = 16
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A stochastic block model whose node features say a little about the block."""
    random = np.random.default_rng(0)
    classes = np.repeat(np.arange(blocks), nodes // blocks).astype(np.int32)
    chance = np.where(classes[:, None] == classes[None, :], 0.08, 0.02)
    upper = np.triu(random.random((nodes, nodes)) < chance, 1)
    features = random.normal(size=(nodes, columns)) + 0.7 * random.normal(size=(blocks, columns))[classes]
    return (upper + upper.T).astype(np.float32), features.astype(np.float32), classes
