"""The calibration as a tool of its own: at which learning rate does the network move as fast as it should?"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cgalr_jax import _checks, controllers, signals
from cgalr_jax._warnings import warn_deprecated
from cgalr_jax.controllers.calibration import CalibrationState
from cgalr_jax.finder import _fit
from cgalr_jax.layers import measured_layers
from cgalr_jax.signals.base import check_signal, shapes_of_reading

__all__ = ["LearningRateCurve", "find_learning_rate"]

# A run that starts at its peak does without the warm-up that the ramp is where `calibrated` finds a rate, and
# wants this share of it. Chosen on the tuning networks of `benchmarks.rate_finder`.
_SHARE = 2 / 3
# By what factor the best rates of networks differ from what a ramp says, however little it scatters itself.
_BETWEEN_NETWORKS = 3.0
# The optimizer steps of a run whose ramp is the longest that `calibrated` climbs.
_STEPS = 180
_SMALLEST_SHARE = 1e-6


class LearningRateCurve(NamedTuple):
    """What `find_learning_rate` found.

    Attributes:
        rate: two thirds of the learning rate at which the network moves at its set-point, by the median of
            the whole ramp. At most the largest rate tried whose distance stayed below 1, or half of it if the
            last distance did not stay below 1.
        low: a third of the rate; or, if that is less, the rate below which a tenth of the measurements point.
        high: three times the rate; or, if that is more, the rate above which a tenth of them point. The two
            are no confidence limits: how networks differ cannot be seen in one ramp.
        reached: whether the ramp came to that learning rate. If not, nothing is claimed of it.
        rates: f32[n], the rates tried, in the order of the ramp.
        distances: f32[n], the distance that each of them gave, in set-points; the last may be non-finite. A
            network that has learnt its data on the way hardly moves any more: they may fall again, and their
            last one may stay below 1 though the rate was reached.
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


class _How(NamedTuple):
    """How to climb: all that is fixed."""

    step: Callable[[Any, jax.Array], Any]
    read: Callable[[Any], Any]
    signal: signals.Signal
    controller: controllers.Controller
    every: int
    highest: float

    @property
    def most(self) -> int:
        """The most measurements of a ramp."""
        return self.controller.early // self.every + 1


class _Ramp(NamedTuple):
    """A run on its way up."""

    state: Any  # the user's
    reading: Any  # of that state
    control: CalibrationState
    rate: jax.Array  # f32[], of the next steps
    readings: jax.Array  # i32[], so far: of the start, then one per measurement
    rates: jax.Array  # f32[most + 1], up to each reading; the first one stands for nothing
    distances: jax.Array  # f32[most + 1], likewise, in set-points


def find_learning_rate(
    step: Callable[[Any, jax.Array], Any],
    state: Any,
    probe: Callable[[Any], Any],
    *,
    signal: signals.Signal | None = None,
    params: Callable[[Any], Any] | None = None,
    every: int = 1,
    lowest: float = 1e-5,
    highest: float = 10.0,
    measurements: int | None = None,
) -> LearningRateCurve:
    """Finds a rate for any optimizer and schedule from how the network moves, without validation data.

    It climbs the ramp of `controllers.calibrated` along one run, with a rate that rises from `lowest`: fast
    as long as the network hardly moves, then evenly, a hundred steps or so in all; and reads it alike. Each
    measurement says how far the network moves per rate, and the median of them all at which rate it moves at
    its set-point. Two thirds of that are proposed, as the peak of a schedule: a run that starts there does
    without the ramp, which is a warm-up. The idea of a range test is Smith's (arXiv 1506.01186), who looks at
    the loss along one run.

    On six networks other than those that its two numbers were chosen on, with SGD and with AdamW, the error
    at the rate was within 10 % of that at the best rate of a grid in 12 of 12, and [low, high] held that best
    rate in 10 of 12.

    Args:
        step: one training step, `step(state, learning_rate) -> state`, with whatever the state holds:
            parameters, optimizer state, the position in the data. It is compiled here.
        state: where the run starts; it is not changed.
        probe: `probe(state) -> activations` on the same samples each time, a pytree of layers [N, ..., F].
        signal: what says how far the network moved; default `hybrid()`.
        params: `params(state) -> parameters`, for a signal that reads them. Default: `state.params`, or
            `state["params"]`, or the first entry of a tuple (or of a list in which there is the state of an
            optimizer), or the state itself: the first of these that there is.
        every: steps between measurements; at least 1.
        lowest: first rate; positive, and at least a millionth of `highest`.
        highest: the ramp ends there at the latest; greater than `lowest`.
        measurements: deprecated, without effect: the ramp ends by itself.

    Returns:
        A `LearningRateCurve`.

    Raises:
        ValueError: if an argument is out of range, a function does not fit the state, `step` ignores its
            rate, this is called within jit, or no rate gave a finite, positive distance.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (128, 4))
        >>> params = jax.random.normal(jax.random.key(1), (4, 16))
        >>> loss = lambda params: jnp.mean((jnp.tanh(x @ params).sum(1) - x.sum(1)) ** 2)
        >>> sgd = lambda params, rate: params - rate * jax.grad(loss)(params)
        >>> curve = find_learning_rate(sgd, params, lambda params: {"hidden": x @ params})
        >>> curve.reached, curve.low < curve.rate < curve.high
        (True, True)
    """
    _checks.check_function("step", step, "step(state, learning_rate) -> state", 2)
    _checks.check_function("probe", probe, "probe(state) -> activations", 1)
    signal = check_signal("signal", signals.hybrid() if signal is None else signal)
    if params is not None:
        _checks.check_function("params", params, "params(state) -> parameters, or None", 1)
    every = _checks.check_integer("every", every, 1)
    lowest = _checks.check_positive("lowest", lowest)
    highest = _checks.check(
        "highest", highest, lambda x: lowest < x < math.inf, f"finite and above lowest = {lowest}"
    )
    # The controller's scale is a share of the highest rate, and the smallest share is a millionth.
    share = max(lowest / highest, _SMALLEST_SHARE)
    if lowest < highest * _SMALLEST_SHARE * (1 - 1e-6):  # the default is at the limit, but for rounding
        raise ValueError(
            f"lowest must be at least a millionth of highest = {highest}, got {lowest}; climb from there to "
            "another highest rate first."
        )
    if measurements is not None:
        warn_deprecated(
            "measurements= has no effect any more, since the ramp ends by itself; it will be removed in the "
            "next release.",
        )
    _fit.check_training_state(state)
    state = jax.tree.map(_checks.jax_array, state)
    layout = _fit.layout_of_probe(probe, state)
    program = _fit.check_step(step, state)
    parameters = _fit.usual_parameters if params is None else params
    _fit.check_parameters(parameters, state, are_read=signal.reads_params)
    controller = controllers.calibrated(optax.constant_schedule(1.0), steps=_STEPS, start=share)

    def read(state: Any) -> Any:
        return signal.read(measured_layers(probe(state), layout), parameters(state))

    form = shapes_of_reading("signal", signal, read, state)
    _fit.check_rate_is_used(step, program)
    how = _How(step, read, signal, controller, every, highest)
    # A new function each time: what the user's functions close over may have changed.
    ramp = jax.jit(functools.partial(_climb, how, form))(state)
    rates, distances = (np.asarray(x)[1 : int(ramp.readings)] for x in (ramp.rates, ramp.distances))
    if not np.isfinite(distances).any():
        _fit.check_start(state, probe)
    return _read_off(ramp.control, rates, distances, highest)


def _climb(how: _How, form: Any, state: Any) -> _Ramp:
    """The end of a ramp that starts from this state; `form` are the shapes of a reading."""
    reading = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), form)
    scale, control = how.controller.init()
    nothing = jnp.zeros((how.most + 1,), jnp.float32)
    start = _Ramp(state, reading, control, scale * how.highest, jnp.int32(0), nothing, nothing)
    return jax.lax.while_loop(functools.partial(_climbs, how), functools.partial(_measured, how), start)


def _climbs(how: _How, ramp: _Ramp) -> jax.Array:
    """bool[], whether the ramp goes on."""
    last, one_before = ramp.distances[ramp.readings - 1], ramp.distances[ramp.readings - 2]
    diverging = ~jnp.isfinite(last) | (jnp.minimum(last, one_before) >= 1)
    return ~diverging & ramp.control.calibrating & (ramp.rate <= how.highest) & (ramp.readings <= how.most)


def _measured(how: _How, ramp: _Ramp) -> _Ramp:
    """The ramp after the steps up to its next reading."""
    # The first reading is of the start, before any step: so the network is compiled in one place only.
    first = ramp.readings == 0
    steps = jnp.where(first, 0, how.every)
    after = jax.lax.fori_loop(0, steps, lambda _, state: how.step(state, ramp.rate), ramp.state)
    reading = how.read(after)
    distance = jnp.asarray(how.signal.compare(ramp.reading, reading), jnp.float32)
    distance = distance / how.signal.set_point_at(how.every)
    distance = jnp.where(first, 0.0, distance)
    measurement = controllers.Measurement(distance, how.every * ramp.readings)
    scale, control = how.controller.update(measurement, ramp.control)
    return _Ramp(
        after,
        reading,
        optax.tree.where(first, ramp.control, control),
        jnp.where(first, ramp.rate, scale * how.highest),
        ramp.readings + 1,
        ramp.rates.at[ramp.readings].set(ramp.rate),
        ramp.distances.at[ramp.readings].set(distance),
    )


def _read_off(
    control: CalibrationState, rates: np.ndarray, distances: np.ndarray, highest: float
) -> LearningRateCurve:
    """The rate that the whole of a ramp points to, and how far to trust it."""
    finite = np.isfinite(distances)
    if not (finite & (distances > 0)).any():
        raise ValueError(
            "lowest and highest must enclose rates that move the network by a finite amount, got distances "
            f"{distances[:10]}."
        )
    # The ramp ends before a network moves at its set-point twice in a row, unless training begins to diverge:
    # then half of the largest rate at which it did not, at most.
    steady = finite & (distances < 1)
    largest = float(rates[steady].max()) / (1 if steady[-1] else 2) if steady.any() else float(rates[0])
    kept = np.asarray(control.sensitivities, np.float64)[: int(control.counted)]
    pointed = _SHARE * highest * np.exp(-kept) if kept.size else np.array([largest])
    rate = min(float(np.median(pointed)), largest)
    low, high = np.quantile(pointed, (0.1, 0.9))
    return LearningRateCurve(
        rate,
        min(float(low), rate / _BETWEEN_NETWORKS),
        max(float(high), rate * _BETWEEN_NETWORKS),
        int(control.ended) == controllers.REACHED or not steady[-1],
        rates,
        distances,
    )
