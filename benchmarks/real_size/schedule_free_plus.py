"""ScheduleFree+: schedule-free Adam whose learning rate is Polyak's.

Defazio, "ScheduleFree+: Scaling Learning-Rate-Free & Schedule-Free Learning to Large Language Models", arXiv
2605.19095. Numbers are the defaults of its author's reference code (facebookresearch/schedule_free, 70785b5):
no weight decay, no average of the gradient's norm, and after the warm-up a constant momentum of the average.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

_MOMENTUM = 0.9  # of the average
_POWER = 2.0  # an iterate has this power of the largest rate so far as its weight


def schedule_free_plus(
    factor: jax.typing.ArrayLike, warmup_steps: int
) -> optax.GradientTransformationExtraArgs:
    """Adam's iterates z, their average x, and gradients taken at `y = momentum x + (1 - momentum) z`.

    The learning rate is the loss at y, lowered or raised to what a linear model says of it at z, over the
    1-norm of the gradient, the dual of what Adam's steps have, times `sqrt(pi / 2)` and over a factor that
    warms up. Until then x is z.

    Args:
        factor: multiplies Polyak's rate; its author's is 1.
        warmup_steps: in which the factor rises from 0, linearly; at least 1.

    Returns:
        An optimizer whose update takes `value`, the loss; `optax.contrib.schedule_free_eval_params` finds x.
    """
    adam = optax.scale_by_adam(b2=0.95)

    def init(params: optax.Params) -> optax.contrib.ScheduleFreeState:
        return optax.contrib.ScheduleFreeState(
            b1=jnp.float32(_MOMENTUM),
            weight_sum=jnp.zeros((), jnp.float32),
            step_count=jnp.zeros((), jnp.int32),
            max_lr=jnp.zeros((), jnp.float32),
            base_optimizer_state=adam.init(params),
            z=jax.tree.map(jnp.copy, params),
        )

    def update(
        gradient: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        value: jax.Array,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.contrib.ScheduleFreeState]:
        del extra_args
        average = optax.contrib.schedule_free_eval_params(state, params)
        away = optax.tree.sub(state.z, average)
        loss = value + _MOMENTUM * optax.tree.vdot(gradient, away)
        norm = math.sqrt(math.pi / 2) * optax.tree.norm(gradient, ord=1)
        warm = jnp.minimum((state.step_count + 1) / warmup_steps, 1.0)
        rate = factor * warm * jnp.maximum(loss, 0.0) / jnp.maximum(norm, 1e-30)

        direction, inner = adam.update(gradient, state.base_optimizer_state)
        z = optax.tree.add_scale(state.z, -rate, direction)
        largest = jnp.maximum(state.max_lr, rate)
        averages = state.step_count >= warmup_steps
        weight = jnp.where(averages, largest**_POWER, 0.0)
        total = state.weight_sum + weight
        share = jnp.where(averages, weight / jnp.where(total > 0, total, 1.0), 1.0)
        average = optax.tree.add_scale(average, share, optax.tree.sub(z, average))
        following = optax.tree.add_scale(z, _MOMENTUM, optax.tree.sub(average, z))
        state = optax.contrib.ScheduleFreeState(state.b1, total, state.step_count + 1, largest, inner, z)
        return optax.tree.sub(following, params), state

    return optax.GradientTransformationExtraArgs(init, update)
