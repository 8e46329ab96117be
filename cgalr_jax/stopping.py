"""When to stop training, from the distances only: no validation set is held back.

While a network learns what its data have in common, its connectome settles quickly; what it then learns by
heart moves it on at a rate that hardly falls. So training stops where the distances between the connectomes
of consecutive epochs have come down from their peak and levelled out. The idea is that of the sister paper of
CG-ALR (Wu, He & Songdechakraiwut, "Data-efficient neural training with dynamic connectomes", arXiv
2508.06817; we knew its abstract), the rule is our choice.

What it earns, on 180 labelled samples of data that had no part in making it (`benchmarks.early_stopping`,
the mean of three tasks, 40 seeds): 9.3 % less test error [6.1, 12.3] than patience on a validation loss, for
which a fifth of the samples is held back, after 21 epochs instead of 36. What it does not show is that a
connectome is needed: the same rule on the relative update norm of an epoch does as well or slightly better.
It takes any such series.
"""

import jax.typing
import numpy as np

from cgalr_jax import _checks

__all__ = ["levelled"]

# A moving average that has not come down to this much of its peak has not begun to settle.
_OFF_PEAK = 0.7


def levelled(distances: jax.typing.ArrayLike, *, window: int = 5, tolerance: float = 0.1) -> np.ndarray:
    r"""Whether a series of distances has come down from its peak and levelled out, at each of its entries.

    With :math:`m_t` the mean of the last w distances, entry t is true if

    .. math:: m_t \ge (1 - \epsilon) \, m_{t-w} \quad\text{and}\quad m_t \le 0.7 \max_{s \le t} m_s .

    Measure once an epoch, always on the same samples, at a constant learning rate: a schedule, or a
    controller that follows the connectome, levels the distances by itself.

    Args:
      distances: f32[..., T], one per epoch. An entry that is not finite makes the entries false whose
        averages need it.
      window: w, epochs in an average; at least 1. The defaults are those of the benchmark.
      tolerance: :math:`\epsilon` in (0, 1): larger stops earlier.

    Returns:
      bool[..., T]. Entry t depends on no later distance, and the first 2 w - 1 entries are false: stop once
      ``levelled(distances)[-1]``.

    Raises:
      ValueError: an argument outside its range.

    Example:
      >>> series = [8, 8, 8, 4, 2, 1, 1, 1]
      >>> levelled(series, window=1).tolist()
      [False, False, False, False, False, False, True, True]
    """
    series = np.asarray(_checks.real_array("distances", distances), dtype=np.float64)
    if series.ndim == 0:
        raise ValueError(f"distances must have shape [..., T], got {series.shape}.")
    _checks.check_integer("window", window, 1)
    _checks.check("tolerance", tolerance, lambda x: 0 < x < 1, "in (0, 1)")
    found = np.zeros(series.shape, dtype=bool)
    if series.shape[-1] >= 2 * window:
        mean = np.lib.stride_tricks.sliding_window_view(series, window, axis=-1).mean(axis=-1)
        peak = np.fmax.accumulate(mean, axis=-1)
        now = mean[..., window:]
        # Comparisons that NaN fails: what cannot be measured stops nothing.
        found[..., 2 * window - 1 :] = (now >= (1 - tolerance) * mean[..., :-window]) & (
            now <= _OFF_PEAK * peak[..., window:]
        )
    return found
