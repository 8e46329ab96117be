"""The paper's other signal, WD. Needs the extra `giotto`; no other module imports this one."""

from cgalr_jax.signals.base import Over, Signal, from_connectomes
from cgalr_jax.signals.connectome import births
from cgalr_jax.topology.rips import check_installed, wasserstein_distance

__all__ = ["wasserstein"]


def wasserstein(over: Over = "pooled", *, set_point: float | None = None) -> Signal:
    """The paper's other signal, WD, a distance of Vietoris-Rips diagrams: see `topology.rips`.

    Use: `from cgalr_jax.signals import rips`, `scale_by_connectome(..., signal=rips.wasserstein())`.

    Cost per measurement: two diagrams per connectome and one assignment per dimension, computed on the host
    while the device waits. The time grows faster than the cube of P and depends on the number of cycles: keep
    `max_units` small and `every` large, and measure the time. Under vmap each run pays this cost at every
    step at which a measurement is due in one of them. Under jit over several devices or processes, the host
    of the first device computes and sends the number to all; under shard_map each computes it. In the
    paper's configuration we have seen hardly any advantage over `deaths()`.

    Args:
        over: as for `births`.
        set_point: distance that is fast enough; positive. Default: that of `births`, which has the same
            scale. H1 only adds to the distance, so that the set-point is reached at a smaller rate.

    Returns:
        A `Signal`; its reading holds connectomes, f32[P, P] each.

    Raises:
        ImportError: if giotto-ph is not installed.
        ValueError: if an argument is outside its range.

    Example:
        >>> import pytest
        >>> gph = pytest.importorskip("gph")  # giotto-ph; Python 3.13 has none
        >>> import jax.numpy as jnp
        >>> before, after = ({"pooled": jnp.array([[0.0, w], [w, 0.0]])} for w in (0.75, 0.25))  # two units
        >>> print(wasserstein().compare(before, after))
        0.5
    """
    check_installed()
    default = births(over).set_point
    return from_connectomes(None, wasserstein_distance, over, set_point, default)
