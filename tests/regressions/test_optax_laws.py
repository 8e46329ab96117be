"""Four of the seven laws that Optax asks of every contributed optimizer, of our factories, in our words.

Those of unknown arguments and compilations, of dtypes and of a `cond` are in `test_contract.py`, of many more
constructions. The probe of these targets is their parameters, seen on fixed samples.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from light import PLAIN

import cgalr_jax
from cgalr_jax import signals

X = jax.random.normal(jax.random.key(0), (32, 6))


def units(params):
    """Parameters of any form as two or more units: each one a line through fixed samples."""
    leaves = [jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(params)]
    whole = jnp.concatenate(leaves)
    return {"seen": jnp.tanh(X[:, : len(whole)] * whole[None, :] + X[:, :1])}


def block(**options):
    return cgalr_jax.scale_by_connectome({"seen": 3}, **{"every": 4, **PLAIN, **options})


# {name: (learning rate -> optimizer, extra arguments of its update)}
FACTORIES = {
    "cgalr": (lambda rate: cgalr_jax.cgalr(rate, {"seen": 3}, every=4), {"probe": units}),
    "cgalr of adam": (
        lambda rate: cgalr_jax.cgalr(rate, {"seen": 3}, every=4, optimizer=optax.adam, **PLAIN),
        {"probe": units},
    ),
    "the block": (lambda rate: optax.chain(optax.sgd(rate), block()), {"probe": units}),
    "update norm": (
        lambda rate: optax.chain(optax.sgd(rate), block(signal=signals.update_norm())),
        {},
    ),
    "the paper's gate": (
        lambda rate: optax.chain(optax.sgd(rate), block(controller=cgalr_jax.hysteresis_gate())),
        {"probe": units},
    ),
    "averaging": (lambda rate: optax.chain(optax.sgd(rate), cgalr_jax.polynomial_averaging()), {}),
}


def parabola(dtype=jnp.float32):
    goal = jnp.array([1.0, -1.0, 1.0], dtype)
    return jnp.array([-1.0, 10.0, 1.0], dtype), goal, lambda p: jnp.sum((p - goal) ** 2)


def stepper(tx, objective, extra):
    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(objective)(params), state, params, **extra)
        return optax.apply_updates(params, updates), state

    return step


# --- convergence, and map_params on the way


@pytest.mark.parametrize("rate", [1e-3, 1e-1])
@pytest.mark.parametrize("name", ["the paper's gate", "averaging"])
def test_a_parabola_is_solved(name, rate):
    make, extra = FACTORIES[name]
    tx = make(rate)
    params, goal, objective = parabola()
    state = optax.tree.map_params(tx, lambda leaf: leaf, tx.init(params))
    step = stepper(tx, objective, extra)
    run = jax.jit(lambda carry: jax.lax.scan(lambda c, _: (step(*c), None), carry, length=30_000)[0])
    np.testing.assert_allclose(run((params, state))[0], goal, rtol=3e-2, atol=3e-2)


def matrix():
    goal = jnp.array([[3.0, -2.0], [1.0, 4.0]])
    return jnp.zeros((2, 2)), goal, lambda p: jnp.sum((p - goal) ** 2)


def mixed():
    goal = jnp.array([1.0, -1.0, 2.0]), jnp.array([[1.0, 0.0], [-1.0, 1.0]])
    start = jnp.zeros(3), jnp.zeros((2, 2))
    return start, goal, lambda p: sum(jnp.sum((a - b) ** 2) for a, b in zip(p, goal, strict=True))


def rosenbrock():
    goal = jnp.ones(2)
    return jnp.zeros(2), goal, lambda p: (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


TARGETS = {"parabola": parabola, "rosenbrock": rosenbrock, "matrix": matrix, "mixed": mixed}


# Three of the four start at zero. The update norm by itself is not among them: where all parameters start at
# zero it says far too much, as its docstring says.
@pytest.mark.parametrize(
    "target",
    ["parabola", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rosenbrock", "matrix", "mixed"))],
)
@pytest.mark.parametrize("optimizer", ["sgd", pytest.param("adam", marks=pytest.mark.slow)])
def test_the_default_controller_solves_the_targets_of_optax(optimizer, target):
    params, goal, objective = TARGETS[target]()
    example = {"seen": sum(x.size for x in jax.tree.leaves(params))}
    tx = {
        "sgd": cgalr_jax.cgalr(1e-3, example, every=4, momentum=None),
        "adam": cgalr_jax.cgalr(1e-2, example, every=4, optimizer=optax.adam),
    }[optimizer]
    step = stepper(tx, objective, {"probe": lambda params: {"seen": wide(params)}})
    run = jax.jit(lambda carry: jax.lax.scan(lambda c, _: (step(*c), None), carry, length=30_000)[0])
    found, _ = run((params, tx.init(params)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-2, atol=3e-2), found, goal)


def wide(params):
    whole = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(params)])
    samples = jax.random.normal(jax.random.key(1), (32, len(whole)))
    return jnp.tanh(samples * whole[None, :] + samples[:, :1])


# --- inject_hyperparams


@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.slow
def test_inject_hyperparams_gives_the_same_updates_and_state(momentum):
    arguments = {"learning_rate": 1e-2, "example": {"seen": 3}, "every": 4, "momentum": momentum}
    static = ("every", "max_units", "momentum") if momentum is None else ("every", "max_units")
    tx, injected = (
        cgalr_jax.cgalr(**arguments),
        optax.inject_hyperparams(cgalr_jax.cgalr, static_args=static)(**arguments),
    )
    params, _, _ = parabola()
    found = []
    for each in (tx, injected):
        state = jax.jit(each.init)(params)
        for _ in range(6):
            updates, state = jax.jit(lambda s, tx=each: tx.update(params, s, params, probe=units))(state)
        found.append((updates, getattr(state, "inner_state", state)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), *found)


def test_inject_hyperparams_of_the_average():
    params, _, _ = parabola()
    injected = optax.inject_hyperparams(cgalr_jax.polynomial_averaging)(eta=4.0)
    plain = cgalr_jax.polynomial_averaging(4.0)
    _, a = injected.update(params, injected.init(params), params)
    _, b = plain.update(params, plain.init(params), params)
    np.testing.assert_allclose(a.inner_state.averaging_params, b.averaging_params, rtol=1e-6)


# --- MultiSteps


# Each factory in one of the two dtypes, and the other by the slow run.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if number % 2 == other else pytest.mark.slow)
        for number, name in enumerate(FACTORIES)
        for other, dtype in enumerate(["bfloat16", "float32"])
    ],
)
def test_multi_steps_moves_nothing_on_a_micro_batch(name, dtype):
    make, extra = FACTORIES[name]
    tx, (params, _, objective) = optax.MultiSteps(make(1e-2), 4), parabola(dtype)
    grads = jax.grad(objective)(params)
    updates, _ = jax.jit(lambda s: tx.update(grads, s, params, **extra))(jax.jit(tx.init)(params))
    np.testing.assert_array_equal(updates, jnp.zeros_like(params))


# --- a schedule where a rate may be one


@pytest.mark.parametrize("momentum", [pytest.param(None, marks=pytest.mark.slow), 0.9])
def test_a_constant_schedule_moves_as_the_number_does_under_one_controller(momentum):
    params, _, objective = parabola()
    ends = []
    for rate in (1e-3, optax.constant_schedule(1e-3)):
        controller = cgalr_jax.calibrated(optax.constant_schedule(1e-3))
        options = {"every": 4, "controller": controller, "signal": signals.frobenius()}
        tx = cgalr_jax.cgalr(rate, {"seen": 3}, momentum=momentum, **options)
        step, found = stepper(tx, objective, {"probe": units}), (params, tx.init(params))
        for _ in range(10):
            found = step(*found)
        ends.append(found)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ends[0][0], ends[1][0])
    rates = [cgalr_jax.metrics(state)["cgalr/learning_rate"] for _, state in ends]
    np.testing.assert_allclose(*rates, rtol=1e-5)
