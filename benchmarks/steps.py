"""One step of training, what the optimizer is told at it, and what is read of its state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import cgalr_jax


class Run(NamedTuple):
    """A run on its way."""

    params: Any
    state: Any


def step(
    optimizer: optax.GradientTransformationExtraArgs,
    objective: Callable[[Any], jax.Array],
    run: Run,
    **told: Any,
) -> Run:
    """The run one update later; whoever asks for the loss is told it, too."""
    loss, gradient = jax.value_and_grad(objective)(run.params)
    updates, state = optimizer.update(gradient, run.state, run.params, value=loss, **told)
    return Run(optax.apply_updates(run.params, updates), state)


def told(source: str | None, units: Callable[[Any, Any], Any], samples: Any, fixed: Any) -> dict[str, Any]:
    """The extra arguments of ``update``.

    Args:
        source: where the units come from: None, "paired" (the batch's own samples) or "fixed".
        units: ``(params, inputs) -> units``.
        samples: of the batch.
        fixed: the same at each step.
    """
    if source == "paired":
        return {"probe": units, "samples": samples}
    return {"probe": lambda params: units(params, fixed)} if source == "fixed" else {}


def evaluated(run: Run, averaged: jax.Array | bool = True) -> Any:
    """The parameters that are scored: where the optimizer keeps an average, that, if it is wanted."""
    if isinstance(run.state, optax.contrib.ScheduleFreeState):
        return optax.contrib.schedule_free_eval_params(run.state, run.params)
    if not optax.tree.get_all_with_path(run.state, "averaging_step"):
        return run.params
    average = cgalr_jax.averaged_params(run.state, run.params)
    return jax.tree.map(lambda mean, last: jnp.where(averaged, mean, last), average, run.params)


def observe(state: Any, name: str, otherwise: float) -> jax.Array:
    """What the state holds by this name, f32[], or what stands for it in one that measures nothing."""
    return jnp.asarray(optax.tree.get(state, name, default=otherwise), jnp.float32)
