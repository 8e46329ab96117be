"""Which layers to measure, and in which form: keyword arguments of the functions of `capture`."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import jax
from flax import linen

from cgalr_jax import _checks

__all__ = ["Activations", "Choice", "check", "is_named", "is_wanted", "may_sow", "patterns"]

Activations = dict[str, jax.Array]


class Choice(TypedDict, total=False):
    """Which layers to measure, and in which form: keyword arguments that the functions of `capture` share.

    Attributes:
        layers: a list of names and types. Names are globs such as `'encoder/*'`; they match paths of modules,
            and paths of what the model itself sows into 'intermediates' or as `nnx.Intermediate`. Default
            None: the dense, convolutional, attention and recurrent layers. Layers inside a measured layer are
            not measured.
        logits: whether to measure the last layer even if it is as wide as the model's output; default False.
            A layer given by name is always measured.
        pooled: whether to average over positions (all axes between the first and the last); default False:
            positions remain, and count as samples.
        activation: a function applied to every array; `jax.nn.relu` measures after the activation function.
        forward: `forward(model, samples)`, how to run the model; default `model(samples)`.
    """

    layers: Sequence[str | type] | None
    logits: bool
    pooled: bool
    activation: Callable[[jax.Array], jax.Array] | None
    forward: Callable[[Any, Any], Any] | None


def check(model: Any, kind: type, choice: Choice) -> None:
    """Raises a ValueError unless `model` is a `kind`, and each keyword argument is valid."""
    if not isinstance(model, kind):
        flax = "linen" if issubclass(kind, linen.Module) else "nnx"
        raise ValueError(
            f"model must be an instance of flax.{flax}.Module, as in probe={flax}_probe(model), "
            f"got {_checks.shown(model)}."
        )
    known = sorted(Choice.__annotations__)
    for name in choice:
        if name not in known:
            raise ValueError(f"keyword arguments must be among {known}, got {name!r}.")
    layers = choice.get("layers")
    if isinstance(layers, (str, type)):
        raise ValueError(
            f"layers must be a list of names and types, got {_checks.shown(layers)} without a list around it."
        )
    if layers is not None:
        if not isinstance(layers, Sequence) or not all(isinstance(layer, (str, type)) for layer in layers):
            raise ValueError(
                f"layers must be a list of names and types, or None, got {_checks.shown(layers)}."
            )
        if not layers:
            raise ValueError(
                "layers must have at least one entry, or be None for the default layers, got an empty list."
            )
    for name in ("logits", "pooled"):
        value = choice.get(name, False)
        _checks.check_flag(name, value)
    for name, call in (("activation", "activation(array) -> array"), ("forward", "forward(model, samples)")):
        value = choice.get(name)
        if value is not None:
            _checks.check_function(name, value, f"{call}, or None", 1 if name == "activation" else 2)


def patterns(choice: Choice) -> list[str]:
    """The names, among names and types, in `layers`."""
    return [layer for layer in choice.get("layers") or () if isinstance(layer, str)]


def is_named(choice: Choice, name: str) -> bool:
    """Whether `layers` contains a name that matches."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns(choice))


def is_wanted(choice: Choice, name: str, module: Any, default: Callable[[Any], bool]) -> bool:
    """Whether to measure a module; `default` tells it if `layers` is None."""
    layers = choice.get("layers")
    if name == "" or layers is None:
        return name != "" and default(module)
    types = tuple(layer for layer in layers if isinstance(layer, type))
    return is_named(choice, name) or isinstance(module, types)


def may_sow(choice: Choice, name: str) -> bool:
    """Whether a name in `layers` may match a value that this module itself sows."""
    if name == "":
        return bool(patterns(choice))
    # The beginning of the pattern matches the module; a wildcard may cross the slash behind it.
    return any(
        fnmatch.fnmatch(f"{name}/", pattern[:end])
        for pattern in patterns(choice)
        for end in range(1, len(pattern) + 1)
    )
