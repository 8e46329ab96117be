"""Flax models -> activations: the only folder that imports Flax.

A probe is the function from parameters to activations that `scale_by_connectome` calls when, and only when,
it measures. Build it in one line inside the jitted step, so that the samples and the rest of the model's
state are arguments of the step and not constants baked into it:

    optimizer.update(model, grads, probe=capture.nnx_probe(model), samples=x)            # nnx, paired
    state.apply_gradients(grads=grads, probe=capture.linen_probe(net), samples=x)        # linen, paired
    optimizer.update(model, grads, probe=capture.nnx_probe(model, fixed))                # a fixed probe set

Activations are a flat dict {layer name: array [N, ..., F]}. By default the layers are the dense,
convolutional, attention and recurrent ones, each with what it returns, which is what stands before the
activation function (our choice: the paper's full text was not available); the last of them, when it is as
wide as the model's output, holds the logits and is left out. Positions in an image or a sequence stay axes:
the connectome counts them as samples.
"""

from cgalr_jax.capture.choice import Choice
from cgalr_jax.capture.linen import TrainState, linen_forward, linen_probe
from cgalr_jax.capture.nnx import nnx_forward, nnx_probe
from cgalr_jax.capture.shapes import example

__all__ = [
    "Choice",
    "TrainState",
    "example",
    "linen_forward",
    "linen_probe",
    "nnx_forward",
    "nnx_probe",
]
