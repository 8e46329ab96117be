"""What a measurement says of the network: its sensitivity, and whether to believe it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cgalr_jax._counting import one_more
from cgalr_jax.controllers.calibration import CALIBRATING, CalibrationState, start_again

__all__ = ["AT_REST", "Sensitivity", "believe"]

# A distance of at most this many targets is the rounding of float32, not motion: updates were skipped, or are
# too small for their type.
AT_REST = 1e-5


class Sensitivity(NamedTuple):
    """One measurement, as `ramp` and `anneal` need it."""

    value: jax.Array  # f32[], log(distance / target) - log(rate); the last one believed if there is none
    finite: jax.Array  # bool[], whether the distance could be measured
    still: jax.Array  # bool[], whether nothing moved
    believed: jax.Array  # bool[], whether it was neither still, nor of cut steps, nor an unconfirmed jump
    steady: jax.Array  # bool[], whether it falls more slowly than a momentum forgets; not known of the first
    rising: jax.Array  # bool[], whether it is clearly above the last one
    changed: jax.Array  # bool[], whether it confirms a jump: the network's sensitivity has changed
    decay: jax.Array  # f32[], the schedule relative to its peak; above 1 only until a new peak is seen twice
    steps: jax.Array  # f32[], optimizer steps since the last measurement


def believe(
    distance: jax.Array, step: jax.Array, state: CalibrationState
) -> tuple[Sensitivity, CalibrationState]:
    """The sensitivity of the network, whether it is to be believed, and the state updated with it.

    `state.cuts` is that of this measurement already: cut steps are smaller than their rate, and say nothing
    of the sensitivity.
    """
    # The largest change of a sensitivity that we saw between two measurements, in logarithms.
    jump = math.log(5.0)
    # How many jumps in a row have to agree: while calibrating; and while annealing, where there is more time.
    confirmed_by, reopened_by = 3, 8
    # A momentum repeats one large gradient for many steps, a little less each time. What falls faster than a
    # momentum of 0.98 forgets may be such a gradient: a jump upwards counts once it falls more slowly, and
    # has lasted for ten steps.
    fades, memory = -math.log(0.98), 10
    # What rises by more than this is still on its way: a momentum that builds up, a head that starts at zero.
    rises = math.log(1.2)
    # After this many measurements without motion, earlier sensitivities are dropped, unless so many have
    # counted that they were no accident. Before the first one counts, the scale is far too small anyway, and
    # what was believed may be of what somebody else did to the parameters.
    forgotten_after, early_after, kept_from = 30, 3, 5

    # A small motion whose sensitivity is a thousand times less than the last one is rounding, too; unless the
    # last one is the only one, and may be the bad one of the two.
    no_answer, small = math.log(1e3), 1e-3
    # A schedule below this share of its peak counts as this share: the logarithm of zero is not finite.
    smallest_decay = 1e-3

    # 1. Motion per rate.
    finite = (distance >= 0) & (distance < jnp.inf)  # false for NaN, too
    peak = state.known_peak
    decay = jnp.where(state.peak > 0, jnp.maximum(state.value / peak, smallest_decay), 1.0)
    moved = finite & (distance > AT_REST) & (state.peak > 0) & (state.value > 0)
    motion = jnp.log(jnp.where(moved, distance, 1.0))
    value = motion - jnp.log(state.scale * decay) - jnp.log(peak)
    answers = (state.believed < 2) | (value > state.sensitivity - no_answer) | (distance > small)
    usable = moved & answers & (state.cuts == 0)
    value = jnp.where(usable, value, state.sensitivity)
    # 2. A sensitivity that agrees with the last one is believed; jumps are, once enough of them agree.
    agrees = (state.believed == 0) | (jnp.abs(value - state.sensitivity) <= jump)
    steps = jnp.maximum(step - state.step, 1)
    upwards = value > state.sensitivity
    faded = fades * jnp.minimum(steps, memory).astype(jnp.float32)
    lower = upwards & (value < state.suspect - faded)
    again = (state.suspects > 0) & (jnp.abs(value - state.suspect) <= jump) & ~lower
    suspects = jnp.where(again, one_more(True, state.suspects), 1)
    suspect = jnp.where(again & upwards, jnp.minimum(value, state.suspect), value)
    enough = jnp.where(state.phase == CALIBRATING, confirmed_by, reopened_by)
    enough = jnp.where(upwards, jnp.maximum(enough, -(-memory // steps)), enough)
    changed = usable & ~agrees & (suspects >= enough)
    believed = usable & (agrees | changed)
    steady = (state.believed > 0) & (value >= state.sensitivity - faded)
    rising = (state.believed > 0) & (value > state.sensitivity + rises)
    # 3. The state for the next measurement.
    still = finite & ~(moved & answers)
    stills = jnp.where(still, one_more(True, state.stills), 0)
    count = jnp.minimum(state.believed + believed.astype(jnp.int32), 2)
    patience = jnp.where(state.counted == 0, early_after, forgotten_after)
    forgotten = (stills >= patience) & (state.counted < kept_from)
    state = start_again(forgotten, state)._replace(
        believed=jnp.where(forgotten, 0, jnp.where(changed, 1, count)).astype(jnp.int32),
        sensitivity=jnp.where(believed, value, state.sensitivity),
        suspect=jnp.where(usable, suspect, state.suspect),
        suspects=jnp.where(usable, jnp.where(believed, 0, suspects), state.suspects).astype(jnp.int32),
        stills=jnp.where(forgotten, 0, stills).astype(jnp.int32),
        step=jnp.asarray(step, jnp.int32),
    )
    return Sensitivity(
        value, finite, still, believed, steady, rising, changed, decay, steps.astype(jnp.float32)
    ), state
