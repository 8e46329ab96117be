"""GeN, the nearest rival: a learning rate from the loss at three points along the update.

Bu & Xu, "Gradient descent with generalized Newton's method", ICLR 2025, arXiv 2407.02772. What the paper
leaves open is as in its authors' package, gen-optim 0.1.1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

EVERY = 4  # steps between two parabolas: the least that its authors advise
_KEPT = 0.9  # of the rate, at each of them
_LARGEST_FACTOR = 2.0  # by which a parabola may ask for more or less than the rate


class GeneralisedNewtonState(NamedTuple):
    """State of `generalised_newton`."""

    step: jax.Array  # i32[]
    rate: jax.Array  # f32[], the learning rate


def generalised_newton(
    rate: jax.typing.ArrayLike, horizon: optax.Schedule
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates u of a learning rate of 1 by the rate at which a parabola of the loss is least.

    One parabola goes through the losses at `w - rate u`, w and `w + rate u`, on a batch that the update does
    not know. Its minimum, no more than twice the rate and no less than half of it, times the horizon, has a
    tenth of the weight in the new rate. A parabola that opens downwards, or falls the other way, says
    nothing; a loss that is not finite halves the rate.

    Args:
        rate: the first one.
        horizon: `step -> f32[]`, from 1 down to 0.

    Returns:
        A transformation whose update takes `value_fn`, the loss of any parameters.
    """

    def init(params: optax.Params) -> GeneralisedNewtonState:
        del params
        return GeneralisedNewtonState(jnp.zeros((), jnp.int32), jnp.asarray(rate, jnp.float32))

    def update(
        updates: optax.Updates,
        state: GeneralisedNewtonState,
        params: optax.Params | None = None,
        *,
        value_fn: Callable[[optax.Params], jax.Array],
        **extra_args: Any,
    ) -> tuple[optax.Updates, GeneralisedNewtonState]:
        del extra_args

        def fitted(rate: jax.Array) -> jax.Array:
            points = jnp.array([-1.0, 0.0, 1.0])
            behind, here, ahead = jax.lax.map(
                lambda point: value_fn(optax.tree.add_scale(params, point * rate, updates)), points
            )
            falls, bends = (behind - ahead) / 2, behind + ahead - 2 * here  # both in the unit of the loss
            says = (falls > 0) & (bends > 0)
            least = jnp.clip(falls / jnp.where(says, bends, 1.0), 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)
            factor = jnp.where(says, _KEPT + (1 - _KEPT) * horizon(state.step) * least, 1.0)
            return rate * jnp.where(jnp.isfinite(falls + bends), factor, 1 / _LARGEST_FACTOR)

        rate = jax.lax.cond(state.step % EVERY == 0, fitted, lambda rate: rate, state.rate)
        return optax.tree.scale(rate, updates), GeneralisedNewtonState(state.step + 1, rate)

    return optax.GradientTransformationExtraArgs(init, update)
