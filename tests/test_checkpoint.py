"""Checkpoints: exact through Orbax and flax.serialization; a killed run goes on as if nothing had been."""

import os
import pathlib
import signal as signals
import subprocess
import sys
import textwrap

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import cgalr_jax
from cgalr_jax import capture, signal

X = jax.random.normal(jax.random.key(0), (16, 5))
RESUME = pathlib.Path(__file__).parents[1] / "examples" / "resume.py"


def init_params(units=8):
    return {
        "w": jax.random.normal(jax.random.key(1), (5, units)) / 2,
        "v": jax.random.normal(jax.random.key(2), (units,)).astype(jnp.bfloat16),
    }


def forward(params, x):
    return {"hidden": x @ params["w"]}


def loss(params):
    output = jnp.tanh(forward(params, X)["hidden"]) @ params["v"].astype(jnp.float32)
    return jnp.mean((output - X[:, 0]) ** 2)


def block(units, **kwargs):
    return cgalr_jax.scale_by_connectome({"hidden": units}, samples=X, every=2, **kwargs)


OPTIMIZERS = {
    "cgalr": lambda units=8: cgalr_jax.cgalr(0.1, {"hidden": units}, samples=X, every=2),
    "adam, masked and injected": lambda units=8: optax.chain(
        optax.adam(0.1),
        optax.masked(optax.inject_hyperparams(optax.add_decayed_weights)(1e-3), {"w": True, "v": False}),
        block(units),
    ),
    "births, the paper's gate": lambda units=8: optax.chain(
        optax.sgd(0.1), block(units, signal=signal.births(), controller=cgalr_jax.hysteresis_gate())
    ),
}


def train(tx, params, state, steps):
    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, probe=forward, samples=X)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def assert_identical(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def through_flax(state, target, folder):
    del folder
    return flax.serialization.from_bytes(target, flax.serialization.to_bytes(state))


def through_orbax(state, target, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state", target)


def through_an_orbax_manager(state, target, folder):
    with ocp.CheckpointManager(folder / "manager") as manager:
        manager.save(3, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))
        manager.wait_until_finished()
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        return manager.restore(3, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes)))["state"]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("through", [through_flax, through_orbax, through_an_orbax_manager])
def test_a_round_trip_is_exact_and_the_run_goes_on(through, name, tmp_path):
    tx, params = OPTIMIZERS[name](), init_params()
    before = train(tx, params, tx.init(params), 5)
    after = before[0], through(before[1], tx.init(params), tmp_path)
    assert_identical(after[1], before[1])
    assert_identical(train(tx, *after, 6), train(tx, *before, 6))


def test_an_nnx_optimizer_through_orbax(tmp_path):
    def make():
        rngs = nnx.Rngs(0)
        model = nnx.Sequential(nnx.Linear(5, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 2, rngs=rngs))
        example = capture.example(capture.nnx_probe(model), model, X)
        return model, nnx.Optimizer(model, cgalr_jax.cgalr(0.1, example, samples=X, every=2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean(model(X) ** 2))(model)
        optimizer.update(model, grads, probe=capture.nnx_probe(model), samples=X)

    def arrays(model, optimizer):
        return nnx.to_pure_dict(nnx.state((model, optimizer)))

    first = make()
    for _ in range(5):
        step(*first)
    second = make()
    nnx.update(second, through_orbax(arrays(*first), arrays(*second), tmp_path))
    assert_identical(arrays(*second), arrays(*first))
    for _ in range(4):
        step(*first)
        step(*second)
    assert_identical(arrays(*second), arrays(*first))


def test_another_number_of_units_is_our_error(tmp_path):
    """flax.serialization restores whatever shapes were stored; the next update says what is wrong."""
    small, large = block(8), block(12)
    state = through_flax(small.init(init_params(8)), large.init(init_params(12)), tmp_path)
    params = init_params(12)
    with pytest.raises(ValueError, match=r"state must hold a reading .*\(12, 12\).*\(8, 8\).* restored"):
        large.update(params, state, params, probe=forward, samples=X)


REFUSED = """
    import pathlib, sys
    import test_checkpoint as t
    small, large = t.OPTIMIZERS["cgalr"](8), t.OPTIMIZERS["cgalr"](12)
    try:
        state = small.init(t.init_params(8))
        t.through_orbax(state, large.init(t.init_params(12)), pathlib.Path(sys.argv[1]))
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_another_number_of_units_is_refused_by_orbax(tmp_path):
    """In a process of its own: Orbax leaves its other reads unfinished when it refuses one."""
    here = pathlib.Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REFUSED), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
        capture_output=True,
        text=True,
    )
    assert "not compatible with the stored shape" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_killed_run_is_resumed_bit_for_bit(tmp_path):
    """SIGKILL at a random step; the digests are of all parameters and of the whole optimizer state."""

    def run(folder, *arguments):
        command = [sys.executable, str(RESUME), "--run", str(tmp_path / folder), "--steps", "30", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    kill_at = int(np.random.default_rng().integers(8, 28))
    unbroken, killed, resumed = run("whole"), run("broken", "--kill-at", str(kill_at)), run("broken")
    assert killed.returncode == -signals.SIGKILL, f"{kill_at=} {killed.stderr}"
    assert "resumed after step" in resumed.stdout, f"{kill_at=} {resumed.stderr}"
    assert resumed.stdout.splitlines()[-1] == unbroken.stdout.splitlines()[-1], f"{kill_at=}"
