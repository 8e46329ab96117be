"""What to measure, and in which form: the keyword arguments that every function of `capture` takes."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import jax

from cgalr_jax import _checks

Activations = dict[str, jax.Array]


class Choice(TypedDict, total=False):
    """What to measure, and in which form: keyword arguments that the functions of `capture` share.

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


def check(model: Any, kind: type, choice: Choice) -> None:
    """Raises for a model of the other API, and for a choice that is none."""
    if not isinstance(model, kind):
        flax = "linen" if "linen" in kind.__module__ else "nnx"
        raise ValueError(f"model must be a flax.{flax}.Module, an instance, got {_checks.shown(model)}.")
    known = sorted(Choice.__annotations__)
    for name in choice:
        if name not in known:
            raise ValueError(f"keyword arguments must be among {known}, got {name!r}.")
    layers = choice.get("layers")
    if isinstance(layers, (str, type)):
        raise ValueError(
            f"layers must be a list of names and types, got {_checks.shown(layers)}, which is not in a list."
        )
    if layers is not None:
        if not isinstance(layers, Sequence) or not all(isinstance(layer, (str, type)) for layer in layers):
            raise ValueError(
                f"layers must be a list of names and types, or None, got {_checks.shown(layers)}."
            )
        if not layers:
            raise ValueError(
                "layers must name at least one, or be None for the usual ones, got an empty list."
            )
    for name in ("logits", "pooled"):
        value = choice.get(name, False)
        _checks.check_flag(name, value)
    for name, call in (("activation", "activation(array) -> array"), ("forward", "forward(model, samples)")):
        value = choice.get(name)
        if value is not None:
            _checks.check_function(name, value, f"{call}, or None", 1 if name == "activation" else 2)


def patterns(choice: Choice) -> list[str]:
    """The layers that are asked for by their names."""
    return [layer for layer in choice.get("layers") or () if isinstance(layer, str)]


def is_named(choice: Choice, name: str) -> bool:
    """Whether a layer is asked for by its name."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns(choice))


def is_wanted(choice: Choice, name: str, module: Any, default: tuple[type, ...]) -> bool:
    """Whether a module is to be measured; `default` are the types that are where none is chosen."""
    layers = choice.get("layers")
    types = default if layers is None else tuple(layer for layer in layers if isinstance(layer, type))
    return name != "" and (is_named(choice, name) or isinstance(module, types))


def may_sow(choice: Choice, name: str) -> bool:
    """Whether something that this module sows itself may be asked for."""
    return any(fnmatch.fnmatch(name, pattern.rpartition("/")[0]) for pattern in patterns(choice))


def run(choice: Choice, model: Any, samples: Any) -> Any:
    """One forward pass."""
    forward = choice.get("forward")
    return model(samples) if forward is None else forward(model, samples)
