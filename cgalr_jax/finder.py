"""The ramp as a tool of its own: at which learning rate does the connectome move at its set-point?"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks, signals
from cgalr_jax.layers import layout_of, measured_layers
from cgalr_jax.signals.base import check_signal

__all__ = ["LearningRateCurve", "find_learning_rate"]


class LearningRateCurve(NamedTuple):
    """What `find_learning_rate` found.

    Attributes:
        rate: the learning rate at which the distance reaches its set-point; the largest one tried if it never
            did.
        low: the rate one standard error below it, from the scatter of the distances about their curve.
        high: the rate one standard error above it.
        reached: whether the distance reached its set-point.
        rates: f32[n], the rates tried, ascending.
        distances: f32[n], the distance each of them gave, in set-points; the last may be non-finite.
    """

    rate: float
    low: float
    high: float
    reached: bool
    rates: np.ndarray
    distances: np.ndarray

    def plot(self, ax: Any) -> Any:
        """Draws the curve on a matplotlib Axes: `cgalr_jax.plotting.plot_learning_rate_curve`."""
        from cgalr_jax import plotting

        return plotting.plot_learning_rate_curve(ax, self)


def find_learning_rate(
    step: Callable[[Any, jax.Array], Any],
    state: Any,
    probe: Callable[[Any], Any],
    *,
    signal: signals.Signal | None = None,
    every: int = 10,
    lowest: float = 1e-5,
    highest: float = 10.0,
    measurements: int = 21,
) -> LearningRateCurve:
    """Finds a rate for any optimizer and schedule from how the connectome moves, without validation data.

    The rates rise from `lowest` to `highest` in equal factors. Each is given `every` steps from the same
    start, so that only the rate differs, until the distance has exceeded its set-point twice or is
    not finite. The rate is read off a straight line through the last logarithms of the distances, a
    least-squares fit of log distance on log rate. Take it as the peak of a schedule. The idea of a range test
    is Smith's (arXiv 1506.01186), who looks at the loss along one run.

    Args:
        step: one training step, `step(state, learning_rate) -> state`, with whatever the state holds:
            parameters, optimizer state, the position in the data. It is jitted here.
        state: where each rate starts; it is not changed.
        probe: `probe(state) -> activations` on the same samples each time, a pytree of layers [N, ..., F].
        signal: a signal that reads activations only; default `frobenius()`.
        every: steps at each rate; at least 1.
        lowest: first rate; positive.
        highest: last rate; greater than `lowest`.
        measurements: rates to try; at least 5.

    Returns:
        A `LearningRateCurve`.

    Raises:
        ValueError: for an argument out of range, and if no rate gave a finite, positive distance.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (128, 4))
        >>> params = jax.random.normal(jax.random.key(1), (4, 16))
        >>> loss = lambda params: jnp.mean((jnp.tanh(x @ params).sum(1) - x.sum(1)) ** 2)
        >>> sgd = lambda params, rate: params - rate * jax.grad(loss)(params)
        >>> curve = find_learning_rate(sgd, params, lambda params: {"hidden": x @ params})
        >>> curve.reached, curve.low <= curve.rate <= curve.high
        (True, True)
    """
    _checks.check_function("step", step, "step(state, learning_rate) -> state", 2)
    _checks.check_function("probe", probe, "probe(state) -> activations", 1)
    signal = check_signal("signal", signals.frobenius() if signal is None else signal)
    if signal.reads_params:
        raise ValueError(f"signal must be one that reads activations only, got {_checks.shown(signal)}.")
    _checks.check_integer("every", every, 1)
    _checks.check("lowest", lowest, lambda x: 0 < x < math.inf, "positive and finite")
    _checks.check("highest", highest, lambda x: lowest < x < math.inf, f"finite and above lowest = {lowest}")
    _checks.check_integer("measurements", measurements, 5)
    layout = layout_of(jax.eval_shape(probe, state), max_units=256)
    _check_step(step, state)

    def read(state: Any) -> Any:
        return signal.read(measured_layers(probe(state), layout), None)

    @jax.jit
    def distance_at(state: Any, rate: jax.Array) -> jax.Array:
        after = jax.lax.fori_loop(0, every, lambda _, state: step(state, rate), state)
        return signal.compare(read(state), read(after)) / signal.set_point_at(every)

    rates = np.geomspace(lowest, highest, measurements).astype(np.float32)
    distances = []
    for rate in rates:
        distances.append(float(distance_at(state, jnp.asarray(rate))))
        if not math.isfinite(distances[-1]) or (len(distances) > 1 and min(distances[-2:]) >= 1):
            break
    return _read_off(rates[: len(distances)], np.array(distances, np.float32))


def _check_step(step: Callable[[Any, jax.Array], Any], state: Any) -> None:
    """Raises unless a step returns a state of the same form, which a loop over steps needs."""
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    before = jax.eval_shape(lambda state: state, state)
    try:
        after = jax.eval_shape(step, state, rate)
    except TypeError as error:
        raise ValueError(
            "step must be one training step, step(state, learning_rate) -> state, got "
            f"{_checks.shown(step)}, which fails: {error}"
        ) from error
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(
            "step must return the state it is given, step(state, learning_rate) -> state, got "
            f"{jax.tree.structure(after)} for {jax.tree.structure(before)}."
        )
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"step must keep the shapes and dtypes of its state, got {new.dtype}{list(new.shape)} for "
                f"{old.dtype}{list(old.shape)}; a float32 learning rate promotes narrower parameters: cast "
                "the update back, (p - rate * g).astype(p.dtype)."
            )


def _read_off(rates: np.ndarray, distances: np.ndarray, points: int = 8) -> LearningRateCurve:
    """Where a straight line through the last points, in logarithms, meets the set-point."""
    usable = np.isfinite(distances) & (distances > 0)
    if not usable.any():
        raise ValueError(
            "lowest and highest must enclose rates that move the connectome by a finite amount, "
            f"got distances {distances}."
        )
    x, y = (np.log(values[usable].astype(np.float64))[-points:] for values in (rates, distances))
    reached = bool((distances[usable] >= 1).any())
    # A ramp that ended in a divergence was too fast before it: half of the last rate that stayed finite, at
    # most.
    largest = float(rates[usable][-1]) / (1 if usable[-1] else 2)
    centre = x - x.mean()
    slope = float(centre @ y / (centre @ centre)) if len(x) > 2 else 0.0
    if not reached or slope <= 0:
        # No line to read off: the largest rate that did not reach it, or the first that did.
        rate = min(largest, float(rates[usable][np.argmax(distances[usable] >= 1)])) if reached else largest
        return LearningRateCurve(rate, rate, rate, reached, rates, distances)
    crossing = x.mean() - y.mean() / slope
    residual = y - y.mean() - slope * centre
    deviation = math.sqrt(float(residual @ residual) / (len(x) - 2)) / slope
    error = deviation * math.sqrt(1 / len(x) + (crossing - x.mean()) ** 2 / float(centre @ centre))
    rate, low, high = (
        float(np.clip(math.exp(crossing + shift), rates[0], largest)) for shift in (0.0, -error, error)
    )
    return LearningRateCurve(rate, low, high, reached, rates, distances)
