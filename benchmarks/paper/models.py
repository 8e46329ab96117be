"""Networks of ordinary size, as pure functions that hand out their hidden units behind the nonlinearity.

A model is a pair ``init(key) -> params`` and ``apply(params, inputs, key) -> (outputs, units)``; ``key`` is
of the dropout, None in evaluation. ``units`` maps a hidden layer to its activations [N, ..., F].
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.study.tasks import Model, Params, Units, deterministic
from benchmarks.training import models


def mlp(sizes: tuple[int, ...]) -> Model:
    """Dense layers with LeakyReLU, as the group's code has them; both hidden layers are measured."""
    leaky = jax.nn.leaky_relu
    return deterministic(
        models.mlp(sizes, activation=leaky),
        flat=True,
        units=lambda layers: {name: leaky(layer) for name, layer in layers.items()},
    )


def cnn(
    side: int, channels: tuple[int, ...], sizes: tuple[int, ...], *, strided: bool, dense_only: bool
) -> Model:
    """Blocks that halve the side by a 3 x 3 convolution and ReLU, then dense layers.

    Args:
        side: of the images, which are square.
        channels: of the images, then of each block.
        sizes: of the dense layers, then the number of classes.
        strided: whether a block halves by its convolution's stride, or by 2 x 2 max pooling behind it (VGG).
        dense_only: whether the dense layers only are measured (the group's code), or the channels too.
    """
    flat = channels[-1] * (side // 2 ** (len(channels) - 1)) ** 2
    head = mlp((flat, *sizes))
    stride = 2 if strided else 1

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, len(channels))
        kernels = [
            models.normal(each, 9 * before, after)
            for each, before, after in zip(keys[1:], channels[:-1], channels[1:], strict=True)
        ]
        biases = [jnp.zeros(after) for after in channels[1:]]
        return {"convolutions": list(zip(kernels, biases, strict=True)), "head": head.init(keys[0])}

    def apply(params: Params, inputs: jax.Array, key: jax.Array | None) -> tuple[jax.Array, Units]:
        units = {}
        for index, (kernel, bias) in enumerate(params["convolutions"]):
            inputs = jax.nn.relu(models.patches(inputs, stride) @ kernel + bias)
            units[f"conv{index}"] = inputs
            if not strided:
                inputs = models.squares(inputs).max((2, 4))
        outputs, dense = head.apply(params["head"], inputs, key)
        return outputs, dense if dense_only else units | dense

    return Model(init, apply)


def denoising_autoencoder(sizes: tuple[int, ...], dropped: float = 0.5) -> Model:
    """Gives images back that it was shown a part of; outputs are these and its code: the middle layer.

    Args:
        sizes: of the layers from the images to the code; the way back mirrors them.
        dropped: the share of a training image's pixels that is set to 0.
    """
    inner = mlp((*sizes, *sizes[-2::-1]))
    middle = f"dense{len(sizes) - 2}"

    def apply(params: Params, inputs: jax.Array, key: jax.Array | None) -> tuple[Any, Units]:
        shown = inputs.reshape(len(inputs), -1)
        if key is not None:
            shown = shown * jax.random.bernoulli(key, 1 - dropped, shown.shape)
        outputs, units = inner.apply(params, shown, None)
        return (outputs, units[middle]), units

    return Model(inner.init, apply)


class View(NamedTuple):
    """What the outputs of some nodes depend on: R nodes with what the first layer reads of each.

    Attributes:
        features: f32[R, F], already propagated: the first layer's propagation does not depend on parameters.
        propagate: f32[K, N, R], from the hidden units of R nodes to what the second layer reads for N nodes.
    """

    features: jax.Array
    propagate: jax.Array


def graph_network(features: int, width: int, classes: int, terms: int, dropout: float = 0.5) -> Model:
    """Two graph convolutions over a `View`: GCN with one term of propagation, GraphSAGE with two.

    Dropout is on the hidden units only: that of the inputs (Kipf & Welling) would ask for as many random
    numbers as there are features, at every step.
    """

    def init(key: jax.Array) -> Params:
        first, second = jax.random.split(key)
        glorot = jax.nn.initializers.glorot_uniform()
        return {
            "first": glorot(first, (features, width)),
            "bias": jnp.zeros(width),
            "second": glorot(second, (terms * width, classes)),
            "head": jnp.zeros(classes),
        }

    def apply(params: Params, inputs: View, key: jax.Array | None) -> tuple[jax.Array, Units]:
        hidden = jax.nn.relu(inputs.features @ params["first"] + params["bias"])
        kept = hidden
        if key is not None:
            kept = hidden * jax.random.bernoulli(key, 1 - dropout, hidden.shape) / (1 - dropout)
        read = jnp.concatenate([term @ kept for term in inputs.propagate], -1)
        return read @ params["second"] + params["head"], {"hidden": hidden}

    return Model(init, apply)


def transformer(vocabulary: int, width: int, context: int, blocks: int) -> Model:
    """A causal transformer; the hidden units of its feed-forward layers are measured."""
    return deterministic(
        models.transformer(vocabulary, width, context, blocks, heads=4),
        units=lambda layers: {name: jax.nn.relu(x) for name, x in layers.items() if name.endswith("/expand")},
    )
