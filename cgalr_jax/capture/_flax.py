"""What capture needs of Flax beyond its public API: all of it, so that a new Flax breaks this file only.

Private names, attributes that Flax does not document, names of functions on the stack of calls, words of an
error. Each was seen in every Flax from 0.12.7 to 0.12.12, unless its function says otherwise, and each is a
test in `tests/capture/test_flax.py`, which tells of a new Flax what is gone.
"""

from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

from flax import core, linen, nnx

# --- both


def set_attribute(module: nnx.Module | linen.Module, name: str, value: Any) -> None:
    """Sets an attribute of a module, its class among them, and Flax neither refuses nor notes it.

    By the public way linen refuses, since a bound module is frozen, and nnx refuses inside a transformation
    of JAX's own. What nnx has not noted it takes for static: no part of the state, and yet kept by the copies
    in nnx.jit, nnx.scan and the like.
    """
    object.__setattr__(module, name, value)


# --- nnx

# Where nnx.capture keeps, on each module, what is sown during a call. The public API gives it only when the
# call has returned, but a module that is copied or looked at during the call has it among its attributes.
CAPTURES = "__captures__"
# Out of these nothing is sown by a module that all branches or iterations have together.
_TRANSFORMS = ("cond", "fori_loop", "pmap", "scan", "switch", "vmap", "while_loop")


def is_of_captures(error: BaseException) -> bool:
    """Whether Flax raised an error because nothing that is sown gets out of the place of a module.

    There is no class of errors for it: what Flax refuses is that `__captures__` differs between branches or
    iterations, and only the path of it in the text of a TypeError or a ValueError tells. With jax before
    0.10.2 the text of nnx.while_loop has no path, and the answer is no.
    """
    return CAPTURES in str(error)


def drop_captures_of_lists(model: nnx.Module) -> None:
    """Takes away the captures of an nnx.List, which sows nothing, at the beginning of an nnx.capture.

    Up to 0.12.10 Flax adds them to lists, too, and then cannot sort the state of a list. From 0.12.11 on it
    leaves lists out, and there are none to take away.
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.List) and hasattr(module, CAPTURES):
            delattr(module, CAPTURES)


def is_in_own_trace(module: nnx.Module) -> bool:
    """Whether an nnx module runs where it was made, not in a transformation of JAX's own around its call.

    In public, only setting an attribute asks this (`flax.errors.TraceContextError`), which changes the
    module; to sow does not ask, and leaves a tracer behind.
    """
    return module._pytree__state.trace_state.is_valid()


def register(cls: type[nnx.Module], own: type[nnx.Module]) -> None:
    """Registers a class with Flax that is derived from `own`, a pytree if `own` is one.

    As `__init_subclass__` of nnx.Pytree does for each class; but to derive a class in public calls a user's
    `__init_subclass__`, too, which may keep a registry or have arguments. Whether a class was made with
    `pytree=False` no public name tells.
    """
    super(nnx.Module, cls).__init_subclass__(pytree=own._pytree__is_pytree)


def nnx_transforms(frames: Iterable[tuple[FrameType, int]]) -> list[str]:
    """The loops, branches and maps of nnx among the frames of a stack or a traceback, in their order.

    A module is not told what it runs in: only the names of Flax's functions on the stack tell. With
    `graph=False` some begin with "simple_"; without it, the one of nnx.pmap is called as that of nnx.vmap.
    """
    flax = (frame for frame, _ in frames if frame.f_globals.get("__name__", "").startswith("flax.nnx."))
    names = (frame.f_code.co_name.removeprefix("simple_").removesuffix("_wrapper") for frame in flax)
    return [f"nnx.{name}" for name in names if name in _TRANSFORMS]


# --- linen

_BRANCHES = ("cond", "switch")  # which must return the same, and a note says which branch it is from


def apply_flagged(
    function: Callable[[linen.Module], Any],
    model: linen.Module,
    variables: Mapping[str, Any],
    flag: str,
    *,
    rngs: Any,
    mutable: Any,
) -> tuple[Any, dict[str, Any]]:
    """Runs `function(model)` and returns what it returns, and the mutable collections.

    As `linen.apply(function, model, mutable)` does, which knows no flags: the scopes of this run have one, by
    which `has_flag` knows its modules. nn.jit compiles anew for a flag that it has not met.
    """

    def run(scope: core.Scope) -> Any:
        # By the class: a model may have an attribute called `copy`.
        return function(linen.Module.copy(model, parent=scope, name=model.name))

    return core.apply(run, mutable=mutable, flags={flag: True})(variables, rngs=rngs)


def has_flag(module: linen.Module, flag: str) -> bool:
    """Whether a module runs in the `apply_flagged` of this flag, not in another model's `apply` inside it.

    An interceptor of `linen.intercept_methods` hears all models of its thread, and is not told whose a module
    is.
    """
    return module.scope is not None and module.scope.has_flag(flag)


def linen_path(module: linen.Module) -> tuple[Any, ...]:
    """Where the variables of a bound module are; after `nn.share_scope` `module.path` is another."""
    return _path(_scope(module))


def is_in_trace_of_model(module: linen.Module) -> bool:
    """Whether a module runs where Flax runs its model, not in a transformation of JAX's own around its call.

    Inside Flax's transformations the answer is yes, too. In public `module.sow` does not ask, and a tracer
    leaves its transformation.
    """
    return _scope(module).root.trace_level == core.current_trace()


def has_branch(frames: Iterable[FrameType]) -> bool:
    """Whether nn.cond or nn.switch is among the frames of a stack: nothing else tells a module of it."""
    names = (frame.f_code.co_name for frame in frames if frame.f_globals.get("__name__") == "flax.core.lift")
    return any(name in _BRANCHES for name in names)


def _scope(module: linen.Module) -> core.Scope:
    """The scope of a module that is bound."""
    assert module.scope is not None
    return module.scope


def _path(scope: core.Scope) -> tuple[Any, ...]:
    return scope.path if scope.parent is None else (*_path(scope.parent), scope.name)
