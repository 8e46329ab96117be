"""The paper's other signal, WD. Needs the extra `giotto`; nothing else imports this file."""

from cgalr_jax.signals.base import Over, Signal, from_connectomes
from cgalr_jax.signals.connectome import births
from cgalr_jax.topology.rips import check_installed, wasserstein_distance

__all__ = ["wasserstein"]


def wasserstein(over: Over = "pooled", *, set_point: float | None = None) -> Signal:
    """The paper's other signal, WD: `scale_by_connectome(..., signal=signals.rips.wasserstein())`.

    What it costs: two diagrams a connectome and an assignment a dimension, on the host, a measurement, while
    the device waits. Time grows faster than the cube of P and depends on the number of cycles: keep
    `max_units` small and `every` large, and time it. Under vmap every step pays for it in every lane, since a
    mapped `lax.cond` takes both branches. Over several devices or processes under jit the first device's host
    computes and sends the number to all; under shard_map each computes it. What it is worth: nothing that
    `births()` did not do has been measured by us.

    Args:
      over: "pooled", "min" or "median" over the layers, as `births`.
      set_point: distance that is fast enough; positive. Default: as `births`, whose scale it shares.
        H1 only adds to the distance, so that it is reached earlier: the careful side.

    Returns:
      A `Signal`; its reading are connectomes, f32[P, P] each.

    Raises:
      ImportError: giotto-ph is not installed.
      ValueError: an argument outside its range.
    """
    check_installed()
    default = births(over).set_point
    return from_connectomes(None, wasserstein_distance, over, set_point, default)
