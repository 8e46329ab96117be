"""The Optax transformation that carries the connectome, and the state it carries.

Where the data goes once a measurement: activations -> units -> moments -> connectome -> barcode -> distance
(`signal.py`) -> controller (`control.py`) -> scale -> updates. Everything up to the scale is float32 and
behind `stop_gradient`: the rate is chosen by looking at the network, it is not part of the function that is
differentiated.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cgalr_jax import control, inputs, topology
from cgalr_jax import signal as signals

Bounds = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class ConnectomeState(NamedTuple):
    """State of `scale_by_connectome`.

    Field names are unique among Optax's, so that `optax.tree.get(opt_state, "cg_scale")` works.
    """

    cg_step: jax.Array  # i32[], optimizer steps taken
    cg_scale: jax.Array  # f32[], what the updates were multiplied by in the last step
    cg_distance: jax.Array  # f32[], last distance, in the unit of the signal; 0 before the first
    cg_z: jax.Array  # f32[], robust z-score of its logarithm
    cg_measurements: jax.Array  # i32[], distances that were measured
    cg_skipped: jax.Array  # i32[], distances or connectomes that were not finite, and were left out
    cg_history: jax.Array  # f32[window], ring of logarithms of distances, in set-points
    cg_valid: jax.Array  # bool[], whether cg_before holds a reading
    cg_before: Any  # reading of the signal at the last measurement: at most one connectome a layer
    cg_samples: Any  # paired: the samples that cg_before was read from; otherwise empty
    cg_wanted: jax.Array  # f32[], the scale that the controller asks for, before the bounds
    cg_control: Any  # state of the controller


def scale_by_connectome(
    example: Any,
    *,
    samples: Any = None,
    every: int = 10,
    controller: control.Controller | None = None,
    signal: signals.Signal | None = None,
    max_units: int = 256,
    window: int = 10,
    bounds: Bounds | None = None,
    axis_name: Hashable | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates by a scale that follows how fast the connectome of the network reorganises.

    Put it after the base optimizer: an optimizer that normalises its gradients, like Adam, undoes a scale
    before it. The update takes one of three sets of extra arguments, all keyword-only:

    - `probe=` and `samples=` (**paired**): `probe(params, samples) -> activations`. The samples of one
      measurement stay in the state and are forwarded again at the next, so that the two connectomes differ by
      the parameters alone.
    - `probe=` (**fixed probe**): `probe(params) -> activations`, always on the same samples.
    - `activations=` (**given**): what the forward pass has just computed, as in the paper. On fresh
      mini-batches the sampling noise exceeds the motion and the calibration stops far too low: pass the same
      samples each time, or use a probe.

    A probe runs on measurement steps alone, inside `lax.cond`: every `every` steps, twice if paired. Inside
    `optax.masked` or `optax.partition` it is given the parameters of its group alone: let it close over all
    of them (`probe=lambda _: activations_of(params)`), or put the block behind, outside.

    Bad numbers never reach the scale: a distance that is not finite (non-finite activations, no layer with
    two live units, a batch of one) makes the scale smaller, a reading that is not finite leaves the last good
    one in place, and a measurement with either is counted in `cg_skipped`.

    Args:
        example: what the probe returns: a pytree of activations [N, ..., F], or their `jax.ShapeDtypeStruct`s
            (`jax.eval_shape(probe, params)`), or a mapping of names to numbers of units. Each leaf is a
            layer, its last axis the units. It fixes the shape of the state; N may differ from call to call.
        samples: paired only: an example of the `samples=` of one update (arrays or `jax.ShapeDtypeStruct`s,
            leading axis N). The state stores as many; a longer batch is cut to its first N. 32 or more are
            advised.
        every: optimizer steps between measurements; at least 1. A run should have fifty measurements
            or more. The set-points hold for 10; below they shrink in proportion, above they stay, see
            `Signal.set_point_at`.
        controller: the law; default `calibrated()`. Pass `calibrated(schedule)` if the base optimizer follows
            a schedule.
        signal: what says how far the network moved; default `hybrid()`.
        max_units: units a layer that are measured; at least 2. Above it a static sub-sample, the same in each
            run.
        window: distances over which z is computed; at least 5.
        bounds: an envelope for the scale, see `robbins_monro_bounds`: `step -> (low, high)`.
        axis_name: the mapped axis (or axes) over which the samples are split, in `shard_map`, `pmap` or
            `vmap`; None under plain `jit`, where arrays are global.

    Returns:
        A transformation; `params` are needed by a probe and by signals that read them.

    Raises:
        ValueError: here for an argument out of range; at trace time for missing or contradictory extra
            arguments, activations that do not match the example, or samples that do not match theirs.

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
    control.check_integer("every", every, 1)
    control.check_integer("max_units", max_units, 2)
    control.check_integer("window", window, 5)
    controller = control.calibrated() if controller is None else controller
    signal = signals.hybrid() if signal is None else signal
    for name, value, kind in (
        ("controller", controller, control.Controller),
        ("signal", signal, signals.Signal),
    ):
        if not isinstance(value, kind):
            raise ValueError(f"{name} must be a cgalr_jax.{kind.__name__}, got {value!r}.")
    if bounds is not None and not callable(bounds):
        raise ValueError(f"bounds must be a function, step -> (low, high), got {bounds!r}.")
    widths = inputs.layer_widths(example)
    chosen = {name: inputs.choose_units(width, max_units) for name, width in widths.items()}
    stored = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), samples)
    connect = functools.partial(_connect, axis_name=axis_name)
    set_point = signal.set_point_at(every)

    def read(activations: Any, params: Any) -> Any:
        layers = inputs.measured_layers(activations, widths, chosen) if signal.reads_activations else {}
        layers, params = jax.lax.stop_gradient((layers, params))
        return signal.read(layers, params, connect)

    def init_fn(params: Any) -> ConnectomeState:
        layers = {name: jax.ShapeDtypeStruct((2, len(units)), jnp.float32) for name, units in chosen.items()}
        # Shapes alone: the mapped axis is not there yet, and no concrete value is touched.
        local = functools.partial(_connect, axis_name=None)
        reading = jax.eval_shape(lambda layers, params: signal.read(layers, params, local), layers, params)
        scale, law = controller.init()
        return ConnectomeState(
            cg_step=jnp.zeros((), jnp.int32),
            cg_scale=jnp.array(scale, jnp.float32),
            cg_distance=jnp.zeros((), jnp.float32),
            cg_z=jnp.zeros((), jnp.float32),
            cg_measurements=jnp.zeros((), jnp.int32),
            cg_skipped=jnp.zeros((), jnp.int32),
            cg_history=jnp.zeros((window,), jnp.float32),
            cg_valid=jnp.zeros((), jnp.bool_),
            cg_before=optax.tree.zeros_like(reading),
            cg_samples=optax.tree.zeros_like(stored),
            cg_wanted=jnp.array(scale, jnp.float32),
            cg_control=law,
        )

    def measure(state: ConnectomeState, after: Any, before: Any, samples: Any) -> ConnectomeState:
        """Compares `after` with what is stored, and stores `before` and `samples` for the next time."""
        form = state._replace(cg_before=after, cg_history=jnp.zeros(window))
        inputs.check_state("opt_state", state, form)
        inputs.check_axes(after, state.cg_before, axis_name)
        distance = jnp.asarray(signal.compare(state.cg_before, after), jnp.float32)
        in_set_points = distance / set_point
        measured = state.cg_valid & jnp.isfinite(distance)
        known = jnp.where(measured, in_set_points, 1.0)
        logarithm = jnp.log(jnp.maximum(known, control.SMALLEST_DISTANCE))
        z = control.robust_z_score(logarithm, state.cg_history, state.cg_measurements)
        z = jnp.where(measured, z, 0.0)
        told = control.Measurement(in_set_points, z, state.cg_step)
        wanted, law = controller.update(told, state.cg_control)
        pushed = state.cg_history.at[state.cg_measurements % window].set(logarithm)
        readable = _all_finite(before)
        lost = ~readable | (state.cg_valid & ~measured)

        def keep(condition: jax.Array, new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(jnp.result_type(b)), new, old)

        return state._replace(
            cg_distance=keep(measured, distance, state.cg_distance),
            cg_z=z,
            cg_measurements=state.cg_measurements + measured.astype(jnp.int32),
            cg_skipped=state.cg_skipped + lost.astype(jnp.int32),
            cg_history=keep(measured, pushed, state.cg_history),
            cg_valid=state.cg_valid | readable,
            cg_before=keep(readable, before, state.cg_before),
            cg_samples=keep(readable, samples, state.cg_samples),
            cg_wanted=keep(state.cg_valid, wanted, state.cg_wanted),
            cg_control=keep(state.cg_valid, law, state.cg_control),
        )

    def update_fn(
        updates: optax.Updates,
        state: ConnectomeState,
        params: optax.Params | None = None,
        *,
        activations: Any = None,
        probe: Callable[..., Any] | None = None,
        samples: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ConnectomeState]:
        del extra_args
        inputs.check_extra_arguments(signal, stored, params, activations, probe, samples)
        if not signal.reads_activations:
            activations, probe, samples = {}, None, None
        if samples is not None:
            samples = inputs.cut_samples(samples, state.cg_samples)

        def measuring(state: ConnectomeState) -> ConnectomeState:
            if probe is None:
                after = read(activations, params)
            elif samples is None:
                after = read(probe(params), params)
            else:
                after = read(probe(params, state.cg_samples), params)
                return measure(state, after, read(probe(params, samples), params), samples)
            return measure(state, after, after, state.cg_samples)

        state = jax.lax.cond(state.cg_step % every == 0, measuring, lambda state: state, state)
        scale = state.cg_wanted
        if bounds is not None:
            low, high = bounds(state.cg_step)
            scale = jnp.clip(scale, low, high)
        state = state._replace(cg_scale=scale, cg_step=optax.safe_increment(state.cg_step))
        # The product is computed in float32 and cast back, so that updates keep their own dtype.
        return jax.tree.map(lambda u: (u * scale).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def cgalr(
    learning_rate: optax.ScalarOrSchedule,
    example: Any,
    *,
    momentum: float | None = 0.9,
    controller: control.Controller | None = None,
    **kwargs: Any,
) -> optax.GradientTransformationExtraArgs:
    """SGD with momentum and a calibrated rate: `optax.sgd` chained with `scale_by_connectome`.

    Args:
        learning_rate: a number or a schedule. Only the shape of the schedule matters much: the calibration
            finds the height.
        example: see `scale_by_connectome`.
        momentum: of SGD; None for none.
        controller: default `calibrated(learning_rate)` with a schedule and `calibrated()` with a number.
        **kwargs: the other arguments of `scale_by_connectome`.

    Returns:
        An optimizer that takes the extra arguments of `scale_by_connectome`.

    Raises:
        ValueError: as `scale_by_connectome`.

    Example:
        >>> import optax, cgalr_jax
        >>> tx = cgalr_jax.cgalr(optax.cosine_decay_schedule(0.1, 1000), {"hidden": 32}, every=5)
    """
    if controller is None:
        controller = control.calibrated(learning_rate if callable(learning_rate) else None)
    return optax.chain(
        optax.sgd(learning_rate, momentum=momentum),
        scale_by_connectome(example, controller=controller, **kwargs),
    )


def metrics(opt_state: Any) -> dict[str, jax.Array]:
    """The scalars worth logging, from any optimizer state that contains a `ConnectomeState`.

    Args:
        opt_state: an Optax state however nested, a flax `TrainState`, an `nnx.Optimizer`, its `nnx.state` or
            the pure dict of that.

    Returns:
        A flat dict of scalars, still on the device: nothing waits for them until they are read.
        `cgalr/scale`, `cgalr/distance` (in the unit of the signal), `cgalr/z`, `cgalr/measurements`,
        `cgalr/skipped`, `cgalr/step`, and `cgalr/phase` and `cgalr/anchor` where the controller has them.
        With several instances: `cgalr/0/scale`, `cgalr/1/scale`, ...

    Raises:
        ValueError: if there is no `ConnectomeState` in it.

    Example:
        >>> import jax.numpy as jnp, optax, cgalr_jax
        >>> tx = optax.chain(optax.adam(1e-3), cgalr_jax.scale_by_connectome({"hidden": 8}))
        >>> sorted(cgalr_jax.metrics(tx.init({"w": jnp.ones(3)})))[:3]
        ['cgalr/anchor', 'cgalr/distance', 'cgalr/measurements']
    """
    tree = getattr(opt_state, "opt_state", opt_state)
    states = inputs.connectome_states(tree)
    if not states:
        raise ValueError(
            "opt_state must contain the state of scale_by_connectome, cgalr or connectome_schedule, got one "
            f"without: {type(opt_state).__name__}."
        )
    found = {}
    for number, state in enumerate(states):
        prefix = "cgalr" if len(states) == 1 else f"cgalr/{number}"
        found |= {f"{prefix}/{name}": state[path] for name, path in _SHOWN.items() if path in state}
    return found


_SHOWN = {name: (f"cg_{name}",) for name in ("scale", "distance", "z", "measurements", "skipped", "step")} | {
    name: ("cg_control", name) for name in ("phase", "anchor")
}


def _connect(units: jax.Array, axis_name: Hashable | None) -> jax.Array:
    """Units [N, P] to their connectome f32[P, P], over all devices of the mapped axis if there is one."""
    return topology.functional_connectome(units, axis_name)


def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]).all()
