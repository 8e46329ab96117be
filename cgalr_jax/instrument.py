"""What measures, and its three pure functions: init, update, and `measure` between them.

Each measurement passes the data on in this order: activations -> layers -> connectome -> (barcode) -> reading
-> distance -> controller -> scale -> updates. Everything up to the scale is behind `stop_gradient`: the
learning rate is no part of the function that is differentiated.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cgalr_jax import _checks, _control_flow, _leaves, arguments, controllers, layers, signals
from cgalr_jax import state as states
from cgalr_jax._counting import one_more
from cgalr_jax.controllers.envelope import EnvelopeState
from cgalr_jax.signals.base import shapes_of_reading
from cgalr_jax.signals.share import share_if_alike
from cgalr_jax.state import ConnectomeState

__all__ = ["Instrument", "init", "measure", "rate_at", "update"]


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

    reading = shapes_of_reading("signal", instrument.signal, read, instrument.layout.shapes, numbers)
    scale, controller_state = instrument.controller.init()
    fields = {field: jnp.zeros((), dtype) for field, dtype in states.NUMBERS.items()}
    fields["cg_scale"] = jnp.array(scale, jnp.float32)
    return ConnectomeState(
        **fields,
        cg_layers=instrument.layout.measured(),
        cg_before=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), reading),
        cg_samples=optax.tree.zeros_like(samples),
        cg_rate=() if learning_rate is None else rate_at(learning_rate, jnp.zeros((), jnp.int32)) * scale,
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
    _, control = jax.eval_shape(instrument.controller.init)
    form = state._replace(cg_layers=instrument.layout.measured(), cg_before=after, cg_control=control)
    states.check_form("opt_state", state, form)
    arguments.check_structure("opt_state", state, form)
    arguments.check_real(after, state.cg_before)
    arguments.check_mapped_axes(after, state.cg_before, instrument.axis_name)

    # 1. The distance. At the first measurement the reading is compared with itself: there is no other yet.
    last = optax.tree.where(state.cg_valid, state.cg_before, after)
    distance = jnp.asarray(instrument.signal.compare(last, after), jnp.float32)
    distance, moves, cut_moves, unreadable = _alike(
        instrument.axis_name, distance, state.cg_moves, state.cg_cut_moves, ~_all_finite(before)
    )
    readable = ~unreadable
    # Only steps that move the network count: in a chain, `optax.MultiSteps` updates every k-th step only. If
    # there was none since the last reading there is nothing to measure, and the controller is not asked.
    moved = state.cg_valid & (moves > 0)
    moves = jnp.maximum(moves, 1)
    motion = distance / instrument.signal.set_point_at(moves)
    # In a tiny set-point a finite distance is an infinite motion.
    measured = moved & jnp.isfinite(distance) & jnp.isfinite(motion) & (distance >= 0)
    # 2. The controller: a distance that could not be measured is passed on as infinite, see `Measurement`.
    measurement = controllers.Measurement(
        distance=jnp.where(measured, motion, jnp.inf),
        step=state.cg_step,
        cut=cut_moves / moves,
    )
    scale, controller_state = instrument.controller.update(measurement, state.cg_control)
    # 3. The next state. Bad readings and distances are counted, not kept; the first reading sets no scale.
    lost = ~readable | (moved & ~measured)

    def keep(condition: jax.Array, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(condition, jnp.asarray(a, b.dtype), b), new, old)

    return state._replace(
        cg_scale=keep(moved, scale, state.cg_scale),
        cg_distance=keep(measured, distance, state.cg_distance),
        cg_motion=keep(measured, motion, state.cg_motion),
        cg_measurements=one_more(measured, state.cg_measurements),
        cg_skipped=one_more(lost, state.cg_skipped),
        cg_valid=state.cg_valid | readable,
        cg_moves=keep(readable, jnp.zeros_like(state.cg_moves), state.cg_moves),
        cg_cut_moves=keep(readable, jnp.zeros_like(state.cg_cut_moves), state.cg_cut_moves),
        cg_before=keep(readable, before, state.cg_before),
        cg_samples=keep(readable, samples, state.cg_samples),
        cg_control=keep(moved, controller_state, state.cg_control),
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
    measure: bool | None = None,
    **extra_args: Any,
) -> tuple[optax.Updates, ConnectomeState]:
    """One step: measures if a measurement is due, or if the caller says so, and scales the updates."""
    del extra_args
    arguments.check_measure(measure)
    arguments.check_state("opt_state", state, ConnectomeState)
    arguments.check_state("opt_state.cg_control", state.cg_control, EnvelopeState)
    arguments.check_types("opt_state", state, states.NUMBERS)
    # A restored state may hold NumPy arrays, which signals and controllers need not know.
    state = jax.tree.map(jnp.asarray, state)
    if jax.tree.structure(state.cg_samples) != jax.tree.structure(stored):
        states.check_form("opt_state", state, state._replace(cg_samples=stored))
    if measure is None or measure:
        arguments.check_extra_arguments(instrument.signal, stored, params, activations, probe, samples)
        if samples is not None and instrument.signal.reads_activations:
            samples = arguments.cut_samples(samples, state.cg_samples)
            arguments.check_split(samples, state.cg_samples)
        measured = functools.partial(_measured, instrument, params, activations, probe, samples)
        state = measured(state) if measure else _measured_in_time(instrument, measured, state)
    rate = () if learning_rate is None else rate_at(learning_rate, state.cg_step) * state.cg_scale
    scale = state.cg_scale
    moved, is_cut = jnp.ones((), jnp.bool_), jnp.zeros((), jnp.bool_)
    if instrument.max_share is not None and params is not None:
        scaled = jax.tree.map(functools.partial(_product, scale), updates)
        share = share_if_alike(scaled, params)
        if share is not None:
            share = jax.lax.stop_gradient(share) / instrument.max_share
            # An infinite share may be that of a finite update whose square is not: the step is left out.
            # Where an update is infinite it becomes NaN, which the user is to see, as the NaN that nothing
            # cuts.
            moved, is_cut = share != 0, share > 1
            scale = scale / jnp.where(is_cut, share, 1.0)
    # Not of `scaled`: updates that are multiplied twice would be written, and read, once more.
    scaled = jax.tree.map(functools.partial(_scaled, scale), updates)

    return scaled, state._replace(
        cg_rate=rate,
        cg_step=one_more(True, state.cg_step),
        cg_cut=one_more(is_cut, state.cg_cut),
        cg_moves=one_more(moved, state.cg_moves),
        cg_cut_moves=one_more(is_cut, state.cg_cut_moves),
    )


def rate_at(learning_rate: optax.ScalarOrSchedule, step: jax.Array) -> jax.Array:
    """The learning rate of a step as f32[], without the scale."""
    rate = learning_rate(step) if callable(learning_rate) else learning_rate
    return jnp.asarray(rate, jnp.float32)


# ------------------------------------------------------------------------------------------------------------
# Helpers of these functions
# ------------------------------------------------------------------------------------------------------------


def _measured(
    instrument: Instrument,
    params: optax.Params | None,
    activations: Any,
    probe: Callable[..., Any] | None,
    samples: Any,
    state: ConnectomeState,
) -> ConnectomeState:
    """The state after a measurement, in the way that the extra arguments say."""
    if not instrument.signal.reads_activations:
        after = instrument.read({}, params)
    elif probe is None:
        after = instrument.read(activations, params)
    elif samples is None:
        after = instrument.read(_activations(instrument, probe, params), params)
    else:
        # A loop, not one batch of both. Side by side along N they would share batch statistics; under a vmap
        # they would not, and where a probe is small that is faster, but a loop takes probes that cannot be
        # batched (callbacks, kernels of others), holds the activations of one of them only, and reads the
        # same samples with the same program: what stands still is 0 apart.
        after, before = _control_flow.each(
            lambda samples: instrument.read(_activations(instrument, probe, params, samples), params),
            (state.cg_samples, samples),
        )
        return measure(instrument, state, after, before, samples)
    return measure(instrument, state, after, after, state.cg_samples)


def _activations(
    instrument: Instrument, probe: Callable[..., Any], params: optax.Params | None, *samples: Any
) -> Any:
    """What the probe returns; that it fails on what is left of the parameters is a ValueError."""
    try:
        found = _checks.called("probe", probe, params, *samples)
    except Exception as error:  # of any kind: Flax has its own for a parameter that is not there
        leaves = jax.tree.leaves(params, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
        if any(isinstance(leaf, optax.MaskedNode) for leaf in leaves):
            left = "what optax.masked or optax.partition leaves, and return layers of this group only"
        elif _leaves.is_array(params) and jnp.ndim(leaves[0]) == 1:
            left = "the one flat array that params is here, as optax.flatten makes it"
        else:
            raise
        paired = ", samples" if samples else ""
        raise ValueError(
            f"probe must do with {left}, or close over all parameters, probe=lambda part{paired}: "
            f"probe(params{paired}); got one that raises {type(error).__name__}: {error}"
        ) from error
    arguments.check_several(found, instrument.axis_name)
    return found


def _measured_in_time(
    instrument: Instrument, measured: Callable[[ConnectomeState], ConnectomeState], state: ConnectomeState
) -> ConnectomeState:
    """`measured(state)` at the steps that `cadence.is_measurement_step` names, else the state as it is."""
    regular = state.cg_step % instrument.every == 0
    early = instrument.controller.early
    due = regular | (state.cg_control.calibrating & (state.cg_step < early)) if early else regular
    return _control_flow.when(due, measured, state)


def _scaled(scale: jax.Array, update: Any) -> Any:
    """An update times the scale, in the update's dtype; a leaf that is no array of numbers is unchanged."""
    product = _product(scale, update)
    return update if product is update else product.astype(jnp.result_type(update))


def _product(scale: jax.Array, update: Any) -> Any:
    """An update times the scale, in float32 if its own type is narrower: there the product could overflow."""
    # No number is a random key, nor the float0 that a gradient has in the place of one.
    if not _leaves.is_array(update) or not jnp.issubdtype(jnp.result_type(update), jnp.number):
        return update
    update = jnp.asarray(update)
    wide = _leaves.wide(update.dtype)
    return update.astype(wide) * scale.astype(wide)


def _alike(axis_name: Hashable | None, *numbers: jax.Array) -> tuple[jax.Array, ...]:
    """The largest of each over the devices of a mapped axis: all of them are to take the same decisions.

    They are the same but where parameters are split over that axis by hand, which JAX cannot tell without
    `check_vma`: then each device has a distance of its own. Devices that ended their ramps at different steps
    would measure at different ones, and wait for each other for ever in the probe.
    """
    if axis_name is None:
        return numbers
    largest = jax.lax.pmax(jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers]), axis_name)
    return tuple(jnp.asarray(each, number.dtype) for each, number in zip(largest, numbers, strict=True))


def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]).all()
