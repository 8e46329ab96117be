"""The annealing: the schedule lowers the rate; the scale goes down while the sensitivity is unusual."""

import math

import jax.numpy as jnp

from cgalr_jax._counting import one_more
from cgalr_jax.controllers.calibration import (
    ANNEALING,
    CALIBRATING,
    RETREAT,
    UNFINISHED,
    CalibrationState,
    start_again,
)
from cgalr_jax.controllers.sensitivity import Sensitivity

__all__ = ["anneal"]


def anneal(sensitivity: Sensitivity, state: CalibrationState) -> CalibrationState:
    """The state after one measurement of the annealing."""
    # Weights of a new measurement in the two running means, over some three and some twenty measurements.
    recent_share, usual_share = 0.3, 0.05
    # Which part of an increase of the sensitivity the scale compensates, in logarithms.
    gain = 0.5
    # The smallest scale, as the logarithm of its ratio to the anchor.
    lowest = math.log(0.2)
    # The largest changes of the scale in one measurement, in logarithms: down, up, and up from below lowest.
    fall, rise, recovery = math.log(2.0), math.log(1.3), math.log(2.0)
    # Below this share of the schedule's peak a calibration is not worth repeating.
    half = 0.5

    # 1. The recent and the usual sensitivity.
    first = sensitivity.believed & (state.annealed == 0)
    recent = state.recent + recent_share * (sensitivity.value - state.recent)
    usual = state.usual + usual_share * (sensitivity.value - state.usual)
    recent, usual = (jnp.where(first, sensitivity.value, mean) for mean in (recent, usual))
    recent, usual = (
        jnp.where(sensitivity.believed, new, old)
        for new, old in ((recent, state.recent), (usual, state.usual))
    )
    # 2. The scale that compensates half of an increase.
    log_scale, log_anchor = jnp.log(state.scale), jnp.log(state.anchor)
    wanted = log_anchor + jnp.clip(-gain * (recent - usual), lowest, 0.0)
    # 3. A step towards that scale. With a jump upwards, or if steps are often cut, training may be diverging:
    #    the scale goes down until the jump is confirmed or over.
    below = log_scale < log_anchor + lowest - 0.01  # clearly: at the lowest itself rounding must not decide
    change = jnp.clip(wanted - log_scale, -fall, jnp.where(below, recovery, rise))
    jump = ~sensitivity.believed & ~sensitivity.still & (sensitivity.value > state.sensitivity)
    alarm = jump | (state.cuts > 0)
    change = jnp.where(alarm, jnp.clip(log_anchor + lowest - log_scale, -fall, 0.0), change)
    # 4. Only distances that are not finite may take the scale below its lowest.
    change = jnp.where(sensitivity.finite, change, math.log(RETREAT))
    reopened = sensitivity.changed & (sensitivity.decay > half)
    state = state._replace(
        scale=state.scale * jnp.exp(change),
        phase=jnp.where(reopened, CALIBRATING, ANNEALING).astype(jnp.int32),
        ended=jnp.where(reopened, UNFINISHED, state.ended).astype(jnp.int32),
        recent=recent,
        usual=usual,
        annealed=one_more(sensitivity.believed | (state.annealed > 0), state.annealed),
    )
    return start_again(reopened, state)
