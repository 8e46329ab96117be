"""The signal of Vietoris-Rips diagrams, measured on the host; see `cgalr_jax.topology.rips`."""

from cgalr_jax import signal
from cgalr_jax.topology.rips import check_installed, wasserstein_distance


def wasserstein_signal(over: signal.Over = "pooled", *, set_point: float | None = None) -> signal.Signal:
    """The paper's other signal, WD, for `scale_by_connectome(..., signal=rips.wasserstein_signal())`.

    What it costs: two diagrams a connectome and an assignment a dimension, on the host, a measurement, while
    the device waits. Time grows faster than the cube of P and depends on the number of cycles: keep
    `max_units` small and `every` large, and time it. Under vmap every step pays for it in every lane, since a
    mapped `lax.cond` takes both branches. Over several devices or processes under jit the first device's host
    computes and sends the number to all; under shard_map each computes it. What it is worth: nothing that
    `signal.births()` did not do has been measured by us.

    Args:
      over: "pooled", "min" or "median" over the layers, as `signal.births`.
      set_point: distance that is fast enough; positive. Default: as `signal.births`, whose scale it shares.
        H1 only adds to the distance, so that it is reached earlier: the careful side.

    Returns:
      A `Signal`; its reading are connectomes, f32[P, P] each.

    Raises:
      ImportError: giotto-ph is not installed.
      ValueError: an argument outside its range.
    """
    check_installed()
    default = signal.births(over).set_point
    return signal.from_connectomes(lambda c: c, wasserstein_distance, over, set_point, default)
