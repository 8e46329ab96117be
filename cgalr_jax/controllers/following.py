"""What a measurement sees of the schedule: its value, its peak, and the scale that its rise asks for."""

import jax
import jax.numpy as jnp
import optax

from cgalr_jax._counting import one_more
from cgalr_jax.controllers.calibration import ANNEALING, CalibrationState

__all__ = ["follow"]


def follow(schedule: optax.Schedule | None, step: jax.Array, state: CalibrationState) -> CalibrationState:
    """The state with the schedule's value and peak at this step, and the scale that its rise asks for."""
    if schedule is None:
        # Measurements after which the rate has halved: half of the fifty that a run should have at least.
        halved_after = 25.0
        value = 1 / (1 + state.annealed.astype(jnp.float32) / halved_after)
        return state._replace(value=value, peak=jnp.ones((), jnp.float32))
    # The scale stays until the next measurement, which may be as far away as the last one was; after a ramp
    # of which each step is measured it is ten steps away, unless the caller says otherwise.
    nearest = 10
    # A value above so many peaks has to be seen twice: one that is far too large is no peak.
    sudden = 2.0
    # A schedule that changes by more than this between two measurements has steps, or short cycles: it counts
    # by its mean.
    uneven = 2.5
    # At so many places it is looked at between two measurements.
    places = 5

    def good(value: jax.Array) -> jax.Array:
        return (value >= 0) & (value < jnp.inf)  # false for NaN, too

    def values(start: jax.Array, steps: jax.Array, halves: int) -> jax.Array:
        """The schedule at places of these steps, in their middle (1) or at their end (2); 0 if not good."""
        at = [start + (2 * place + halves) * steps // (2 * places) for place in range(places)]
        found = jnp.stack([jnp.asarray(schedule(each), jnp.float32) for each in at])
        return jnp.where(good(found), found, 0.0)

    # 1. The value that made the motion.
    passed = jnp.maximum(step - state.step, 1)
    now = jnp.asarray(schedule(step), jnp.float32)
    value = jnp.where(good(now), now, state.value)
    between = values(state.step, passed, 1)
    even = jnp.maximum(jnp.max(between), value) <= uneven * jnp.minimum(jnp.min(between), value)
    value = jnp.where(even | ~good(now), value, jnp.mean(between))
    # 2. The peak, which the values until the next measurement may raise.
    ahead = jnp.sort(values(step, jnp.maximum(passed, nearest), 2))
    annealing = state.phase == ANNEALING
    later, twice = jnp.where(annealing, ahead[-1], value), jnp.where(annealing, ahead[-2], 0.0)
    seen = jnp.maximum(jnp.minimum(value, state.value), twice)
    # The first one: the smaller of two that are not 0, since one of them may be far too large.
    both = jnp.stack([jnp.where(good(now), now, 0.0), jnp.median(between)])
    first = jnp.where(jnp.min(both) > 0, jnp.min(both), jnp.max(both))
    peak = jnp.where(state.peak > 0, jnp.maximum(state.peak, seen), first)
    for reached in (value, later):
        peak = jnp.where(reached <= sudden * peak, jnp.maximum(reached, peak), peak)
    # While the schedule warms up, the scale is divided by what that adds to the rate: their product is what
    # climbs, and what is calibrated. So is what the scale is compared with.
    lift = jnp.where(state.peak > 0, peak, 1.0) / state.known_peak
    return state._replace(
        scale=state.scale / lift,
        anchor=state.anchor / lift,
        record_scale=state.record_scale / lift,
        cut_scale=state.cut_scale / lift,
        value=value,
        peak=peak,
        refused=one_more(~good(now), state.refused),
    )
