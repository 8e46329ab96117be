"""The Optax transformation: `init`, `measure` and `update`, as pure functions.

Each measurement passes the data on in this order: activations -> layers -> connectome -> (barcode) -> reading
-> distance -> controller -> scale -> updates. Everything up to the scale is behind `stop_gradient`: the
learning rate is no part of the function that is differentiated.
"""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from cgalr_jax import _checks, _deprecated, _leaves, arguments, controllers, layers, signals
from cgalr_jax import state as states
from cgalr_jax.controllers.base import check_controller
from cgalr_jax.controllers.envelope import EnvelopeState
from cgalr_jax.signals.base import check_signal
from cgalr_jax.signals.update import largest_share
from cgalr_jax.state import ConnectomeState

__all__ = ["Instrument", "cgalr", "measure", "scale_by_connectome"]


class Instrument(NamedTuple):
    """How to measure: all that is fixed when the transformation is constructed, and never traced."""

    signal: signals.Signal
    controller: controllers.Controller
    layout: layers.Layout
    every: int
    axis_name: Hashable | None
    max_share: float | None

    def read(self, activations: Any, params: Any) -> Any:
        """What the signal reads from these activations and parameters."""
        measured = layers.Layers({}, self.axis_name)
        if self.signal.reads_activations:
            measured = layers.measured_layers(activations, self.layout, self.axis_name)
        # Only arrays: `params` may be a whole model, which contains functions, too.
        params = jax.tree.map(lambda x: jax.lax.stop_gradient(x) if _leaves.is_inexact(x) else x, params)
        return self.signal.read(measured, params)


def scale_by_connectome(
    example: Any = None,
    *,
    samples: Any = None,
    every: int = 10,
    controller: controllers.Controller | None = None,
    signal: signals.Signal | None = None,
    max_units: int = 256,
    axis_name: Hashable | None = None,
    max_share: float | None = 0.1,
    bounds: controllers.Bounds | None = None,
    window: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates by a scale that depends on how fast the network's connectome changes.

    The connectome is the matrix of absolute correlations between the activations of the network's units.
    Put this transformation after the base optimizer: before an optimizer that normalises its gradients, like
    Adam, a scale has no effect. The update takes one of three sets of extra arguments, all keyword-only:

    - `probe=` and `samples=` (**paired**): `probe(params, samples) -> activations`. The samples of one
      measurement stay in the state and are forwarded again at the next, so that the two connectomes differ by
      the parameters only.
    - `probe=` (**fixed probe**): `probe(params) -> activations`, always on the same samples.
    - `activations=` (**given**): what the forward pass has just computed, as in the paper. On fresh
      mini-batches the sampling noise exceeds the motion, and the calibration ends at a scale that is far too
      small: pass activations of the same samples each time, or use a probe.

    A probe runs on measurement steps only, inside `lax.cond`: every `every` steps, twice if paired. The two
    readings of a measurement must differ by the parameters and by nothing else: whatever else the probe uses
    (moving statistics, random keys) must be the same in both. `cgalr_jax.capture` ensures this for Flax. For
    other libraries, `samples=` may be any pytree, so that variables can be stored with the samples. Inside
    `optax.masked` or `optax.partition` a probe is given the parameters of its group only: let the probe close
    over all parameters (`probe=lambda _: activations_of(params)`), or chain this transformation outside.

    Bad numbers never reach the scale. A distance that is negative or not finite (non-finite activations, no
    layer with two live units, a batch of one) makes the scale smaller. A reading that is not finite is
    dropped, and the last good one stays. A measurement with either is counted in `cg_skipped`. The controller
    is wrapped in `controllers.envelope`: if its scale is not finite and positive, the last good scale stays.

    Args:
        example: what the probe returns: a pytree of activations [N, ..., F], or their `jax.ShapeDtypeStruct`s
            (`jax.eval_shape(probe, params)`), or a mapping of names to numbers of units. Each leaf is a
            layer, its last axis the units. The example fixes the shapes of the state; N may differ from call
            to call. None for a signal that reads no activations, such as `signals.update_norm()`.
        samples: paired only: an example of the `samples=` of one update (arrays or `jax.ShapeDtypeStruct`s,
            leading axis N). The state stores N samples; a longer batch is cut to its first N.
        every: optimizer steps between measurements; at least 1. A run should have fifty measurements or more.
            A controller may ask for each step at the beginning to be measured: `calibrated(steps=)` does.
        controller: from distances to the scale; default `calibrated()`. Pass `calibrated(schedule)` if the
            base optimizer follows a schedule.
        signal: how to compute the distance that the network moved; default `signals.hybrid()`.
        max_units: units per layer that are measured; at least 2. Of a larger layer a fixed sub-sample is
            measured, the same in each run.
        axis_name: the mapped axis (or axes) over which the samples are split, in `shard_map`, `pmap` or
            `vmap`; None under plain `jit`, where arrays are global.
        max_share: the share of its largest singular value by which one step may change a matrix, see
            `signals.largest_share`; positive. If one matrix would change by more, the step of all parameters
            is scaled down. Without this bound, training with a squared loss can diverge between two
            measurements. None for no bound.
        bounds: deprecated, see `controllers.envelope`.
        window: deprecated, see `hysteresis_gate`.

    Returns:
        A transformation; `params` are needed by a probe and by signals that read them.

    Raises:
        ValueError: here for an argument out of range; at trace time for missing or contradictory extra
            arguments, activations that do not match `example`, or samples that do not match those given here.

    Example:
        >>> import jax, jax.numpy as jnp, optax, cgalr_jax
        >>> x = jax.random.normal(jax.random.key(0), (64, 4))
        >>> y = jnp.sin(x @ jnp.arange(4.0))
        >>> params = {"w": jax.random.normal(jax.random.key(1), (4, 16)), "v": jnp.ones(16) / 16}
        >>> hidden = lambda params: {"hidden": x @ params["w"]}
        >>> loss = lambda params: jnp.mean((jnp.tanh(hidden(params)["hidden"]) @ params["v"] - y) ** 2)
        >>> tx = optax.chain(optax.sgd(1e-3, momentum=0.9), cgalr_jax.scale_by_connectome({"hidden": 16}))
        >>> state = tx.init(params)
        >>> @jax.jit
        ... def step(params, state):
        ...     value, grads = jax.value_and_grad(loss)(params)
        ...     updates, state = tx.update(grads, state, params, probe=hidden)
        ...     return optax.apply_updates(params, updates), state, value
        >>> values = []
        >>> for _ in range(200):
        ...     params, state, value = step(params, state)
        ...     values.append(float(value))
        >>> values[-1] < values[0] / 2, cgalr_jax.metrics(state)["cgalr/scale"] > 1
        (True, Array(True, dtype=bool))
    """
    controller = _deprecated.moved_arguments(controller, bounds, window)
    return _transformation(
        _instrument(example, every, controller, signal, max_units, axis_name, max_share),
        samples,
        learning_rate=None,
    )


def cgalr(
    learning_rate: optax.ScalarOrSchedule,
    example: Any = None,
    *,
    optimizer: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation] | None = None,
    momentum: float | None = 0.9,
    samples: Any = None,
    steps: int | None = None,
    every: int | None = None,
    controller: controllers.Controller | None = None,
    signal: signals.Signal | None = None,
    max_units: int = 256,
    axis_name: Hashable | None = None,
    max_share: float | None = 0.1,
    bounds: controllers.Bounds | None = None,
    window: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Any optimizer with a calibrated learning rate: the schedule is given once.

    The same as `optax.chain(optimizer(learning_rate), scale_by_connectome(..., calibrated(learning_rate)))`;
    besides, `cgalr/learning_rate` in `metrics` is the rate that was applied.

    Args:
        learning_rate: a number or a schedule. Of a schedule, mainly the shape matters: the calibration finds
            the height.
        example: see `scale_by_connectome`.
        optimizer: `learning_rate -> optimizer`, such as `optax.adamw`, or `functools.partial(optax.adamw,
            weight_decay=1e-2)`; default SGD with momentum.
        momentum: momentum of the default optimizer, in [0, 1); None for none.
        samples: see `scale_by_connectome`.
        steps: optimizer steps of the whole run, if known; at least 1. Passed to the default controller, which
            then shortens its ramp for a short run, see `controllers.calibrated`.
        every: optimizer steps between measurements; default 10, or a fiftieth of `steps` if that is less.
        controller: default `calibrated(learning_rate, steps=steps)` with a schedule and
            `calibrated(steps=steps)` with a number.
        signal: see `scale_by_connectome`, also for the arguments below.
        max_units: units per layer that are measured.
        axis_name: the mapped axis over which the samples are split.
        max_share: a bound on one step.
        bounds: deprecated, see `controllers.envelope`.
        window: deprecated, see `hysteresis_gate`.

    Returns:
        An optimizer that takes the extra arguments of `scale_by_connectome`.

    Raises:
        ValueError: as `scale_by_connectome`; and if `steps` is given beside a `controller`.

    Example:
        >>> import optax, cgalr_jax
        >>> schedule = optax.cosine_decay_schedule(1e-3, 1000)
        >>> tx = cgalr_jax.cgalr(schedule, {"hidden": 32}, optimizer=optax.adamw)
        >>> rate = cgalr_jax.metrics(tx.init({"w": jnp.ones((4, 32))}))["cgalr/learning_rate"]
        >>> print(f"{rate:.0e}")  # the ramp starts at a thousandth
        1e-06
    """
    if momentum is not None:
        _checks.check("momentum", momentum, lambda x: 0 <= x < 1, "None or in [0, 1)")
    if optimizer is None:
        optimizer = functools.partial(optax.sgd, momentum=momentum)
    arguments.check_rate("learning_rate", learning_rate)
    _checks.check_function("optimizer", optimizer, "learning_rate -> optax.GradientTransformation", 1)
    controller = _deprecated.moved_arguments(controller, bounds, window)
    if steps is not None:
        _checks.check_integer("steps", steps, 1)
        if controller is not None:
            raise ValueError(
                "steps must be None beside a controller, which knows the length of the run itself: "
                f"calibrated(schedule, steps={steps}); got both."
            )
    if every is None:
        every = 10 if steps is None else min(max(steps // 50, 1), 10)
    if controller is None:
        controller = controllers.calibrated(learning_rate if callable(learning_rate) else None, steps=steps)
    instrument = _instrument(example, every, controller, signal, max_units, axis_name, max_share)
    base = optimizer(learning_rate)
    if not isinstance(base, optax.GradientTransformation):
        raise ValueError(
            "optimizer must be a function, learning_rate -> optax.GradientTransformation, got one that "
            f"returns {_checks.shown(base)}."
        )
    return optax.chain(base, _transformation(instrument, samples, learning_rate))


# ------------------------------------------------------------------------------------------------------------
# Init, measure, update: pure functions whose first argument is an instrument.
# ------------------------------------------------------------------------------------------------------------


def init(
    instrument: Instrument, samples: Any, learning_rate: optax.ScalarOrSchedule | None, params: Any
) -> ConnectomeState:
    """The state before the first step. `samples` are shapes: nothing is computed from values."""
    # Outside of the mapped function the axis does not exist; the form of a reading does not depend on it.
    local = instrument._replace(axis_name=None)
    leaves, form = jax.tree.flatten(params)
    numbers = {place: leaf for place, leaf in enumerate(leaves) if _leaves.is_array(leaf)}

    def read(activations: Any, numbers: dict[int, Any]) -> Any:
        whole = [numbers.get(place, leaf) for place, leaf in enumerate(leaves)]
        return local.read(activations, jax.tree.unflatten(form, whole))

    reading = jax.eval_shape(read, instrument.layout.shapes, numbers)
    scale, controller_state = instrument.controller.init()
    return ConnectomeState(
        cg_step=jnp.zeros((), jnp.int32),
        cg_scale=jnp.array(scale, jnp.float32),
        cg_distance=jnp.zeros((), jnp.float32),
        cg_measurements=jnp.zeros((), jnp.int32),
        cg_skipped=jnp.zeros((), jnp.int32),
        cg_valid=jnp.zeros((), jnp.bool_),
        cg_read=jnp.zeros((), jnp.int32),
        cg_share=jnp.zeros((), jnp.float32),
        cg_layers=instrument.layout.measured(),
        cg_before=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), reading),
        cg_samples=optax.tree.zeros_like(samples),
        cg_rate=() if learning_rate is None else _rate(learning_rate, jnp.zeros((), jnp.int32)) * scale,
        cg_control=controller_state,
    )


def measure(
    instrument: Instrument, state: ConnectomeState, after: Any, before: Any, samples: Any
) -> ConnectomeState:
    """One measurement: compares two readings and lets the controller set the scale.

    Args:
        instrument: how to measure.
        state: its `cg_before` is the reading that the last measurement stored.
        after: the present reading, on the samples of `cg_before`.
        before: the reading to store for the next measurement: if paired, on the new samples; else `after`.
        samples: the samples of `before`, to be stored with it.

    Returns:
        The next state; `cg_step` and `cg_rate` are left to `update`.
    """
    form = state._replace(cg_layers=instrument.layout.measured(), cg_before=after)
    states.check_form("opt_state", state, form)
    arguments.check_axes(after, state.cg_before, instrument.axis_name)

    # 1. The distance. At the first measurement the reading is compared with itself: there is no other yet.
    last = jax.tree.map(lambda a, b: jnp.where(state.cg_valid, a, b), state.cg_before, after)
    distance = jnp.asarray(instrument.signal.compare(last, after), jnp.float32)
    measured = state.cg_valid & jnp.isfinite(distance) & (distance >= 0)
    steps = jnp.maximum(state.cg_step - state.cg_read, 1)
    in_set_points = distance / instrument.signal.set_point_at(steps)
    # 2. The controller: a distance that could not be measured is passed on as infinite, see `Measurement`.
    measurement = controllers.Measurement(
        distance=jnp.where(measured, in_set_points, jnp.inf),
        step=state.cg_step,
        cut=state.cg_share / (jnp.inf if instrument.max_share is None else instrument.max_share),
    )
    scale, controller_state = instrument.controller.update(measurement, state.cg_control)
    # 3. The next state. Bad readings and distances are counted, not kept; the first reading sets no scale.
    readable = _all_finite(before)
    lost = ~readable | (state.cg_valid & ~measured)

    def keep(condition: jax.Array, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(condition, jnp.asarray(a, b.dtype), b), new, old)

    return state._replace(
        cg_scale=keep(state.cg_valid, scale, state.cg_scale),
        cg_distance=keep(measured, distance, state.cg_distance),
        cg_measurements=keep(measured, optax.safe_increment(state.cg_measurements), state.cg_measurements),
        cg_skipped=keep(lost, optax.safe_increment(state.cg_skipped), state.cg_skipped),
        cg_valid=state.cg_valid | readable,
        cg_read=jnp.where(readable, state.cg_step, state.cg_read),
        cg_share=jnp.where(readable, 0.0, state.cg_share),
        cg_before=keep(readable, before, state.cg_before),
        cg_samples=keep(readable, samples, state.cg_samples),
        cg_control=keep(state.cg_valid, controller_state, state.cg_control),
    )


def update(
    instrument: Instrument,
    stored: Any,
    learning_rate: optax.ScalarOrSchedule | None,
    updates: optax.Updates,
    state: ConnectomeState,
    params: optax.Params | None = None,
    *,
    activations: Any = None,
    probe: Callable[..., Any] | None = None,
    samples: Any = None,
    **extra_args: Any,
) -> tuple[optax.Updates, ConnectomeState]:
    """One step: measures if a measurement is due, and scales the updates."""
    del extra_args
    arguments.check_extra_arguments(instrument.signal, stored, params, activations, probe, samples)
    if not instrument.signal.reads_activations:
        activations, probe, samples = {}, None, None
    if samples is not None:
        samples = arguments.cut_samples(samples, state.cg_samples)

    def measuring(state: ConnectomeState) -> ConnectomeState:
        if probe is None:
            after = instrument.read(activations, params)
        elif samples is None:
            after = instrument.read(probe(params), params)
        else:
            forward = probe
            after, before = _both(
                lambda samples: instrument.read(forward(params, samples), params), state.cg_samples, samples
            )
            return measure(instrument, state, after, before, samples)
        return measure(instrument, state, after, after, state.cg_samples)

    def ramping(state: ConnectomeState) -> ConnectomeState:
        return _cond(state.cg_control.calibrating | regular, measuring, state)

    regular = state.cg_step % instrument.every == 0
    if instrument.controller.early:
        # The outer condition depends on the step only: under a vmap over runs, where a condition that differs
        # between runs becomes a select, this one stays a branch.
        state = _cond(regular | (state.cg_step < instrument.controller.early), ramping, state)
    else:
        state = _cond(regular, measuring, state)
    rate = () if learning_rate is None else _rate(learning_rate, state.cg_step) * state.cg_scale
    scaled = jax.tree.map(functools.partial(_scaled, state.cg_scale), updates)
    if instrument.max_share is not None and params is not None:
        share = largest_share(scaled, params)
        # A share that is not finite is not bounded: the user is to see that the update is not finite.
        large = (share > instrument.max_share) & (share < jnp.inf)
        bound = jnp.where(large, instrument.max_share / jnp.where(large, share, 1.0), 1.0)
        scaled = jax.tree.map(functools.partial(_scaled, bound), scaled)
        state = state._replace(cg_share=jnp.maximum(state.cg_share, jnp.where(share < jnp.inf, share, 0.0)))
    return scaled, state._replace(cg_rate=rate, cg_step=optax.safe_increment(state.cg_step))


# ------------------------------------------------------------------------------------------------------------
# Helpers of these functions
# ------------------------------------------------------------------------------------------------------------


def _instrument(
    example: Any,
    every: int,
    controller: controllers.Controller | None,
    signal: signals.Signal | None,
    max_units: int,
    axis_name: Hashable | None,
    max_share: float | None,
) -> Instrument:
    """The instrument made of these arguments, after a check of each."""
    _checks.check_integer("every", every, 1)
    _checks.check_integer("max_units", max_units, 2)
    _checks.check_hashable("axis_name", axis_name, "the name of a mapped axis, a tuple of names, or None")
    if max_share is not None:
        _checks.check("max_share", max_share, lambda x: 0 < x < math.inf, "positive and finite, or None")
    signal = check_signal("signal", signals.hybrid() if signal is None else signal)
    controller = check_controller(
        "controller", controllers.calibrated() if controller is None else controller
    )
    if not isinstance(jax.eval_shape(controller.init)[1], EnvelopeState):
        controller = controllers.envelope(controller)
    layout = layers.Layout({}, {})
    if signal.reads_activations:
        if example is None:
            raise ValueError(
                "example must be what the probe returns, jax.eval_shape(probe, params) for instance, since "
                "the signal reads activations; got None."
            )
        layout = layers.layout_of(example, int(max_units))
    return Instrument(signal, controller, layout, int(every), axis_name, max_share)


def _transformation(
    instrument: Instrument, samples: Any, learning_rate: optax.ScalarOrSchedule | None
) -> optax.GradientTransformationExtraArgs:
    """`init` and `update` as an Optax transformation."""
    stored = arguments.shapes_of_samples(samples)
    return optax.GradientTransformationExtraArgs(
        functools.partial(init, instrument, stored, learning_rate),
        functools.partial(update, instrument, stored, learning_rate),  # pyright: ignore[reportArgumentType]
    )


def _cond(
    condition: jax.Array, then: Callable[[ConnectomeState], ConnectomeState], state: ConnectomeState
) -> ConnectomeState:
    """`then(state)` if the condition holds, else `state`; decided in Python if the condition is concrete."""
    if isinstance(condition, jax.core.Tracer):
        return jax.lax.cond(condition, then, lambda state: state, state)
    # Without jit both branches would be compiled, anew at each call.
    return then(state) if condition else state


def _both(read: Callable[[Any], Any], first: Any, second: Any) -> tuple[Any, Any]:
    """`read(first), read(second)`, as a loop, so that the network and the kernels are compiled only once."""
    if not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((first, second))):
        return read(first), read(second)  # without jit a loop would be compiled anew at each call
    readings = jax.lax.map(read, jax.tree.map(lambda *pair: jnp.stack(pair), first, second))
    one, other = (jax.tree.map(lambda x, k=k: x[k], readings) for k in range(2))
    return one, other


def _rate(learning_rate: optax.ScalarOrSchedule, step: jax.Array) -> jax.Array:
    rate = learning_rate(step) if callable(learning_rate) else learning_rate
    return jnp.asarray(rate, jnp.float32)


def _scaled(scale: jax.Array, update: Any) -> Any:
    """An update times the scale, in the update's dtype; a leaf that is no array of numbers is unchanged."""
    if not _leaves.is_array(update) or jnp.result_type(update) == jax.dtypes.float0:
        return update
    update = jnp.asarray(update)
    # The product of a narrow type is computed in float32, and rounded once, at the end.
    wide = update.dtype if update.dtype.itemsize >= 4 and _leaves.is_inexact(update) else jnp.float32
    return (update.astype(wide) * scale.astype(wide)).astype(update.dtype)


def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]).all()
