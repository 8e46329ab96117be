"""Flax's linen modules: which of them are layers, which array is theirs, and how a probe holds them still."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen

from cgalr_jax.capture import _flax, calls, frozen

__all__ = ["hold_linen_still", "is_linen_layer", "linen_units"]

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
    linen.WeightNorm,  # its layer runs in an nn.map_variables, out of which nothing is sown
    *_RECURRENT,
)


def is_linen_layer(module: Any) -> bool:
    """Whether a linen module is measured if `layers` is None."""
    return isinstance(module, _LAYERS)


def hold_linen_still(
    module: linen.Module, method: Callable[..., Any], args: Any, kwargs: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a module's call in a probe, without those for statistics and dropout.

    Attributes of the module replace these arguments; `apply` made the module for this forward pass only.
    """
    for kind, name, value in _STILL:
        if isinstance(module, kind) and name in (signature := inspect.signature(method)).parameters:
            bound = signature.bind_partial(*args, **kwargs)
            bound.arguments.pop(name, None)
            args, kwargs = bound.args, bound.kwargs
            _flax.set_attribute(module, name, value)
    if isinstance(module, linen.BatchNorm) and module.axis_name and not frozen.is_mapped(module.axis_name):
        _flax.set_attribute(module, "axis_name", None)
    if isinstance(module, linen.SpectralNorm):
        collection = module.collection_name
        for name, value in module.variables.get(collection, {}).items():
            if name.endswith("/u"):
                start = jax.random.normal(jax.random.key(0), value.shape, value.dtype)
                module.put_variable(collection, name, start)
    return args, kwargs


def linen_units(module: Any, output: Any, kwargs: Mapping[str, Any]) -> jax.Array:
    """The array that a module returned, its features merged into one last axis."""
    if isinstance(module, linen.WeightNorm):
        return linen_units(module.layer_instance, output, kwargs)
    features = np.size(module.features) if isinstance(module, linen.DenseGeneral) else 1
    value = calls.units_last(output, isinstance(module, _RECURRENT), features)
    return calls.samples_first(value, module, kwargs) if isinstance(module, linen.RNN) else value
