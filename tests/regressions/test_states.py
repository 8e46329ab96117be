"""States are found by what they are, in any tree, whatever a user calls his own things."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import cgalr_jax
from cgalr_jax import state as states
from cgalr_jax.layers import layout_of

EXAMPLE = {"hidden": 6}
W = jnp.ones((4, 6))


def made(params, *after):
    tx = optax.chain(optax.adam(0.1), cgalr_jax.scale_by_connectome(EXAMPLE), *after)
    return tx, tx.init(params)


MISLEADING = {
    "a field of ours": {"cg_scale": W, "v": jnp.ones(3)},
    "two fields of ours": {"cg_step": W, "cg_scale": jnp.ones(3)},
    "all but one": {field: jnp.ones(2) for field in cgalr_jax.ConnectomeState._fields[:5]},
    "our prefix": {"cg_embedding": W, "cgalr": jnp.ones(2)},
    "a branch of our name": {"cg_control": {"cg_scale": W}, "cg_before": [jnp.ones(2)]},
    "the averaging's": {"averaging_params": W},
    "its counter": {"averaging_step": W, "inner": {"cg_distance": jnp.zeros(2)}},
    "hyperparams": {"hyperparams": {"learning_rate": W}},
}


@pytest.mark.parametrize("name", MISLEADING)
def test_parameters_with_names_of_ours_are_not_taken_for_a_state(name):
    params = MISLEADING[name]
    _, state = made(params, cgalr_jax.polynomial_averaging())
    for tree in (state, {"params": params, "opt_state": state}, (params, state), [params, [state]]):
        found = cgalr_jax.metrics(tree)
        np.testing.assert_array_equal(found["cgalr/scale"], state[1].cg_scale)
        assert "cgalr/0/scale" not in found
    cgalr_jax.check_checkpoint({"params": params, "opt_state": state}, state)
    jax.tree.map(np.testing.assert_array_equal, cgalr_jax.averaged_params((params, state), params), params)


def test_parameters_alone_are_no_state():
    for params in MISLEADING.values():
        with pytest.raises(ValueError, match="^opt_state must contain the state of scale_by_connectome"):
            cgalr_jax.metrics(params)


def as_dicts(tree):
    return flax.serialization.msgpack_restore(flax.serialization.to_bytes(tree))


class Net(nnx.Module):
    def __init__(self):
        self.cg_scale = nnx.Linear(4, 6, rngs=nnx.Rngs(0))


def of_nnx():
    optimizer = nnx.Optimizer(
        Net(), optax.chain(optax.sgd(0.1), cgalr_jax.scale_by_connectome(EXAMPLE)), wrt=nnx.Param
    )
    return optimizer, nnx.state(optimizer), nnx.to_pure_dict(nnx.state(optimizer))


@pytest.mark.parametrize("form", range(3), ids=["optimizer", "state", "pure dict"])
def test_states_of_an_nnx_optimizer(form):
    assert float(cgalr_jax.metrics(of_nnx()[form])["cgalr/scale"]) == pytest.approx(0.001)


def test_states_of_what_msgpack_restores():
    params = {"cg_step": W}
    _, state = made(params)
    restored = as_dicts({"params": params, "opt_state": state})
    found, expected = cgalr_jax.metrics(restored), cgalr_jax.metrics(state)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)
    cgalr_jax.check_checkpoint(restored, state)


def test_more_than_ten_states_keep_their_order():
    """The keys of a restored list are texts, and '10' comes before '2'."""
    state = [made({"w": W})[1][1]._replace(cg_scale=jnp.float32(number + 1)) for number in range(12)]
    for tree in (state, as_dicts(state)):
        found = cgalr_jax.metrics(tree)
        assert [float(found[f"cgalr/{number}/scale"]) for number in range(12)] == list(range(1, 13))


# --- averages, by path


def averaged(params):
    tx = cgalr_jax.polynomial_averaging()
    state = tx.init(params)
    return tx.update(jax.tree.map(jnp.zeros_like, params), state, params)[1]


LISTS = {
    "a long list": [jnp.full(2, float(number)) for number in range(12)],
    "a tuple in a dictionary": {"layers": tuple(jnp.full(2, float(number)) for number in range(11))},
    "a list of dictionaries": [
        {"b": jnp.full(2, number + 0.5), "a": jnp.full(2, number * 1.0)} for number in range(11)
    ],
    "a bare array": jnp.arange(3.0),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_restored_average_is_matched_by_path(name):
    params = LISTS[name]
    for state in (averaged(params), as_dicts(averaged(params))):
        found = cgalr_jax.averaged_params(state, params)
        jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"w": W, "more": W}, "params must be those .*got 'more'"),
        ({"other": W}, "params must be those .*got 'other'"),
        ({}, r"params must be those .*got none of \['w'\]"),
        (None, r"params must be those .*got none of \['w'\]"),
        ({"w": W.T}, r"params must have the shapes .*\(4, 6\) for 'w', got \(6, 4\)"),
    ],
    ids=["one more", "another", "none", "nothing", "transposed"],
)
def test_an_average_of_other_parameters_is_refused(other, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        cgalr_jax.averaged_params(averaged({"w": W}), other)


# --- names of layers


@pytest.mark.parametrize(
    ("example", "name"),
    [
        ({"a/b": 4, "a": {"b": 5}}, "a/b"),
        ({"a": {"b": {"c": 3}}, "a/b": {"c": 3}}, "a/b/c"),
        ({"0": [3, 4], "0/1": 5}, "0/1"),
    ],
    ids=["a slash", "deeper", "a list"],
)
def test_layers_whose_names_collide_are_refused(example, name):
    with pytest.raises(
        ValueError, match=rf"^example must have a different name for each layer, got \['{name}'\] twice"
    ):
        layout_of(example, 256)


def test_a_number_and_its_text_as_names_are_refused_by_jax():
    with pytest.raises(ValueError, match="sorting pytree dictionary keys"):
        layout_of({1: 3, "1": 4}, 256)


def test_a_probe_whose_layers_collide_is_refused():
    tx = cgalr_jax.scale_by_connectome({"a": {"b": 3}})
    activations = {"a": {"b": jnp.ones((4, 3))}, "a/b": jnp.ones((4, 3))}
    with pytest.raises(ValueError, match="^activations must have a different name"):
        tx.update({}, tx.init({}), {}, activations=activations)


def test_names_that_only_look_alike_stay_apart():
    found = layout_of({"a": {"b": 3}, "ab": 4, "a.b": 5, "": 6}, 256)
    assert sorted(found.widths.values()) == [3, 4, 5, 6]


# --- counters, after 2^31


def test_counters_stop_at_the_largest_integer():
    largest = jnp.int32(2**31 - 1)
    tx = cgalr_jax.scale_by_connectome(EXAMPLE, every=1, controller=cgalr_jax.hysteresis_gate(window=7))
    x = jax.random.normal(jax.random.key(0), (16, 6))
    state, update = tx.init({"w": W}), jax.jit(tx.update)
    for factor in range(9):
        _, state = update({"w": W}, state, {"w": W * (1 + factor)}, activations={"hidden": x**factor + x})
    gate = state.cg_control.controller
    ring = gate._replace(measurements=largest)
    old = state._replace(
        cg_step=largest,
        cg_measurements=largest,
        cg_skipped=largest,
        cg_control=state.cg_control._replace(refused=largest, controller=ring),
    )
    bad, places = jnp.full((16, 6), jnp.nan), []
    for number in range(10):
        activations = bad if number == 4 else x ** (number % 3) + x
        before = old.cg_control.controller.history
        _, old = update({"w": W}, old, {"w": W * (1 + number)}, activations={"hidden": activations})
        places += np.flatnonzero(before != old.cg_control.controller.history).tolist()
        for field in ("cg_step", "cg_measurements", "cg_skipped"):
            assert getattr(old, field) == largest, field
        assert 0 < old.cg_control.controller.measurements <= largest
        assert 0 < old.cg_scale < jnp.inf
    start = int(largest) % 7
    assert places == [(start + turn) % 7 for turn in range(9)]  # the ring goes on where it was


def test_refusals_are_counted_to_the_largest_integer():
    largest = jnp.int32(2**31 - 1)
    wild = cgalr_jax.Controller(
        lambda: (jnp.float32(1), jnp.float32(0)), lambda measurement, state: (jnp.float32(jnp.nan), state)
    )
    controller = cgalr_jax.controllers.envelope(wild)
    measurement = cgalr_jax.Measurement(jnp.float32(1), jnp.int32(1))
    for refused in (largest - 1, largest):
        scale, state = controller.update(measurement, controller.init()[1]._replace(refused=refused))
        assert (float(scale), int(state.refused)) == (1.0, int(largest))


COUNTERS = ("counted", "suspects", "cuts", "stills", "annealed", "refused")


@pytest.mark.parametrize("phase", [0, 1], ids=["calibrating", "annealing"])
@pytest.mark.parametrize(
    "measurement",
    [
        cgalr_jax.Measurement(jnp.float32(0.1), jnp.int32(9)),
        cgalr_jax.Measurement(jnp.float32(0.1), jnp.int32(9), cut=jnp.float32(1)),
        cgalr_jax.Measurement(jnp.float32(0), jnp.int32(9)),
        cgalr_jax.Measurement(jnp.float32(1e4), jnp.int32(9)),
    ],
    ids=["ordinary", "cut", "at rest", "a jump"],
)
def test_the_counters_of_a_calibration_stop_at_the_largest_integer(measurement, phase):
    largest = jnp.int32(2**31 - 1)
    controller = cgalr_jax.controllers.calibrated(lambda step: jnp.where(step < 9, 1.0, jnp.nan))
    _, state = controller.init()
    for step in range(4):  # the schedule is refused from the ninth step on
        _, state = controller.update(cgalr_jax.Measurement(jnp.float32(0.1), jnp.int32(step)), state)
    state = state._replace(
        **dict.fromkeys(COUNTERS, largest), phase=jnp.int32(phase), suspect=state.sensitivity + 11.5
    )
    for _ in range(3):
        scale, after = controller.update(measurement, state)
        assert 0 < scale < jnp.inf
        for counter in COUNTERS:
            assert 0 <= getattr(after, counter) <= largest, counter
        state = after._replace(**dict.fromkeys(COUNTERS, largest))


def test_the_average_goes_on_after_the_largest_integer():
    params = {"w": W}
    tx = cgalr_jax.polynomial_averaging()
    state = tx.init(params)._replace(averaging_step=jnp.int32(2**31 - 1))
    _, state = tx.update(params, state, params)
    assert state.averaging_step == 2**31 - 1
    np.testing.assert_allclose(state.averaging_params["w"], W, rtol=1e-6)


def test_find_states_wants_all_fields():
    assert states.find_states({"cg_step": 1, "cg_scale": 2}, ("cg_step", "cg_scale", "cg_valid")) == []
