"""Flax nnx models -> activations."""

import contextlib
import functools
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cgalr_jax.capture import choice as choices
from cgalr_jax.capture import frozen, outputs
from cgalr_jax.capture.choice import Activations, Choice

_EAR = "_cgalr_ear"
_CHANGING_CLASSES = threading.Lock()
_MOVING = nnx.Not(
    nnx.Any(nnx.Param, nnx.RngState)
)  # what may move beside the parameters; keys are held still
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

    The probe runs a copy of the model with the parameters it is given. What else moves in training is held
    still, so that two readings differ by the parameters and by nothing else: the copy is in evaluation mode
    (no dropout), BatchNorm normalises by the samples of the probe, in place of its running averages, keys
    are constants. Variables of the model's own are as they are when the probe is built: where its forward
    pass reads some that move, let them travel with the samples, see `nnx_samples`. The model itself is never
    touched.

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
        if isinstance(params, nnx.Module):
            params = nnx.state(params, nnx.Param)
        if not isinstance(params, Mapping):
            raise ValueError(
                "params must be the parameters of the model, nnx.state(model, nnx.Param), before the samples:"
                f" probe(params, samples), got {type(params).__name__}."
            )
        inputs, variables = frozen.given_samples(samples, batch)
        copy = nnx.merge(graphdef, state, copy=True)
        nnx.update(copy, params)
        if variables is not None:
            there = nnx.state(copy, _MOVING)
            nnx.replace_by_pure_dict(there, variables)
            nnx.update(copy, there)
        _hold_still(copy)
        return _run(copy, inputs, choice, still=True)[1]

    return probe


def nnx_samples(model: nnx.Module, samples: Any) -> frozen.Samples:
    """Samples together with the model's variables of this moment, for a model that reads some that move.

    A probe that is given both runs the model with both, and forgets what changes. Only variables of your own
    need it, such as a moving average that you wrote: Flax's BatchNorm, dropout and keys are held still.

    Args:
      model: the model.
      samples: whatever `forward` takes.

    Returns:
      A pytree for `samples=`: of `scale_by_connectome` and of each update (paired), or of `nnx_probe` (fixed:
      taken once, before training, and an argument of the step). Parameters and keys are not in it.

    Raises:
      ValueError: when `model` is not one.

    Example:
      >>> from flax import nnx
      >>> net = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
      >>> jax.tree.map(jnp.shape, nnx_samples(net, jnp.ones((4, 3))))
      Samples(samples=(4, 3), variables={'mean': (3,), 'var': (3,)})
    """
    choices.check(model, nnx.Module, {})
    return frozen.Samples(samples, nnx.to_pure_dict(nnx.state(model, _MOVING)))


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
      ValueError: when `model` is not one, when nothing matches, when the axes of an array cannot be known, or
        when another `nnx_forward` is running this very model, whose state both would change.

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


def _hold_still(model: nnx.Module) -> None:
    """Puts a probe's copy into evaluation mode, and makes constant what is left to chance or history."""
    model.eval()
    for number, (_, node) in enumerate(list(nnx.iter_graph(model))):
        if isinstance(node, nnx.BatchNorm):
            node.use_running_average = False
        elif isinstance(node, nnx.SpectralNorm):
            for path, variable in node.batch_stats.items():
                if path[-1] == "u":
                    value = variable.get_value()
                    variable.set_value(jax.random.normal(jax.random.key(0), value.shape, value.dtype))
        elif isinstance(node, nnx.RngCount):
            node.set_value(jnp.zeros_like(node.get_value()))
        elif isinstance(node, nnx.RngKey):
            key = node.get_value()
            constant = jax.random.key(number, impl=jax.random.key_impl(key))
            node.set_value(jnp.broadcast_to(constant, key.shape))


def _run(model: nnx.Module, samples: Any, choice: Choice, *, still: bool = False) -> tuple[Any, Activations]:
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
        with _listening(model, listener, still):
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

    def __init__(self, listener: outputs.Listener, path: outputs.Path, still: bool):
        self.listener = listener
        self.path = path
        self.still = still  # a probe's


class _Heard(nnx.Module):
    """Base of the classes that the modules of a running model have, each with its own class as another base.

    Only the instances of this one model are of such a class, so that nothing is patched that other models or
    threads use, and `isinstance` answers as ever.
    """

    _cgalr_own: type  # the class that the module has otherwise

    def __init_subclass__(cls) -> None:
        # Flax learns of the class; a user's own `__init_subclass__`, which may keep a register, is not.
        super(nnx.Module, cls).__init_subclass__(pytree=cls._cgalr_own._pytree__is_pytree)  # pyright: ignore


class _OwnBatch(nnx.BatchNorm):
    """Inserted above a BatchNorm: in a probe its own samples are the statistics, whatever the call says."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not _is_still(self):
            return super().__call__(*args, **kwargs)
        kwargs.pop("use_running_average", None)
        axis_name = self.axis_name
        mapped = axis_name is None or frozen.is_mapped(axis_name)
        object.__setattr__(self, "axis_name", axis_name if mapped else None)
        try:
            return super().__call__(*args[:1], **kwargs)
        finally:
            object.__setattr__(self, "axis_name", axis_name)


class _NoDropout(nnx.Dropout):
    """Inserted above a Dropout: off in a probe, whatever the call says."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **_still_deterministic(self, kwargs))


class _NoAttentionDropout(nnx.MultiHeadAttention):
    """Inserted above an attention: its dropout is off in a probe, whatever the call says."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **_still_deterministic(self, kwargs))


def _is_still(module: nnx.Module) -> bool:
    ear = vars(module).get(_EAR)
    return ear is not None and ear.still


def _still_deterministic(module: nnx.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "deterministic": True} if _is_still(module) else kwargs


_STILL = {
    nnx.BatchNorm: _OwnBatch,
    nnx.Dropout: _NoDropout,
    nnx.MultiHeadAttention: _NoAttentionDropout,
}


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
    names["_cgalr_own"] = cls
    # Between Flax's class and what was derived from it, so that `super().__call__(...)` meets it as well.
    above = tuple(still for base, still in _STILL.items() if issubclass(cls, base))
    bases = (_Heard, *above) if cls in _STILL else (_Heard, cls, *above)
    heard = types.new_class(cls.__name__, bases, exec_body=lambda body: body.update(names))
    return heard


@contextlib.contextmanager
def _listening(model: nnx.Module, listener: outputs.Listener, still: bool) -> Iterator[None]:
    """Lets the listener hear the calls of a model's modules, what `linen.intercept_methods` does in linen."""
    modules = dict(nnx.iter_modules(model))
    with _CHANGING_CLASSES:
        if heard := [path for path, module in modules.items() if isinstance(module, _Heard)]:
            raise ValueError(
                "model must be run by one nnx_forward at a time, got one that another, perhaps of another "
                f"thread, is running: {[outputs.join(path) for path in heard]}."
            )
        for path, module in modules.items():
            if callable(module):
                object.__setattr__(module, _EAR, _Ear(listener, path, still))
                object.__setattr__(module, "__class__", _heard(type(module)))
    try:
        yield
    finally:
        for module in (*modules.values(), *dict(nnx.iter_modules(model)).values()):
            for name in (_EAR, "__captures__"):  # Flax leaves its own behind where the forward pass failed
                if name in vars(module):
                    delattr(module, name)
            if isinstance(module, _Heard):
                object.__setattr__(module, "__class__", module._cgalr_own)


def _units_last(module: Any, output: Any) -> jax.Array:
    """The array a module returned, its features merged into one last axis."""
    features = np.size(module.out_features) if isinstance(module, nnx.LinearGeneral) else 1
    return outputs.units_last(output, isinstance(module, _RECURRENT), features)


def _ranks(module: nnx.Module) -> list[int]:
    """The rank of every parameter of an nnx module."""
    return [jnp.ndim(node.get_value()) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Param)]
