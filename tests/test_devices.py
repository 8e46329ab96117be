"""Many devices: the scale is that of one device, on every mesh, in every mapped function, in every process.

Four virtual CPU devices (`conftest.py`); two processes of two devices each under `jax.distributed`.
"""

import contextlib
import functools
import os
import pathlib
import socket
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from light import ECHO, LIGHT

import cgalr_jax
from cgalr_jax import signals

AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
# Two of the three ways to measure are tried on devices by the slow run only.
WAYS = ["paired", *(pytest.param(way, marks=pytest.mark.slow) for way in ("fixed", "activations"))]
X = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
PARAMS = {
    "w": np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32) / 2,
    "v": np.random.default_rng(2).normal(size=(8,)).astype(np.float32) / 2,
}
EXAMPLE = {"hidden": 8}
STEPS = 7
# {name: (signal, controller)}; the hybrid with the default controller is the block as it is used.
SIGNALS = {
    "light": (LIGHT, ECHO),
    "hybrid": (signals.hybrid(), None),
    "births": (signals.births(), ECHO),
    "frobenius": (signals.frobenius(), ECHO),
}


def forward(params, x):
    return {"hidden": x @ params["w"]}


def loss(params, x):
    output = jnp.sum(jnp.tanh(forward(params, x)["hidden"]) * params["v"], axis=-1)
    return jnp.mean((output - jnp.sin(x[:, 0])) ** 2)


def make(stored=None, name="light", **kwargs):
    signal, controller = SIGNALS[name]
    return cgalr_jax.cgalr(
        0.1, EXAMPLE, samples=stored, every=2, signal=signal, controller=controller, **kwargs
    )


def arguments(way, params, x):
    return {
        "paired": {"probe": forward, "samples": x},
        "fixed": {"probe": lambda params: forward(params, x)},
        "activations": {"activations": forward(params, x)},
    }[way]


def step_of(tx, way):
    def step(params, state, x):
        grads = jax.grad(loss)(params, x)
        updates, state = tx.update(grads, state, params, **arguments(way, params, x))
        return optax.apply_updates(params, updates), state

    return step


@functools.cache
def on_one_device(way, name="light"):
    """The scale after every step."""
    tx = make(X if way == "paired" else None, name=name)
    step = jax.jit(step_of(tx, way))
    params, state, scales = PARAMS, tx.init(PARAMS), []
    for _ in range(STEPS):
        params, state = step(params, state, X)
        scales.append(float(cgalr_jax.metrics(state)["cgalr/scale"]))
    return scales


def on_a_mesh(mesh, way, *, params_split=None, stored=None, with_mesh=True, name="light"):
    stored = X if stored is None else stored
    tx = make(stored if way == "paired" else None, name=name)
    whole = NamedSharding(mesh, P())
    params = {
        key: jax.device_put(value, NamedSharding(mesh, (params_split or {}).get(key, P())))
        for key, value in PARAMS.items()
    }
    x = jax.device_put(X, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh) if with_mesh else contextlib.nullcontext():
        state = jax.device_put(tx.init(PARAMS), whole)
        traces, scales = [], []

        @jax.jit
        def step(params, state, x):
            traces.append(None)
            return step_of(tx, way)(params, state, x)

        for _ in range(STEPS):
            params, state = step(params, state, x)
            scales.append(float(cgalr_jax.metrics(state)["cgalr/scale"]))
    assert len(set(scales)) > 1
    if mesh.axis_types == (AUTO,):
        assert len(traces) == 1  # as the state begins replicated
    return scales


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "axis_type", [AUTO, pytest.param(EXPLICIT, marks=pytest.mark.slow)], ids=["Auto", "Explicit"]
)
@pytest.mark.parametrize(
    "with_mesh", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["set_mesh", "no set_mesh"]
)
def test_data_parallel(axis_type, way, with_mesh):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    np.testing.assert_allclose(on_a_mesh(mesh, way, with_mesh=with_mesh), on_one_device(way), rtol=1e-3)


@pytest.mark.parametrize(
    ("axis_type", "name"),
    [
        pytest.param(EXPLICIT, "births", id="Explicit-births"),
        *(
            pytest.param(axis_type, name, id=f"{axis_type.name}-{name}", marks=pytest.mark.slow)
            for axis_type, name in (
                (AUTO, "hybrid"),
                (AUTO, "births"),
                (EXPLICIT, "hybrid"),
                (AUTO, "frobenius"),
                (EXPLICIT, "frobenius"),
            )
        ),
    ],
)
def test_data_parallel_with_other_signals(axis_type, name):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    found = on_a_mesh(mesh, "paired", name=name)
    np.testing.assert_allclose(found, on_one_device("paired", name), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("types", [(AUTO, AUTO), (EXPLICIT, EXPLICIT), (EXPLICIT, AUTO)])
def test_two_axes_with_features_split_over_one(types, way):
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=types)
    found = on_a_mesh(mesh, way, params_split={"w": P(None, "model"), "v": P("model")})
    np.testing.assert_allclose(found, on_one_device(way), rtol=1e-3)


@pytest.mark.parametrize(
    ("axis_type", "rows"),
    [(AUTO, 12), pytest.param(EXPLICIT, 12, marks=pytest.mark.slow), (EXPLICIT, 7)],  # not a multiple of 4
    ids=["Auto", "Explicit", "Explicit, 7"],
)
def test_more_samples_than_are_stored(axis_type, rows):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    tx = make(X[:rows])
    step = jax.jit(step_of(tx, "paired"))
    params, state, alone = PARAMS, tx.init(PARAMS), []
    for _ in range(STEPS):
        params, state = step(params, state, X)
        alone.append(float(cgalr_jax.metrics(state)["cgalr/scale"]))
    np.testing.assert_allclose(on_a_mesh(mesh, "paired", stored=X[:rows]), alone, rtol=1e-3)


# --- mapped functions: the samples of a measurement are split, and only `axis_name` can say so


def mapped_step(tx, way, checked=False):
    """One step on one device; where varying axes are checked, gradients arrive summed over the devices."""

    def step(params, state, x):
        grads = jax.grad(loss)(params, x)
        grads = jax.tree.map(lambda g: g / 4, grads) if checked else jax.lax.pmean(grads, "data")
        updates, state = tx.update(grads, state, params, **arguments(way, params, x))
        return optax.apply_updates(params, updates), state

    return step


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "check", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["check_vma", "no check_vma"]
)
def test_shard_map(way, check):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AUTO,))
    tx = make(X[:8] if way == "paired" else None, "hybrid", axis_name="data")
    # The samples in the state are those of the device: split, while the rest is replicated.
    state = tx.init(PARAMS)
    specs = jax.tree.map(lambda _: P(), state)
    if way == "paired":
        specs = replace_samples(specs, P("data"))
        state = replace_samples(state, jnp.zeros_like(X))
    step = jax.jit(
        jax.shard_map(
            mapped_step(tx, way, check),
            mesh=mesh,
            in_specs=(P(), specs, P("data")),
            out_specs=(P(), specs),
            check_vma=check,
        )
    )
    params, scales = PARAMS, []
    for _ in range(STEPS):
        params, state = step(params, state, X)
        scales.append(float(cgalr_jax.metrics(state)["cgalr/scale"]))
    np.testing.assert_allclose(scales, on_one_device(way, "hybrid"), rtol=1e-3)


def replace_samples(state, samples):
    """The stored samples in a chain's state, replaced."""
    return tuple(part._replace(cg_samples=samples) if hasattr(part, "cg_samples") else part for part in state)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "mapped",
    [
        pytest.param(jax.pmap, marks=pytest.mark.slow),
        lambda *args, **kwargs: jax.jit(jax.vmap(*args, **kwargs)),
    ],
    ids=["pmap", "vmap"],
)
def test_pmap_and_vmap(mapped, way):
    tx = make(X[:8] if way == "paired" else None, axis_name="data")
    step = mapped(mapped_step(tx, way), axis_name="data")
    params = jax.tree.map(lambda leaf: np.stack([leaf] * 4), PARAMS)
    state = jax.vmap(lambda _: tx.init(PARAMS))(jnp.arange(4))
    scales = []
    for _ in range(STEPS):
        params, state = step(params, state, X.reshape(4, 8, 5))
        of_each = np.asarray(cgalr_jax.metrics(state)["cgalr/scale"])
        assert len(set(of_each)) == 1  # the same on every device
        scales.append(of_each[0])
    np.testing.assert_allclose(scales, on_one_device(way), rtol=1e-3)


def test_shard_map_without_axis_name_is_our_error():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AUTO,))
    tx = make()
    step = jax.shard_map(
        mapped_step(tx, "activations", True), mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P(), P())
    )
    with pytest.raises(ValueError, match="axis_name must name the mapped axis .*'data'"):
        jax.jit(step)(PARAMS, tx.init(PARAMS), X)


@pytest.mark.parametrize("known", [True, False], ids=["steps known", "not known"])
def test_devices_that_hold_parts_of_a_matrix_decide_alike(known):
    """By hand, which nothing tells of without `check_vma`: at different steps measured, they would hang."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AUTO,))
    tx = cgalr_jax.cgalr(
        0.01, EXAMPLE, samples=X[:8], axis_name="data", every=2, **({"steps": 60} if known else {})
    )
    whole = PARAMS | {
        "w": PARAMS["w"] * np.geomspace(0.1, 10, 8, dtype=np.float32)
    }  # parts unlike each other
    split = {"w": P(None, "data"), "v": P()}

    def gathered(params):
        return params | {"w": jax.lax.all_gather(params["w"], "data", axis=1, tiled=True)}

    def run(params, x):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(lambda params: loss(gathered(params), x))(params)
            grads = grads | {"v": jax.lax.pmean(grads["v"], "data")}
            probe = {"probe": lambda params, x: forward(gathered(params), x), "samples": x}
            updates, state = tx.update(grads, state, params, **probe)
            found = cgalr_jax.metrics(state)
            return (optax.apply_updates(params, updates), state), (found["cgalr/scale"], found["cgalr/ended"])

        _, told = jax.lax.scan(step, (params, tx.init(params)), None, length=60)
        return jnp.stack(told)[None]

    shards = jax.shard_map(run, mesh=mesh, in_specs=(split, P("data")), out_specs=P("data"), check_vma=False)
    scales, ended = np.moveaxis(np.asarray(jax.jit(shards)(whole, X)), 0, -1)
    assert scales.shape == (60, 4)
    np.testing.assert_array_equal(scales, scales[:, :1] * np.ones(4))
    assert scales[-1, 0] > 10 * scales[0, 0]
    if known:
        assert np.all(ended[-1] > 0)


def test_parts_of_a_matrix_in_a_shard_map_are_our_error():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AUTO,))
    split = {"w": P(None, "data"), "v": P()}

    def step(params, x, tx):
        params = params | {"v": params["v"][:2]}
        grads = jax.tree.map(jnp.ones_like, params)
        probe = lambda params: {"hidden": x @ jax.lax.all_gather(params["w"], "data", axis=1, tiled=True)}  # noqa: E731
        return tx.update(grads, tx.init(params), params, probe=probe)[0]

    def shards(tx):
        return jax.shard_map(
            functools.partial(step, tx=tx), mesh=mesh, in_specs=(split, P("data")), out_specs=split
        )

    with pytest.raises(ValueError, match="^params must be whole on each device in a shard_map.*'data'"):
        jax.jit(shards(cgalr_jax.cgalr(0.1, EXAMPLE, axis_name="data")))(PARAMS, X)


def test_samples_in_the_state_that_are_whole_are_our_error():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AUTO,))
    tx = make(X[:8], axis_name="data")
    step = jax.shard_map(
        mapped_step(tx, "paired", True), mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P(), P())
    )
    with pytest.raises(ValueError, match=r"^opt_state must have its samples split .* cg_samples=P\('data'\)"):
        jax.jit(step)(PARAMS, tx.init(PARAMS), X)


def test_axis_name_outside_of_a_mapped_function_is_an_error():
    tx = make(axis_name="data")
    with pytest.raises(ValueError, match="^axis_name must be an axis of the surrounding shard_map, .*'data'"):
        jax.jit(step_of(tx, "activations"))(PARAMS, tx.init(PARAMS), X)


# --- several processes

WORKER = """
    import sys, pathlib
    import jax, numpy as np
    port, rank, folder = sys.argv[1:]
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))
    import test_devices
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
    import cgalr_jax
    assert jax.device_count() == 4 and jax.local_device_count() == 2
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
    mine = test_devices.X[16 * int(rank) : 16 * int(rank) + 16]
    x = jax.make_array_from_process_local_data(split, mine, test_devices.X.shape)
    tx = test_devices.make(test_devices.X)
    params = jax.device_put(test_devices.PARAMS, whole)
    state = jax.jit(tx.init, out_shardings=whole)(params)
    step, scales = jax.jit(test_devices.step_of(tx, "paired"), out_shardings=whole), []
    for _ in range(test_devices.STEPS):
        params, state = step(params, state, x)
        scales.append(float(cgalr_jax.metrics(state)["cgalr/scale"]))
    np.save(pathlib.Path(folder) / f"{rank}.npy", scales)
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = pathlib.Path(__file__).parent
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
    }
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(port)]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, on_one_device("paired"), rtol=1e-3)
