"""The Optax transformations that users make: their arguments, checked, and an instrument of them."""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any

import jax.core
import optax

from cgalr_jax import _checks, _deprecated, arguments, base_optimizer, cadence, controllers, layers, signals
from cgalr_jax.instrument import Instrument, init, update
from cgalr_jax.signals.base import check_signal
from cgalr_jax.state import ConnectomeState
from cgalr_jax.topology.moments import check_axis_name

__all__ = ["cgalr", "defaults_of_run", "scale_by_connectome"]

_MOMENTUM = 0.9  # of the default optimizer


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

    A probe runs on measurement steps only, inside `lax.cond`: every `every` steps, twice if paired. Beside
    any of the three, `measure=` leaves that to the caller. True measures, without a condition; with False
    neither probe nor comparison is compiled, and they may be left out; None is the default. It has to be a
    Python bool, a static argument of jit, and makes two compiled steps; `is_measurement_step` says which of
    them is due for the same trajectory. `measure=` goes wherever a probe goes, through `optax.chain`,
    `masked`, `partition`, `inject_hyperparams`, `apply_if_finite` and `nnx.Optimizer`. Outermost in
    `MultiSteps` it counts in the last micro-batch of a step only; wrappers that drop extra arguments drop
    it, too.

    The two readings of a measurement must differ by the parameters and by nothing else: whatever else the
    probe uses (moving statistics, random keys) must be the same in both. `cgalr_jax.capture` ensures this for
    Flax. For other libraries, `samples=` may be any pytree, so that variables can be stored with the samples.
    Inside `optax.masked` or `optax.partition` a probe is given the parameters of its group only: let the
    probe close over all parameters (`probe=lambda _: activations_of(params)`), or chain this transformation
    outside.

    Only steps that move the network count: where most updates are 0, as behind `optax.MultiSteps(..., k)` in
    a chain, a set-point is that of the others, and without any there is no measurement. (The block sees it
    from the updates and `params`, if `max_share` is not None.) The schedule of `calibrated` still counts all
    steps: there, give it `lambda step: schedule(step // k)`.

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
        max_share: the share of its largest singular value by which one step may change a matrix, and of its
            norm any other array, see `signals.largest_share`; positive. If one of them would change by more,
            the step of all parameters is scaled down. Without this bound, training with a squared loss can
            diverge between two measurements. None for no bound. There is none either where `update` is called
            without `params`, as it may be with `activations` and a signal that reads nothing else.
        bounds: deprecated, see `controllers.envelope`.
        window: deprecated, see `hysteresis_gate`.

    Returns:
        A transformation; `params` are needed by a probe and by signals that read them.

    Raises:
        ValueError: if an argument is out of range; at trace time, if extra arguments are missing or
            contradict each other, activations do not match `example`, or samples those given here.

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
        >>> for _ in range(300):
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
    momentum: float | None = _MOMENTUM,
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

    With a schedule the same as `optax.chain(optimizer(schedule), scale_by_connectome(...,
    controller=calibrated(schedule)))`; besides, `cgalr/learning_rate` in `metrics` is the rate that was
    applied.

    Args:
        learning_rate: a number or a schedule. Of a schedule, mainly the shape matters: the calibration finds
            the height.
        example: see `scale_by_connectome`.
        optimizer: `learning_rate -> optimizer`, such as `optax.adamw`, or `functools.partial(optax.adamw,
            weight_decay=1e-2)`; default SGD with momentum. Its updates must be proportional to its rate: what
            projects (`optax.keep_params_nonnegative`) goes behind `cgalr`, what averages or restarts
            (`optax.contrib.schedule_free`) around it.
        momentum: momentum of the default optimizer, in [0, 1); None for none. Not beside `optimizer`.
        samples: see `scale_by_connectome`.
        steps: optimizer steps of the whole run, if known; at least 1. Passed to the default controller, which
            then measures each step of its ramp, some seventy, see `controllers.calibrated`.
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
        ValueError: if `steps` is given beside a `controller`, or `momentum` beside an `optimizer`; by `init`,
            if the optimizer keeps parameters of its own; otherwise as `scale_by_connectome`.

    Example:
        >>> import jax.numpy as jnp, optax, cgalr_jax
        >>> schedule = optax.cosine_decay_schedule(1e-3, 1000)
        >>> tx = cgalr_jax.cgalr(schedule, {"hidden": 32}, optimizer=optax.adamw)
        >>> rate = cgalr_jax.metrics(tx.init({"w": jnp.ones((4, 32))}))["cgalr/learning_rate"]
        >>> print(f"{rate:.0e}")  # the ramp starts at a thousandth
        1e-06
    """
    if momentum is not None:
        momentum = _checks.check("momentum", momentum, lambda x: 0 <= x < 1, "None or in [0, 1)")
    if optimizer is None:
        optimizer = functools.partial(optax.sgd, momentum=momentum)
    elif not _is_default(momentum):
        raise ValueError(
            "momentum is that of the default optimizer and must be left out beside optimizer=, which has its "
            f"own: functools.partial(optax.sgd, momentum={momentum}); got momentum={momentum}."
        )
    learning_rate = arguments.check_rate("learning_rate", learning_rate)
    base = base_optimizer.built(optimizer, learning_rate)
    controller = _deprecated.moved_arguments(controller, bounds, window)
    every, controller = defaults_of_run(steps, learning_rate, every, controller)
    instrument = _instrument(example, every, controller, signal, max_units, axis_name, max_share)
    return optax.chain(base, _transformation(instrument, samples, learning_rate))


def defaults_of_run(
    steps: int | None,
    learning_rate: optax.ScalarOrSchedule,
    every: int | None,
    controller: controllers.Controller | None,
) -> tuple[int, controllers.Controller]:
    """`every` and `controller`, or the defaults of a run of this many steps; None if that is not known."""
    if steps is not None:
        steps = _checks.check_integer("steps", steps, 1)
        if controller is not None:
            raise ValueError(
                "steps must be None beside a controller, which knows the length of the run itself: "
                f"calibrated(schedule, steps={steps}), with every={cadence.default_every(steps)}; got both."
            )
    if every is None:
        every = cadence.default_every(steps)
    if controller is None:
        controller = controllers.calibrated(learning_rate if callable(learning_rate) else None, steps=steps)
    return every, controller


# ------------------------------------------------------------------------------------------------------------
# Helpers of these functions
# ------------------------------------------------------------------------------------------------------------


def _is_default(momentum: Any) -> bool:
    """Whether nobody chose it: `optax.inject_hyperparams` hands out the default as an array, or traced."""
    if momentum is None or isinstance(momentum, jax.core.Tracer):
        return momentum is not None
    return math.isclose(momentum, _MOMENTUM, rel_tol=1e-6)


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
    every = _checks.check_integer("every", every, 1)
    max_units = _checks.check_integer("max_units", max_units, 2)
    check_axis_name(axis_name)
    if max_share is not None:
        max_share = _checks.check_positive("max_share", max_share, ", or None")
    signal = check_signal("signal", signals.hybrid() if signal is None else signal)
    controller = controllers.envelope(controllers.calibrated() if controller is None else controller)
    layout = layers.Layout({}, {})
    if signal.reads_activations:
        if example is None:
            raise ValueError(
                "example must be what the probe returns, jax.eval_shape(probe, params) for instance, since "
                "the signal reads activations; got None."
            )
        layout = layers.layout_of(example, max_units)
    return Instrument(signal, controller, layout, every, axis_name, max_share)


def _transformation(
    instrument: Instrument, samples: Any, learning_rate: optax.ScalarOrSchedule | None
) -> optax.GradientTransformationExtraArgs:
    """`init` and `update` as an Optax transformation."""
    stored = arguments.shapes_of_samples(samples)

    # Functions of their own: an error of JAX's or Python's about a call of them shows what the user passed.
    def init_fn(params: optax.Params) -> ConnectomeState:
        return init(instrument, stored, learning_rate, params)

    def update_fn(
        updates: optax.Updates, state: ConnectomeState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, ConnectomeState]:
        return update(instrument, stored, learning_rate, updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
