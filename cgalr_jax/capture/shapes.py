"""The shapes of a probe's activations, from which `scale_by_connectome` is built."""

from collections.abc import Callable
from typing import Any, Unpack

import jax
from flax import linen, nnx

from cgalr_jax import _checks, _leaves
from cgalr_jax.capture.choice import Choice
from cgalr_jax.capture.linen import check_params, linen_probe
from cgalr_jax.capture.nnx import nnx_probe

__all__ = ["example"]

_CALLS = """example takes one of
  example(model, samples)           an nnx model
  example(net, params, samples)     a linen model; params or all of its variables
  example(probe, params, *samples)  the probe from nnx_probe or linen_probe, or a function of your own"""


def example(model: Any, *arguments: Any, **choice: Unpack[Choice]) -> Any:
    """The shapes of a model's activations, for the constructor of `scale_by_connectome`.

    Only shapes are computed. Call it in one of three ways:

    - `example(model, samples)`: an nnx model;
    - `example(net, params, samples)`: a linen model, with its parameters or all of its variables;
    - `example(probe, params, *samples)`: a probe; a paired one with samples, a fixed one without.

    For a probe in plain JAX the third is the same as `jax.eval_shape(probe, params, samples)`.

    Args:
        model: the model, also an abstract one of `nnx.eval_shape`, or the probe.
        *arguments: as above; arrays or ShapeDtypeStructs. As the `params` of a probe, an nnx model is
            accepted, too: it stands for its parameters.
        **choice: with a model, as for its probe, see `Choice`.

    Returns:
        {layer name: ShapeDtypeStruct [N, ..., F]}.

    Raises:
        ValueError: if the arguments fit none of the three ways, or the probe raises one.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> net = nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs))
        >>> example(net, jnp.ones((4, 3)))
        {'layers/0': ShapeDtypeStruct(shape=(4, 5), dtype=float32)}
        >>> example(nnx_probe(net), net, jnp.ones((4, 3))) == example(net, jnp.ones((4, 3)))
        True
    """
    if isinstance(model, nnx.Module):
        if len(arguments) != 1:
            raise ValueError(_wrong("samples must be given once, after the nnx model", arguments))
        graphdef, state = nnx.split(model)
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(state)):  # nnx.eval_shape
            arguments, probe = (state, *arguments), _probe_of(graphdef, choice)
        else:
            arguments, probe = (model, *arguments), nnx_probe(model, **choice)
    elif isinstance(model, linen.Module):
        if len(arguments) != 2:
            raise ValueError(_wrong("params and samples must be given, after the linen model", arguments))
        check_params(arguments[0], "example(net, params, samples)")
        probe = linen_probe(model, **choice)
    elif isinstance(model, type) or not callable(model):
        raise ValueError(
            f"model must be an instance of a Flax model, or a probe, got {_checks.shown(model)}.\n{_CALLS}"
        )
    elif choice:
        raise ValueError(
            f"{sorted(choice)} must be given to nnx_probe or linen_probe, or here with a model, got a probe."
        )
    elif not arguments:
        raise ValueError(_wrong("params must be given, after the probe", arguments))
    else:
        _checks.check_function("model", model, "probe(params, *samples) -> activations", len(arguments))
        probe = model
    params, *samples = arguments
    for leaf in jax.tree.leaves(samples):
        if not _leaves.is_array(leaf):
            raise ValueError(
                f"samples must be arrays or jax.ShapeDtypeStructs, got {_checks.shown(leaf)}.\n{_CALLS}"
            )
    # An nnx model need not be a pytree.
    params = nnx.state(params, nnx.Param) if isinstance(params, nnx.Module) else params
    return jax.eval_shape(probe, params, *samples)


def _probe_of(graphdef: Any, choice: Choice) -> Callable[..., Any]:
    """A probe that takes all of a model's state: what it computes with is an argument, and has a value."""

    def probe(state: Any, samples: Any) -> Any:
        model = nnx.merge(graphdef, state)
        return nnx_probe(model, **choice)(nnx.state(model, nnx.Param), samples)

    return probe


def _wrong(sentence: str, arguments: tuple[Any, ...]) -> str:
    return f"{sentence}, got {len(arguments)} argument{'s' * (len(arguments) != 1)} after it.\n{_CALLS}"
