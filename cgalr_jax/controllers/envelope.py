"""Bounds for the scale of any controller, such as those of the paper; the scale stays finite and positive."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks
from cgalr_jax._counting import one_more
from cgalr_jax.controllers.base import Controller, Measurement, check_controller

__all__ = ["Bounds", "EnvelopeState", "envelope", "robbins_monro_bounds"]

Bounds = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""Bounds at a step: `step -> (low, high)`, f32[] each, `0 < low <= high < inf`."""


class EnvelopeState(NamedTuple):
    """State of `envelope`."""

    scale: jax.Array  # f32[], the last scale that was used
    refused: jax.Array  # i32[], how many scales and bounds were not used
    controller: Any  # state of the inner controller

    @property
    def calibrating(self) -> jax.Array:
        """bool[], whether the inner controller is calibrating."""
        return jnp.asarray(getattr(self.controller, "calibrating", False), jnp.bool_)


@dataclasses.dataclass(frozen=True)
class _Guarded:
    """The `update` of an envelope: the type says that what it returns is finite and positive already."""

    function: Callable[[Measurement, EnvelopeState], tuple[jax.Array, EnvelopeState]]

    def __call__(self, measurement: Measurement, state: EnvelopeState) -> tuple[jax.Array, EnvelopeState]:
        """The next scale and state."""
        return self.function(measurement, state)


def envelope(controller: Controller, bounds: Bounds | None = None) -> Controller:
    """Wraps a controller so that its scale is always finite, positive and within bounds.

    A scale that is not finite and positive is refused: the last good scale and the controller's state at that
    time stay. Bounds that are not `0 < low <= high < inf` at some step are refused likewise, and the last
    scale stays. Both are counted, see `cgalr/refused` in `cgalr_jax.metrics`. `scale_by_connectome` wraps
    every controller in an envelope without bounds, unless it is one; add one only for bounds.

    The bounds are computed at the step of each measurement and hold until the next one.

    Args:
        controller: the inner controller.
        bounds: `step -> (low, high)`, such as `robbins_monro_bounds(...)`; None for no bounds.

    Returns:
        A `Controller`.

    Raises:
        ValueError: if `controller` is no `Controller`, `bounds` is no function, or its result at step 0 is
            not `0 < low <= high < inf`.

    Example:
        >>> from cgalr_jax.controllers import hysteresis_gate
        >>> gate = envelope(hysteresis_gate(), robbins_monro_bounds(0.1, 0.5, tau=100))
        >>> print(gate.init()[0])
        0.5
    """
    controller = check_controller("controller", controller)
    if bounds is None and isinstance(controller.update, _Guarded):
        return controller  # one without bounds would add nothing
    if bounds is not None:
        _checks.check_function("bounds", bounds, "step -> (low, high)", 1)
        _checks.shapes_of("bounds", bounds, jax.ShapeDtypeStruct((), jnp.int32))
        pair = bounds(jnp.zeros((), jnp.int32))
        _checks.check_pair("bounds", pair, "(low, high)")
        low, high = pair
        for name, value in (("low", low), ("high", high)):
            _checks.check_positive(f"bounds at step 0: {name}", value)
        _checks.check("bounds at step 0: high", high, lambda x: not x < low, f"at least low = {low}")

    def bounded(scale: jax.Array, last: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The scale within the bounds of this step, and whether they could be used."""
        if bounds is None:
            return scale, jnp.ones((), jnp.bool_)
        low, high = (jnp.asarray(x, jnp.float32) for x in bounds(step))
        usable = (low > 0) & (low <= high) & (high < jnp.inf)  # false for NaN, too
        return jnp.where(usable, jnp.clip(scale, low, high), last), usable

    def init() -> tuple[jax.Array, EnvelopeState]:
        scale, inner = controller.init()
        scale = jnp.asarray(scale, jnp.float32)
        # Copies: a user's own array must not be donated with the state, nor one buffer twice.
        inner = jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x), copy=True), inner)
        # The values of a controller that is made of traced numbers are not known when it is checked.
        good = (scale > 0) & (scale < jnp.inf)
        scale = jnp.where(good, scale, 1.0)
        scale, _ = bounded(scale, scale, jnp.zeros((), jnp.int32))
        return scale, EnvelopeState(jnp.array(scale, copy=True), (~good).astype(jnp.int32), inner)

    def update(measurement: Measurement, state: EnvelopeState) -> tuple[jax.Array, EnvelopeState]:
        scale, inner = controller.update(measurement, state.controller)
        scale = jnp.asarray(scale, jnp.float32)
        good = (scale > 0) & (scale < jnp.inf)  # false for NaN, too
        inner = jax.tree.map(
            lambda new, old: jnp.where(good, jnp.asarray(new, old.dtype), old), inner, state.controller
        )
        scale, usable = bounded(jnp.where(good, scale, state.scale), state.scale, measurement.step)
        refused = state.refused
        for one in (~good, ~usable):
            refused = one_more(one, refused)
        return scale, EnvelopeState(scale, refused, inner)

    return Controller(init, _Guarded(update), controller.early)


def robbins_monro_bounds(lower: float, upper: float, *, tau: float, exponent: float = 1.0) -> Bounds:
    """Bounds for the scale under which stochastic approximation converges, whatever the controller does.

    `lower (1 + t / tau)^-exponent <= scale_t <= upper (1 + t / tau)^-exponent`. With a constant base rate and
    `1/2 < exponent <= 1` the rates a_t satisfy the conditions of Robbins and Monro, `sum a_t = inf` and
    `sum a_t^2 < inf`, by comparison with the two bounds, for any distances. The paper's convergence proof
    under the Polyak-Lojasiewicz condition requires this; it also requires bounded gradient noise, and `upper`
    times the base rate must be at most the inverse of the smoothness constant. With a decaying base schedule
    the conditions may fail.

    If the length of the run is known, a cosine schedule anneals better than this envelope.

    Args:
        lower: smallest scale at step 0; positive.
        upper: largest scale at step 0; at least `lower`.
        tau: optimizer steps after which the bounds have halved, if `exponent` is 1; positive.
        exponent: in (1/2, 1].

    Returns:
        A function `step -> (low, high)`, each f32[], for `envelope`. It raises a ValueError for a step that
        is known and not a number of at least 0.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> bounds = robbins_monro_bounds(0.1, 1.0, tau=100)
        >>> [f"{x:.2f}" for x in bounds(100)]
        ['0.05', '0.50']
    """
    lower = _checks.check_positive("lower", lower)
    upper = _checks.check(
        "upper", upper, lambda x: lower <= x < math.inf, f"finite and at least lower = {lower}"
    )
    tau = _checks.check_positive("tau", tau)
    exponent = _checks.check("exponent", exponent, lambda x: 0.5 < x <= 1, "in (1/2, 1]")

    def bounds(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not isinstance(step, jax.core.Tracer):
            steps = _checks.real_array("step", step)  # also many of them, for a plot
            if not np.all((np.asarray(steps) >= 0) & (np.asarray(steps) < np.inf)):
                raise ValueError(f"step must be finite and at least 0, got {_checks.shown(step)}.")
            step = jnp.asarray(steps)
        envelope = (1 + jnp.asarray(step, jnp.float32) / tau) ** -exponent
        return lower * envelope, upper * envelope

    return bounds
