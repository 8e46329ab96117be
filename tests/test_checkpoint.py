"""Checkpoints: exact through Orbax and flax.serialization; a killed run goes on as if nothing had been."""

import functools
import importlib
import os
import pathlib
import signal
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
from flax import linen, nnx
from light import PLAIN

import cgalr_jax
from cgalr_jax import capture, signals

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
    return cgalr_jax.scale_by_connectome({"hidden": units}, **{"samples": X, "every": 2, **PLAIN, **kwargs})


OPTIMIZERS = {
    "cgalr": lambda units=8: cgalr_jax.cgalr(0.1, {"hidden": units}, samples=X, every=2),
    "adam, masked and injected": lambda units=8: optax.chain(
        optax.adam(0.1),
        optax.masked(optax.inject_hyperparams(optax.add_decayed_weights)(1e-3), {"w": True, "v": False}),
        block(units),
    ),
    "births, the paper's gate": lambda units=8: optax.chain(
        optax.sgd(0.1), block(units, signal=signals.births(), controller=cgalr_jax.hysteresis_gate())
    ),
}


@functools.cache
def stepper(tx):
    """Compiled once for all the parts of a run."""

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params, probe=forward, samples=X)
        return optax.apply_updates(params, updates), state

    return step


def train(tx, params, state, steps):
    for _ in range(steps):
        params, state = stepper(tx)(params, state)
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


# Each way with each optimizer; the fast run takes each once.
@pytest.mark.parametrize(
    ("through", "name"),
    [
        pytest.param(through, name, marks=() if column == row % 3 else pytest.mark.slow)
        for column, through in enumerate([through_flax, through_orbax, through_an_orbax_manager])
        for row, name in enumerate(OPTIMIZERS)
    ],
)
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
        tx = cgalr_jax.cgalr(0.1, example, samples=X, every=2, **PLAIN)
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

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
    with pytest.raises(ValueError, match=r"^opt_state must fit .*'hidden' must have 12 units, got 8 units"):
        large.update(params, state, params, probe=forward, samples=X)


def of_flax(state, folder):
    del folder
    return flax.serialization.msgpack_restore(flax.serialization.to_bytes(state))


def of_orbax(state, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.metadata(folder / "state")


def of_orbax_without_a_target(state, folder):
    of_orbax(state, folder)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder / "state")


def of_an_orbax_manager(state, folder):
    with ocp.CheckpointManager(folder) as manager:
        manager.save(3, args=ocp.args.StandardSave({"opt_state": state, "params": jnp.ones(3)}))
    with ocp.CheckpointManager(folder, item_handlers=ocp.StandardCheckpointHandler()) as manager:
        return manager.item_metadata(3)


def of_an_orbax_manager_of_items(state, folder):
    with ocp.CheckpointManager(folder) as manager:
        manager.save(3, args=ocp.args.Composite(state=ocp.args.StandardSave(state)))
    with ocp.CheckpointManager(folder, item_handlers={"state": ocp.StandardCheckpointHandler()}) as manager:
        return manager.item_metadata(3)


STORED = [of_flax, of_orbax, of_orbax_without_a_target, of_an_orbax_manager, of_an_orbax_manager_of_items]


@pytest.mark.parametrize("stored", STORED)
def test_another_number_of_units_is_our_error_before_anything_is_restored(stored, tmp_path):
    told = stored(OPTIMIZERS["cgalr"](8).init(init_params(8)), tmp_path)
    cgalr_jax.check_checkpoint(told, OPTIMIZERS["cgalr"](8).init(init_params(8)))
    cgalr_jax.check_checkpoint(told, jax.eval_shape(OPTIMIZERS["cgalr"](8).init, init_params(8)))
    with pytest.raises(ValueError, match=r"^stored must fit .*'hidden' must have 12 units, got 8 units"):
        cgalr_jax.check_checkpoint(told, OPTIMIZERS["cgalr"](12).init(init_params(12)))


@pytest.mark.parametrize("arrays", [nnx.state, lambda node: nnx.to_pure_dict(nnx.state(node))])
def test_the_checkpoint_of_an_nnx_optimizer_is_checked(arrays, tmp_path):
    def make(units):
        rngs = nnx.Rngs(0)
        model = nnx.Sequential(nnx.Linear(5, units, rngs=rngs), nnx.relu, nnx.Linear(units, 2, rngs=rngs))
        example = capture.example(capture.nnx_probe(model), model, X)
        tx = cgalr_jax.cgalr(0.1, example, samples=X, every=2, **PLAIN)
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    told = of_orbax(arrays(make(8)), tmp_path)
    for like in (make(8)[1], arrays(make(8))):
        cgalr_jax.check_checkpoint(told, like)
    for unlike in (make(12)[1], arrays(make(12))):
        with pytest.raises(ValueError, match="layer 'layers/0' must have 12 units, got 8 units"):
            cgalr_jax.check_checkpoint(told, unlike)


DIFFERENCES = {
    r"cg_samples must have shape \(8, 5\), got shape \(16, 5\)": {"samples": X[:8]},
    "cg_samples must not be there": {"samples": None},
    r"layer 'hidden' must not be there, got 8 units.*cg_before/pooled must have shape \(7,\), got none": {
        "signal": signals.births()
    },
    "cg_control/controller/anchor must not be there": {"controller": cgalr_jax.hysteresis_gate()},
    "layer 'more' must have 3 units, got none": {"example": {"hidden": 8, "more": 3}},
    "layer 'hidden' must not be there.*layer 'other' must have 8 units, got none": {"example": {"other": 8}},
}


@pytest.mark.parametrize("message", DIFFERENCES)
def test_a_checkpoint_of_another_construction_is_refused(message, tmp_path):
    def state(example=None, **kwargs):
        kwargs = {"samples": X, "signal": signals.frobenius(), **kwargs}
        return cgalr_jax.scale_by_connectome(example or {"hidden": 8}, **kwargs).init(init_params())

    told = of_orbax(state(), tmp_path)
    cgalr_jax.check_checkpoint(told, state())
    with pytest.raises(ValueError, match=message):
        cgalr_jax.check_checkpoint(told, state(**DIFFERENCES[message]))


def test_several_instances_are_checked_in_their_order(tmp_path):
    """Orbax sorts the tuple of a chain as text; the eleventh element is not the second."""

    def state(*units):
        places = [optax.identity()] * 12
        for place, n in zip((2, 10, 11), units, strict=False):
            places[place] = block(n)
        return optax.chain(*places).init(init_params())

    told = of_orbax(nnx.to_pure_dict(nnx.state(nnx.Dict(state=nnx.data(state(8, 9, 10))))), tmp_path)
    cgalr_jax.check_checkpoint(told, state(8, 9, 10))
    with pytest.raises(ValueError, match=r"layer 'hidden' must have 7 units, got 9 units(?!.*got (8|10))"):
        cgalr_jax.check_checkpoint(told, state(8, 7, 10))
    with pytest.raises(ValueError, match=r"as many states .*, 2, got 3"):
        cgalr_jax.check_checkpoint(told, state(8, 9))


def test_a_checkpoint_without_our_state_is_refused(tmp_path):
    state = block(8).init(init_params())
    through_an_orbax_manager(state, state, tmp_path)
    with ocp.CheckpointManager(tmp_path / "manager") as manager:  # a new process: Orbax has forgotten how
        told = manager.item_metadata(3)
    for stored in (told, None, {}, {"params": jnp.ones(3)}):
        with pytest.raises(ValueError, match="1, got 0.*item_handlers=ocp.StandardCheckpointHandler"):
            cgalr_jax.check_checkpoint(stored, state)


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
    assert killed.returncode == -signal.SIGKILL, f"{kill_at=} {killed.stderr}"
    assert "resumed after step" in resumed.stdout, f"{kill_at=} {resumed.stderr}"
    assert resumed.stdout.splitlines()[-1] == unbroken.stdout.splitlines()[-1], f"{kill_at=}"


@pytest.mark.slow
def test_the_example_refuses_to_resume_with_other_units(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(RESUME.parent)
    resume = importlib.import_module("resume")
    resume.run(tmp_path, 6, seed=0, kill_at=None)
    wider = linen.Sequential([linen.Dense(48), linen.relu, linen.Dense(10)])
    monkeypatch.setattr(resume, "NETWORK", wider)
    monkeypatch.setattr(resume, "PROBE", capture.linen_probe(wider))
    with pytest.raises(ValueError, match="'layers_0' must have 48 units, got 32 units"):
        resume.run(tmp_path, 6, seed=0, kill_at=None)
