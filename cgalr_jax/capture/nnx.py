"""Flax nnx models -> activations."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Unpack
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cgalr_jax.capture import choice as choices
from cgalr_jax.capture import outputs
from cgalr_jax.capture.choice import Activations, Choice

_RECURRENT = (nnx.RNN, nnx.RNNCellBase)
_LAYERS = (
    nnx.Linear,
    nnx.LinearGeneral,
    nnx.Einsum,
    nnx.Conv,
    nnx.ConvTranspose,
    nnx.MultiHeadAttention,
    *_RECURRENT,
)


def nnx_probe(model: nnx.Module, samples: Any = None, **choice: Unpack[Choice]) -> Callable[..., Activations]:
    """Builds the probe of an nnx model.

    The probe runs a copy of the model in evaluation mode (`model.eval()`: no dropout, BatchNorm with its
    running averages), with the parameters it is given and the rest as it is when the probe is built. The
    model itself is never touched.

    Args:
      model: the model, under `nnx.jit` or outside.
      samples: a fixed probe set, whatever `forward` takes; None for paired measurements.
      **choice: see `Choice`.

    Returns:
      `probe(params, samples) -> activations`; `probe(params) -> activations` where `samples` is given here.

    Raises:
      ValueError: when `model` is not one; from the probe, when nothing matches, or when the axes of an array
        cannot be known.

    Example:
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> net = nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs))
      >>> jax.tree.map(jnp.shape, nnx_probe(net)(nnx.state(net, nnx.Param), jnp.ones((4, 3))))
      {'layers/0': (4, 5)}
    """
    choices.check(model, nnx.Module, choice)
    graphdef, state = nnx.split(model)

    def probe(params: Any, *batch: Any) -> Activations:
        copy = nnx.merge(graphdef, state, copy=True)
        nnx.update(copy, params)
        copy.eval()
        return _run(copy, choices.the_samples(samples, batch), choice)[1]

    return probe


def nnx_forward(model: nnx.Module, samples: Any, **choice: Unpack[Choice]) -> tuple[Any, Activations]:
    """Runs an nnx model as it stands, in its own mode, and returns (output, activations).

    For the loss function, where the forward pass is computed anyway: `activations=` takes what it returns. A
    fresh batch at each measurement is the paper's literal form, and a noisy one; a probe is the better habit.

    Args:
      model: the model; its state (BatchNorm, dropout keys) changes as in any call.
      samples: whatever `forward` takes.
      **choice: see `Choice`.

    Returns:
      The model's output, and the activations {layer name: array [N, ..., F]}.

    Raises:
      ValueError: when `model` is not one, when nothing matches, or when the axes of an array cannot be known.

    Example:
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> net = nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs))
      >>> output, activations = nnx_forward(net, jnp.ones((4, 3)), logits=True)
      >>> sorted(activations)
      ['layers/0', 'layers/2']
    """
    choices.check(model, nnx.Module, choice)
    return _run(model, samples, choice)


def _run(model: nnx.Module, samples: Any, choice: Choice) -> tuple[Any, Activations]:
    """Runs an nnx model and collects what its modules sow."""
    listener = outputs.Listener(choice, _LAYERS, _units_last)
    modules = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    ranks = {name: _ranks(module) for name, module in modules.items()}

    def run(model: nnx.Module, samples: Any) -> Any:
        for _, module in nnx.iter_modules(model):
            # Flax 0.12.8 hangs captures on lists too, and then cannot sort the state of one.
            if isinstance(module, nnx.List) and hasattr(module, "__captures__"):
                del module.__captures__
        return choices.run(choice, model, samples)

    try:
        with _listening(modules, listener):
            output, captured = nnx.capture(run, nnx.Intermediate)(model, samples)
    except (TypeError, ValueError) as error:
        if "__captures__" not in str(error):
            raise
        raise ValueError(
            "layers must be reachable, got some inside an nnx.scan that carries or shares its module; choose"
            f" others, such as the nnx.RNN around a cell, among {sorted(set(listener.names) - {''})}."
        ) from error
    return output, outputs.collect(nnx.to_pure_dict(captured), ranks, listener, output)


@contextlib.contextmanager
def _listening(modules: Mapping[str, nnx.Module], listener: outputs.Listener) -> Iterator[None]:
    """Lets the listener hear the calls of nnx modules, what `linen.intercept_methods` does in linen."""

    def heard(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return listener.call(
                getattr(self, "cgalr_name", ""),
                self,
                lambda: _ranks(self),
                lambda: method(self, *args, **kwargs),
                functools.partial(self.sow, nnx.Intermediate),
            )

        return call

    callables = {name: module for name, module in modules.items() if "__call__" in dir(type(module))}
    with contextlib.ExitStack() as stack:
        for cls in {type(module): None for module in callables.values()}:
            stack.enter_context(mock.patch.object(cls, "__call__", heard(cls.__call__)))
        for name, module in callables.items():
            # A static attribute: inside nnx.scan the module is another object with the same attributes.
            setattr(module, "cgalr_name", name)  # noqa: B010
            stack.callback(delattr, module, "cgalr_name")
        yield


def _units_last(module: Any, output: Any) -> jax.Array:
    """The array a module returned, its features merged into one last axis."""
    features = np.size(module.out_features) if isinstance(module, nnx.LinearGeneral) else 1
    return outputs.units_last(output, isinstance(module, _RECURRENT), features)


def _ranks(module: nnx.Module) -> list[int]:
    """The rank of every parameter of an nnx module."""
    return [jnp.ndim(node.get_value()) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Param)]
