"""Flax linen models -> activations, and the TrainState that lets a probe through."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import core, linen
from flax.training import train_state

from cgalr_jax import _checks
from cgalr_jax.capture import choice as choices
from cgalr_jax.capture import frozen, outputs
from cgalr_jax.capture.choice import Activations, Choice

_STILL = (
    (linen.BatchNorm, "use_running_average", False),
    (linen.Dropout, "deterministic", True),
    (linen.MultiHeadDotProductAttention, "deterministic", True),
)
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

    What moves in training beside the parameters is held still, so that two readings differ by the parameters
    and by nothing else: BatchNorm normalises by the samples of the probe, in place of its running averages,
    dropout is off, keys are constants, and whatever the forward pass changes is forgotten. So 'batch_stats'
    need not be passed, and both values of an argument such as `train` give the same activations; where the
    model asks for one, `forward=lambda model, x: model(x, train=False)`. Collections of the model's own are
    as they are given here: where its forward pass reads some that move, let them travel with the samples, see
    `linen_samples`.

    Args:
      model: the model.
      variables: the collections beside the parameters that the forward pass reads; 'params' is ignored. None
        for BatchNorm and the like.
      samples: a fixed probe set, whatever `forward` takes; None for paired measurements.
      **choice: see `Choice`.

    Returns:
      `probe(params, samples) -> activations`; `probe(params) -> activations` where `samples` is given here.
      All variables, `{'params': ..., ...}`, may stand for `params`.

    Raises:
      ValueError: when an argument is not what is said here; from the probe, when nothing matches, or when the
        axes of an array cannot be known.

    Example:
      >>> net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
      >>> params = net.init(jax.random.key(0), jnp.ones((4, 3)))['params']
      >>> jax.tree.map(jnp.shape, linen_probe(net)(params, jnp.ones((4, 3))))
      {'layers_0': (4, 5)}
    """
    choices.check(model, linen.Module, choice)
    if variables is not None:
        _check_collections(variables, "the third argument is samples")

    def probe(params: Any, *batch: Any) -> Activations:
        if not isinstance(params, Mapping):
            raise ValueError(
                "params must be the parameters of the model, model.init(...)['params'], before the samples:"
                f" probe(params, samples), got {type(params).__name__}."
            )
        inputs, moving = frozen.given_samples(samples, batch)
        # All collections, 'params' among them, as `model.init` returns them, stand for their own.
        given = params if is_variables(params) else {"params": params}
        return _run(model, {**(variables or {}), **(moving or {}), **given}, inputs, choice)[1]

    return probe


def linen_samples(variables: Mapping[str, Any], samples: Any) -> frozen.Samples:
    """Samples together with the collections of this moment, for a model that reads some that move.

    A probe that is given both runs the model with both, and forgets what changes. Only collections of your
    own need it, such as a moving average that you wrote: Flax's BatchNorm, dropout and keys are held still.

    Args:
      variables: the collections; 'params' and 'intermediates' are left out.
      samples: whatever `forward` takes.

    Returns:
      A pytree for `samples=`: of `scale_by_connectome` and of each update (paired), or of `linen_probe`
      (fixed: taken once, before training, and an argument of the step).

    Example:
      >>> net = linen.BatchNorm(use_running_average=True)
      >>> variables = net.init(jax.random.key(0), jnp.ones((4, 3)))
      >>> jax.tree.map(jnp.shape, linen_samples(variables, jnp.ones((4, 3))))
      Samples(samples=(4, 3), variables={'batch_stats': {'mean': (3,), 'var': (3,)}})
    """
    _check_collections(variables, "the samples come second")
    kept = {key: value for key, value in variables.items() if key not in ("params", "intermediates")}
    return frozen.Samples(samples, kept)


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
      >>> net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
      >>> variables = net.init(jax.random.key(0), jnp.ones((4, 3)))
      >>> output, activations, changed = linen_forward(net, variables, jnp.ones((4, 3)))
      >>> output.shape, sorted(activations), changed
      ((4, 2), ['layers_0'], {})
    """
    choices.check(model, linen.Module, choice)
    _check_collections(variables, "the samples are the third argument")
    if variables and "params" not in variables:
        raise ValueError(
            "variables must hold all collections, {'params': params, ...}, as model.init returns them, got"
            f" {sorted(variables)}."
        )
    if not isinstance(mutable, (list, tuple)) or not all(isinstance(name, str) for name in mutable):
        raise ValueError(f"mutable must be a list of collections, got {_checks.shown(mutable)}.")
    return _run(model, variables, samples, choice, rngs=rngs, mutable=tuple(mutable), still=False)


def is_variables(tree: Any) -> bool:
    """Whether these are all collections of a model, and not its parameters only."""
    return isinstance(tree, Mapping) and isinstance(tree.get("params"), Mapping)


def _check_collections(variables: Any, hint: str) -> None:
    if not isinstance(variables, Mapping) or not all(isinstance(key, str) for key in variables):
        raise ValueError(
            "variables must be a mapping of collections, such as {'batch_stats': ...}"
            f" ({hint}), got {_checks.shown(variables)}."
        )


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
        update = optax.with_extra_args_support(self.tx).update
        tx = optax.GradientTransformationExtraArgs(self.tx.init, functools.partial(update, **kwargs))
        # Flax's own method does the rest (it knows about fp8 parameters), with `kwargs` bound to the update.
        state = train_state.TrainState.apply_gradients(self.replace(tx=tx), grads=grads, **replaced)
        return state.replace(tx=self.tx)


def _run(
    model: linen.Module,
    variables: Mapping[str, Any],
    samples: Any,
    choice: Choice,
    *,
    rngs: Any = None,
    mutable: tuple[str, ...] = (),
    still: bool = True,
) -> tuple[Any, Activations, dict[str, Any]]:
    """Runs a linen model and collects what its modules sow; `still`: as a probe does."""
    listener = outputs.Listener(choice, _LAYERS, _units_last)
    variables = {"params": {}, **{key: value for key, value in variables.items() if key != "intermediates"}}

    def heard(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return method(*args, **kwargs)
        module = context.module
        if still:
            args, kwargs = _hold_still(module, context.orig_method, args, kwargs)
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
            # A stream that is not there is drawn from that of 'params': any key is a constant.
            rngs={"params": jax.random.key(0)} if still else rngs,
            mutable=core.DenyList(("params",)) if still else [*mutable, "intermediates"],
            method=lambda model, samples: choices.run(choice, model, samples),
        )
    ranks = {path: _ranks(_subtree(variables["params"], path)) for path in listener.paths}
    activations = outputs.collect(changed.get("intermediates", {}), ranks, listener, output)
    return output, activations, {key: value for key, value in changed.items() if key in mutable}


def _hold_still(
    module: linen.Module, method: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a module's call in a probe: without what Flax lets it say of statistics and dropout.

    The attribute of the module says it, of a copy that `apply` made for this forward pass.
    """
    for kind, name, value in _STILL:
        if isinstance(module, kind) and name in (signature := inspect.signature(method)).parameters:
            bound = signature.bind_partial(*args, **kwargs)
            bound.arguments.pop(name, None)
            args, kwargs = bound.args, bound.kwargs
            object.__setattr__(module, name, value)
    if isinstance(module, linen.BatchNorm) and module.axis_name and not frozen.is_mapped(module.axis_name):
        object.__setattr__(module, "axis_name", None)
    if isinstance(module, linen.SpectralNorm):
        collection = module.collection_name
        for name, value in module.variables.get(collection, {}).items():
            if name.endswith("/u"):
                start = jax.random.normal(jax.random.key(0), value.shape, value.dtype)
                module.put_variable(collection, name, start)
    return args, kwargs


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
