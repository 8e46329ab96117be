"""The contract with Optax: one table of constructions, run through one list of laws.

A construction says how the transformation stands in an optimizer, and which extra arguments it takes there.
The places where it cannot stand have their own tests at the end: they end in our error, or in a line that
helps. `docs/compatibility.md` is this file as a table.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from light import ECHO, LIGHT, PLAIN

import cgalr_jax
from cgalr_jax import signals
from cgalr_jax.averaging import AveragingState

X = jax.random.normal(jax.random.key(0), (24, 5))
EXAMPLE = {"hidden": 8, "second": 6}
STEPS = 7


def init_params(seed=0, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = {"w": (5, 8), "v": (8, 6), "out": (6,)}
    return {
        name: (jax.random.normal(key, shape) / 3).astype(dtype)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def forward(params, x):
    hidden = x @ params["w"].astype(jnp.float32)
    second = jnp.tanh(hidden) @ params["v"].astype(jnp.float32)
    return {"hidden": hidden, "second": second}


def loss(params, x):
    output = jnp.tanh(forward(params, x)["second"]) @ params["out"].astype(jnp.float32)
    return jnp.mean((output - jnp.sin(x[:, 0])) ** 2)


def paired(params, x):
    return {"probe": forward, "samples": x[:16]}


def fixed(params, x):
    return {"probe": lambda params: forward(params, X[:16])}


def given(params, x):
    return {"activations": forward(params, x)}


def bound(params, x):
    """The probe holds the parameters, where the transformation sees a part of them or another form."""
    return {"probe": lambda part: forward(params, X[:16])}


def nothing(params, x):
    return {}


def block(**kwargs):
    kwargs = {"every": 2, **PLAIN, **kwargs}
    return cgalr_jax.scale_by_connectome(EXAMPLE, **kwargs)


def in_pairs(**kwargs):
    return block(samples=X[:16], **kwargs)


def sgd(*after):
    return optax.chain(optax.sgd(0.1, momentum=0.9), *after)


class Construction(NamedTuple):
    """An optimizer with the transformation in it, and the extra arguments of its update."""

    make: Callable[[], Any]
    extra: Callable[[Any, Any], dict[str, Any]] = fixed
    # Laws that a wrapper of Optax breaks by itself, and why.
    breaks: tuple[str, ...] = ()


def value(extra):
    """Adds the loss, which some of Optax's own wrappers ask for."""
    return lambda params, x: {**extra(params, x), "value": loss(params, x)}


def groups(params):
    return {"w": "ours", "v": "ours", "out": "other"}


def with_schedule():
    schedule = cgalr_jax.connectome_schedule(0.1, EXAMPLE, every=2)
    return optax.inject_hyperparams(optax.sgd)(learning_rate=schedule)


def as_extra_args(tx):
    """The one line for whatever Optax returns without extra arguments."""
    return optax.GradientTransformationExtraArgs(tx.init, tx.update)


def without_extra_args(tx):
    """The one line for whatever Optax refuses extra arguments in."""
    return optax.GradientTransformationExtraArgs(tx.init, lambda u, s, p=None, **_: tx.update(u, s, p))


CONSTRUCTIONS = {
    "alone, paired": Construction(lambda: in_pairs(signal=None, controller=None), paired),
    "alone, fixed probe": Construction(block),
    "alone, activations": Construction(block, given),
    "births": Construction(lambda: block(signal=signals.births())),
    "update norm": Construction(lambda: block(signal=signals.update_norm()), nothing),
    "the paper's gate in an envelope": Construction(
        lambda: block(
            controller=cgalr_jax.controllers.envelope(
                cgalr_jax.hysteresis_gate(), cgalr_jax.robbins_monro_bounds(1e-4, 0.01, tau=20.0)
            )
        )
    ),
    "sub-sampled units": Construction(lambda: block(max_units=4)),
    "cgalr": Construction(lambda: cgalr_jax.cgalr(0.1, EXAMPLE, samples=X[:16], every=2), paired),
    "cgalr of adam": Construction(
        lambda: cgalr_jax.cgalr(0.1, EXAMPLE, every=2, optimizer=optax.adam, **PLAIN)
    ),
    # A schedule's rate is a float32 array, which promotes the updates.
    "schedule": Construction(with_schedule, given, breaks=("keeps dtypes",)),
    "after adam": Construction(lambda: optax.chain(optax.adam(0.1), in_pairs()), paired),
    "beside the average": Construction(lambda: sgd(block(), cgalr_jax.polynomial_averaging())),
    "nested chain": Construction(lambda: optax.chain(optax.chain(optax.sgd(0.1), block()), optax.identity())),
    "named chain": Construction(lambda: optax.named_chain(("sgd", optax.sgd(0.1)), ("cgalr", block()))),
    "two instances": Construction(lambda: sgd(block(), block(every=3, signal=signals.frobenius()))),
    "inject_hyperparams": Construction(
        lambda: optax.inject_hyperparams(
            lambda learning_rate, target: optax.chain(
                optax.sgd(learning_rate), block(controller=cgalr_jax.calibrated(target=target))
            )
        )(learning_rate=0.1, target=0.8)
    ),
    "inject_hyperparams of cgalr": Construction(
        lambda: optax.inject_hyperparams(
            lambda learning_rate: cgalr_jax.cgalr(learning_rate, EXAMPLE, every=2, **PLAIN)
        )(learning_rate=0.1)
    ),
    "masked": Construction(lambda: optax.masked(sgd(block()), {"w": True, "v": True, "out": False}), bound),
    "partition": Construction(
        lambda: optax.partition({"ours": sgd(block()), "other": optax.sgd(0.1)}, groups), bound
    ),
    "apply_if_finite": Construction(
        lambda: optax.apply_if_finite(sgd(in_pairs()), 3),
        paired,
        breaks=("stable in a cond",),  # Optax: gradients must have the dtype of the updates
    ),
    "conditionally_transform": Construction(
        lambda: optax.chain(optax.sgd(0.1), optax.conditionally_transform(block(), lambda step: step >= 2))
    ),
    "in conditionally_mask": Construction(
        lambda: optax.conditionally_mask(sgd(in_pairs()), lambda step: step >= 2),
        paired,
        breaks=("stable in a cond",),  # Optax: gradients must have the dtype of the updates
    ),
    "flatten": Construction(lambda: optax.flatten(sgd(block())), bound),
    "outside of flatten": Construction(
        lambda: optax.chain(optax.flatten(optax.sgd(0.1)), in_pairs()), paired
    ),
    "MultiSteps outermost": Construction(
        lambda: as_extra_args(optax.MultiSteps(sgd(in_pairs()), every_k_schedule=2)), paired
    ),
    "after MultiSteps": Construction(
        lambda: optax.chain(as_extra_args(optax.MultiSteps(optax.sgd(0.1), 2)), block(every=4))
    ),
    "in schedule_free": Construction(
        lambda: optax.contrib.schedule_free(optax.chain(optax.sgd(0.1), in_pairs()), 0.1, b1=0.9),
        paired,
        breaks=("keeps dtypes",),  # Optax: z is float32 whatever the parameters
    ),
    "in mechanize": Construction(
        lambda: optax.contrib.mechanize(optax.chain(optax.sgd(0.1), in_pairs()), s_init=1.0),
        paired,
        # Optax: its updates are promoted to float32, and its state shares buffers.
        breaks=("keeps dtypes", "stable in a cond", "donation"),
    ),
    "beside reduce_on_plateau": Construction(
        lambda: sgd(in_pairs(), optax.contrib.reduce_on_plateau(patience=2)), value(paired)
    ),
    "before sam": Construction(
        lambda: optax.chain(
            block(), without_extra_args(optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01), sync_period=2))
        ),
        breaks=("keeps dtypes", "donation"),  # Optax: promoted to float32; its state shares buffers
    ),
}


# With samples and with activations, in a chain and in a schedule, twice and under a wrapper: the laws that
# compile anew are asked of the others by the slow run.
QUICK = ("alone, paired", "schedule", "two instances", "MultiSteps outermost")


def constructions(law, quick=tuple(CONSTRUCTIONS)):
    """The constructions a law is asked of; those that are not `quick` only by the slow run."""
    return pytest.mark.parametrize(
        "name",
        [
            pytest.param(name, marks=() if name in quick else pytest.mark.slow)
            for name, construction in CONSTRUCTIONS.items()
            if law not in construction.breaks
        ],
    )


@functools.cache
def build(name):
    """The optimizer, a training step, and the step compiled: once for all laws."""
    construction = CONSTRUCTIONS[name]
    tx = construction.make()
    traces = []

    def step(params, state, x, **more):
        grads = jax.grad(loss)(params, x)
        updates, state = tx.update(grads, state, params, **construction.extra(params, x), **more)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def compiled(params, state, x):
        traces.append(None)  # which a law that traces `step` does not
        return step(params, state, x)

    return tx, step, compiled, traces


@functools.cache
def trained(name):
    """The parameters and the state after some steps, compiled step by step."""
    tx, _, compiled, traces = build(name)
    params = init_params()
    state = tx.init(params)
    for _ in range(STEPS):
        params, state = compiled(params, state, X)
    return params, state, len(traces)


def assert_equal(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **(tolerance or {"rtol": 0})),
        jax.device_get(found),
        jax.device_get(expected),
    )


def shapes(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x), jax.typeof(x).weak_type), tree)


# Each of them has a like that is quick; and all are quick in the laws that ask for shapes only.
LIKE_ANOTHER = (
    "alone, fixed probe",
    "births",
    "sub-sampled units",
    "cgalr",
    "cgalr of adam",
    "nested chain",
    "named chain",
    "inject_hyperparams of cgalr",
    "partition",
    "outside of flatten",
    "beside reduce_on_plateau",
    "in schedule_free",
    "in mechanize",
    "flatten",
)


@constructions("trains", quick=CONSTRUCTIONS.keys() - LIKE_ANOTHER)
def test_trains_in_one_compilation_and_measures(name):
    _, state, compilations = trained(name)
    assert compilations == 1
    for key, value in cgalr_jax.metrics(state).items():
        assert np.isfinite(value), key
        if key.endswith("measurements"):
            assert int(value) >= 1, key
        if key.endswith(("scale", "distance")):
            assert float(value) > 0, key


# Slow, since each operation is compiled by itself. Controllers, spanning trees and a light run without jit
# are asked in `controllers/test_base.py`, `topology/` and `test_cadence.py`.
@constructions("jit is eager", quick=())
def test_jit_is_eager(name):
    tx, step, compiled, _ = build(name)
    params = init_params()
    eager = found = params, tx.init(params)
    for _ in range(3):
        found = compiled(*found, X)
        with jax.disable_jit():
            eager = step(*eager, X)
    # The logarithm of a distance of 1e-6, in the state of a controller, differs by its rounding.
    logarithms = ("sensitivities", "sensitivity", "suspect", "recent", "usual", "record", "history", "z")
    logarithms += ("record_scale",)  # that of the largest of them

    def close(path, one, other):
        name = getattr(path[-1], "name", "") if path else ""
        atol = 0.1 if name in logarithms else 1e-5
        np.testing.assert_allclose(one, other, rtol=5e-3, atol=atol, err_msg=str(path))

    jax.tree_util.tree_map_with_path(close, found, eager)


@constructions("ignores")
def test_unknown_extra_arguments_are_ignored(name):
    tx, step, _, _ = build(name)
    params = init_params()
    carry = params, jax.eval_shape(tx.init, params), X
    with_more = jax.make_jaxpr(lambda *carry: step(*carry, unknown=jnp.ones(3), other=None))(*carry)
    assert with_more.out_avals == jax.make_jaxpr(step)(*carry).out_avals


@constructions("stable in a scan", quick=QUICK[::2])
def test_the_state_is_stable_in_a_scan(name):
    tx, step, _, _ = build(name)
    params = init_params()
    carry = params, tx.init(params)
    after, _ = jax.jit(lambda carry: jax.lax.scan(lambda c, _: (step(*c, X), None), carry, length=STEPS))(
        carry
    )
    assert shapes(after) == shapes(carry)
    assert_equal(after, trained(name)[:2], rtol=1e-3, atol=1e-5)


# Arguments of another dtype than the parameters, whose dtype is, for most, any other by the slow run only.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if quick else pytest.mark.slow)
        for name, construction in CONSTRUCTIONS.items()
        if "stable in a cond" not in construction.breaks
        for dtype in ("float32", "float16", "bfloat16", "float64")
        for quick in [dtype == "float32" or name in (*QUICK[:2], "beside the average")]
    ],
)
def test_the_state_is_stable_in_a_cond_whatever_the_dtypes_of_the_arguments(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        tx = CONSTRUCTIONS[name].make()
        params = init_params(dtype=dtype)
        state = tx.init(params)

        def update(state):
            narrow = jnp.bfloat16 if dtype == "float16" else jnp.float16
            extra = CONSTRUCTIONS[name].extra(params, X.astype(narrow))
            grads = jax.tree.map(lambda p: p.astype(narrow), params)
            return ours(tx.update(grads, state, params, **extra)[1])

        after = jax.eval_shape(lambda go: jax.lax.cond(go, update, ours, state), True)
        assert shapes_of(after) == shapes_of(ours(state))


def ours(state):
    """Our parts of a state, however deep: at least one."""

    def is_ours(x):
        return isinstance(x, (cgalr_jax.ConnectomeState, AveragingState))

    found = [leaf for leaf in jax.tree.leaves(state, is_leaf=is_ours) if is_ours(leaf)]
    assert found
    return found


# Optax: these bring all leaves to one dtype.
ONE_DTYPE = (
    "inject_hyperparams",
    "inject_hyperparams of cgalr",
    "flatten",
    "outside of flatten",
    "beside reduce_on_plateau",
)


# All three dtypes in one tree, where Optax lets it; each by itself is slow.
@pytest.mark.parametrize(
    ("name", "dtypes"),
    [
        pytest.param(name, dtypes, marks=() if quick else pytest.mark.slow)
        for name, construction in CONSTRUCTIONS.items()
        if "keeps dtypes" not in construction.breaks
        for dtypes in ("bfloat16", "float16", "mixed")
        for quick in [dtypes == ("bfloat16" if name in ONE_DTYPE else "mixed")]
    ],
)
def test_updates_keep_the_dtypes_of_the_parameters(name, dtypes):
    mixed = ["float32"] * 3 if name in ONE_DTYPE else ["float32", "bfloat16", "float16"]
    names = mixed if dtypes == "mixed" else [dtypes] * 3
    params = init_params()
    params = {key: params[key].astype(dtype) for key, dtype in zip(params, names, strict=True)}
    tx, *_ = build(name)

    def update(params):
        grads = jax.grad(loss)(params, X)
        return tx.update(grads, tx.init(params), params, **CONSTRUCTIONS[name].extra(params, X))[0]

    assert shapes_of(jax.eval_shape(update, params)) == shapes_of(params)


def shapes_of(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@constructions("donation", quick=QUICK[1::2])
def test_donation(name):
    tx, step, _, _ = build(name)
    donating = jax.jit(step, donate_argnums=(0, 1))
    ends = []
    for _ in range(2):  # twice: nothing of the first run is kept outside of its state
        params = init_params()
        state = tx.init(params)
        for _ in range(STEPS):
            params, state = donating(params, state, X)
        ends.append((params, state))
    assert_equal(ends[1], ends[0])
    assert_equal(ends[0], trained(name)[:2], rtol=1e-5, atol=1e-6)


@constructions("vmap", quick=())
def test_vmap_over_seeds(name):
    tx, step, compiled, _ = build(name)
    seeds = [init_params(seed) for seed in range(3)]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    state = jax.vmap(tx.init)(params)
    vmapped = jax.jit(jax.vmap(step, in_axes=(0, 0, None)))
    one, its_state = seeds[1], tx.init(seeds[1])
    for _ in range(STEPS):
        params, state = vmapped(params, state, X)
        one, its_state = compiled(one, its_state, X)
    distances = next(v for key, v in cgalr_jax.metrics(state).items() if key.endswith("distance"))
    assert len(np.unique(distances)) == 3
    assert_equal(jax.tree.map(lambda x: x[1], (params, state)), (one, its_state), rtol=2e-3, atol=1e-4)


# The default controller under vmap is in the schedule above.
@pytest.mark.parametrize(
    "controller", [ECHO, pytest.param(None, marks=pytest.mark.slow)], ids=["echo", "default"]
)
def test_vmap_over_learning_rates(controller):
    def run(rate):
        tx = cgalr_jax.cgalr(rate, EXAMPLE, every=2, signal=LIGHT, controller=controller)
        params = init_params()
        state = tx.init(params)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, X), state, params, **fixed(params, X))
            return (optax.apply_updates(params, updates), state), None

        (_, state), _ = jax.lax.scan(step, (params, state), length=STEPS)
        return cgalr_jax.metrics(state)["cgalr/scale"]

    rates = jnp.array([1e-3, 1e-1, 10.0])
    scales = jax.jit(jax.vmap(run))(rates)
    assert scales[0] > scales[1] > scales[2]
    np.testing.assert_allclose(scales[1], jax.jit(run)(rates[1]), rtol=1e-3)


@constructions("a good state")
def test_the_state_can_be_stored_anywhere(name):
    """Strongly typed arrays, none of them empty or shared, no NaN, no infinity, no parameters."""
    tx, *_ = build(name)
    params = init_params()
    state = ours(tx.init(params))
    leaves = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.Array) and not leaf.weak_type for leaf in leaves)
    assert all(leaf.size and np.isfinite(leaf).all() for leaf in leaves)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, params))]
    assert len(set(pointers)) == len(pointers)
    assert shapes(jax.eval_shape(tx.init, params)) == shapes(tx.init(params))


# --- the flags of JAX that strangers set

FLAGS = {
    "x64": lambda: jax.enable_x64(True),
    "strict dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "no rank promotion": lambda: jax.numpy_rank_promotion("raise"),
}
# One of each way to measure, signal and controller; the optimizers are Optax's and not all are strict.
UNDER_FLAGS = (
    "alone, paired",
    "alone, activations",
    "births",
    "update norm",
    "the paper's gate in an envelope",
    "cgalr",
    "schedule",
    "inject_hyperparams of cgalr",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags"),
    [(name, flags) for name in UNDER_FLAGS for flags in (*((flag,) for flag in FLAGS), tuple(FLAGS))],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_flags_change_nothing(name, flags):
    construction, params = CONSTRUCTIONS[name], init_params()
    with contextlib.ExitStack() as stack:
        for flag in flags:
            stack.enter_context(FLAGS[flag]())
        tx = construction.make()

        @jax.jit
        def step(params, state):
            grads = jax.grad(loss)(params, X)
            updates, state = tx.update(grads, state, params, **construction.extra(params, X))
            return optax.apply_updates(params, updates), state

        state = tx.init(params)
        before = shapes_of(ours(state))
        for _ in range(STEPS):
            params, state = step(params, state)
        assert shapes_of(ours(state)) == before
        found = params, {key: float(value) for key, value in cgalr_jax.metrics(state).items()}
    expected = trained(name)
    assert_equal(found[0], expected[0], rtol=1e-3, atol=1e-5)
    assert found[1] == pytest.approx(
        {key: float(value) for key, value in cgalr_jax.metrics(expected[1]).items()}, rel=1e-2, abs=1e-5
    )


# --- params and updates in other forms


@pytest.mark.parametrize(
    "updates",
    [
        {"a": jnp.ones(3), "b": None},
        {"a": jnp.ones(3), "b": optax.MaskedNode()},
        {"a": jnp.ones(3), "b": ()},
        {"a": jnp.ones(3), "b": optax.EmptyState()},
        [jnp.ones(3)],
        jnp.ones(3),
    ],
)
def test_updates_of_any_form_without_parameters(updates):
    tx = block(signal=signals.frobenius())
    state = tx.init(updates)
    # Without jit: what measures is compiled once for all forms.
    found, after = tx.update(updates, state, activations=forward(init_params(), X))
    assert_equal(found, jax.tree.map(lambda u: u * after.cg_scale, updates), rtol=1e-6)
    assert shapes(after) == shapes(state)


@pytest.mark.parametrize("extra", [nothing, fixed], ids=["update norm", "probe"])
def test_parameters_that_are_needed_and_missing_are_our_error(extra):
    tx = block(signal=signals.update_norm()) if extra is nothing else block()
    params = init_params()
    with pytest.raises(ValueError, match="params must be passed to update"):
        tx.update(params, tx.init(params), **extra(params, X))


def test_a_none_among_the_parameters():
    params = {**init_params(), "frozen": None}
    tx = sgd(block())
    update = jax.jit(functools.partial(tx.update, **fixed(params, X)))
    updates, state = update(params, tx.init(params), params)
    assert updates["frozen"] is None
    assert optax.apply_updates(params, updates)["frozen"] is None
    assert np.isfinite(cgalr_jax.metrics(state)["cgalr/scale"])


def test_scale_is_read_by_name():
    tx = optax.chain(optax.inject_hyperparams(optax.adam)(1e-3), block())
    state = tx.init(init_params())
    np.testing.assert_array_equal(optax.tree.get(state, "cg_scale"), cgalr_jax.metrics(state)["cgalr/scale"])
    assert isinstance(optax.tree.get(state, "ConnectomeState"), cgalr_jax.ConnectomeState)


@constructions("metrics")
def test_metrics_of_any_nesting(name):
    found = cgalr_jax.metrics(build(name)[0].init(init_params()))
    several = ("cgalr/0", "cgalr/1") if name == "two instances" else ("cgalr",)
    for prefix in several:
        for key in ("scale", "distance", "measurements", "skipped", "refused", "cut", "step"):
            assert f"{prefix}/{key}" in found
    if name == "the paper's gate in an envelope":
        assert "cgalr/z" in found
    assert all(isinstance(value, jax.Array) for value in found.values())  # read nothing, wait for nothing
    assert {value.shape for value in found.values()} == {()}


def test_metrics_say_what_is_missing():
    with pytest.raises(ValueError, match="^opt_state must contain the state of scale_by_connectome"):
        cgalr_jax.metrics(optax.adam(0.1).init(init_params()))


# --- the schedule


def test_schedule_is_the_block_one_step_later():
    """The same core: the rate is the base rate times the block's scale, a measurement later."""
    params = init_params()
    scheduled = with_schedule()
    tx = block(signal=signals.frobenius(), controller=None)
    state, reference = scheduled.init(params), tx.init(params)
    scales, rates = [float(reference.cg_scale)], []

    @jax.jit
    def both(params, state, reference):
        grads, extra = jax.grad(loss)(params, X), given(params, X)
        updates, state = scheduled.update(grads, state, params, **extra)
        return grads, updates, state, tx.update(params, reference, params, **extra)[1]

    for _ in range(STEPS):
        grads, updates, state, reference = both(params, state, reference)
        rates.append(float(state.hyperparams["learning_rate"]))
        scales.append(float(reference.cg_scale))
        expected = jax.tree.map(lambda g: -rates[-1] * g, grads)
        assert_equal(updates, expected, rtol=1e-4, atol=1e-8)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(rates, 0.1 * np.array(scales[:-1]), rtol=1e-5)
    assert rates[-1] > rates[0]


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (optax.lion, optax.sgd, optax.adamw)),
    ],
)
def test_schedule_in_any_optimizer(optimizer):
    schedule = cgalr_jax.connectome_schedule(optax.cosine_decay_schedule(0.1, 100), EXAMPLE, every=2)
    tx = optax.inject_hyperparams(optimizer)(learning_rate=schedule)
    params = init_params()
    state = tx.init(params)
    step = jax.jit(
        lambda params, state: tx.update(jax.grad(loss)(params, X), state, params, **given(params, X))
    )
    for _ in range(STEPS):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
    found = cgalr_jax.metrics(state)
    assert int(found["cgalr/measurements"]) >= 2
    assert 0 < float(state.hyperparams["learning_rate"]) < 0.1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_schedule_promotes_updates_and_not_parameters(dtype):
    """The rate is float32 and so are the updates; `apply_updates` casts them."""
    tx, params = with_schedule(), init_params(dtype=dtype)

    def step(params):
        return optax.apply_updates(params, tx.update(params, tx.init(params), params, **given(params, X))[0])

    assert shapes_of(jax.eval_shape(step, params)) == shapes_of(params)


def test_schedule_with_a_probe_bound_to_the_parameters():
    tx = with_schedule()
    params = init_params()

    def step(carry, _):
        params, state = carry
        probe = functools.partial(forward, params, X)
        updates, state = tx.update(jax.grad(loss)(params, X), state, params, probe=probe)
        return (optax.apply_updates(params, updates), state), state.hyperparams["learning_rate"]

    _, rates = jax.jit(lambda carry: jax.lax.scan(step, carry, length=STEPS))((params, tx.init(params)))
    assert len(np.unique(rates)) > 1


# --- places where it cannot stand: our error, or the way round


@pytest.mark.parametrize(
    ("make", "lookahead"),
    [
        (lambda: optax.chain(optax.MultiSteps(sgd(block()), 2).gradient_transformation()), False),
        (lambda: optax.chain(optax.lookahead(sgd(block()), 5, 0.5)), True),
    ],
    ids=["MultiSteps in a chain", "lookahead in a chain"],
)
def test_wrappers_that_drop_extra_arguments_end_in_our_error(make, lookahead):
    tx = make()
    params = init_params()
    both = optax.LookaheadParams.init_synced(params) if lookahead else params
    state = tx.init(both)
    with pytest.raises(ValueError, match=r"(?s)probe or activations must be passed.*MultiSteps.*lookahead"):
        tx.update(params, state, both, **fixed(params, X))


def test_lookahead_refuses_extra_arguments_itself():
    tx = optax.lookahead(sgd(block()), 5, 0.5)
    params = optax.LookaheadParams.init_synced(init_params())
    with pytest.raises(TypeError, match="unexpected keyword argument 'probe'"):
        tx.update(params.fast, tx.init(params), params, **fixed(params, X))


def test_before_lookahead():
    """The way round: the gradients are scaled, which SGD follows; the probe takes `params.fast`."""
    tx = optax.chain(block(signal=signals.frobenius()), optax.lookahead(optax.sgd(0.1), 5, 0.5))
    params = optax.LookaheadParams.init_synced(init_params())
    state = tx.init(params)

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(params.fast, X)
        probe = lambda params: forward(params.fast, X)  # noqa: E731
        updates, state = tx.update(grads, state, params, probe=probe)
        return optax.apply_updates(params, updates), state

    for _ in range(STEPS):
        params, state = step(params, state)
    assert int(cgalr_jax.metrics(state)["cgalr/measurements"]) >= 2


def test_sam_refuses_extra_arguments_itself():
    tx = optax.chain(block(), optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01), sync_period=2))
    params = init_params()
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        tx.update(params, tx.init(params), params, **fixed(params, X))


def test_after_sam_in_opaque_mode():
    """The only way to measure the steps of SAM: in the other mode most updates are there and back again."""
    sam = optax.contrib.sam(optax.adam(0.01), optax.sgd(0.05), opaque_mode=True)

    def without_ours(updates, state, params=None, *, grad_fn, **_):
        return sam.update(updates, state, params, grad_fn=grad_fn)

    ours = block(max_share=None)
    tx = optax.chain(optax.GradientTransformationExtraArgs(sam.init, without_ours), ours)
    params = init_params()
    state = tx.init(params)

    def grad_fn(params, _=0):
        return jax.grad(loss)(params, X)

    expected, _ = sam.update(grad_fn(params), sam.init(params), params, grad_fn=grad_fn)
    for step in range(3):
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn, **fixed(params, X))
        if step == 0:
            scale = cgalr_jax.metrics(state)["cgalr/scale"]
            assert_equal(updates, optax.tree.scale(scale, expected), rtol=1e-5)
        params = optax.apply_updates(params, updates)
    assert cgalr_jax.metrics(state)["cgalr/measurements"] == 1


def test_line_search_takes_the_probe_in_its_value_function():
    """Optax matches extra arguments with the names in `value_fn`'s signature."""
    tx = optax.chain(block(), optax.scale_by_backtracking_linesearch(max_backtracking_steps=3))
    params = init_params()

    def value_fn(params, probe=None):
        return loss(params, X)

    value, grads = jax.value_and_grad(value_fn)(params)
    updates, state = tx.update(
        grads, tx.init(params), params, value=value, grad=grads, value_fn=value_fn, **fixed(params, X)
    )
    assert cgalr_jax.metrics(state)["cgalr/step"] == 1
    assert all(np.isfinite(update).all() for update in jax.tree.leaves(updates))


def test_before_an_optimizer_that_normalises_the_scale_does_nothing():
    """Why the transformation stands after the optimizer."""
    params = init_params()
    grads = jax.grad(loss)(params, X)
    adam = optax.adam(0.1, eps=1e-16)  # so small that it does not count

    ours = block(signal=signals.frobenius(), controller=None)

    @jax.jit
    def first(grads):
        return [
            tx.update(grads, tx.init(params), params, **fixed(params, X))[0]
            for tx in (optax.chain(adam), optax.chain(ours, adam), optax.chain(adam, ours))
        ]

    alone, before, after = first(grads)
    assert_equal(before, alone, rtol=1e-3)
    assert all(
        np.abs(a).max() < np.abs(b).max() / 10 for a, b in zip(after.values(), alone.values(), strict=True)
    )


def test_multi_steps_measures_as_often_as_it_steps():
    """Our step is a step of the optimizer where MultiSteps is outermost, a micro-batch where it is inside."""
    counts = {}
    for name in ("MultiSteps outermost", "after MultiSteps"):
        _, state, _ = trained(name)
        counts[name] = int(cgalr_jax.metrics(state)["cgalr/step"])
    assert counts == {"MultiSteps outermost": STEPS // 2, "after MultiSteps": STEPS}


def test_nothing_moves_on_a_step_that_is_not_finite():
    tx, *_ = build("apply_if_finite")
    params = init_params()
    state = tx.init(params)
    broken = jax.tree.map(lambda p: p * jnp.nan, params)
    update = jax.jit(functools.partial(tx.update, probe=forward))
    updates, after = update(broken, state, params, samples=paired(params, X)["samples"])
    assert_equal(ours(after), ours(state))
    assert all(not update.any() for update in jax.tree.leaves(updates))
