"""A signal and a controller for tests that are about something else: they compile in a third of the time.

The signal reads activations and parameters, as the default does, but grows no spanning trees. The controller
answers what it is told, so that a wrong distance is a wrong scale; it has no phases and no memory but that.
"""

import jax.numpy as jnp

from cgalr_jax import controllers, signals

LIGHT = signals.hybrid(signals.frobenius(), signals.relative_update())
ECHO = controllers.Controller(
    lambda: (jnp.float32(1), jnp.float32(0)),
    lambda measurement, _: (0.5 + 1 / (1 + measurement.distance), measurement.distance),
)
PLAIN = {"signal": LIGHT, "controller": ECHO}
