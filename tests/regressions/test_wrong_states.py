"""Found by strangers: states of other optimizers, user code that returns no numbers, schedules of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cgalr_jax
from cgalr_jax import controllers, signals, stopping

X = jax.random.normal(jax.random.key(0), (16, 4))
PARAMS = {"w": jax.random.normal(jax.random.key(1), (4, 3))}
EXAMPLE = {"hidden": 3}


def probe(params):
    return {"hidden": X @ params["w"]}


def text(*_):
    return "a text"


@pytest.mark.parametrize("state", [optax.adam(0.1).init(PARAMS), None, PARAMS])
@pytest.mark.parametrize("tx", [cgalr_jax.scale_by_connectome(EXAMPLE), cgalr_jax.polynomial_averaging()])
def test_the_state_of_another_optimizer_is_named(tx, state):
    with pytest.raises(ValueError, match=r"^opt_state must be a \w+State, as init"):
        tx.update(PARAMS, state, PARAMS, probe=probe)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_a_state_that_was_cast_is_refused(dtype):
    tx = cgalr_jax.cgalr(0.1, EXAMPLE)
    state = optax.tree.cast(tx.init(PARAMS), dtype)  # its integers, too
    with pytest.raises(ValueError, match=r"^opt_state\.cg_step must be int32, as init returns it, got"):
        tx.update(PARAMS, state, PARAMS, probe=probe)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_state_whose_floats_were_cast_is_refused(dtype):
    tx = cgalr_jax.cgalr(0.1, EXAMPLE)
    state = jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tx.init(PARAMS)
    )
    with pytest.raises(ValueError, match=r"^opt_state\.cg_scale must be float32, as init returns it, got"):
        tx.update(PARAMS, state, PARAMS, probe=probe)


def test_an_average_that_was_cast_is_refused():
    average = cgalr_jax.polynomial_averaging()
    state = optax.tree.cast(average.init(PARAMS), jnp.bfloat16)
    with pytest.raises(ValueError, match=r"^opt_state\.averaging_step must be int32"):
        average.update(PARAMS, state, PARAMS)
    narrow = average.init(PARAMS)._replace(averaging_params=optax.tree.cast(PARAMS, jnp.bfloat16))
    with pytest.raises(ValueError, match=r"^opt_state\.averaging_params must be float32 or wider"):
        average.update(PARAMS, narrow, PARAMS)


def test_a_gate_of_another_window_is_no_state_of_this_one():
    def gate(window):
        return cgalr_jax.cgalr(0.1, EXAMPLE, every=1, controller=controllers.hysteresis_gate(window=window))

    with pytest.raises(ValueError, match="^opt_state must fit the optimizer"):
        gate(20).update(PARAMS, gate(10).init(PARAMS), PARAMS, probe=probe)


def test_parameters_of_another_network_are_not_averaged():
    average = cgalr_jax.polynomial_averaging()
    for other, said in (
        (
            {"w": jnp.ones(3)},
            r"have the shapes that polynomial_averaging averages, \(4, 3\) for 'w', got \(3,\)",
        ),
        ({"v": PARAMS["w"]}, r"be those that polynomial_averaging averages, \['w'\], got 'v'"),
    ):
        with pytest.raises(ValueError, match=f"^params must {said}"):
            average.update(other, average.init(PARAMS), other)


def test_a_connectome_schedule_is_no_plain_schedule():
    schedule = cgalr_jax.connectome_schedule(0.1, EXAMPLE)
    tx = optax.adam(schedule)
    with pytest.raises(ValueError, match="inject_hyperparams"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def signal_of(read):
    return cgalr_jax.scale_by_connectome(EXAMPLE, signal=signals.Signal(read, text, 1.0)).init(PARAMS)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("signal.read", lambda: signal_of(text)),
        ("schedule", lambda: controllers.calibrated(text)),
        ("bounds", lambda: controllers.envelope(controllers.calibrated(), text)),
    ],
)
def test_a_function_that_returns_no_numbers_is_named(name, make):
    with pytest.raises(ValueError, match=f"^{name} must return arrays of numbers, got .*text"):
        make()


@pytest.mark.parametrize("scale", [1 + 5j, True])
def test_a_scale_is_real(scale):
    controller = controllers.Controller(lambda: (jnp.float32(1), ()), lambda m, s: (jnp.asarray(scale), s))
    with pytest.raises(ValueError, match=r"controller.update must return a real scale"):
        cgalr_jax.scale_by_connectome(EXAMPLE, controller=controller)


def test_the_two_signals_of_the_hybrid_are_not_mixed_up():
    with pytest.raises(ValueError, match="^connectome must be a signal that reads activations"):
        signals.hybrid(signals.relative_update(), signals.births())


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_the_gradient_of_an_update_is_finite_where_a_matrix_is_zero(start):
    tx = cgalr_jax.cgalr(0.1, EXAMPLE)
    params = {**PARAMS, "head": start * jnp.ones((3, 2))}

    def loss(params):
        return jnp.sum(jnp.tanh(X @ params["w"]) @ params["head"])

    def after(params):
        updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params, probe=probe)
        return loss(optax.apply_updates(params, updates))

    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(jax.grad(after)(params)))


def calibration(schedule, measurements, right=0.1, every=10, steps=None):
    """Scales of a run in which a network moves in proportion to the rates of the steps in between."""
    controller = controllers.calibrated(schedule, steps=steps)
    update = jax.jit(controller.update)
    scale, state = controller.init()
    scales = []
    for number in range(1, measurements + 1):
        rates = np.array([float(schedule(t)) for t in range((number - 1) * every, number * every)])
        distance = jnp.float32(rates.mean() * float(scale) / right)
        scale, state = update(controllers.Measurement(distance, jnp.int32(number * every)), state)
        scales.append(float(scale))
    return np.array(scales), state


@pytest.mark.parametrize("period", [10, 20, 30])
def test_a_schedule_of_short_cycles_is_calibrated_by_its_mean(period):
    scales, state = calibration(lambda t: jnp.where(t % (2 * period) < period, 1.0, 0.0), 80)
    assert 0.05 < scales[-1] < 0.2
    assert int(state.ended) == controllers.REACHED


def test_a_schedule_that_is_zero_at_first_does_not_lift_the_scale():
    scales, state = calibration(lambda t: jnp.where(t < 500, 0.0, 1.0), 90, right=0.01)
    assert scales.max() < 0.02
    assert int(state.ended) == controllers.REACHED


def test_a_network_that_stops_moving_keeps_the_scale_of_a_ramp_that_had_begun():
    controller = controllers.calibrated(steps=600)
    scale, state = controller.init()
    for step in range(1, 100):
        distance = scale / 0.01 if step < 30 else 0.0
        before, (scale, state) = (
            scale,
            controller.update(controllers.Measurement(jnp.float32(distance), jnp.int32(step)), state),
        )
        assert step < 30 or scale == before


def test_a_step_of_the_schedule_that_lies_ahead_is_taken_with_it():
    scales, _ = calibration(lambda t: jnp.where(t < 400, 0.1, 1.0), 60, steps=600)
    assert max(scales[40:]) < 0.12


@pytest.mark.parametrize("way", ["paired", "fixed"])
def test_the_state_of_the_other_way_to_measure_is_named(way):
    """A checkpoint of paired measurements in a run with a fixed probe, and the other way round."""
    paired = cgalr_jax.scale_by_connectome(EXAMPLE, samples=X)
    fixed = cgalr_jax.scale_by_connectome(EXAMPLE)
    ours, other = (paired, fixed) if way == "paired" else (fixed, paired)
    extra = {"samples": X} if way == "paired" else {}
    with pytest.raises(ValueError, match="^opt_state must fit the optimizer: cg_samples must "):
        ours.update(PARAMS, other.init(PARAMS), PARAMS, probe=lambda params, *x: probe(params), **extra)


@pytest.mark.parametrize(
    "others", [{}, {"v": jnp.ones((3, 2)), "more": jnp.ones((3, 3))}], ids=["less", "more"]
)
def test_a_network_that_gained_or_lost_a_matrix_is_told_what_to_do(others):
    """In the middle of a run: which rows of the reading belong to which matrix is no longer known."""
    tx = cgalr_jax.scale_by_connectome(EXAMPLE)
    state = tx.init(PARAMS | {"v": jnp.ones((3, 2))})
    params = PARAMS | others
    with pytest.raises(ValueError, match=r"other layers, parameters, .*, opt_state = tx\.init\(params\)"):
        tx.update(params, state, params, probe=probe)
    updates, _ = tx.update(params, tx.init(params), params, probe=probe)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


@pytest.mark.parametrize("samples", [32, True, 3.5, np.float32(2), (1, 2), {"number": 3}], ids=str)
def test_a_number_of_samples_is_no_example_of_them(samples):
    with pytest.raises(ValueError, match="^samples must be an example of the batches, got "):
        cgalr_jax.scale_by_connectome(EXAMPLE, samples=samples)


def test_numbers_beside_samples_are_samples():
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, samples={"x": X, "temperature": 2.0}, every=1)
    state = tx.init(PARAMS)
    for temperature in (2.0, 3.0):
        samples = {"x": X, "temperature": temperature}
        _, state = tx.update(
            PARAMS,
            state,
            PARAMS,
            probe=lambda params, samples: {"hidden": samples["x"] @ params["w"] / samples["temperature"]},
            samples=samples,
        )
    assert state.cg_samples["temperature"] == 3


@pytest.mark.parametrize("wrong", [np.tanh, lambda x: x if x.sum() > 0 else -x, lambda x: float(x[0, 0]) * x])
@pytest.mark.parametrize("samples", [None, X])
def test_a_probe_of_python_numbers_is_named(wrong, samples):
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, samples=samples)
    extra = {} if samples is None else {"samples": samples}

    @jax.jit
    def step(state):
        return tx.update(
            PARAMS, state, PARAMS, probe=lambda params, *x: {"hidden": wrong(X @ params["w"])}, **extra
        )

    with pytest.raises(ValueError, match="^probe must be a function that JAX can trace"):
        step(tx.init(PARAMS))


def test_units_may_be_chosen_with_jax():
    signal = signals.from_connectomes(
        None, lambda a, b: jnp.max(jnp.abs(a - b)), "pooled", None, 0.1, lambda width: jnp.arange(2)
    )
    state = cgalr_jax.scale_by_connectome(EXAMPLE, signal=signal).init(PARAMS)
    assert state.cg_before["pooled"].shape == (2, 2)


def test_an_early_controller_must_say_how_long():
    controller = controllers.Controller(lambda: (jnp.float32(1), ()), lambda m, state: (1.0, state), early=5)
    with pytest.raises(ValueError, match="^controller.early must be 0 for a state without .* got 5"):
        cgalr_jax.scale_by_connectome(EXAMPLE, controller=controller)


def test_a_state_of_another_release_is_named():
    tx = cgalr_jax.scale_by_connectome(EXAMPLE)
    stored = tx.init(PARAMS)._asdict()
    del stored["cg_moves"]
    with pytest.raises(ValueError, match=r"^stored must have all fields .* without \['cg_moves'\]"):
        cgalr_jax.check_checkpoint(stored, tx.init(PARAMS))


def test_python_numbers_are_averaged():
    average, params = cgalr_jax.polynomial_averaging(eta=0.0), {"w": 1.0, "n": 3}
    state = average.init(params)
    for _ in range(2):
        _, state = average.update({"w": jnp.float32(1), "n": None}, state, params)
        params = {"w": params["w"] + 1.0, "n": 3}
    found = cgalr_jax.averaged_params(state, params)
    assert (found["w"], found["n"]) == (2.5, 3)


def test_shapes_have_no_average():
    with pytest.raises(ValueError, match="^params must be arrays, whose values are averaged, got ShapeDtype"):
        cgalr_jax.polynomial_averaging().init({"w": jax.ShapeDtypeStruct((3,), jnp.float32)})
    jax.eval_shape(cgalr_jax.polynomial_averaging().init, {"w": jax.ShapeDtypeStruct((3,), jnp.float32)})


def test_levelled_runs_outside_of_jit():
    with pytest.raises(ValueError, match="^distances must be known"):
        jax.jit(stopping.levelled)(jnp.ones(20))


@pytest.mark.parametrize("every", [jnp.int32(0), np.array([3, -1])])
def test_no_set_point_for_no_steps(every):
    with pytest.raises(ValueError, match="^every must be at least 1, got "):
        signals.births().set_point_at(every)


def restored(**fields):
    """A state whose inner records a restore has made mappings or lists of."""
    return cgalr_jax.scale_by_connectome(EXAMPLE, every=1).init(PARAMS)._replace(**fields)


STATE = restored()
INNER = STATE.cg_control.controller
RESTORED = {
    "cg_control must be a EnvelopeState": restored(cg_control=STATE.cg_control._asdict()),
    "cg_control must have the structure": restored(
        cg_control=STATE.cg_control._replace(controller=INNER._asdict())
    ),
    "cg_before must have the structure": restored(cg_before=list(STATE.cg_before)),
    "cg_step must be a number, got None": restored(cg_step=None),
    "cg_step must be a number, got an array of shape": restored(cg_step=jnp.zeros(2, jnp.int32)),
    "cg_scale must be a number, got 'a'": restored(cg_scale="a"),
}


@pytest.mark.parametrize("message", RESTORED)
def test_a_state_with_other_records_in_it_is_named(message):
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, every=1)
    with pytest.raises(ValueError, match=rf"^opt_state\.{message}"):
        tx.update(PARAMS, RESTORED[message], PARAMS, probe=probe)


@pytest.mark.parametrize("tx", [cgalr_jax.scale_by_connectome(EXAMPLE), cgalr_jax.polynomial_averaging()])
def test_states_of_several_runs_are_updated_under_vmap(tx):
    runs = jax.tree.map(lambda x: jnp.stack([x, x]), PARAMS)
    states = jax.vmap(tx.init)(runs)
    with pytest.raises(ValueError, match=r"^opt_state\.\w+_step must be a number.*jax\.vmap"):
        jax.jit(tx.update)(PARAMS, states, PARAMS)


@pytest.mark.parametrize("containers", [list, lambda pair: dict(zip("01", pair, strict=True))])
def test_an_average_goes_on_in_other_containers(containers):
    pair = (jnp.ones(2), jnp.zeros(3))
    tx = cgalr_jax.polynomial_averaging()
    state = tx.init(pair)
    _, whole = tx.update(pair, state, pair)
    average = containers(jax.tree.map(np.asarray, state.averaging_params))
    _, again = tx.update(pair, state._replace(averaging_params=average), pair)
    jax.tree.map(np.testing.assert_array_equal, whole, again)


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"w": jnp.ones((2, 4, 3))}, "shapes of params, got an array of shape"),
        ({"w": jnp.ones(3)}, "shapes of params, got an array of shape"),
        ({"v": jnp.ones((4, 3))}, "structure of params, got another"),
    ],
)
def test_updates_of_other_parameters_are_not_averaged(updates, message):
    tx = cgalr_jax.polynomial_averaging()
    with pytest.raises(ValueError, match=f"^updates must have the {message}"):
        tx.update(updates, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("params", [{}, {"steps": jnp.arange(3)}, (None, jnp.tanh)])
def test_the_average_of_nothing_that_trains_is_what_there_is(params):
    tx = optax.chain(optax.identity(), cgalr_jax.polynomial_averaging())
    found = cgalr_jax.averaged_params(tx.init(params), params)
    assert jax.tree.structure(found) == jax.tree.structure(params)
    with pytest.raises(ValueError, match="^opt_state must contain one state of polynomial_averaging, got 0"):
        cgalr_jax.averaged_params(optax.identity().init(params), params)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int8])
def test_a_set_point_for_steps_of_any_width(dtype):
    every = np.array([1, 10, min(2**40, np.iinfo(dtype).max)], dtype)
    found = signals.frobenius(set_point=0.5).set_point_at(every)
    np.testing.assert_allclose(found, [0.05, 0.5, 0.5])
    assert found.dtype == jnp.float32


@pytest.mark.parametrize("way", ["paired", "fixed"])
@pytest.mark.parametrize("shape", [(1, 4), (1, 1, 4)], ids=str)
def test_a_probe_of_one_sample_is_refused(way, shape):
    """Nothing is correlated over one sample: each measurement would be skipped, the scale never rise."""
    x = jnp.ones(shape)
    samples = x if way == "paired" else None
    tx = cgalr_jax.cgalr(0.1, EXAMPLE, samples=samples)
    extra = {"probe": lambda params: {"hidden": x @ params["w"]}}
    if way == "paired":
        extra = {"probe": lambda params, x: {"hidden": x @ params["w"]}, "samples": x}
    with pytest.raises(ValueError, match=r"^probe must return activations of at least 2 samples"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, **extra)


def test_positions_of_one_sample_are_several():
    x = jax.random.normal(jax.random.key(2), (1, 6, 4))
    tx = cgalr_jax.cgalr(0.1, EXAMPLE, every=1)
    state = tx.init(PARAMS)
    for params in (PARAMS, jax.tree.map(lambda w: 1.1 * w + 0.1, PARAMS)):
        _, state = tx.update(PARAMS, state, params, probe=lambda params: {"hidden": x @ params["w"]})
    found = cgalr_jax.metrics(state)
    assert (found["cgalr/measurements"], found["cgalr/skipped"]) == (1, 0)


def test_the_last_batch_of_an_epoch_may_have_one_sample():
    """Given activations: what is read of it, and the comparison with it, are skipped and counted."""
    tx = cgalr_jax.cgalr(0.1, EXAMPLE, every=1)
    state, params = tx.init(PARAMS), PARAMS
    for rows in (16, 16, 1, 16, 16):
        activations = {"hidden": X[:rows] @ params["w"]}
        _, state = tx.update(PARAMS, state, params, activations=activations)
        params = jax.tree.map(lambda w: w + 1e-3 * jnp.sign(w), params)
    found = cgalr_jax.metrics(state)
    assert (found["cgalr/measurements"], found["cgalr/skipped"]) == (2, 2)
