"""The calibration as a tool of its own: at which learning rate does the network move as fast as it should?"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Jaxpr, Literal

from cgalr_jax import _checks, _leaves, controllers, signals
from cgalr_jax._warnings import warn_deprecated
from cgalr_jax.controllers.sensitivity import CalibrationState
from cgalr_jax.layers import Layout, layout_of, measured_layers
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
_A_STEP = "one training step, step(state, learning_rate) -> state"
_PARAMETERS = "a function that finds the parameters, params(state) -> parameters"
# What Python and JAX raise where a function looks for something that a state does not have.
_MISFITS = (TypeError, AttributeError, LookupError)


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
    _check_state(state)
    layout = _layout(probe, state)
    program = _check_step(step, state)
    parameters = _parameters if params is None else params
    if signal.reads_params:
        _check_parameters(parameters, state)
    else:  # it is called all the same
        _shapes("params", _PARAMETERS, parameters, state)
    controller = controllers.calibrated(optax.constant_schedule(1.0), steps=_STEPS, start=share)
    most = controller.early // every + 1

    def read(state: Any) -> Any:
        return signal.read(measured_layers(probe(state), layout), parameters(state))

    form = shapes_of_reading("signal", signal, read, state)
    _check_rate(step, program)

    def climbs(ramp: _Ramp) -> jax.Array:
        last, one_before = ramp.distances[ramp.readings - 1], ramp.distances[ramp.readings - 2]
        diverging = ~jnp.isfinite(last) | (jnp.minimum(last, one_before) >= 1)
        return ~diverging & ramp.control.calibrating & (ramp.rate <= highest) & (ramp.readings <= most)

    def measure(ramp: _Ramp) -> _Ramp:
        # The first reading is of the start, before any step: so the network is compiled in one place only.
        first = ramp.readings == 0
        steps = jnp.where(first, 0, every)
        after = jax.lax.fori_loop(0, steps, lambda _, state: step(state, ramp.rate), ramp.state)
        reading = read(after)
        distance = jnp.asarray(signal.compare(ramp.reading, reading), jnp.float32)
        distance = distance / signal.set_point_at(every)
        distance = jnp.where(first, 0.0, distance)
        measurement = controllers.Measurement(distance, every * ramp.readings)
        scale, control = controller.update(measurement, ramp.control)
        return _Ramp(
            after,
            reading,
            jax.tree.map(lambda old, new: jnp.where(first, old, new), ramp.control, control),
            jnp.where(first, ramp.rate, scale * highest),
            ramp.readings + 1,
            ramp.rates.at[ramp.readings].set(ramp.rate),
            ramp.distances.at[ramp.readings].set(distance),
        )

    @jax.jit
    def climb(state: Any) -> _Ramp:
        reading = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), form)
        scale, control = controller.init()
        nothing = jnp.zeros((most + 1,), jnp.float32)
        start = _Ramp(state, reading, control, scale * highest, jnp.int32(0), nothing, nothing)
        return jax.lax.while_loop(climbs, measure, start)

    ramp = climb(state)
    rates, distances = (np.asarray(x)[1 : int(ramp.readings)] for x in (ramp.rates, ramp.distances))
    if not np.isfinite(distances).any():
        _check_start(state, probe)
    return _read_off(ramp.control, rates, distances, highest)


def _check_state(state: Any) -> None:
    """Raises a ValueError unless a ramp can start here: from numbers, and known ones, as it measures them."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    # Within a jitted function a new array is traced, too, whatever the state is.
    if any(isinstance(each, jax.core.Tracer) for each in (*(leaf for _, leaf in leaves), jnp.zeros(()))):
        raise ValueError(
            "state must be known, got traced values: call find_learning_rate outside of jit, grad and vmap; "
            "it compiles step and probe itself."
        )
    for path, leaf in leaves:
        if not _leaves.is_array(leaf):
            raise ValueError(
                f"state must hold arrays and numbers only, got {_checks.shown(leaf)} at "
                f"state{jax.tree_util.keystr(path)}: leave it out, or split a model by equinox.partition("
                "model, equinox.is_array), and put it together in step and probe."
            )


def _layout(probe: Callable[[Any], Any], state: Any) -> Layout:
    """The layers that a probe returns; a ValueError says what is wrong with them."""
    activations = _shapes("probe", "a function of the state, probe(state) -> activations", probe, state)
    leaves = jax.tree.leaves(activations)
    if not leaves or any(leaf.ndim < 2 for leaf in leaves):
        raise ValueError(
            "probe must return activations, a pytree of layers [N, ..., F], got "
            f"{_checks.shown(activations)}."
        )
    try:
        return layout_of(activations, max_units=256)
    except ValueError as error:
        reason = str(error).removeprefix("example ")
        raise ValueError(f"probe must return activations, a pytree of layers, which {reason}") from error


def _shapes(name: str, what: str, function: Callable[..., Any], state: Any) -> Any:
    """The shapes of what a user's function returns; a ValueError says that it does not fit the state."""
    try:
        return _checks.shapes_of(name, function, state)
    except _MISFITS as error:
        raise _failing(name, what, function, error) from error


def _failing(name: str, what: str, function: Callable[..., Any], error: Exception) -> ValueError:
    """What is raised instead if a user's function fails."""
    # A KeyError is no sentence without its name, and JAX tells more than one line.
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return ValueError(f"{name} must be {what}, got {_checks.shown(function)}, which fails: {reason}")


def _check_start(state: Any, probe: Callable[[Any], Any]) -> None:
    """Raises a ValueError if nothing finite can be measured from here on, at whatever rate."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if _leaves.is_inexact(leaf) and bool(jnp.isnan(leaf).any()):
            raise ValueError(f"state must not hold NaN, got some at state{jax.tree_util.keystr(path)}.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(probe)(state)):
        if not bool(jnp.isfinite(leaf).all()):
            raise ValueError(
                "probe must return finite activations, got NaN or infinite ones for the first state, at "
                f"probe(state){jax.tree_util.keystr(path)}."
            )


def _check_step(step: Callable[[Any, jax.Array], Any], state: Any) -> Jaxpr:
    """The program of a step, whose last input is the rate.

    Raises a ValueError unless the step returns a state of the same form, which a loop over steps needs.
    """
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    before = jax.eval_shape(lambda state: state, state)
    try:
        program, after = jax.make_jaxpr(step, return_shape=True)(state, rate)
    except _MISFITS as error:
        raise _failing("step", _A_STEP, step, error) from error
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
    return program.jaxpr


def _check_rate(step: Callable[[Any, jax.Array], Any], program: Jaxpr) -> None:
    """Raises a ValueError if a step ignores its rate: the network moves, but says nothing about any rate."""
    state = len(program.invars) - 1
    if not any(_depending(program, [False] * state + [True])):
        raise ValueError(
            "step must use its learning rate, step(state, learning_rate) -> state, got "
            f"{_checks.shown(step)}, whose new state does not depend on it; build the optimizer inside of "
            "step, as in optax.sgd(learning_rate).update(...)."
        )


def _depending(program: Jaxpr, inputs: list[bool]) -> list[bool]:
    """Which outputs of a program may depend on the inputs that are marked."""
    marked = {variable for variable, given in zip(program.invars, inputs, strict=True) if given}

    def reached(variables: list[Any]) -> list[bool]:
        return [not isinstance(each, Literal) and each in marked for each in variables]

    for equation in program.eqns:
        outputs = [any(reached(equation.invars))] * len(equation.outvars)
        # A jitted function takes an argument that it ignores; a loop or a branch takes what it uses.
        if equation.primitive.name == "jit":
            outputs = _depending(equation.params["jaxpr"].jaxpr, reached(equation.invars))
        marked |= {each for each, given in zip(equation.outvars, outputs, strict=True) if given}
    return reached(program.outvars)


def _parameters(state: Any) -> Any:
    """The parameters in a state, by the names and places that are usual."""
    if hasattr(state, "params"):
        return state.params
    if isinstance(state, Mapping) and "params" in state:
        return state["params"]
    # A list may be that of the layers, whose first one is not all of them.
    several = isinstance(state, tuple) or (isinstance(state, list) and _holds_record(state))
    return state[0] if several and state else state


def _holds_record(tree: Any) -> bool:
    """Whether a NamedTuple is among the nodes, as in the state of every optimizer of Optax."""

    def is_record(node: Any) -> bool:
        return isinstance(node, tuple) and hasattr(node, "_fields")

    return any(map(is_record, jax.tree.leaves(tree, is_leaf=is_record)))


def _check_parameters(parameters: Callable[[Any], Any], state: Any) -> None:
    """Raises a ValueError if what is taken for parameters cannot be that: an optimizer's state, a counter."""
    found = _shapes("params", _PARAMETERS, parameters, state)
    guessed = parameters is _parameters
    wrong = guessed and (isinstance(found, tuple) or (parameters(state) is state and _holds_record(state)))
    if wrong or not any(map(_leaves.is_inexact, jax.tree.leaves(found))):
        raise ValueError(
            f"params must be {_PARAMETERS}, got {_checks.shown(found)}"
            f"{' without it' if guessed else ' from it'}."
        )


def _moved(distances: np.ndarray) -> np.ndarray:
    """Which of the distances say something, bool[n]."""
    return np.isfinite(distances) & (distances > 0)


def _read_off(
    control: CalibrationState, rates: np.ndarray, distances: np.ndarray, highest: float
) -> LearningRateCurve:
    """The rate that the whole of a ramp points to, and how far to trust it."""
    finite = np.isfinite(distances)
    if not _moved(distances).any():
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
