"""The types `Controller` and `Measurement`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cgalr_jax import _checks, _leaves

__all__ = ["Controller", "Measurement", "check_controller"]


class Measurement(NamedTuple):
    """What a controller is given at each measurement.

    Attributes:
        distance: f32[], how far the network moved, in set-points of the signal: 1 is as fast as it should be.
            Infinite if it could not be measured (non-finite activations, no layer with two live units).
        step: i32[], optimizer steps taken so far.
        cut: f32[], the share of the steps since the last measurement that were cut down to `max_share`, see
            `scale_by_connectome`, of those whose updates were not all 0; in [0, 1], 0 if there is no bound.
    """

    distance: jax.Array
    step: jax.Array
    cut: jax.Array | float = 0.0


class Controller(NamedTuple):
    """From distances to a scale: two pure functions.

    Attributes:
        init: `() -> (scale, state)`: the scale f32[] before the first measurement, and a pytree of arrays.
        update: `(Measurement, state) -> (scale, state)`: called once per measurement, under jit; the
            structure, shapes and dtypes of the state must not change. `metrics` shows the fields of a
            NamedTuple that are called `phase`, `anchor`, `ended` or `z`. A scale that is not finite and
            positive is not used: the last good scale and its state stay.
        early: number of optimizer steps at the beginning of a run; default 0. During them, each step is
            measured, not only every `every`-th, while the state's property `calibrating` is true.

    Example:
        A controller that halves the scale whenever the network moves faster than its set-point:

        >>> def update(measurement, scale):
        ...     scale = jnp.where(measurement.distance < 1, scale, scale / 2)
        ...     return scale, scale
        >>> halving = Controller(lambda: (jnp.float32(1), jnp.float32(1)), update)
        >>> scale, state = halving.init()
        >>> print(halving.update(Measurement(distance=jnp.float32(3), step=jnp.int32(10)), state)[0])
        0.5
    """

    init: Callable[[], tuple[jax.Array, Any]]
    update: Callable[[Measurement, Any], tuple[jax.Array, Any]]
    early: int = 0


def check_controller(name: str, controller: Any) -> Controller:
    """The controller, after a check of its first scale and of all shapes; a ValueError says what is wrong."""
    _checks.check_kind(name, controller, Controller)
    _checks.check_function(f"{name}.init", controller.init, "() -> (scale, state)", 0)
    _checks.check_function(f"{name}.update", controller.update, "(measurement, state) -> (scale, state)", 2)
    early = _checks.check_integer(f"{name}.early", controller.early, 0)
    answer = controller.init()
    before = _shapes(f"{name}.init", jax.eval_shape(lambda: answer))
    calibrating: Any = getattr(answer[1], "calibrating", None)
    if early and not (_leaves.is_array(calibrating) and jnp.shape(calibrating) == ()):
        raise ValueError(
            f"{name}.early must be 0 for a state without a property `calibrating`, bool[], which says how "
            f"long each step is measured, got {early} and {_checks.shown(calibrating)} in "
            f"{_checks.shown(answer[1])}."
        )
    _checks.check_positive(f"the scale of {name}.init", answer[0])
    measurement = Measurement(*(jnp.zeros((), dtype) for dtype in (jnp.float32, jnp.int32, jnp.float32)))
    after = _shapes(
        f"{name}.update", _checks.shapes_of(f"{name}.update", controller.update, measurement, before)
    )
    if jax.tree.structure(after) != jax.tree.structure(before):
        raise ValueError(f"{name}.update must return a state of the same structure, {before}, got {after}.")
    changed = [
        (old, new)
        for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        if _loses(old, new)
    ]
    if changed:
        raise ValueError(
            f"{name}.update must keep the shapes and the kinds of numbers of its state, got {changed[0][1]} "
            f"for {changed[0][0]}; {name}.init may have to return 1.0 instead of 1."
        )
    return controller._replace(early=early)


def _loses(old: Any, new: Any) -> bool:
    """Whether a new value does not fit into the place of the old one: another shape, or a richer kind."""
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)
    ranks = [[jnp.issubdtype(x.dtype, kind) for kind in kinds] for x in (old, new)]
    if not all(any(rank) for rank in ranks):  # random keys, for instance
        return (old.shape, old.dtype) != (new.shape, new.dtype)
    before, after = (rank.index(True) for rank in ranks)
    return old.shape != new.shape or after > before


def _shapes(function: str, answer: Any) -> Any:
    """The state, as shapes, from what `init` or `update` returned."""
    if not (isinstance(answer, tuple) and len(answer) == 2 and getattr(answer[0], "shape", None) == ()):
        raise ValueError(f"{function} must return (scale f32[], state), got {_checks.shown(answer)}.")
    kind = jnp.result_type(answer[0])
    if not (jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)):
        raise ValueError(f"{function} must return a real scale, f32[], got one of dtype {kind}.")
    return answer[1]
