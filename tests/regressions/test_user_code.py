"""What users' numbers and functions may do: every kind of scalar, first scales, functions of Python only."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cgalr_jax
from cgalr_jax import controllers, signals, topology
from cgalr_jax.controllers import Controller, Measurement, calibrated, envelope, hysteresis_gate

PARAMS = {"w": np.linspace(0.5, 2.0, 24, dtype=np.float32).reshape(4, 6)}
EXAMPLE = {"h": 6}


def probe(params):
    return {"h": params["w"]}


def trained(tx, state=None, steps=3):
    state = tx.init(PARAMS) if state is None else state
    for _ in range(steps):
        updates, state = tx.update(PARAMS, state, PARAMS, probe=probe)
    return updates, state


# --- Scalars: every kind, eagerly and inside of a trace, changes no dtype.

KINDS = [int, float, np.int32, np.int64, np.float16, np.float64, jnp.int32, jnp.float32, jnp.bfloat16]
TWO = np.array([0.25, 0.5], np.float32)
# Each takes 1 for every number that it is given.
FACTORIES = {
    "calibrated": lambda one: calibrated(target=one, start=one),
    "gate": lambda one: hysteresis_gate(enter=one, leave=one, up=one, down=one, floor=one, ceiling=one),
    "envelope": lambda one: envelope(
        hysteresis_gate(), controllers.robbins_monro_bounds(one, one, tau=one, exponent=one)
    ),
}


def one_update(controller):
    return controller.update(Measurement(jnp.float32(0.5), jnp.int32(10)), controller.init()[1])


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_scalars_of_every_kind_make_the_same_controller(kind, name):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.enable_x64(True):
        one = kind(1)  # outside of the trace, inside of which comparing a JAX array would be traced
        shapes = jax.eval_shape(lambda: one_update(FACTORIES[name](one)))
    expected = jax.eval_shape(lambda: one_update(FACTORIES[name](1.0)))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
        lambda x: (x.shape, x.dtype), expected
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_scalars_of_every_kind_elsewhere(kind):
    with jax.numpy_dtype_promotion("strict"):
        one = kind(1)

        @jax.eval_shape
        def found():
            tx = cgalr_jax.cgalr(one, EXAMPLE, max_share=one, signal=signals.frobenius(set_point=one))
            state = tx.init(PARAMS)
            updates, _ = tx.update(PARAMS, state, PARAMS, probe=probe)
            average = cgalr_jax.polynomial_averaging(one)
            distance = topology.top_distance(TWO, TWO, order=one)
            return (
                updates["w"],
                distance,
                signals.weigh(jnp.float32(1), jnp.float32(1), one),
                average.update(PARAMS, average.init(PARAMS), PARAMS)[1].averaging_params["w"],
            )

        assert all(leaf.dtype == jnp.float32 for leaf in found)


@pytest.mark.parametrize("kind", [int, np.int64, jnp.int32], ids=lambda kind: kind.__name__)
def test_integers_of_every_kind_in_the_finder(kind):
    curve = cgalr_jax.find_learning_rate(
        lambda params, rate: jax.tree.map(lambda w: w - rate * (w - 1), params), PARAMS, probe, every=kind(2)
    )
    assert curve.rates.size


# --- The first scale of a controller is checked like all others.

BAD = [np.nan, np.inf, -1.0, 0.0]


def starting_at(scale):
    return Controller(lambda: (jnp.asarray(scale, jnp.float32), ()), lambda m, s: (jnp.float32(1), s))


@pytest.mark.parametrize("scale", BAD)
@pytest.mark.parametrize("construct", [lambda c: cgalr_jax.cgalr(0.1, EXAMPLE, controller=c), envelope])
def test_a_bad_first_scale_is_refused(scale, construct):
    with pytest.raises(ValueError, match=r"^the scale of controller\.init must be positive and finite, got"):
        construct(starting_at(scale))


@pytest.mark.parametrize("scale", BAD)
@pytest.mark.parametrize("bounds", [None, controllers.robbins_monro_bounds(0.5, 2.0, tau=10)])
def test_a_bad_first_scale_that_is_traced_is_replaced_and_counted(scale, bounds):
    @jax.jit
    def first(scale):
        return envelope(starting_at(scale), bounds).init()

    found, state = first(jnp.float32(scale))
    assert found == 1
    assert state.refused == 1
    found, state = first(jnp.float32(0.75))
    assert (found, state.refused) == (0.75, 0)


# --- A restored state may hold NumPy arrays.


@pytest.mark.parametrize(
    "controller", [None, hysteresis_gate(), envelope(hysteresis_gate(), lambda step: (0.1, 1.0))]
)
def test_a_state_of_numpy_arrays_goes_on_without_jit(controller):
    make = functools.partial(cgalr_jax.cgalr, 0.1, EXAMPLE, every=1, signal=signals.frobenius())
    tx = make(controller=controller)
    _, state = trained(tx)
    restored = jax.tree.map(np.asarray, state)
    jax.tree.map(np.testing.assert_array_equal, trained(tx, restored), trained(tx, state))


# --- Functions that JAX cannot trace, or that return something else: our error, at construction or `init`.


def branching(step):
    return 0.1 if step < 10 else 0.01


def of_numpy(step):
    return 0.1 * np.cos(step)


@pytest.mark.parametrize("schedule", [branching, of_numpy])
@pytest.mark.parametrize("construct", [calibrated, lambda schedule: cgalr_jax.cgalr(schedule, EXAMPLE)])
def test_a_schedule_of_python_only(construct, schedule):
    with pytest.raises(ValueError, match=r"^(schedule|learning_rate) must be a function that JAX can trace"):
        construct(schedule)


def test_bounds_and_controllers_of_python_only():
    with pytest.raises(ValueError, match="^bounds must be a function that JAX can trace"):
        envelope(hysteresis_gate(), lambda step: (0.1, 1.0 if step < 5 else 0.5))
    only = Controller(lambda: (jnp.float32(1), ()), lambda m, s: (1.0 if m.distance < 1 else 0.5, s))
    with pytest.raises(ValueError, match=r"^controller\.update must be a function that JAX can trace"):
        cgalr_jax.cgalr(0.1, EXAMPLE, controller=only)


@pytest.mark.parametrize("schedule", [lambda: 0.1, optax.cosine_decay_schedule])
def test_a_schedule_of_another_number_of_arguments(schedule):
    with pytest.raises(
        ValueError, match="^schedule must take 1 argument, step -> learning rate, or None, got"
    ):
        calibrated(schedule)


def read(layers, params):
    return layers["h"].mean()


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (
            signals.Signal(read, lambda a, b: jnp.ones(1), 0.1),
            r"signal\.compare must return a distance, f32\[\]",
        ),
        (signals.Signal(read, lambda a, b: None, 0.1), r"signal\.compare must return a distance.* got None"),
        (signals.Signal(read, lambda a, b: (1.0, 2.0), 0.1), r"signal\.compare must return a distance"),
        (signals.Signal(read, lambda a, b: 1j * (b - a), 0.1), r"signal\.compare must return a distance"),
        (
            signals.Signal(read, lambda a, b: 0.0 if a < b else 1.0, 0.1),
            r"signal\.compare must be a function that JAX can trace",
        ),
        (signals.Signal(lambda *_: {}, lambda a, b: 0.0, 0.1), r"signal\.read must return arrays, got {}"),
        (
            signals.Signal(lambda *_: None, lambda a, b: 0.0, 0.1),
            r"signal\.read must return arrays, got None",
        ),
        (
            signals.from_connectomes(
                None, topology.frobenius_distance, "min", None, 0.1, lambda n: np.array([0, 99])
            ),
            r"choose must return indices of units|choose must return indices in \[0, 6\)",
        ),
        (
            signals.from_connectomes(
                None, topology.frobenius_distance, "min", None, 0.1, lambda n: [0.5, 1.5]
            ),
            "choose must return at least 2 indices",
        ),
    ],
)
def test_signals_that_return_something_else(signal, message):
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, signal=signal)
    with pytest.raises(ValueError, match=f"^{message}"):
        tx.init(PARAMS)


def test_a_signal_that_reduces_over_a_mapped_axis_is_not_compared_outside_of_it():
    signal = signals.Signal(read, lambda a, b: jax.lax.pmean(b - a, "data"), 0.1)
    assert cgalr_jax.scale_by_connectome(EXAMPLE, signal=signal).init(PARAMS).cg_step == 0


# --- The finder's state.


@pytest.mark.parametrize("leaf", [jnp.tanh, "abc", np.array(["a"])])
def test_a_state_with_something_else_than_numbers(leaf):
    with pytest.raises(ValueError, match=r"^state must hold arrays and numbers only, got .* at state\['f'\]"):
        cgalr_jax.find_learning_rate(lambda s, rate: s, {"w": PARAMS["w"], "f": leaf}, probe)


# --- Arrays in a form that JAX does not know, and the largest numbers.


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">i2", ">i8", np.longdouble], ids=str)
def test_arrays_of_another_byte_order_or_precision(dtype):
    units = np.random.default_rng(0).integers(0, 100, (9, 6)).astype(np.float32)
    other = units.astype(dtype)
    np.testing.assert_array_equal(
        topology.functional_connectome(other), topology.functional_connectome(units)
    )
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, signal=signals.frobenius(), samples=other)
    found = tx.update(
        PARAMS, tx.init(PARAMS), PARAMS, probe=lambda p, x: {"h": x * 1.0}, samples=other, measure=True
    )[1]
    np.testing.assert_array_equal(found.cg_samples, other.astype(found.cg_samples.dtype.name))
    given = cgalr_jax.scale_by_connectome(EXAMPLE, signal=signals.frobenius())
    state = given.update(PARAMS, given.init(PARAMS), PARAMS, activations={"h": other})[1]
    assert state.cg_valid


def test_a_list_of_large_integers_is_the_array_of_them():
    large = [[0, 2**40], [2**40 - 2**20, 7], [3, 2]]
    np.testing.assert_array_equal(
        topology.functional_connectome(large), topology.functional_connectome(np.array(large))
    )


@pytest.mark.parametrize("size", [1e38, 2e38, 3e38])
def test_units_near_the_largest_float_are_right_or_seen_not_to_be(size):
    signs = np.float32([[1, -1, 1], [-1, 1, 1], [0, 0, -1], [1e-3, 0, -1]])
    found = topology.functional_connectome(np.float32(size) * signs)
    expected = np.where(np.isnan(found), np.nan, topology.functional_connectome(signs))  # a mean overflowed
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found[0, 1] > 0.99


def test_a_reading_whose_shape_depends_on_the_number_of_samples_is_named():
    signal = signals.Signal(lambda layers, params: layers["h"], lambda a, b: jnp.mean(jnp.abs(a - b)), 0.1)
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, signal=signal)
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match="signal of your own .* depend on the number of samples"):
        tx.update(PARAMS, state, PARAMS, probe=probe, measure=True)


# --- A controller that is made of an envelope's parts is no envelope.


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0, 0.0])
def test_a_controller_around_an_envelope_is_bounded_again(wrong):
    inner = envelope(hysteresis_gate(), controllers.robbins_monro_bounds(0.1, 1.0, tau=100))

    def update(measurement, state):
        scale, state = inner.update(measurement, state)
        return scale * wrong, state

    tx = cgalr_jax.scale_by_connectome(
        signal=signals.update_norm(), controller=Controller(inner.init, update), every=1
    )
    updates, state = trained(tx)
    metrics = cgalr_jax.metrics(state)
    assert 0 < metrics["cgalr/scale"] < np.inf
    assert metrics["cgalr/refused"] > 0
    assert np.all(np.isfinite(updates["w"]))


# --- The bound on one step, of updates whose squares are not finite any more.


@pytest.mark.parametrize("size", [1e15, 1e19, 1e25, 1e38])
def test_the_largest_finite_updates_are_bounded_too(size):
    tx = cgalr_jax.cgalr(1.0, signal=signals.update_norm(), momentum=None)
    updates, state = tx.update({"w": jnp.full((4, 6), size)}, tx.init(PARAMS), PARAMS)
    assert cgalr_jax.metrics(state)["cgalr/cut"] == 1
    assert signals.largest_share(updates, PARAMS) <= 0.1001


def test_an_update_that_is_not_finite_stays_so():
    tx = cgalr_jax.cgalr(1.0, signal=signals.update_norm(), momentum=None)
    for bad in (np.nan, np.inf):
        updates, _ = tx.update({"w": jnp.ones((4, 6)).at[1, 1].set(bad)}, tx.init(PARAMS), PARAMS)
        assert not np.isfinite(updates["w"][1, 1])


def test_a_narrow_update_is_bounded_before_it_is_rounded():
    large = Controller(lambda: (jnp.float32(100), ()), lambda measurement, state: (jnp.float32(100), state))
    tx = cgalr_jax.scale_by_connectome(signal=signals.update_norm(), controller=large)
    params = {"w": jnp.ones((8, 8), jnp.float16)}
    updates, state = tx.update({"w": jnp.full((8, 8), 1000, jnp.float16)}, tx.init(params), params)
    assert updates["w"].dtype == jnp.float16
    assert np.all(np.isfinite(updates["w"]))
    assert cgalr_jax.metrics(state)["cgalr/cut"] == 1
    assert 0.09 < signals.largest_share(updates, params) < 0.101


def test_a_schedule_that_sees_no_updates_bounds_none():
    with pytest.raises(ValueError, match=r"max_share must be left out.* got 0.1"):
        cgalr_jax.connectome_schedule(1.0, EXAMPLE, max_share=0.1)


# --- Arguments that Optax hands out again.


def test_a_momentum_that_nobody_chose_is_none_of_the_users():
    made = optax.inject_hyperparams(cgalr_jax.cgalr, static_args=("optimizer", "max_units", "max_share"))
    tx = made(0.1, signal=signals.update_norm(), optimizer=optax.adamw)
    state = jax.jit(tx.init)(PARAMS)
    updates, state = jax.jit(tx.update)(PARAMS, state, PARAMS)
    assert np.all(np.isfinite(updates["w"]))


# --- Parameters that are not finite, or of any size.


def test_a_mask_among_the_parameters_does_not_unbind_a_step():
    mask = jnp.where(jnp.tril(jnp.ones((8, 8))) == 1, 0.0, -jnp.inf)
    params = {"w": jnp.eye(8), "mask": mask}
    gradients = {"w": 10 * jnp.eye(8), "mask": jnp.zeros((8, 8))}
    tx = cgalr_jax.scale_by_connectome(signal=signals.update_norm(), controller=hysteresis_gate())
    updates, state = tx.update(gradients, tx.init(params), params)
    assert cgalr_jax.metrics(state)["cgalr/cut"] == 1
    assert jnp.max(updates["w"]) < 1


@pytest.mark.parametrize("eager", [False, True], ids=["jit", "no jit"])
def test_a_mask_among_the_parameters_is_averaged_as_what_it_is(eager):
    params = {"w": jnp.zeros(2), "mask": jnp.array([0.0, -jnp.inf])}
    updates = {"w": jnp.ones(2), "mask": jnp.zeros(2)}
    tx = cgalr_jax.polynomial_averaging()
    with jax.disable_jit(eager), jax.debug_nans(True):
        state = tx.init(params)
        for _ in range(2):
            state = jax.jit(tx.update)(updates, state, params)[1]
    np.testing.assert_array_equal(cgalr_jax.averaged_params(state, params)["mask"], params["mask"])
    np.testing.assert_array_equal(cgalr_jax.averaged_params(state, params)["w"], 1.0)


def test_the_bound_knows_the_narrowest_types():
    params = {"w": jnp.ones((8, 8), jnp.float8_e4m3fn)}
    assert signals.largest_share({"w": jnp.ones((8, 8), jnp.float8_e4m3fn)}, params) > 0


def test_distances_from_what_is_not_finite_are_nan():
    for order in (1, 2, np.inf):
        assert np.isnan(topology.top_distance(jnp.array([np.inf]), jnp.array([0.0]), order=order))
    square = jnp.array([[0.0, np.inf], [0.0, 0.0]])
    assert np.isnan(topology.frobenius_distance(square, jnp.zeros((2, 2))))


# --- A float32 at a limit lies on it, though as a number of Python it is a little beyond.


@pytest.mark.parametrize("kind", [np.float32, jnp.float32])
@pytest.mark.parametrize(
    "make",
    [
        lambda kind: calibrated(start=kind(1e-6)),
        lambda kind: hysteresis_gate(enter=0.1, leave=kind(0.1)),
        lambda kind: hysteresis_gate(enter=kind(0.7), leave=0.7),
        lambda kind: controllers.robbins_monro_bounds(kind(0.1), 0.1, tau=10),
    ],
)
def test_a_float32_at_a_limit_is_allowed(make, kind):
    make(kind)


# --- Controllers that ask for each step to be measured, and their buffers.


def early(calibrating, steps=4):
    class Ramp(NamedTuple):
        scale: jax.Array

        @property
        def calibrating(self):
            return calibrating(self)

    return Controller(
        lambda: (jnp.float32(1), Ramp(jnp.float32(1))), lambda measurement, state: (state.scale, state), steps
    )


@pytest.mark.parametrize("steps", [np.int64(4), np.uint8(4), jnp.int32(4)])
@pytest.mark.parametrize("value", [lambda s: s.scale > 0, lambda s: s.scale, lambda s: True])
def test_a_controller_may_say_in_any_kind_of_number_how_long_it_calibrates(value, steps):
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, controller=early(value, steps), signal=signals.frobenius())
    with jax.numpy_dtype_promotion("strict"), jax.enable_x64(True):
        assert trained(tx, steps=3)[1].cg_measurements == 2


@pytest.mark.parametrize(
    "value", [lambda s: s.scale[None] > 0, lambda s: None, lambda s: "yes", lambda s: set]
)
def test_what_does_not_say_whether_a_controller_calibrates_is_named(value):
    with pytest.raises(ValueError, match=r"^controller\.early must be 0 for a state without a property"):
        cgalr_jax.scale_by_connectome(EXAMPLE, controller=early(value))


def test_an_array_of_the_user_is_not_donated_with_the_state():
    one = jnp.float32(1)
    tx = cgalr_jax.scale_by_connectome(
        EXAMPLE, controller=Controller(lambda: (one, (one, one)), lambda m, s: (s[0], s))
    )
    for _ in range(2):
        state = tx.init(PARAMS)
        jax.block_until_ready(jax.jit(lambda s: s, donate_argnums=0)(state))
    assert one == 1
