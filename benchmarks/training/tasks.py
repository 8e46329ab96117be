"""The tasks: data, network, steps, batch size; and variants of them that nothing was tuned on.

The best learning rate of SGD differs by some 300x between them: raw pixel values and inputs x5 push it down,
momentum 0 pushes it up. One fixed rate for all is therefore bad somewhere, which is the point of this
benchmark.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import scores
from benchmarks.training import data, models


class Task(NamedTuple):
    """What is trained on what; all functions are pure and vmappable.

    ``loss(outputs, targets)`` is a mean over everything, ``score(model, params, split)`` what is reported:
    the test error, the test loss in nats for characters, the error of a linear probe for the autoencoder. A
    score that is not finite or above ``chance`` counts as ``chance``.
    """

    name: str
    model: models.Model
    split: Callable[[jax.Array], data.Split]
    steps: int
    batch: int
    chance: float  # the score of a constant answer
    loss: Callable[[Any, Any], jax.Array]
    score: Callable[[models.Model, models.Params, data.Split], jax.Array]
    momentum: float = 0.9
    variant: str = ""
    tuning: bool = False  # only for the experiments that set the defaults

    def at_chance(self, score: Any) -> Any:
        """bool[...], where a score is within 5 % of a constant answer's, or worse."""
        return scores.at_chance(score, self.chance)


def test_error(model: models.Model, params: models.Params, split: data.Split) -> jax.Array:
    """Share of test samples whose largest logit is not the true class."""
    return scores.error(model.apply(params, split.test_inputs)[0], split.test_targets)


def test_nats(model: models.Model, params: models.Params, split: data.Split) -> jax.Array:
    """Test cross entropy per character."""
    return scores.cross_entropy(model.apply(params, split.test_inputs)[0], split.test_targets)


def squared_error(outputs: jax.Array, targets: dict[str, jax.Array]) -> jax.Array:
    """Mean squared distance from the clean image."""
    return mean_squared(outputs, targets["clean"])


def mean_squared(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared difference."""
    return jnp.mean((outputs - targets) ** 2)


def test_squared(model: models.Model, params: models.Params, split: data.Split) -> jax.Array:
    """Mean squared error of the test samples."""
    return mean_squared(model.apply(params, split.test_inputs)[0], split.test_targets)


def probe_error(model: models.Model, params: models.Params, split: data.Split) -> jax.Array:
    """Test error of a ridge classifier on the autoencoder's code: closed form, so nothing is tuned in it."""

    def features(inputs: jax.Array) -> jax.Array:
        code = model.apply(params, inputs)[1]["code"]
        return jnp.concatenate([code, jnp.ones((code.shape[0], 1))], 1)

    train, classes = features(split.inputs), jax.nn.one_hot(split.targets["classes"], 10)
    gram = train.T @ train
    ridge = 1e-3 * jnp.trace(gram) / gram.shape[0] + 1e-6
    weights = jnp.linalg.solve(gram + ridge * jnp.eye(gram.shape[0]), train.T @ classes)
    return scores.error(features(split.test_inputs) @ weights, split.test_targets["classes"])


def _classifier(
    name: str,
    model: models.Model,
    source: tuple,
    train: int,
    steps: int,
    batch: int,
    *,
    test: int | None = None,
    noise: float = 0.0,
    **rest: Any,
) -> Task:
    inputs, classes = source
    split = functools.partial(
        data.permuted_split, inputs=inputs, targets=classes, train=train, test=test, noise=noise
    )
    chance = 1 - np.bincount(classes).max() / len(classes)
    return Task(name, model, split, steps, batch, chance, loss=scores.cross_entropy, score=test_error, **rest)


def _regression(name: str, source: tuple, train: int, steps: int, batch: int, momentum: float) -> Task:
    inputs, targets = source
    split = functools.partial(data.permuted_split, inputs=inputs, targets=targets, train=train)
    chance = float(targets.var())
    model = models.mlp((inputs.shape[1], 32, 32, 1), activation=jnp.tanh)
    return Task(
        name, model, split, steps, batch, chance, mean_squared, test_squared, momentum=momentum, tuning=True
    )


def _denoising_split(key: jax.Array) -> data.Split:
    pixels, classes = data.digits()
    split_key, noise_key = jax.random.split(key)
    split = data.permuted_split(split_key, data.standardised(pixels, each_column=False), classes, 720)
    noisy = split.inputs + 0.5 * jax.random.normal(noise_key, split.inputs.shape)
    return data.Split(
        noisy,
        {"clean": split.inputs, "classes": split.targets},
        split.test_inputs,
        {"clean": split.test_inputs, "classes": split.test_targets},
    )


def _characters(
    name: str, model: models.Model, context: int, steps: int, batch: int, variant: str = ""
) -> Task:
    split = functools.partial(data.character_split, context=context)
    frequency = np.bincount(data.characters()) / len(data.characters())
    chance = float(-np.sum(frequency * np.log(np.maximum(frequency, 1e-9))))
    return Task(
        name, model, split, steps, batch, chance, loss=scores.cross_entropy, score=test_nats, variant=variant
    )


def _graph(name: str, graph: tuple, train: int, steps: int, variant: str = "") -> Task:
    adjacency, features, classes = graph
    model = models.graph_network(adjacency, jnp.asarray(features), 16, int(classes.max()) + 1)
    nodes = np.arange(len(classes), dtype=np.int32)
    return _classifier(name, model, (nodes, classes), train, steps, train, variant=variant)


def _images() -> tuple[np.ndarray, np.ndarray]:
    """The digits, standardised over the whole array."""
    pixels, classes = data.digits()
    return data.standardised(pixels, False), classes


def _rows() -> tuple[np.ndarray, np.ndarray]:
    """The digits as sequences of eight rows."""
    pixels, classes = _images()
    return pixels.reshape(-1, 8, 8), classes


_SYNTHETIC = {"train": 1000, "test": 2000, "steps": 600, "batch": 32}
_LONG = ("digits", "cancer", "classes")
_NOISY = {"train": 2000, "test": 2000, "steps": 600, "noise": 0.2}


def _tasks() -> list[Task]:
    """What is reported."""
    pixels, classes = data.digits()
    raw, scaled, whole = (pixels, classes), (pixels / 16, classes), _images()
    first, second = data.classification(0), data.classification(1)
    stretched = (5 * first[0], first[1])
    perceptron = models.mlp((64, 32, 32, 10))
    six = models.mlp((30, 32, 32, 6))
    return [
        _classifier("digits", perceptron, scaled, 1437, 600, 32),
        _classifier("digits-raw", perceptron, raw, 1437, 400, 32),
        _classifier("digits-10%", perceptron, whole, 180, 400, 16),
        _classifier("digits-10%-plain", perceptron, whole, 180, 400, 16, momentum=0.0),
        _classifier("digits-cnn", models.cnn((8, 16), 32, 10), whole, 360, 300, 16),
        _classifier("cancer", models.mlp((30, 24, 24, 2)), data.cancer(), 200, 300, 16),
        _classifier("teacher", models.mlp((16, 32, 32, 8)), data.teacher(), batch=32, **_NOISY),
        _classifier("classes", six, first, **_SYNTHETIC),
        _classifier("classes-x5", six, stretched, **_SYNTHETIC),
        _classifier("classes-plain", six, first, momentum=0.0, **_SYNTHETIC),
        _classifier("deep", models.mlp((30, 32, 32, 32, 32, 6)), second, **_SYNTHETIC),
        _classifier("layer-norm", models.mlp((30, 32, 32, 6), "layer"), second, **_SYNTHETIC),
        _classifier("batch-norm", models.mlp((30, 32, 32, 6), "batch"), second, **_SYNTHETIC),
        _classifier("gru", models.gru(8, 24, 10), _rows(), 360, 400, 16),
        _characters("transformer", models.transformer(data.VOCABULARY, 24, 12, 1), 12, 400, 16),
        _graph("graph", data.block_model(), 40, 200),
        Task(
            "autoencoder",
            models.autoencoder(64, 48, 24),
            _denoising_split,
            800,
            32,
            0.9,
            loss=squared_error,
            score=probe_error,
        ),
    ]


def _variants() -> list[Task]:
    """Variants of the above that no set-point and no constant was chosen on; reported, too."""
    whole, second = _images(), data.classification(1)
    normalised = models.mlp((16, 48, 8), "layer")
    slim = models.cnn((4, 8), 16, 10)
    return [
        _classifier("digits-10%", models.mlp((64, 96, 10)), whole, 180, 400, 32, variant="wide, batch 32"),
        _classifier("digits-cnn", slim, whole, 360, 300, 32, variant="slim, batch 32"),
        _classifier(
            "teacher", normalised, data.teacher(), batch=16, variant="one layer norm, batch 16", **_NOISY
        ),
        _classifier("deep", models.mlp((30, *6 * (24,), 6)), second, variant="six layers", **_SYNTHETIC),
        _characters("gru", models.gru(16, 24, data.VOCABULARY, data.VOCABULARY), 12, 400, 16, "characters"),
        _characters("transformer", models.transformer(data.VOCABULARY, 16, 12, 2), 12, 400, 16, "two blocks"),
        _graph("graph", data.karate(), 8, 200, "karate club"),
    ]


def _experiments() -> list[Task]:
    """For the experiments that set the defaults: widths and depths, squared losses, long runs."""
    whole, first, second = _images(), data.classification(0), data.classification(1)

    def variant(name: str, of: str, model: models.Model, source: tuple, *numbers: int, **rest: Any) -> Task:
        return _classifier(name, model, source, *numbers, variant=of, tuning=True, **rest)

    shapes = ((2, 8), (2, 16), (2, 64), (2, 128), (2, 256), (2, 512), (1, 32), (4, 32), (8, 32))
    plain = [
        variant("classes", f"{depth} x {width}", models.mlp((30, *depth * (width,), 6)), first, **_SYNTHETIC)
        for depth, width in shapes
    ]
    few = [
        variant("digits-10%", f"2 x {width}", models.mlp((64, width, width, 10)), whole, 180, 400, 16)
        for width in (128, 256, 512)
    ]
    wide = models.mlp((30, 256, 256, 6), "layer")
    return [
        *plain,
        *few,
        variant("layer-norm", "2 x 256", wide, second, **_SYNTHETIC),
        variant("gru", "96 units", models.gru(8, 96, 10), _rows(), 360, 400, 16),
        # Saturating units under a squared loss: a rate that is too large makes training diverge.
        _regression("waves", data.waves(), 1000, 1500, 32, momentum=0.9),
        _regression("waves-plain", data.waves(), 1000, 1500, 32, momentum=0.0),
        # Short runs; and runs that go on long after small networks have learnt their data.
        *(
            task._replace(steps=steps, variant=f"{steps} steps", tuning=True)
            for steps, names in ((200, ("digits-raw", *_LONG)), (4000, _LONG))
            for task in _tasks()
            if task.name in names
        ),
    ]


def _build() -> list[Task]:
    return _tasks() + _variants() + _experiments()


@functools.cache
def catalogue() -> dict[str, Task]:
    """All tasks by label, ``name`` or ``name (variant)``, in the order in which they are reported."""
    return {label(task): task for task in _build()}


def label(task: Task) -> str:
    """``name`` or ``name (variant)``."""
    return f"{task.name} ({task.variant})" if task.variant else task.name
