"""Networks of ordinary size, as pure functions that hand out what their layers compute, as `capture` does.

A model is a pair ``init(key) -> params`` and ``apply(params, inputs, key) -> (outputs, units)``; ``key`` is
of what a model draws while it is trained, None in evaluation.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.study.tasks import Model, Params, Units, deterministic
from benchmarks.training import models


def mlp(
    sizes: tuple[int, ...],
    normalise: str | None = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
) -> Model:
    """Dense layers; see `benchmarks.training.models.mlp`."""
    return deterministic(models.mlp(sizes, normalise, activation), flat=True)


def _standardised(values: jax.Array, axes: int | tuple[int, ...]) -> jax.Array:
    return jax.nn.standardize(values, axis=axes, epsilon=1e-5)


def residual_mlp(inputs: int, width: int, blocks: int, outputs: int) -> Model:
    """Two dense layers a block, behind a layer normalisation, added to what came in."""

    def init(key: jax.Array) -> Params:
        first, last, *keys = jax.random.split(key, 2 + 2 * blocks)
        return {
            "first": models.normal(first, inputs, width),
            "blocks": [
                {
                    "up": models.normal(up, width, width),
                    "bias": jnp.zeros(width),
                    "down": models.normal(down, width, width, 1.0 / blocks),
                }
                for up, down in zip(keys[::2], keys[1::2], strict=True)
            ],
            "last": models.normal(last, width, outputs, 1.0),
        }

    def apply(params: Params, inputs: jax.Array, key: jax.Array | None) -> tuple[jax.Array, Units]:
        del key
        stream, units = inputs.reshape(len(inputs), -1) @ params["first"], {}
        for index, block in enumerate(params["blocks"]):
            units[f"block{index}/up"] = up = _standardised(stream, -1) @ block["up"] + block["bias"]
            units[f"block{index}/down"] = down = jax.nn.relu(up) @ block["down"]
            stream = stream + down
        return _standardised(stream, -1) @ params["last"], units

    return Model(init, apply)


def _convolution(key: jax.Array, before: int, after: int) -> Params:
    return {
        "kernel": models.normal(key, 9 * before, after),
        "gain": jnp.ones(after),
        "bias": jnp.zeros(after),
    }


def _convolve(params: Params, images: jax.Array, *, normalise: bool, stride: int = 1) -> jax.Array:
    """A 3 x 3 convolution; its batch normalisation takes the statistics of whatever it is given."""
    units = models.patches(images, stride) @ params["kernel"]
    return (_standardised(units, (0, 1, 2)) * params["gain"] if normalise else units) + params["bias"]


def _convolutions_and_dense(
    key: jax.Array, side: int, channels: tuple[int, ...], width: int, outputs: int
) -> Params:
    """Convolutions that each halve the side, a dense layer and a head."""
    flat = channels[-1] * (side // 2 ** (len(channels) - 1)) ** 2
    dense, head, *keys = jax.random.split(key, 1 + len(channels))
    return {
        "convolutions": [
            _convolution(each, *pair) for each, pair in zip(keys, itertools.pairwise(channels), strict=True)
        ],
        "dense": models.normal(dense, flat, width),
        "head": models.normal(head, width, outputs, 1.0),
    }


def cnn(side: int, channels: tuple[int, ...], width: int, classes: int, *, normalise: bool = False) -> Model:
    """3 x 3 convolutions, each with ReLU and 2 x 2 max pooling behind it, then a dense layer."""

    def init(key: jax.Array) -> Params:
        return _convolutions_and_dense(key, side, channels, width, classes)

    def apply(params: Params, inputs: jax.Array, key: jax.Array | None) -> tuple[jax.Array, Units]:
        del key
        units = {}
        for index, convolution in enumerate(params["convolutions"]):
            units[f"conv{index}"] = inputs = _convolve(convolution, inputs, normalise=normalise)
            inputs = models.squares(jax.nn.relu(inputs)).max((2, 4))
        units["dense"] = dense = inputs.reshape(len(inputs), -1) @ params["dense"]
        return jax.nn.relu(dense) @ params["head"], units

    return Model(init, apply)


def resnet(channels: tuple[int, ...], classes: int) -> Model:
    """A ResNet with batch normalisation: a stem, then stages of two convolutions with one shortcut.

    A stage halves the side by its first convolution's stride; its shortcut takes every second pixel, with
    zeros for the new channels (He et al. 2016, option A).
    """

    def init(key: jax.Array) -> Params:
        stem, head, *keys = jax.random.split(key, 2 * len(channels) - 2)
        return {
            "stem": _convolution(stem, channels[0], channels[1]),
            "stages": [
                [_convolution(first, before, after), _convolution(second, after, after)]
                for first, second, (before, after) in zip(
                    keys[::2], keys[1::2], itertools.pairwise(channels[1:]), strict=True
                )
            ],
            "head": models.normal(head, channels[-1], classes, 1.0),
        }

    def apply(params: Params, inputs: jax.Array, key: jax.Array | None) -> tuple[jax.Array, Units]:
        del key
        stream = _convolve(params["stem"], inputs, normalise=True)
        units = {"stem": stream}
        for index, (first, second) in enumerate(params["stages"]):
            inner = _convolve(first, jax.nn.relu(stream), normalise=True, stride=2)
            outer = _convolve(second, jax.nn.relu(inner), normalise=True)
            shortcut = stream[:, ::2, ::2]
            stream = outer + jnp.pad(
                shortcut, ((0, 0), (0, 0), (0, 0), (0, outer.shape[-1] - shortcut.shape[-1]))
            )
            units |= {f"stage{index}/inner": inner, f"stage{index}/stream": stream}
        return jax.nn.relu(stream).mean((1, 2)) @ params["head"], units

    return Model(init, apply)


def lstm(vocabulary: int, embedding: int, width: int) -> Model:
    """An LSTM over tokens [N, T], read out at each; it hands out its state at every step."""

    def init(key: jax.Array) -> Params:
        tokens, drive, cell, head = jax.random.split(key, 4)
        return {
            "tokens": jax.random.normal(tokens, (vocabulary, embedding)),
            "drive": models.normal(drive, embedding, 4 * width, 1.0),
            "cell": models.normal(cell, width, 4 * width, 1.0),
            "bias": jnp.zeros(4 * width).at[width : 2 * width].set(1.0),  # what is remembered, at first
            "head": models.normal(head, width, vocabulary, 1.0),
        }

    def apply(params: Params, inputs: jax.Array, key: jax.Array | None) -> tuple[jax.Array, Units]:
        del key
        drive = params["tokens"][inputs] @ params["drive"] + params["bias"]

        def step(state: tuple[jax.Array, jax.Array], each: jax.Array):
            hidden, memory = state
            write, keep, read, new = jnp.split(each + hidden @ params["cell"], 4, -1)
            memory = jax.nn.sigmoid(keep) * memory + jax.nn.sigmoid(write) * jnp.tanh(new)
            hidden = jax.nn.sigmoid(read) * jnp.tanh(memory)
            return (hidden, memory), hidden

        nothing = jnp.zeros((len(inputs), width))
        _, states = jax.lax.scan(step, (nothing, nothing), jnp.swapaxes(drive, 0, 1))
        states = jnp.swapaxes(states, 0, 1)
        return states @ params["head"], {"cell": states}

    return Model(init, apply)


def contrastive(channels: tuple[int, ...], side: int, code: int, projected: int) -> Model:
    """SimCLR's way: two random views of each image through one encoder.

    Outputs are the views' projections [N, 2, F] and the code of the first, [N, F']. A view is shifted by up
    to four pixels, mirrored or not, and of another brightness. In evaluation both are the image itself.
    """
    shift = 4

    def init(key: jax.Array) -> Params:
        return _convolutions_and_dense(key, side, channels, code, projected)

    def view(key: jax.Array, image: jax.Array) -> jax.Array:
        where, mirrored, bright = jax.random.split(key, 3)
        padded = jnp.pad(image, ((shift, shift), (shift, shift), (0, 0)))
        row, column = jax.random.randint(where, (2,), 0, 2 * shift + 1)
        image = jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)
        image = jnp.where(jax.random.bernoulli(mirrored), image[:, ::-1], image)
        return image * jax.random.uniform(bright, minval=0.6, maxval=1.4)

    def encode(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array, Units]:
        units = {}
        for index, convolution in enumerate(params["convolutions"]):
            units[f"conv{index}"] = images = _convolve(convolution, images, normalise=True, stride=2)
            images = jax.nn.relu(images)
        units["dense"] = dense = images.reshape(len(images), -1) @ params["dense"]
        found = jax.nn.relu(dense)
        return found @ params["head"], found, units

    def apply(params: Params, inputs: jax.Array, key: jax.Array | None) -> tuple[Any, Units]:
        if key is None:
            projection, found, units = encode(params, inputs)
            return (jnp.stack([projection, projection], 1), found), units
        keys = jax.random.split(key, (2, len(inputs)))
        views = jax.vmap(jax.vmap(view), (0, None))(keys, inputs)
        projection, found, units = encode(params, views.reshape(-1, *inputs.shape[1:]))
        return (jnp.stack(jnp.split(projection, 2), 1), found[: len(inputs)]), units

    return Model(init, apply)


def attention_network(features: int, heads: int, width: int, classes: int, dropout: float = 0.5) -> Model:
    """A graph attention network of two layers (Velickovic et al. 2018); inputs are a `Graph`."""

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 6)
        glorot = jax.nn.initializers.glorot_uniform()
        return {
            "first": glorot(keys[0], (features, heads * width)),
            "from": glorot(keys[1], (heads, width)),
            "to": glorot(keys[2], (heads, width)),
            "bias": jnp.zeros(heads * width),
            "second": glorot(keys[3], (heads * width, classes)),
            "head from": glorot(keys[4], (1, classes)),
            "head to": glorot(keys[5], (1, classes)),
        }

    def attend(values: jax.Array, source: jax.Array, target: jax.Array, graph: Any) -> jax.Array:
        """Values [V, H, F] of a node's neighbours, weighed by a softmax for each head."""
        nodes, (first, second) = len(values), graph.edges.T
        asked = jnp.sum(values * source, -1)[first] + jnp.sum(values * target, -1)[second]
        asked = jax.nn.leaky_relu(asked, 0.2)
        largest = jax.lax.stop_gradient(jax.ops.segment_max(asked, second, nodes))
        weights = jnp.exp(asked - largest[second])
        total = jax.ops.segment_sum(weights, second, nodes)
        mixed = jax.ops.segment_sum(weights[..., None] * values[first], second, nodes)
        return mixed / total[..., None]

    def apply(params: Params, inputs: Any, key: jax.Array | None) -> tuple[jax.Array, Units]:
        values = (inputs.features @ params["first"]).reshape(-1, heads, width)
        hidden = attend(values, params["from"], params["to"], inputs).reshape(-1, heads * width)
        hidden = hidden + params["bias"]
        kept = jax.nn.elu(hidden)
        if key is not None:
            kept = kept * jax.random.bernoulli(key, 1 - dropout, kept.shape) / (1 - dropout)
        values = (kept @ params["second"])[:, None]
        outputs = attend(values, params["head from"], params["head to"], inputs)[:, 0]
        return outputs[inputs.read], {"hidden": hidden}

    return Model(init, apply)


def adapted(inner: Model, frozen: Params, rank: int) -> Model:
    """LoRA on each matrix of an MLP that was trained before, which stays as it is (Hu et al. 2022)."""

    def init(key: jax.Array) -> Params:
        names = sorted(frozen)
        return {
            name: {
                "a": jax.random.normal(each, (len(frozen[name]["kernel"]), rank))
                / jnp.sqrt(len(frozen[name]["kernel"])),
                "b": jnp.zeros((rank, frozen[name]["kernel"].shape[1])),
            }
            for name, each in zip(names, jax.random.split(key, len(names)), strict=True)
        }

    def apply(params: Params, inputs: jax.Array, key: jax.Array | None) -> tuple[jax.Array, Units]:
        whole = {
            name: held | {"kernel": held["kernel"] + params[name]["a"] @ params[name]["b"]}
            for name, held in frozen.items()
        }
        return inner.apply(whole, inputs, key)

    return Model(init, apply)
