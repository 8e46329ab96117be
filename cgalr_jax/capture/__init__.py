"""Flax models -> activations: the only folder that imports Flax.

A probe is a function from parameters to activations; `scale_by_connectome` calls it when it measures, and
only then. Build the probe inside the jitted step, so that the samples and the rest of the model's state are
arguments of the step, and not constants compiled into it:

    optimizer.update(model, grads, probe=capture.nnx_probe(model), samples=x)            # nnx, paired
    state.apply_gradients(grads=grads, probe=capture.linen_probe(net), samples=x)        # linen, paired
    optimizer.update(model, grads, probe=capture.nnx_probe(model, fixed))                # a fixed probe set

Activations are a flat dict {layer name: array [N, ..., F]}. By default, the layers are the dense,
convolutional, attention and recurrent ones, and the activations are what these layers return, before the
activation function. The last of these layers that has several units holds the logits if it is as wide as an
output of the model; it is then left out. Positions in an image or a sequence remain axes: the connectome
counts them as samples.
"""

from cgalr_jax.capture.choice import Choice
from cgalr_jax.capture.linen import linen_forward, linen_probe, linen_samples
from cgalr_jax.capture.nnx import nnx_forward, nnx_probe, nnx_samples
from cgalr_jax.capture.shapes import example
from cgalr_jax.capture.train_state import TrainState

__all__ = [
    "Choice",
    "TrainState",
    "example",
    "linen_forward",
    "linen_probe",
    "linen_samples",
    "nnx_forward",
    "nnx_probe",
    "nnx_samples",
]
