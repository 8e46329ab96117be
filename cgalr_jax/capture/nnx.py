"""Flax nnx models -> activations."""

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cgalr_jax.capture import choice as choices
from cgalr_jax.capture import outputs
from cgalr_jax.capture.choice import Activations, Choice

_EAR = "_cgalr_ear"
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
    ranks = {path: _ranks(module) for path, module in nnx.iter_modules(model)}

    def run(model: nnx.Module, samples: Any) -> Any:
        for _, module in nnx.iter_modules(model):
            # Flax 0.12.8 hangs captures on lists too, and then cannot sort the state of one.
            if isinstance(module, nnx.List) and hasattr(module, "__captures__"):
                del module.__captures__
        return choices.run(choice, model, samples)

    try:
        with _listening(model, listener):
            output, captured = nnx.capture(run, nnx.Intermediate)(model, samples)
    except (TypeError, ValueError) as error:
        if "__captures__" not in str(error):
            raise
        raise ValueError(
            "layers must be reachable, got some inside an nnx.scan that carries or shares its module; choose"
            f" others, such as the nnx.RNN around a cell, among {listener.names}."
        ) from error
    return output, outputs.collect(nnx.to_pure_dict(captured), ranks, listener, output)


class _Ear:
    """Who listens to a module, and where it stands: a static attribute of it while the model runs.

    So it is still there inside nnx.jit, nnx.scan and the like, where the module is another object.
    """

    def __init__(self, listener: outputs.Listener, path: outputs.Path):
        self.listener = listener
        self.path = path


class _Heard(nnx.Module):
    """Base of the classes that the modules of a running model have, each with its own class as other base.

    Only the instances of this one model are of such a class, so that nothing is patched that other models or
    threads use, and `isinstance` answers as ever.
    """

    def __init_subclass__(cls) -> None:
        # Flax is told about the class; a user's own `__init_subclass__`, which may keep a register, is not.
        own = cls.__bases__[1]
        super(nnx.Module, cls).__init_subclass__(pytree=own._pytree__is_pytree)  # pyright: ignore


@functools.cache
def _heard(cls: type) -> type:
    """The class of modules of this class while they are listened to; made once, as Flax keeps every class."""

    @functools.wraps(cls.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            return super(heard, self).__call__(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

        ear = vars(self).get(_EAR)
        if ear is None:  # made by a module in its forward pass, and not one of the model's
            return run()
        sow = functools.partial(self.sow, nnx.Intermediate)
        return ear.listener.call(ear.path, self, lambda: _ranks(self), run, sow)

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__call__": call}
    heard = types.new_class(cls.__name__, (_Heard, cls), exec_body=lambda body: body.update(names))
    return heard


@contextlib.contextmanager
def _listening(model: nnx.Module, listener: outputs.Listener) -> Iterator[None]:
    """Lets the listener hear the calls of a model's modules, what `linen.intercept_methods` does in linen."""
    modules = dict(nnx.iter_modules(model))
    for path, module in modules.items():
        if callable(module):
            object.__setattr__(module, _EAR, _Ear(listener, path))
            object.__setattr__(module, "__class__", _heard(type(module)))
    try:
        yield
    finally:
        for module in (*modules.values(), *dict(nnx.iter_modules(model)).values()):
            for name in (_EAR, "__captures__"):  # Flax leaves its own behind where the forward pass failed
                if name in vars(module):
                    delattr(module, name)
            if isinstance(module, _Heard):
                object.__setattr__(module, "__class__", type(module).__bases__[1])


def _units_last(module: Any, output: Any) -> jax.Array:
    """The array a module returned, its features merged into one last axis."""
    features = np.size(module.out_features) if isinstance(module, nnx.LinearGeneral) else 1
    return outputs.units_last(output, isinstance(module, _RECURRENT), features)


def _ranks(module: nnx.Module) -> list[int]:
    """The rank of every parameter of an nnx module."""
    return [jnp.ndim(node.get_value()) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Param)]
