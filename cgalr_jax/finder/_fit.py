"""Whether a user's state, step, probe and parameters fit together; a ValueError names what does not."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal

from cgalr_jax import _checks, _control_flow, _leaves
from cgalr_jax.layers import Layout, layout_of

_A_STEP = "one training step, step(state, learning_rate) -> state"
_PARAMETERS = "a function that finds the parameters, params(state) -> parameters"
# What Python and JAX raise where a function looks for something that a state does not have.
_MISFITS = (TypeError, AttributeError, LookupError)


def check_training_state(state: Any) -> None:
    """Raises a ValueError unless a ramp can start here: from numbers, and known ones, as it measures them."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    if _control_flow.within_jit() or any(isinstance(leaf, jax.core.Tracer) for _, leaf in leaves):
        raise ValueError(
            "state must be known, got traced values: call find_learning_rate outside of jit, grad and vmap; "
            "it compiles step and probe itself."
        )
    for path, leaf in leaves:
        if not _leaves.is_array(leaf):
            raise ValueError(
                f"state must hold arrays and numbers only, got {_checks.shown(leaf)} at "
                f"state{jax.tree_util.keystr(path)}: leave it out, or split a model by equinox.partition("
                "model, equinox.is_array), and put it together in step and probe."
            )


def layout_of_probe(probe: Callable[[Any], Any], state: Any) -> Layout:
    """The layers that a probe returns; a ValueError says what is wrong with them."""
    activations = _shapes("probe", "a function of the state, probe(state) -> activations", probe, state)
    leaves = jax.tree.leaves(activations)
    if not leaves or any(leaf.ndim < 2 for leaf in leaves):
        raise ValueError(
            "probe must return activations, a pytree of layers [N, ..., F], got "
            f"{_checks.shown(activations)}."
        )
    try:
        return layout_of(activations, max_units=256)
    except ValueError as error:
        reason = str(error).removeprefix("example ")
        raise ValueError(f"probe must return activations, a pytree of layers, which {reason}") from error


def _shapes(name: str, what: str, function: Callable[..., Any], state: Any) -> Any:
    """The shapes of what a user's function returns; a ValueError says that it does not fit the state."""
    try:
        return _checks.shapes_of(name, function, state)
    except _MISFITS as error:
        raise _failing(name, what, function, error) from error


def _failing(name: str, what: str, function: Callable[..., Any], error: Exception) -> ValueError:
    """What is raised instead if a user's function fails."""
    # A KeyError is no sentence without its name, and JAX tells more than one line.
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return ValueError(f"{name} must be {what}, got {_checks.shown(function)}, which fails: {reason}")


def check_start(state: Any, probe: Callable[[Any], Any]) -> None:
    """Raises a ValueError if nothing finite can be measured from here on, at whatever rate."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if _leaves.is_inexact(leaf) and bool(jnp.isnan(leaf).any()):
            raise ValueError(f"state must not hold NaN, got some at state{jax.tree_util.keystr(path)}.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(probe)(state)):
        if not bool(jnp.isfinite(leaf).all()):
            raise ValueError(
                "probe must return finite activations, got NaN or infinite ones for the first state, at "
                f"probe(state){jax.tree_util.keystr(path)}."
            )


def check_step(step: Callable[[Any, jax.Array], Any], state: Any) -> Jaxpr:
    """The program of a step, whose last input is the rate.

    Raises a ValueError unless the step returns a state of the same form, which a loop over steps needs.
    """
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    before = jax.eval_shape(lambda state: state, state)
    try:
        program, after = jax.make_jaxpr(step, return_shape=True)(state, rate)
    except _MISFITS as error:
        raise _failing("step", _A_STEP, step, error) from error
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(
            "step must return the state it is given, step(state, learning_rate) -> state, got "
            f"{jax.tree.structure(after)} for {jax.tree.structure(before)}."
        )
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"step must keep the shapes and dtypes of its state, got {new.dtype}{list(new.shape)} for "
                f"{old.dtype}{list(old.shape)}; a float32 learning rate promotes narrower parameters: cast "
                "the update back, (p - rate * g).astype(p.dtype)."
            )
    return program.jaxpr


def check_rate_is_used(step: Callable[[Any, jax.Array], Any], program: Jaxpr) -> None:
    """Raises a ValueError if a step ignores its rate: the network moves, but says nothing about any rate."""
    state = len(program.invars) - 1
    if not any(_depending(program, [False] * state + [True])):
        raise ValueError(
            "step must use its learning rate, step(state, learning_rate) -> state, got "
            f"{_checks.shown(step)}, whose new state does not depend on it; build the optimizer inside of "
            "step, as in optax.sgd(learning_rate).update(...)."
        )


def _depending(program: Jaxpr, inputs: list[bool]) -> list[bool]:
    """Which outputs of a program may depend on the inputs that are marked."""
    marked = {variable for variable, given in zip(program.invars, inputs, strict=True) if given}

    def reached(variables: list[Any]) -> list[bool]:
        return [not isinstance(each, Literal) and each in marked for each in variables]

    for equation in program.eqns:
        outputs = [any(reached(equation.invars))] * len(equation.outvars)
        # A jitted function takes an argument that it ignores; a loop or a branch takes what it uses.
        if equation.primitive.name == "jit":
            outputs = _depending(equation.params["jaxpr"].jaxpr, reached(equation.invars))
        marked |= {each for each, given in zip(equation.outvars, outputs, strict=True) if given}
    return reached(program.outvars)


def usual_parameters(state: Any) -> Any:
    """The parameters in a state, by the names and places that are usual."""
    if hasattr(state, "params"):
        return state.params
    if isinstance(state, Mapping) and "params" in state:
        return state["params"]
    # A list may be that of the layers, whose first one is not all of them.
    several = isinstance(state, tuple) or (isinstance(state, list) and _holds_record(state))
    return state[0] if several and state else state


def _holds_record(tree: Any) -> bool:
    """Whether a NamedTuple is among the nodes, as in the state of every optimizer of Optax."""

    def is_record(node: Any) -> bool:
        return isinstance(node, tuple) and hasattr(node, "_fields")

    return any(map(is_record, jax.tree.leaves(tree, is_leaf=is_record)))


def check_parameters(parameters: Callable[[Any], Any], state: Any, are_read: bool) -> None:
    """Raises a ValueError if `parameters` does not fit the state.

    If they are read, what it finds must be parameters, too: no state of an optimizer, no counter.
    """
    found = _shapes("params", _PARAMETERS, parameters, state)
    if not are_read:
        return
    guessed = parameters is usual_parameters
    wrong = guessed and (isinstance(found, tuple) or (parameters(state) is state and _holds_record(state)))
    if wrong or not any(map(_leaves.is_inexact, jax.tree.leaves(found))):
        raise ValueError(
            f"params must be {_PARAMETERS}, got {_checks.shown(found)}"
            f"{' without it' if guessed else ' from it'}."
        )
