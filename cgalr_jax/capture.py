"""Flax models -> activations: the only file that imports Flax.

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

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from flax.training import train_state

from cgalr_jax import sown

Activations = sown.Activations

_LINEN_LAYERS = (
    linen.Dense,
    linen.DenseGeneral,
    linen.Einsum,
    linen.Conv,
    linen.ConvLocal,
    linen.ConvTranspose,
    linen.MultiHeadDotProductAttention,
    linen.RNN,
    linen.RNNCellBase,
)
_NNX_LAYERS = (
    nnx.Linear,
    nnx.LinearGeneral,
    nnx.Einsum,
    nnx.Conv,
    nnx.ConvTranspose,
    nnx.MultiHeadAttention,
    nnx.RNN,
    nnx.RNNCellBase,
)
_RECURRENT = (linen.RNN, linen.RNNCellBase, nnx.RNN, nnx.RNNCellBase)


class Choice(TypedDict, total=False):
    """What to measure, and in which form: keyword arguments that the four functions below share.

    Attributes:
      layers: names (globs such as `'encoder/*'`, over module paths and over what the model itself sows into
        'intermediates' or as `nnx.Intermediate`) and types; None, the default, for the dense, convolutional,
        attention and recurrent layers. A measured layer hides the layers inside it.
      logits: whether the last layer is measured though it is as wide as the model's output; default False.
        A layer given by name always is.
      pooled: whether positions (all axes between the first and the last) are averaged; default False, they
        stay, as samples.
      activation: applied to every array; `jax.nn.relu` measures behind the activation function.
      forward: `forward(model, samples)`, how to run the model; default `model(samples)`.
    """

    layers: Sequence[str | type] | None
    logits: bool
    pooled: bool
    activation: Callable[[jax.Array], jax.Array] | None
    forward: Callable[[Any, Any], Any] | None


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
    wanted = _choose(model, nnx.Module, _NNX_LAYERS, choice)
    graphdef, state = nnx.split(model)

    def probe(params: Any, *batch: Any) -> Activations:
        copy = nnx.merge(graphdef, state, copy=True)
        nnx.update(copy, params)
        copy.eval()
        return _run_nnx(copy, _the_samples(samples, batch), wanted)[1]

    return probe


def linen_probe(
    model: linen.Module,
    variables: Mapping[str, Any] | None = None,
    samples: Any = None,
    **choice: Unpack[Choice],
) -> Callable[..., Activations]:
    """Builds the probe of a linen model.

    Linen models choose evaluation mode by an argument of their own: write it into `forward`, for example
    `forward=lambda model, x: model(x, train=False)`. No collection may change and no key is given, so a
    model left in training mode raises Flax's own error.

    Args:
      model: the model.
      variables: the collections beside the parameters, such as `{'batch_stats': ...}`; 'params' is ignored.
      samples: a fixed probe set, whatever `forward` takes; None for paired measurements.
      **choice: see `Choice`.

    Returns:
      `probe(params, samples) -> activations`; `probe(params) -> activations` where `samples` is given here.

    Raises:
      ValueError: when `model` is not one; from the probe, when nothing matches, or when the axes of an array
        cannot be known.

    Example:
      >>> from flax import linen
      >>> net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
      >>> params = net.init(jax.random.key(0), jnp.ones((4, 3)))['params']
      >>> jax.tree.map(jnp.shape, linen_probe(net)(params, jnp.ones((4, 3))))
      {'layers_0': (4, 5)}
    """
    wanted = _choose(model, linen.Module, _LINEN_LAYERS, choice)

    def probe(params: Any, *batch: Any) -> Activations:
        inputs = _the_samples(samples, batch)
        return _run_linen(model, {**(variables or {}), "params": params}, inputs, wanted)[1]

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
    return _run_nnx(model, samples, _choose(model, nnx.Module, _NNX_LAYERS, choice))


def linen_forward(
    model: linen.Module,
    variables: Mapping[str, Any],
    samples: Any,
    *,
    rngs: Any = None,
    mutable: Sequence[str] = (),
    **choice: Unpack[Choice],
) -> tuple[Any, Activations, dict[str, Any]]:
    """Runs a linen model and returns (output, activations, changed collections), see `nnx_forward`.

    Args:
      model: the model.
      variables: all collections, 'params' among them.
      samples: whatever `forward` takes.
      rngs: keys, as in `model.apply`.
      mutable: the collections the forward pass may change, such as ('batch_stats',).
      **choice: see `Choice`.

    Returns:
      The model's output, the activations {layer name: array [N, ..., F]}, the collections in `mutable`.

    Raises:
      ValueError: when `model` is not one, when nothing matches, or when the axes of an array cannot be known.

    Example:
      >>> from flax import linen
      >>> net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
      >>> variables = net.init(jax.random.key(0), jnp.ones((4, 3)))
      >>> output, activations, changed = linen_forward(net, variables, jnp.ones((4, 3)))
      >>> output.shape, sorted(activations), changed
      ((4, 2), ['layers_0'], {})
    """
    wanted = _choose(model, linen.Module, _LINEN_LAYERS, choice)
    return _run_linen(model, variables, samples, wanted, rngs, tuple(mutable))


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
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> net = nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs))
      >>> example(nnx_probe(net), net, jnp.ones((4, 3)))
      {'layers/0': ShapeDtypeStruct(shape=(4, 5), dtype=float32)}
    """
    return jax.eval_shape(probe, nnx.state(params) if isinstance(params, nnx.Module) else params, *samples)


class TrainState(train_state.TrainState):
    """Flax's TrainState whose `apply_gradients` passes `probe`, `samples`, `activations` to the optimizer.

    Example:
      >>> net = linen.Dense(2)
      >>> params = net.init(jax.random.key(0), jnp.ones((4, 3)))['params']
      >>> state = TrainState.create(apply_fn=net.apply, params=params, tx=optax.sgd(0.1))
      >>> int(state.apply_gradients(grads=params, probe=None, samples=jnp.ones((4, 3))).step)
      1
    """

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> Any:
        """Applies the gradients.

        Args:
          grads: gradients, like `params`.
          **kwargs: fields of the state (`batch_stats=...`) are replaced; all others go to `tx.update`.

        Returns:
          The next state.
        """
        fields = {field.name for field in dataclasses.fields(self)}
        replaced = {key: kwargs.pop(key) for key in sorted(fields & kwargs.keys())}
        tx = optax.GradientTransformationExtraArgs(self.tx.init, functools.partial(self.tx.update, **kwargs))
        # Flax's own method does the rest (it knows about fp8 parameters), with `kwargs` bound to the update.
        state = train_state.TrainState.apply_gradients(self.replace(tx=tx), grads=grads, **replaced)
        return state.replace(tx=self.tx)


def _choose(model: Any, kind: type, default: tuple[type, ...], choice: Choice) -> sown.Wanted:
    """The choice with its defaults, after a check of the two arguments that are easily taken for others."""
    if not isinstance(model, kind):
        flax = "linen" if kind is linen.Module else "nnx"
        raise ValueError(f"model must be a flax.{flax}.Module, an instance, got {model!r}.")
    layers = choice.get("layers")
    if isinstance(layers, (str, type)):
        raise ValueError(f"layers must be a list of names and types, got {layers!r}, which is not in a list.")
    return sown.Wanted(default, **choice)


def _run_nnx(model: nnx.Module, samples: Any, choice: sown.Wanted) -> tuple[Any, Activations]:
    """Runs an nnx model and collects what its modules sow."""
    listener = sown.Listener(choice, _units_last)
    modules = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    ranks = {name: _nnx_ranks(module) for name, module in modules.items()}

    def run(model: nnx.Module, samples: Any) -> Any:
        for _, module in nnx.iter_modules(model):
            # Flax 0.12.8 hangs captures on lists too, and then cannot sort the state of one.
            if isinstance(module, nnx.List) and hasattr(module, "__captures__"):
                del module.__captures__
        return choice.run(model, samples)

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
    return output, sown.collect(nnx.to_pure_dict(captured), ranks, listener, output)


@contextlib.contextmanager
def _listening(modules: Mapping[str, nnx.Module], listener: sown.Listener) -> Iterator[None]:
    """Lets the listener hear the calls of nnx modules, what `linen.intercept_methods` does in linen."""

    def heard(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            return listener.call(
                getattr(self, "cgalr_name", ""),
                self,
                lambda: _nnx_ranks(self),
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


def _run_linen(
    model: linen.Module,
    variables: Mapping[str, Any],
    samples: Any,
    choice: sown.Wanted,
    rngs: Any = None,
    mutable: tuple[str, ...] = (),
) -> tuple[Any, Activations, dict[str, Any]]:
    """Runs a linen model and collects what its modules sow."""
    listener = sown.Listener(choice, _units_last)
    variables = {"params": {}, **{key: value for key, value in variables.items() if key != "intermediates"}}

    def heard(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return method(*args, **kwargs)
        module = context.module
        return listener.call(
            "/".join(module.path),
            module,
            lambda: _ranks(module.variables.get("params", {})),
            lambda: method(*args, **kwargs),
            functools.partial(module.sow, "intermediates"),
        )

    with linen.intercept_methods(heard):
        output, changed = model.apply(
            variables, samples, rngs=rngs, mutable=[*mutable, "intermediates"], method=choice.run
        )
    ranks = {name: _ranks(_subtree(variables["params"], name)) for name in listener.names}
    activations = sown.collect(changed.get("intermediates", {}), ranks, listener, output)
    return output, activations, {key: value for key, value in changed.items() if key in mutable}


def _units_last(module: Any, output: Any) -> jax.Array:
    """The array a module returned, its features merged into one last axis."""
    leaves = jax.tree.leaves(output)
    value = leaves[-1] if isinstance(module, _RECURRENT) else leaves[0]  # recurrent: (carry, output)
    features = 1
    if isinstance(module, linen.DenseGeneral):
        features = np.size(module.features)
    elif isinstance(module, nnx.LinearGeneral):
        features = np.size(module.out_features)
    return value.reshape(*value.shape[:-features], math.prod(value.shape[-features:]))


def _ranks(parameters: Any) -> list[int]:
    """The rank of every parameter of a linen module."""
    return [jnp.ndim(leaf) for leaf in jax.tree.leaves(parameters)]


def _nnx_ranks(module: nnx.Module) -> list[int]:
    """The rank of every parameter of an nnx module."""
    return [jnp.ndim(node.get_value()) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Param)]


def _subtree(tree: Any, name: str) -> Any:
    """The part of a nested dict under a path 'a/b'; empty where there is none."""
    for key in filter(None, name.split("/")):
        tree = tree.get(key, {})
    return tree


def _the_samples(fixed: Any, given: tuple[Any, ...]) -> Any:
    """The samples of one measurement: those the probe holds, or those it is given."""
    if (fixed is None) != (len(given) == 1):
        raise ValueError(
            "samples must be given once, to the probe's builder (a fixed probe set) or to the probe (paired),"
            f" got {len(given)} at the call and {'none' if fixed is None else 'some'} at the builder."
        )
    return given[0] if given else fixed
