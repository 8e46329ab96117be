"""The shapes of a probe's activations, from which `scale_by_connectome` is built."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from cgalr_jax.capture.choice import Activations


def example(probe: Callable[..., Activations], params: Any, *samples: Any) -> Any:
    """The shapes of a probe's activations, for the constructor of `scale_by_connectome`.

    Nothing is computed.

    Args:
      probe: what `nnx_probe` or `linen_probe` returned.
      params: parameters, arrays or ShapeDtypeStructs; an nnx model stands for its own.
      *samples: the samples of one measurement where the probe is paired; nothing where it holds its own.

    Returns:
      {layer name: ShapeDtypeStruct [N, ..., F]}.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from cgalr_jax.capture import nnx_probe
      >>> rngs = nnx.Rngs(0)
      >>> net = nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs))
      >>> example(nnx_probe(net), net, jnp.ones((4, 3)))
      {'layers/0': ShapeDtypeStruct(shape=(4, 5), dtype=float32)}
    """
    return jax.eval_shape(probe, nnx.state(params) if isinstance(params, nnx.Module) else params, *samples)
