"""A small network under a schedule of faults: what the transformation does about each of them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cgalr_jax
from benchmarks.faults.schedules import KINDS, SITES, Fault
from cgalr_jax import controllers, signals

STEPS, EVERY = 150, 3
RATE = 1e-3  # a hundredth of a good one: there is something to calibrate
_SITES = list(SITES)

SIGNALS: dict[str, Callable[[], signals.Signal]] = {
    "hybrid": signals.hybrid,
    "frobenius": signals.frobenius,
    "births": signals.births,
    "deaths": signals.deaths,
    "barcode": signals.barcode,
    "update norm": signals.update_norm,
}
CONTROLLERS = ("calibrated, cosine", "calibrated", "gate")
WAYS = ("paired", "fixed", "given")


class Program(NamedTuple):
    """One construction; all of its schedules run as one batch."""

    signal: str
    controller: str
    way: str

    @property
    def sites(self) -> tuple[str, ...]:
        """Where a fault can be: no samples where none are stored, no schedule where there is none."""
        gone = {"samples"} if self.way != "paired" else set()
        gone |= {"activations", "samples"} if self.signal == "update norm" else set()
        gone |= {"schedule"} if self.controller != "calibrated, cosine" else set()
        return tuple(site for site in SITES if site not in gone)


class Outcome(NamedTuple):
    """What became of each schedule of a batch."""

    scale: np.ndarray  # bool[n], finite and positive at every step
    state: np.ndarray  # bool[n], no NaN and no infinity in the state, at any step
    updates: np.ndarray  # bool[n], finite wherever the optimizer's were
    recovered: np.ndarray  # bool[n], in the last third every measurement but one at most could be used
    anchor: np.ndarray  # bool[n], within 2x of the undisturbed, or the calibration says that it is unfinished
    counted: np.ndarray  # i32[n], measurements skipped and values refused


INVARIANTS = Outcome._fields[:5]


def programs(quick: bool) -> list[Program]:
    """All constructions, or a few of each kind."""
    every = [
        Program(signal, controller, way)
        for signal in SIGNALS
        for controller in CONTROLLERS
        for way in (WAYS if signal != "update norm" else WAYS[:1])
    ]
    chosen = (
        ("hybrid", "calibrated, cosine", "paired"),
        ("frobenius", "calibrated", "given"),
        ("births", "gate", "fixed"),
    )
    return [program for program in every if not quick or tuple(program) in chosen]


def run(program: Program, fault: Fault) -> Outcome:
    """Runs a batch of schedules; the first has to be the undisturbed one."""
    traces, last = jax.jit(jax.vmap(lambda one: _train(program, one)))(fault)
    found = {key: np.asarray(value) for key, value in traces.items()}
    metrics = {key: np.asarray(value) for key, value in last.items()}
    tail = STEPS * 2 // 3 // EVERY * EVERY + EVERY
    late = found["measurements"][:, -1] - found["measurements"][:, tail]
    anchor = np.ones(len(fault.site), bool)
    if "cgalr/anchor" in metrics:
        ratio = metrics["cgalr/anchor"] / metrics["cgalr/anchor"][0]
        anchor = ((ratio > 0.5) & (ratio < 2)) | (metrics["cgalr/ended"] == controllers.UNFINISHED)
    return Outcome(
        found["scale"].all(axis=1),
        found["state"].all(axis=1),
        found["updates"].all(axis=1),
        late >= late[0] - 1,
        anchor,
        metrics["cgalr/skipped"] + metrics["cgalr/refused"],
    )


@functools.cache
def _problem() -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Inputs f32[64, 4], targets f32[64] and the first parameters: made when they are first asked for."""
    with jax.ensure_compile_time_eval():
        x = jax.random.normal(jax.random.key(0), (64, 4))
        params = {
            "w": jax.random.normal(jax.random.key(1), (4, 8)) / 2,
            "v": jax.random.normal(jax.random.key(2), (8, 6)) / 3,
            "out": jax.random.normal(jax.random.key(3), (6,)) / 2,
        }
        return x, jnp.sin(x @ jnp.linspace(-2.0, 2.0, 4)), params


def _train(program: Program, fault: Fault) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """One run: the traces of the invariants, and the metrics at its end."""
    cosine = optax.cosine_decay_schedule(RATE, STEPS)
    base = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(cosine, momentum=0.9))
    sound = _block(program, fault._replace(kind=jnp.int32(0)))
    inputs, targets, start = _problem()

    def step(carry: Any, now: Any) -> tuple[Any, dict[str, jax.Array]]:
        params, base_state, state = carry
        number, kind = now
        faulty = fault._replace(kind=kind)
        batch = jax.random.randint(jax.random.fold_in(jax.random.key(4), number), (16,), 0, 64)
        x, y = inputs[batch], targets[batch]
        grads = jax.grad(_loss)(params, x, y)
        updates, base_state = base.update(grads, base_state, params)
        updates = jax.tree.map(lambda u: _hit(faulty, "updates", u), updates)
        told = jax.tree.map(lambda p: _hit(faulty, "parameters", p), params)
        # The transformation is made anew, as its functions close over the fault of this step.
        scaled, state = _block(program, faulty).update(
            updates, state, told, **_extra(program, faulty, x, told)
        )
        usable = _finite(scaled)  # as `apply_if_finite` does it
        moved = optax.apply_updates(params, scaled)
        params = jax.tree.map(lambda new, old: jnp.where(usable & _finite(moved), new, old), moved, params)
        metrics = cgalr_jax.metrics(state)
        seen = {
            "scale": (metrics["cgalr/scale"] > 0) & (metrics["cgalr/scale"] < jnp.inf),
            "state": _finite(state),
            "updates": usable | ~_finite(updates) | (_size(updates) > 1e20),
            "measurements": metrics["cgalr/measurements"],
        }
        return (params, base_state, state), seen

    carry = start, base.init(start), sound.init(start)
    (_, _, state), traces = jax.lax.scan(step, carry, (jnp.arange(STEPS), fault.kind))
    return traces, cgalr_jax.metrics(state)


def _block(program: Program, fault: Fault) -> optax.GradientTransformationExtraArgs:
    """The transformation, with a signal, a controller, a schedule and bounds that may be faulty."""
    own = SIGNALS[program.signal]()
    signal = own._replace(
        compare=lambda before, after: _hit(fault, "signal", jnp.asarray(own.compare(before, after)))
    )
    cosine = optax.cosine_decay_schedule(RATE, STEPS)
    if program.controller == "gate":
        inner = controllers.hysteresis_gate()
    elif program.controller == "calibrated":
        inner = controllers.calibrated()
    else:
        inner = controllers.calibrated(lambda step: _hit(fault, "schedule", cosine(step)))

    def update(measurement: controllers.Measurement, state: Any) -> tuple[jax.Array, Any]:
        scale, state = inner.update(measurement, state)
        return _hit(fault, "controller", scale), state

    def bounds(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        low, high = jnp.float32(1e-5), jnp.float32(1e5)
        return _hit(fault, "bounds", low), _hit(fault, "bounds", high)

    return cgalr_jax.scale_by_connectome(
        None if program.signal == "update norm" else {"first": 8, "second": 6},
        samples=_problem()[0][:16] if program.way == "paired" else None,
        every=EVERY,
        signal=signal,
        controller=controllers.envelope(controllers.Controller(inner.init, update), bounds),
    )


def _extra(program: Program, fault: Fault, x: jax.Array, params: Any) -> dict[str, Any]:
    def probe(params: Any, x: jax.Array) -> Any:
        return jax.tree.map(lambda a: _hit(fault, "activations", a), _layers(params, x))

    if program.way == "paired":
        return {"probe": probe, "samples": _hit(fault, "samples", x)}
    fixed = _problem()[0][:16]
    if program.way == "fixed":
        return {"probe": lambda params: probe(params, fixed)}
    return {"activations": probe(params, fixed)}


def _layers(params: Any, x: jax.Array) -> dict[str, jax.Array]:
    first = x @ params["w"]
    return {"first": first, "second": jnp.tanh(first) @ params["v"]}


def _loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((jnp.tanh(_layers(params, x)["second"]) @ params["out"] - y) ** 2)


def _hit(fault: Fault, site: str, x: jax.Array) -> jax.Array:
    """The array with the fault of this step, where it is at this site."""
    first = jnp.zeros(x.size, bool).at[0].set(True).reshape(x.shape)
    bad = {
        "NaN": jnp.full_like(x, jnp.nan),
        "infinite": jnp.full_like(x, jnp.inf),
        "zeros": jnp.zeros_like(x),
        "huge": jnp.full_like(x, 1e30),
        "negative": -x,
        "constant": jnp.full_like(x, 3.7),
        "one row": jnp.broadcast_to(x[:1], x.shape) if x.ndim else x,
        "skipped": jnp.zeros_like(x),
    }
    wrong = jax.lax.select_n(fault.kind, x, *(bad[kind] for kind in KINDS))
    wrong = jnp.where(fault.whole | first, wrong, x)
    return jnp.where(fault.site == _SITES.index(site), wrong, x)


def _finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]).all()


def _size(tree: Any) -> jax.Array:
    return jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(tree)]).max()
