"""Parameters of any type, in any tree: works as the bare optimizer does, or ends in our ValueError."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from light import ECHO, PLAIN

import cgalr_jax
from cgalr_jax import capture, signals

X = jax.random.normal(jax.random.key(0), (32, 4))
Y = jnp.sin(X.sum(axis=1))
EXAMPLE = {"hidden": 8}
PARAMS = {"w": jax.random.normal(jax.random.key(1), (4, 8)) / 2, "v": jnp.full(8, 0.1)}


def hidden(params, x=X):
    return {"hidden": x @ params["w"].astype(x.dtype)}


def loss(params, x=X, y=Y):
    output = jnp.tanh(hidden(params, x)["hidden"]) @ params["v"].astype(x.dtype)
    return jnp.mean((output - y.astype(x.dtype)) ** 2)


def block(**options):
    return cgalr_jax.scale_by_connectome(EXAMPLE, **{"every": 3, **PLAIN, **options})


def train(params, *, tx=None, probe=hidden, objective=loss, steps=7):
    """Seven steps under jit: two measurements. Returns the parameters, the state and the last updates."""
    tx = optax.chain(optax.sgd(0.1), block()) if tx is None else tx
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(objective)(params), state, params, probe=probe)
        return optax.apply_updates(params, updates), state, updates

    for _ in range(steps):
        params, state, updates = step(params, state)
    assert int(cgalr_jax.metrics(state)["cgalr/measurements"]) == 2
    assert float(cgalr_jax.metrics(state)["cgalr/scale"]) > 0
    return params, state, updates


def cast(dtype, params=PARAMS):
    return jax.tree.map(lambda x: x.astype(dtype), params)


# --- dtypes


# The hybrid reads both a connectome and parameters: the others are slow.
OTHERS = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("frobenius", "births", "deaths", "barcode", "update_norm")
]


@pytest.mark.parametrize("signal", ["hybrid", *OTHERS])
def test_every_signal_measures_under_x64(signal):
    with jax.enable_x64(True):
        x, y = X.astype(jnp.float64), Y.astype(jnp.float64)
        params = cast(jnp.float64)
        controller = None if signal == "hybrid" else ECHO  # the block as it is used, and its other signals
        ours = block(signal=getattr(signals, signal)(), controller=controller)
        tx = optax.chain(optax.sgd(0.1), ours)
        after, state, updates = train(
            params, tx=tx, probe=lambda p: hidden(p, x), objective=lambda p: loss(p, x, y)
        )
        assert {x.dtype for x in jax.tree.leaves((after, updates))} == {jnp.dtype(jnp.float64)}
        kinds = {x.dtype for x in jax.tree.leaves(state)}
        assert kinds <= {jnp.dtype(kind) for kind in (jnp.float32, jnp.int32, jnp.bool_)}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_parameters_under_strict_promotion(dtype):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        x = X.astype(dtype)
        after, _, updates = train(
            cast(dtype), probe=lambda p: hidden(p, x), objective=lambda p: loss(p, x, Y.astype(dtype))
        )
    assert {x.dtype for x in jax.tree.leaves((after, updates))} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, pytest.param(jnp.float8_e5m2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "strict", [pytest.param(False, marks=pytest.mark.slow), True], ids=["standard", "strict"]
)
def test_updates_of_eight_bits(dtype, strict):
    params = {"w": jnp.full((4, 8), 64, dtype)}
    with jax.numpy_dtype_promotion("strict" if strict else "standard"):
        tx = block(every=1, signal=signals.frobenius(), controller=None)
        update = jax.jit(functools.partial(tx.update, probe=lambda p: {"hidden": X @ PARAMS["w"]}))
        updates, state = update(params, tx.init(params), params)
    assert updates["w"].dtype == dtype
    expected = 64 * np.float32(cgalr_jax.metrics(state)["cgalr/scale"])
    np.testing.assert_allclose(updates["w"].astype(jnp.float32), expected, rtol=0.2)


@pytest.mark.parametrize("share", ["all", "some"])
def test_complex_parameters_keep_their_imaginary_part(share):
    turned = {"z": (PARAMS["w"] * (1 + 0.5j)).astype(jnp.complex64)}
    params = turned if share == "all" else {**turned, "v": PARAMS["v"]}

    def probe(params):
        return {"hidden": jnp.abs(X @ params["z"])}

    def objective(params):
        return jnp.mean((probe(params)["hidden"].mean(axis=1) + params.get("v", jnp.ones(1))[0] - Y) ** 2)

    after, _, updates = train(params, probe=probe, objective=objective)
    assert updates["z"].dtype == after["z"].dtype == jnp.complex64
    assert jnp.any(updates["z"].imag != 0)


def test_the_update_norm_of_complex_parameters_is_that_of_their_two_parts():
    signal = signals.update_norm()
    before = {"z": jnp.array([3 + 4j, 1j], jnp.complex64)}
    after = {"z": before["z"] * 1.1j / 1j}
    turned = {"z": before["z"] * 1j}
    read = functools.partial(signal.read, {})
    np.testing.assert_allclose(signal.compare(read(before), read(after)), 0.1, rtol=1e-4)
    assert signal.compare(read(before), read(turned)) > 1  # of the same size, and yet elsewhere


# --- leaves


TREES = {
    "empty": {},
    "nothing but None": {"a": None},
    "integers": {"steps": jnp.arange(3)},
    "no entries": {"w": jnp.zeros((0, 4))},
    "truth values": {"mask": jnp.ones(3, jnp.bool_)},
    "a tuple of nothing": ((), [], {}),
}


@pytest.mark.parametrize("tree", TREES)
def test_trees_without_a_real_number(tree):
    params = TREES[tree]
    tx = block(every=1)
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params, probe=lambda _: hidden(PARAMS))
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert np.isfinite(cgalr_jax.metrics(state)["cgalr/scale"])


@pytest.mark.parametrize("paired", [False, True], ids=["fixed", "paired"])
@pytest.mark.parametrize("wrapper", ["masked", "partition", "flatten"])
def test_a_probe_of_parameters_that_a_wrapper_takes_away(wrapper, paired):
    """The same probe as outside of the wrapper ends in an error that says what to write instead."""
    ours = block(samples=X if paired else None)
    if wrapper == "masked":
        tx = optax.masked(ours, {"w": False, "v": True})
    elif wrapper == "flatten":
        tx = optax.flatten(ours)
    else:
        tx = optax.partition({"ours": ours, "other": optax.set_to_zero()}, {"w": "other", "v": "ours"})
    samples = {"samples": X} if paired else {}
    error = "TypeError" if wrapper == "flatten" else "AttributeError"
    written = rf"probe=lambda part(, samples)?: probe\(params(, samples)?\).*{error}"
    with pytest.raises(ValueError, match=f"optax.{wrapper}.*{written}"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, probe=hidden, **samples)

    def bound(part, *samples):
        return hidden(PARAMS, *samples)

    tx.update(PARAMS, tx.init(PARAMS), PARAMS, probe=bound, **samples)


def test_a_linen_probe_of_parameters_that_a_mask_leaves_out():
    """Flax has an exception of its own for a parameter that is not there."""
    net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
    params = net.init(jax.random.key(0), X)["params"]
    tx = optax.masked(
        cgalr_jax.scale_by_connectome(capture.example(net, params, X)), {"layers_0": True, "layers_2": False}
    )
    with pytest.raises(ValueError, match=r"optax.masked.*ScopeParamNotFoundError"):
        tx.update(params, tx.init(params), params, probe=capture.linen_probe(net, samples=X))


def test_a_probe_that_fails_without_a_mask_keeps_its_error():
    tx = block()
    with pytest.raises(KeyError, match="missing"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, probe=lambda params: {"hidden": params["missing"]})


@pytest.mark.parametrize("empty", ["train", "frozen"])
def test_a_group_of_a_partition_without_parameters(empty):
    tx = optax.partition(
        {"train": optax.chain(optax.adam(0.1), block()), "frozen": optax.set_to_zero()},
        jax.tree.map(lambda _: "frozen" if empty == "train" else "train", PARAMS),
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, probe=lambda _: hidden(PARAMS))
    assert all(np.isfinite(update).all() for update in jax.tree.leaves(updates))


@pytest.mark.parametrize("start", [100.0, np.float32(100), jnp.float32(100)])
def test_a_parameter_that_is_a_number(start):
    tx = optax.chain(optax.sgd(0.1), block(signal=signals.update_norm()))
    params, state = start, tx.init(start)
    for _ in range(7):
        updates, state = tx.update(2 * params, state, params)
        params = optax.apply_updates(params, updates)
    assert float(params) < 100
    assert int(cgalr_jax.metrics(state)["cgalr/measurements"]) == 2


def test_a_tree_with_functions_and_names_in_it():
    params = {**PARAMS, "activation": jnp.tanh, "name": "first"}
    tx = block(every=1)
    grads = {**PARAMS, "activation": None, "name": None}
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(grads, state, params, probe=hidden)
    assert updates["activation"] is None
    assert updates["name"] is None
    assert int(cgalr_jax.metrics(state)["cgalr/measurements"]) == 1


@pytest.mark.parametrize(
    "leaf",
    [np.array(["a", "b"]), np.array([None]), np.datetime64("2026-01-01"), np.zeros(2, [("a", "f4")])],
    ids=["names", "objects", "a date", "records"],
)
def test_arrays_of_numpy_that_are_no_numbers_are_left_as_they_are(leaf):
    params, grads = {**PARAMS, "other": leaf}, {**PARAMS, "other": None}
    tx = optax.chain(block(every=1), cgalr_jax.polynomial_averaging())
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(grads, state, params, probe=hidden)
    assert updates["other"] is None
    assert cgalr_jax.averaged_params(state, params)["other"] is leaf
    assert block().update(params, block().init(params), params, probe=hidden)[0]["other"] is leaf


@pytest.mark.parametrize("gradient", ["key", "float0", None])
def test_a_random_key_among_the_parameters_is_left_as_it_is(gradient):
    key = jax.random.key(0)
    params = {**PARAMS, "key": key}
    grads = {**PARAMS, "key": {"key": key, "float0": np.zeros((), jax.dtypes.float0), None: None}[gradient]}
    tx = optax.chain(block(every=1), cgalr_jax.polynomial_averaging())
    updates, state = jax.jit(lambda: tx.update(grads, tx.init(params), params, probe=hidden))()
    assert updates["key"] is None or updates["key"].dtype == grads["key"].dtype
    assert updates["w"].dtype == PARAMS["w"].dtype
    assert cgalr_jax.averaged_params(state, params)["key"] is key


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float8_e5m2", "float64", "complex64"])
def test_an_average_is_wide_enough_under_strict_promotion(dtype, strict):
    with jax.enable_x64(True):
        params = {"w": jnp.ones((3, 2), dtype)}
        tx = cgalr_jax.polynomial_averaging()
        _, state = tx.update(params, tx.init(params), params)
        wide = dtype if dtype in ("float64", "complex64") else "float32"
        assert state.averaging_params["w"].dtype == wide
        assert cgalr_jax.averaged_params(state, params)["w"].dtype == dtype


@pytest.mark.parametrize(
    ("whole", "averaging"),
    [
        (False, False),
        (True, True),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((False, True), (True, False))),
    ],
)
def test_an_equinox_model(whole, averaging):
    model = eqx.nn.MLP(4, "scalar", 8, 1, key=jax.random.key(2))
    last = [cgalr_jax.polynomial_averaging()] if averaging else []
    tx = optax.chain(optax.adamw(1e-2), block(), *last)
    state = tx.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state):
        value, grads = eqx.filter_value_and_grad(lambda m: jnp.mean((jax.vmap(m)(X) - Y) ** 2))(model)
        params = model if whole else eqx.filter(model, eqx.is_array)
        probe = lambda m: {"hidden": jax.vmap(m.layers[0])(X)}  # noqa: E731
        updates, state = tx.update(grads, state, params, probe=probe)
        return eqx.apply_updates(model, updates), state, value

    for _ in range(7):
        model, state, value = step(model, state)
    assert np.isfinite(value)
    assert int(cgalr_jax.metrics(state)["cgalr/measurements"]) == 2
    if averaging:
        averaged = cgalr_jax.averaged_params(state, model)
        assert averaged.activation is model.activation
        assert np.isfinite(jax.vmap(averaged)(X)).all()


# --- tools that Optax and strangers use on them


@pytest.mark.parametrize("signal", ["hybrid", "frobenius", "births", "update_norm"])
@pytest.mark.parametrize("samples", [None, X], ids=["fixed", "paired"])
def test_map_params_tells_parameters_from_our_state(signal, samples):
    tx = optax.chain(optax.adam(0.1), block(signal=getattr(signals, signal)(), samples=samples))
    found = optax.tree.map_params(
        tx, lambda _: "param", tx.init(PARAMS), transform_non_params=lambda _: "other"
    )
    assert found[0][0].mu == {"w": "param", "v": "param"}
    assert set(jax.tree.leaves(found[1])) == {"other"}


def test_map_params_of_an_average():
    tx = optax.chain(optax.sgd(0.1), cgalr_jax.polynomial_averaging())
    found = optax.tree.map_params(
        tx, lambda _: "param", tx.init(PARAMS), transform_non_params=lambda _: "other"
    )
    assert found[-1].averaging_params == {"w": "param", "v": "param"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_finder_meets_narrow_parameters(dtype):
    def careless(params, rate):
        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

    def careful(params, rate):
        return jax.tree.map(lambda p, q: q.astype(p.dtype), params, careless(params, rate))

    with pytest.raises(ValueError, match=rf"^step must keep the shapes and dtypes.*{dtype}"):
        cgalr_jax.find_learning_rate(careless, cast(dtype), hidden)
    assert (
        cgalr_jax.find_learning_rate(careful, cast(dtype), hidden, signal=signals.relative_update()).rate > 0
    )


def test_inject_hyperparams_of_the_factory_itself():
    tx = optax.inject_hyperparams(cgalr_jax.cgalr, static_args=("every", "max_units"))(
        learning_rate=0.1, example=EXAMPLE, every=3
    )
    _, state, _ = train(PARAMS, tx=tx)
    found = cgalr_jax.metrics(state)
    np.testing.assert_allclose(found["cgalr/learning_rate"], 0.1 * found["cgalr/scale"], rtol=1e-6)


def test_inject_hyperparams_says_what_it_must_not_inject():
    injected = optax.inject_hyperparams(cgalr_jax.cgalr)(learning_rate=0.1, example=EXAMPLE)
    with pytest.raises(
        ValueError, match=r"^(every|max_units) must be static, .*inject_hyperparams.*static_args"
    ):
        train(PARAMS, tx=injected)
