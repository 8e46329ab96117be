"""nnx modules whose calls are heard, while one model runs and nowhere else.

For that time each module of the model has another class, derived from its own: it tells the listener what it
returned and, in a probe, holds fixed what only its own call can (the statistics of a BatchNorm, dropout).
"""

import contextlib
import functools
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
from flax import core, linen, nnx

from cgalr_jax.capture import _flax, calls, frozen
from cgalr_jax.capture.linen_modules import hold_linen_still

__all__ = ["attached", "ranks"]

_EAR = "_cgalr_ear"
# Held while the classes of a model's modules are exchanged.
_CHANGING_CLASSES = threading.Lock()


class _Ear:
    """The listener and the path of a module, a static attribute of the module while the model runs.

    As a static attribute it still exists inside nnx.jit, nnx.scan and the like, where modules are copies.
    """

    def __init__(self, listener: calls.Listener, path: calls.Path, still: bool):
        self.listener = listener
        self.path = path
        self.still = still  # whether a probe runs the model


class _Heard(nnx.Module):
    """Base of the classes that the modules of a running model have; the module's own class is another base.

    Only the instances of this one model get such a class: nothing is patched that other models or threads
    use, and `isinstance` works as before.
    """

    _cgalr_own: type  # the module's own class

    def __init_subclass__(cls) -> None:
        _flax.register(cls, cls._cgalr_own)  # without a user's `__init_subclass__`, which may keep a registry


class _OwnBatch(nnx.BatchNorm):
    """Base for BatchNorms: in a probe they use the statistics of its samples, whatever the call passes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not _is_still(self):
            return super().__call__(*args, **kwargs)
        kwargs.pop("use_running_average", None)
        axis_name = self.axis_name
        mapped = axis_name is None or frozen.is_mapped(axis_name)
        _flax.set_attribute(self, "axis_name", axis_name if mapped else None)
        try:
            return super().__call__(*args[:1], **kwargs)
        finally:
            _flax.set_attribute(self, "axis_name", axis_name)


class _NoDropout(nnx.Dropout):
    """Base for Dropouts: off in a probe, whatever the call passes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **_still_deterministic(self, kwargs))


class _NoAttentionDropout(nnx.MultiHeadAttention):
    """Base for attentions: their dropout is off in a probe, whatever the call passes."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **_still_deterministic(self, kwargs))


class _Bridge(nnx.bridge.ToNNX):
    """Base for linen modules in nnx: all that a bridge has goes to linen, which must not see what is ours.

    The modules inside are not heard; in a probe they are held still like those of a linen model.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        still = _is_still(self)
        ours = {name: vars(self).pop(name) for name in (_EAR, _flax.CAPTURES) if name in vars(self)}
        before = dict(vars(self))
        try:
            if not still:
                return super().__call__(*args, **kwargs)
            with linen.intercept_methods(_still_linen):
                return super().__call__(*args, **{**kwargs, "mutable": core.DenyList("params")})
        finally:
            if still:  # what linen has changed is discarded
                vars(self).clear()
                vars(self).update(before)
            vars(self).update(ours)


_STILL = {
    nnx.bridge.ToNNX: _Bridge,
    nnx.BatchNorm: _OwnBatch,
    nnx.Dropout: _NoDropout,
    nnx.MultiHeadAttention: _NoAttentionDropout,
}


def _is_still(module: nnx.Module) -> bool:
    ear = vars(module).get(_EAR)
    return ear is not None and ear.still


def _still_linen(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    """An interceptor of the methods of linen modules, with which they run as in a probe."""
    if context.method_name == "__call__":
        args, kwargs = hold_linen_still(context.module, context.orig_method, args, kwargs)
    return method(*args, **kwargs)


def _still_deterministic(module: nnx.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "deterministic": True} if _is_still(module) else kwargs


@functools.cache
def _heard(cls: type) -> type:
    """The class that modules of class `cls` have while they run; cached, since Flax keeps every class."""

    @functools.wraps(cls.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            return super(heard, self).__call__(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

        ear = vars(self).get(_EAR)
        if ear is None:  # a module created in the forward pass, which is not part of the model
            return run()

        def sow(name: str, value: Any) -> Any:
            # Inside a transformation of JAX's own, a sown value would be a tracer that has left it.
            return _flax.is_in_own_trace(self) and self.sow(nnx.Intermediate, name, value)

        around = _flax.nnx_transforms(traceback.walk_stack(None))
        ear.listener.transforms.setdefault(ear.path, []).extend(around)
        return ear.listener.call(ear.path, self, lambda: ranks(self), run, sow, kwargs)

    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__call__": call}
    names["_cgalr_own"] = cls
    # Between Flax's class and a subclass of it, so that `super().__call__(...)` of the subclass reaches it.
    above = tuple(still for base, still in _STILL.items() if issubclass(cls, base))
    bases = (_Heard, *above) if cls in _STILL else (_Heard, cls, *above)
    heard = types.new_class(cls.__name__, bases, exec_body=lambda body: body.update(names))
    return heard


@contextlib.contextmanager
def attached(model: nnx.Module, listener: calls.Listener, still: bool) -> Iterator[None]:
    """Passes all calls of a model's modules to the listener, like `linen.intercept_methods` in linen."""
    modules = dict(nnx.iter_modules(model))
    with _CHANGING_CLASSES:
        if heard := [path for path, module in modules.items() if isinstance(module, _Heard)]:
            raise ValueError(
                "model must be run by one nnx_forward at a time, got one that another, perhaps of another "
                f"thread, is running: {[calls.join(path) for path in heard]}."
            )
        for path, module in modules.items():
            if callable(module):
                _flax.set_attribute(module, _EAR, _Ear(listener, path, still))
                _flax.set_attribute(module, "__class__", _heard(type(module)))
    try:
        yield
    finally:
        for module in (*modules.values(), *dict(nnx.iter_modules(model)).values()):
            for name in (_EAR, _flax.CAPTURES):  # Flax leaves its captures if the forward pass fails
                if name in vars(module):
                    delattr(module, name)
            if isinstance(module, _Heard):
                _flax.set_attribute(module, "__class__", module._cgalr_own)


def ranks(module: nnx.Module) -> list[int]:
    """The rank of each parameter of an nnx module."""
    return [jnp.ndim(node.get_value()) for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Param)]
