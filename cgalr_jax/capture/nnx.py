"""Flax nnx models -> activations."""

import traceback
from collections.abc import Callable, Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cgalr_jax import _checks
from cgalr_jax.capture import _flax, calls, frozen, listening, outputs
from cgalr_jax.capture import choice as choices
from cgalr_jax.capture.choice import Activations, Choice
from cgalr_jax.capture.linen_modules import is_linen_layer, linen_units

__all__ = ["nnx_forward", "nnx_probe", "nnx_samples"]

# Variables, other than parameters, that may change in training; random keys are held fixed instead.
_MOVING = nnx.Not(nnx.Any(nnx.Param, nnx.RngState))
_UNREACHABLE = (
    "a jax.vmap, jax.checkpoint, jax.lax.scan or the like around a module of the model, or an nnx.fori_loop"
    " or the like that closes over one; use nnx.vmap, nnx.remat, nnx.scan"
)
_RECURRENT = (nnx.RNN, nnx.RNNCellBase)
_LAYERS = (
    nnx.Linear,
    nnx.LinearGeneral,
    nnx.Einsum,
    nnx.Conv,
    nnx.ConvTranspose,
    nnx.MultiHeadAttention,
    nnx.LoRA,  # around its base module, if it has one
    *_RECURRENT,
)


def nnx_probe(model: nnx.Module, samples: Any = None, **choice: Unpack[Choice]) -> Callable[..., Activations]:
    """Builds the probe of an nnx model.

    The probe runs a copy of the model with the given parameters; the model itself is not changed. Two
    readings must differ by the parameters and by nothing else, so everything else that changes in training is
    held fixed: the copy is in evaluation mode (no dropout), BatchNorm normalises by the samples of the probe
    instead of its running averages, and random keys are constants. Other variables keep the values they have
    when the probe is built. If the forward pass reads some that change in training, store them with the
    samples, see `nnx_samples`.

    Args:
        model: the model, inside or outside of `nnx.jit`.
        samples: the samples of a fixed probe, in the form that `forward` takes; None for paired measurements.
        **choice: see `Choice`.

    Returns:
        `probe(params, samples) -> activations`; `probe(params) -> activations` if `samples` is given here.

    Raises:
        ValueError: if `model` is no nnx model; from the probe, if no layer matches, or if the axes of an
            array cannot be determined.

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
                f" probe(params, samples), got {_checks.shown(params)}."
            )
        inputs, variables = frozen.given_samples(samples, batch)
        copy = nnx.merge(graphdef, state, copy=True)
        if variables is not None:
            there = nnx.state(copy, _MOVING)
            try:
                nnx.replace_by_pure_dict(there, variables)
            except (ValueError, AssertionError) as error:  # Flax knows no such variable
                raise ValueError(
                    "samples must be those of this model, nnx_samples(model, x), got other variables: "
                    f"{_checks.shown(jax.tree.map(jnp.shape, variables))}."
                ) from error
            nnx.update(copy, there)
        try:
            nnx.update(copy, params)  # last: variables of other kinds may be trained, too
        except ValueError as error:  # Flax takes what it does not know for a new attribute, and refuses that
            raise ValueError(
                "params must be the parameters of this model, nnx.state(model, nnx.Param), got "
                f"{_checks.shown(params)}."
            ) from error
        _hold_still(copy)
        return _run(copy, inputs, choice, still=True)[1]

    return probe


def nnx_samples(model: nnx.Module, samples: Any) -> frozen.Samples:
    """Samples together with the present variables of the model, if its forward pass reads changing ones.

    A probe that is given both runs the model with both, and discards changes of the variables. Only variables
    of your own need this, such as a moving average that you wrote: the probe holds Flax's BatchNorm, dropout
    and random keys fixed.

    Args:
        model: the model.
        samples: samples in the form that `forward` takes.

    Returns:
        A pytree to pass as `samples=`: paired, to `scale_by_connectome` and to each update; for a fixed
        probe, to `nnx_probe` (made once, before training, and passed to the step as an argument). It does not
        contain parameters or random keys.

    Raises:
        ValueError: if `model` is no nnx model.

    Example:
        >>> from flax import nnx
        >>> net = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
        >>> jax.tree.map(jnp.shape, nnx_samples(net, jnp.ones((4, 3))))
        Samples(samples=(4, 3), variables={'mean': (3,), 'var': (3,)})
    """
    choices.check(model, nnx.Module, {})
    return frozen.Samples(samples, nnx.to_pure_dict(nnx.state(model, _MOVING)))


def nnx_forward(model: nnx.Module, samples: Any, **choice: Unpack[Choice]) -> tuple[Any, Activations]:
    """Runs an nnx model in its present mode and returns (output, activations).

    For use in the loss function, where the forward pass is computed anyway; pass the activations to the
    update as `activations=`. A fresh batch at each measurement is the literal form of the paper, but noisy:
    prefer a probe.

    Args:
        model: the model; its state (BatchNorm, dropout keys) changes as in any call.
        samples: samples in the form that `forward` takes.
        **choice: see `Choice`.

    Returns:
        The model's output, and the activations {layer name: array [N, ..., F]}.

    Raises:
        ValueError: if `model` is no nnx model, if no layer matches, if the axes of an array cannot be
            determined, or if another `nnx_forward` is running this very model, whose state both would change.

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
    """Puts a probe's copy into evaluation mode; makes random keys and SpectralNorm's vector constant."""
    if _checks.takes(model.eval, 0):
        model.eval()
    else:  # a name that the model uses for something else
        nnx.Module.eval(model)
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
    listener = calls.Listener(choice, _is_layer, _units_last, _UNREACHABLE)
    ranks = {path: listening.ranks(module) for path, module in nnx.iter_modules(model)}

    def run(model: nnx.Module, samples: Any) -> Any:
        _flax.drop_captures_of_lists(model)
        return listener.forward(model, samples)

    try:
        with listening.attached(model, listener, still):
            output, captured = nnx.capture(run, nnx.Intermediate)(model, samples)
    except (TypeError, ValueError) as error:
        around = _flax.nnx_transforms(traceback.walk_tb(error.__traceback__))
        if not _flax.is_of_captures(error) or not around:
            raise
        raise listener.not_reached_in(around[-1]) from error
    return output, outputs.collect(nnx.to_pure_dict(captured), ranks, listener, output)


def _is_layer(module: Any) -> bool:
    """Whether an nnx module is measured if `layers` is None."""
    if isinstance(module, nnx.bridge.ToNNX):
        return is_linen_layer(module.to_nnx__module)
    return isinstance(module, _LAYERS)


def _units_last(module: Any, output: Any, kwargs: Mapping[str, Any]) -> jax.Array:
    """The array that a module returned, its features merged into one last axis."""
    if isinstance(module, nnx.bridge.ToNNX):
        return linen_units(module.to_nnx__module, output, kwargs)
    features = np.size(module.out_features) if isinstance(module, nnx.LinearGeneral) else 1
    value = calls.units_last(output, isinstance(module, _RECURRENT), features)
    return calls.samples_first(value, module, kwargs) if isinstance(module, nnx.RNN) else value
