"""What is trained: a network, a problem with its data, a task with the numbers of its protocol.

Of every seed's data three parts are apart: what is trained on, what base rates are chosen on (validation),
and what is reported (test). Methods share the seed's split, initial parameters and order of the data.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.training import models

Params = Any
Units = dict[str, jax.Array]
Parts = dict[str, np.ndarray]  # "train", "validation", "test", "probe": numbers of samples, i32[n]


class Model(NamedTuple):
    """A network: ``init(key) -> params`` and ``apply(params, inputs, key) -> (outputs, units)``."""

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, Any, jax.Array | None], tuple[jax.Array, Units]]


def deterministic(
    inner: models.Model, *, flat: bool = False, units: Callable[[Units], Units] = lambda layers: layers
) -> Model:
    """A network that draws nothing, with inputs as [N, F] if `flat`; `units` says what is measured of it."""

    def apply(params: Params, inputs: Any, key: jax.Array | None) -> tuple[jax.Array, Units]:
        del key
        outputs, layers = inner.apply(params, inputs.reshape(len(inputs), -1) if flat else inputs)
        return outputs, units(layers)

    return Model(inner.init, apply)


class Problem(NamedTuple):
    """A task with its data in memory; all functions but `split` are pure.

    Attributes:
        data: a pytree of arrays that all seeds share.
        split: `seed -> Parts`.
        take: `(data, part, numbers) -> (inputs, targets)` of samples of a part; targets are a pytree.
        model: the network.
        loss: `(params, outputs, targets) -> f32[]`, the training objective.
        score: `(outputs, targets) -> f32[]`, what is reported: error, or nats.
    """

    data: Any
    split: Callable[[int], Parts]
    take: Callable[[Any, str, jax.Array], tuple[Any, jax.Array]]
    model: Model
    loss: Callable[[Any, jax.Array, jax.Array], jax.Array]
    score: Callable[[jax.Array, jax.Array], jax.Array]


class Task(NamedTuple):
    """The numbers of a protocol.

    Attributes:
        load: `folder -> Problem`; FileNotFoundError where the data is not there.
        epochs: how long.
        batch: samples a step.
        sgd: the middle of the grid of base rates for SGD and what scales it.
        adam: the same for Adam.
        chance: a score that is not finite or above counts as this.
        points: times along the run that the curves are taken.
        paired: whether our default forwards the batch's own samples; a graph has only one set of them.
        one_by_one: seeds are not vmapped: many products of small matrices are slow on a CPU.
        unit: of the score.
        seeds: how many are reported.
    """

    load: Callable[[pathlib.Path], Problem]
    epochs: int
    batch: int
    sgd: float
    adam: float
    chance: float
    points: int
    paired: bool = True
    one_by_one: bool = False
    unit: str = "error"
    seeds: int = 10
