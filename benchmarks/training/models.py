"""Small networks as pure functions that hand out their pre-activations.

Every model is a pair ``init(key) -> params`` and ``apply(params, inputs) -> (outputs, layers)``, where
``layers`` maps a name to that layer's pre-activations ``[N, ..., F]``: what a connectome is measured on.
Widths are tiny on purpose: thousands of runs are vmapped on a laptop's cores. Convolutions are written as
shifted slices and a matrix product, because a convolution vmapped over its kernels becomes a grouped one,
which is slow on a CPU.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from examples import datasets

Params = Any
Layers = dict[str, jax.Array]


class Model(NamedTuple):
    """A network: ``init(key) -> params`` and ``apply(params, inputs) -> (outputs, layers)``."""

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], tuple[jax.Array, Layers]]


def normal(key: jax.Array, inputs: int, outputs: int, gain: float = 2.0) -> jax.Array:
    """A matrix to begin with: f32[inputs, outputs], of variance gain / inputs."""
    return jnp.sqrt(gain / inputs) * jax.random.normal(key, (inputs, outputs))


def _dense(key: jax.Array, inputs: int, outputs: int, gain: float = 2.0) -> Params:
    return {"kernel": normal(key, inputs, outputs, gain), "bias": jnp.zeros(outputs)}


def _affine(params: Params, inputs: jax.Array) -> jax.Array:
    return inputs @ params["kernel"] + params["bias"]


def _standardise(values: jax.Array, axis: int) -> jax.Array:
    """`jax.nn.standardize` but for rounding: that one takes the variance as a difference of squares."""
    centred = values - values.mean(axis, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis, keepdims=True) + 1e-5)


def mlp(
    sizes: tuple[int, ...],
    normalise: str | None = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
) -> Model:
    """A network of dense layers; ``normalise`` is None, ``"layer"`` or ``"batch"`` (before the nonlinearity).

    Batch normalisation uses the statistics of whatever it is given, in evaluation too: the sets evaluated
    here are large, and the model stays a function of parameters and inputs only.
    """
    axis = {None: None, "layer": -1, "batch": 0}[normalise]

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, len(sizes) - 1)
        params = [_dense(*each) for each in zip(keys, sizes[:-1], sizes[1:], strict=True)]
        if normalise:
            params[:-1] = [{**layer, "gain": jnp.ones_like(layer["bias"])} for layer in params[:-1]]
        return {f"dense{index}": layer for index, layer in enumerate(params)}

    def apply(params: Params, inputs: jax.Array) -> tuple[jax.Array, Layers]:
        layers = {}
        *hidden, last = sorted(params, key=lambda name: int(name.removeprefix("dense")))  # 10 comes after 9
        for name in hidden:
            units = _affine(params[name], inputs)
            if axis is not None:
                units = _standardise(units - params[name]["bias"], axis) * params[name]["gain"]
                units = units + params[name]["bias"]
            layers[name] = units
            inputs = activation(units)
        return _affine(params[last], inputs), layers

    return Model(init, apply)


def patches(images: jax.Array, stride: int = 1) -> jax.Array:
    """[N, H, W, C] -> [N, H / stride, W / stride, 9 C]: 3 x 3 neighbourhoods, zeros outside."""
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        padded[:, row : row + height : stride, column : column + width : stride]
        for row in range(3)
        for column in range(3)
    ]
    return jnp.concatenate(shifted, -1)


def squares(images: jax.Array) -> jax.Array:
    """[N, H, W, C] -> [N, H / 2, 2, W / 2, 2, C]: squares of 2 x 2, to be pooled over the axes 2 and 4."""
    n, height, width, channels = images.shape
    return images.reshape(n, height // 2, 2, width // 2, 2, channels)


def cnn(channels: tuple[int, int], width: int, classes: int, side: int = 8) -> Model:
    """Two 3 x 3 convolutions with mean pooling between them, then a dense layer."""
    flat = channels[1] * (side // 2) ** 2

    def init(key: jax.Array) -> Params:
        first, second, third, last = jax.random.split(key, 4)
        return {
            "conv0": _dense(first, 9, channels[0]),
            "conv1": _dense(second, 9 * channels[0], channels[1]),
            "dense": _dense(third, flat, width),
            "head": _dense(last, width, classes),
        }

    def apply(params: Params, inputs: jax.Array) -> tuple[jax.Array, Layers]:
        images = inputs.reshape(-1, side, side, 1)
        conv0 = _affine(params["conv0"], patches(images))
        pooled = squares(jax.nn.relu(conv0)).mean((2, 4))
        conv1 = _affine(params["conv1"], patches(pooled))
        dense = _affine(params["dense"], jax.nn.relu(conv1).reshape(-1, flat))
        layers = {"conv0": conv0, "conv1": conv1, "dense": dense}
        return _affine(params["head"], jax.nn.relu(dense)), layers

    return Model(init, apply)


def _gru_step(params: Params, state: jax.Array, drive: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of a GRU; ``drive`` [N, 3 H] is the input's share of both gates and the candidate."""
    width = state.shape[-1]
    gates = jax.nn.sigmoid(drive[:, : 2 * width] + state @ params["gates"])
    update, reset = gates[:, :width], gates[:, width:]
    candidate = jnp.tanh(drive[:, 2 * width :] + (reset * state) @ params["candidate"])
    state = update * state + (1 - update) * candidate
    return state, state


def gru(inputs: int, width: int, outputs: int, vocabulary: int | None = None) -> Model:
    """A GRU over [N, T, inputs], read out at the end; with a vocabulary over tokens, read out at each.

    The layer it hands out is the state at every step: [N, T, width].
    """

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 5)
        params = {
            "drive": _dense(keys[0], inputs, 3 * width, gain=1.0),
            "cell": {
                "gates": jax.random.normal(keys[1], (width, 2 * width)) / jnp.sqrt(width),
                "candidate": jax.random.normal(keys[2], (width, width)) / jnp.sqrt(width),
            },
            "head": _dense(keys[3], width, outputs, gain=1.0),
        }
        if vocabulary is not None:
            params["embedding"] = jax.random.normal(keys[4], (vocabulary, inputs))
        return params

    def apply(params: Params, inputs: jax.Array) -> tuple[jax.Array, Layers]:
        sequence = inputs if vocabulary is None else params["embedding"][inputs]
        drive = jnp.swapaxes(_affine(params["drive"], sequence), 0, 1)
        cell = params["cell"]
        start = jnp.zeros((drive.shape[1], width))
        _, states = jax.lax.scan(lambda state, each: _gru_step(cell, state, each), start, drive)
        states = jnp.swapaxes(states, 0, 1)
        read = states[:, -1] if vocabulary is None else states
        return _affine(params["head"], read), {"cell": states}

    return Model(init, apply)


def transformer(vocabulary: int, width: int, context: int, blocks: int, heads: int = 2) -> Model:
    """A causal pre-norm transformer over tokens [N, T]; logits at every position.

    The layers it hands out: each block's attention output and feed-forward pre-activations, [N, T, F].
    """

    def init_block(key: jax.Array) -> Params:
        keys = jax.random.split(key, 4)
        return {
            "attend": _dense(keys[0], width, 3 * width, gain=1.0),
            "project": _dense(keys[1], width, width, gain=1.0 / (2 * blocks)),
            "expand": _dense(keys[2], width, 2 * width),
            "contract": _dense(keys[3], 2 * width, width, gain=1.0 / blocks),
        }

    def init(key: jax.Array) -> Params:
        tokens, positions, head, *rest = jax.random.split(key, 3 + blocks)
        return {
            "tokens": jax.random.normal(tokens, (vocabulary, width)),
            "positions": 0.5 * jax.random.normal(positions, (context, width)),
            "head": _dense(head, width, vocabulary, gain=1.0),
            **{f"block{index}": init_block(each) for index, each in enumerate(rest)},
        }

    mask = jnp.tril(jnp.ones((context, context), bool))

    def attention(params: Params, stream: jax.Array) -> jax.Array:
        split = _affine(params["attend"], stream).reshape(*stream.shape[:2], 3, heads, width // heads)
        query, key, value = jnp.moveaxis(split, 2, 0)
        weights = jnp.einsum("nqhd,nkhd->nhqk", query, key) / jnp.sqrt(width // heads)
        weights = jax.nn.softmax(jnp.where(mask, weights, -1e9))
        mixed = jnp.einsum("nhqk,nkhd->nqhd", weights, value)
        return _affine(params["project"], mixed.reshape(stream.shape))

    def apply(params: Params, inputs: jax.Array) -> tuple[jax.Array, Layers]:
        stream, layers = params["tokens"][inputs] + params["positions"], {}
        for index in range(blocks):
            block = params[f"block{index}"]
            attended = attention(block, _standardise(stream, -1))
            stream = stream + attended
            expanded = _affine(block["expand"], _standardise(stream, -1))
            stream = stream + _affine(block["contract"], jax.nn.relu(expanded))
            layers |= {f"block{index}/project": attended, f"block{index}/expand": expanded}
        return _affine(params["head"], _standardise(stream, -1)), layers

    return Model(init, apply)


def graph_network(adjacency: np.ndarray, features: jax.Array, width: int, classes: int) -> Model:
    """Two graph convolutions over a fixed graph, then a linear read-out of the nodes asked for.

    Args:
        adjacency: f32[V, V], symmetric, zero diagonal; self-loops and the degree normalisation are added
            here.
        features: f32[V, F], one row per node.
        width: hidden width of both layers.
        classes: number of outputs.

    Returns:
        A model whose inputs are node numbers [N]; its layers hold all V nodes.
    """
    propagate = jnp.asarray(datasets.normalised_adjacency(adjacency))
    smooth = propagate @ features

    def init(key: jax.Array) -> Params:
        first, second, last = jax.random.split(key, 3)
        return {
            "graph0": _dense(first, features.shape[1], width),
            "graph1": _dense(second, width, width),
            "head": _dense(last, width, classes, gain=1.0),
        }

    def apply(params: Params, inputs: jax.Array) -> tuple[jax.Array, Layers]:
        graph0 = _affine(params["graph0"], smooth)
        graph1 = _affine(params["graph1"], propagate @ jax.nn.relu(graph0))
        layers = {"graph0": graph0, "graph1": graph1}
        return _affine(params["head"], jax.nn.relu(graph1))[inputs], layers

    return Model(init, apply)


def autoencoder(inputs: int, width: int, code: int) -> Model:
    """Inputs - width - code - width - inputs, ReLU between but for the code, which is linear."""
    sizes = (inputs, width, code, width, inputs)
    names = ("encode", "code", "decode", "pixels")

    def init(key: jax.Array) -> Params:
        keys = jax.random.split(key, 4)
        gains = (2.0, 1.0, 2.0, 0.1)  # a quiet last layer: the first steps would otherwise undo the decoder
        layers = [_dense(*each) for each in zip(keys, sizes[:-1], sizes[1:], gains, strict=True)]
        return dict(zip(names, layers, strict=True))

    def apply(params: Params, inputs: jax.Array) -> tuple[jax.Array, Layers]:
        layers = {}
        for name in names[:-1]:
            layers[name] = _affine(params[name], inputs)
            inputs = layers[name] if name == "code" else jax.nn.relu(layers[name])
        return _affine(params["pixels"], inputs), layers

    return Model(init, apply)
