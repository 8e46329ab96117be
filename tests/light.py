"""A signal for tests that are about something else: it compiles in half the time of the default.

It reads activations and parameters, as the default does, but grows no spanning trees.
"""

from cgalr_jax import signals

LIGHT = signals.hybrid(signals.frobenius(), signals.relative_update())
