"""The base optimizer of `cgalr`, made from a rate: refused where to scale its updates is not enough."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from cgalr_jax import _checks

__all__ = ["built"]

_SIGNATURE = "learning_rate -> optax.GradientTransformation"


def built(
    optimizer: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation],
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformation:
    """`optimizer(learning_rate)`; a ValueError, here or from its `init`, unless its updates can be scaled."""
    if isinstance(optimizer, optax.GradientTransformation):
        raise ValueError(
            f"optimizer must be a function, {_SIGNATURE}, got {type(optimizer).__name__}, one that is built "
            "already; pass optax.adamw itself, or functools.partial(optax.adamw, weight_decay=1e-2)."
        )
    if isinstance(optimizer, functools.partial) and (optimizer.args or "learning_rate" in optimizer.keywords):
        raise ValueError(
            f"optimizer must be a function, {_SIGNATURE}, got {_checks.shown(optimizer)}, which has its rate "
            "already; leave that to learning_rate: functools.partial(optax.adamw, weight_decay=1e-2)."
        )
    _checks.check_function("optimizer", optimizer, _SIGNATURE, 1)
    try:
        base = optimizer(learning_rate)
    except TypeError as error:
        if not callable(learning_rate):
            raise
        raise ValueError(
            f"optimizer must be a function that takes a schedule, as learning_rate is one, {_SIGNATURE}, got "
            f"{_checks.shown(optimizer)}, which raises TypeError: {error}"
        ) from error
    if not isinstance(base, optax.GradientTransformation):
        raise ValueError(
            f"optimizer must be a function, {_SIGNATURE}, got one that returns {_checks.shown(base)}."
        )

    def init(params: optax.Params) -> optax.OptState:
        state = base.init(params)
        for node in jax.tree.leaves(state, is_leaf=_is_out_of_reach):
            if isinstance(node, optax.MultiStepsState):
                raise ValueError(
                    "optimizer must be one that updates at each step, as its schedule is counted, got one "
                    "with a MultiStepsState: put it around, optax.MultiSteps(cgalr_jax.cgalr(...), k)."
                )
            if _is_out_of_reach(node):
                raise ValueError(
                    "optimizer must be one whose updates can be multiplied by the scale, got one with a "
                    f"{type(node).__name__}: what it keeps of the parameters would not be scaled. Put it "
                    "around cgalr, optax.contrib.schedule_free(cgalr_jax.cgalr(...), learning_rate), or see "
                    "the page on compatibility."
                )
        return state

    return base._replace(init=init)


def _is_out_of_reach(node: Any) -> bool:
    """Whether this part of a state holds what no scale of the updates reaches.

    Parameters, a step size, or a count of updates where the controller counts steps, as `optax.MultiSteps`.
    """
    if isinstance(node, optax.contrib.SAMState):
        return node.cache is not None  # in opaque mode each of its steps is a whole one
    kept = optax.contrib.ScheduleFreeState, optax.contrib.MechanicState, optax.LookaheadState
    return isinstance(node, (*kept, optax.MultiStepsState))
