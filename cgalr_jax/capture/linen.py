"""Flax linen models -> activations, and the TrainState that lets a probe through."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from flax.training import train_state

from cgalr_jax.capture import choice as choices
from cgalr_jax.capture import outputs
from cgalr_jax.capture.choice import Activations, Choice

_RECURRENT = (linen.RNN, linen.RNNCellBase)
_LAYERS = (
    linen.Dense,
    linen.DenseGeneral,
    linen.Einsum,
    linen.Conv,
    linen.ConvLocal,
    linen.ConvTranspose,
    linen.MultiHeadDotProductAttention,
    *_RECURRENT,
)


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
    choices.check(model, linen.Module, choice)

    def probe(params: Any, *batch: Any) -> Activations:
        inputs = choices.the_samples(samples, batch)
        return _run(model, {**(variables or {}), "params": params}, inputs, choice)[1]

    return probe


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
    choices.check(model, linen.Module, choice)
    return _run(model, variables, samples, choice, rngs, tuple(mutable))


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


def _run(
    model: linen.Module,
    variables: Mapping[str, Any],
    samples: Any,
    choice: Choice,
    rngs: Any = None,
    mutable: tuple[str, ...] = (),
) -> tuple[Any, Activations, dict[str, Any]]:
    """Runs a linen model and collects what its modules sow."""
    listener = outputs.Listener(choice, _LAYERS, _units_last)
    variables = {"params": {}, **{key: value for key, value in variables.items() if key != "intermediates"}}

    def heard(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return method(*args, **kwargs)
        module = context.module
        return listener.call(
            module.path,
            module,
            lambda: _ranks(module.variables.get("params", {})),
            lambda: method(*args, **kwargs),
            functools.partial(module.sow, "intermediates"),
        )

    with linen.intercept_methods(heard):
        output, changed = model.apply(
            variables,
            samples,
            rngs=rngs,
            mutable=[*mutable, "intermediates"],
            method=lambda model, samples: choices.run(choice, model, samples),
        )
    ranks = {path: _ranks(_subtree(variables["params"], path)) for path in listener.paths}
    activations = outputs.collect(changed.get("intermediates", {}), ranks, listener, output)
    return output, activations, {key: value for key, value in changed.items() if key in mutable}


def _units_last(module: Any, output: Any) -> jax.Array:
    """The array a module returned, its features merged into one last axis."""
    features = np.size(module.features) if isinstance(module, linen.DenseGeneral) else 1
    return outputs.units_last(output, isinstance(module, _RECURRENT), features)


def _ranks(parameters: Any) -> list[int]:
    """The rank of every parameter of a linen module."""
    return [jnp.ndim(leaf) for leaf in jax.tree.leaves(parameters)]


def _subtree(tree: Any, path: outputs.Path) -> Any:
    """The part of a nested dict under a path; empty where there is none."""
    for key in path:
        tree = tree.get(key, {})
    return tree
