"""What CG-ALR adds to a training step, in percent of the step without it, and to peak memory.

    python -m benchmarks.speed.step [--quick] [--json FILE] [--trim] [--model NAME] [--mode NAME]

Three networks on one core, SGD with momentum, with and without `scale_by_connectome` at its defaults:

- given: the activations that the forward pass computes anyway;
- paired: 32 samples of one measurement forwarded again at the next, two forward passes of them;
- probe: one forward pass of 32 samples that never change;

and beside the last of them

- static: the same probe without `lax.cond`: two compiled steps, the loop passes `measure=True` or `False`;

and what bounds them:

- forward: that forward pass of the probe and nothing else, in the same `lax.cond`: the floor of probe;
- plain: the plain step, compiled once more. It differs by nothing: what it shows is the error.

The programs of a mode run interleaved, one step each in turn, in a new order each time, so that other work on
the machine falls on all of them; each step is divided by the plain one of its turn. Of these quotients the
median over the steps that measure and the median over those that do not are printed, and their mean by
`every`, the overhead, with the middle 80 % of what resampling gives; in a second table the steps that do not
measure by themselves, and how long it took to compile. On a CPU the clock is the CPU time of this process.

On a GPU the networks are larger, and what takes a turn is a stretch of 50 steps, handed over back to back and
waited for once, as in training: to wait for each would cost as much as what is asked for. The overhead is the
median of the quotients of stretches; steps that measure are not told from the others.

A step's scratch memory (MLP: 11 MiB) is malloc's. glibc may hand it back to the kernel after each step and
fault it in again, page by page, for one program and not for another that asks for a few hundred bytes less:
10 % of a step, and nobody's work. The memory is therefore kept (`--trim`: left to glibc), and faults counted.
"""

import functools
import itertools
import resource
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cgalr_jax
from benchmarks import arguments, one_core
from benchmarks.speed import timing

MODES = ("given", "paired", "probe")
PROBE = 32  # what the documentation advises
COLUMNS = {
    "model": "model",
    "mode": "mode",
    "every": "every",
    "overhead_percent": "overhead %",
    "low_percent": "10 %",
    "high_percent": "90 %",
    "measuring_percent": "measuring step %",
    "other_percent": "other steps %",
    "faults": "faults",
    "plain_faults": "plain faults",
    "step_ms": "plain step ms",
    "peak_mib": "peak MiB",
    "plain_peak_mib": "plain peak MiB",
    "state_mib": "state MiB",
    "params_mib": "params MiB",
    "platform": "platform",
}
OTHER_STEPS = {
    "model": "model",
    "mode": "mode",
    "every": "every",
    "other_percent": "overhead %",
    "other_low_percent": "10 %",
    "other_high_percent": "90 %",
    "compile_ms": "compile ms",
    "compile_ratio": "times plain",
}


class Model(NamedTuple):
    """A network and a batch for it."""

    params: dict
    forward: Callable  # (params, inputs) -> logits, {layer: activations [N, ..., F]}
    inputs: jax.Array
    labels: jax.Array


def mlp(batch: int, width: int, depth: int = 4) -> Model:
    """A few hidden layers."""
    sizes = (784, *[width] * depth, 10)
    shapes = {f"dense_{i}": shape for i, shape in enumerate(itertools.pairwise(sizes))}

    def forward(params: dict, x: jax.Array) -> tuple[jax.Array, dict]:
        hidden = {}
        for name in list(shapes)[:-1]:
            hidden[name] = x = jax.nn.relu(x @ params[name])
        return x @ params[list(shapes)[-1]], hidden

    return Model(_draw(shapes), forward, *_batch((batch, 784)))


def cnn(batch: int, width: int) -> Model:
    """Three convolutions, the last two of stride 2, on 32 x 32 images, and a dense layer."""
    channels = (3, width, 2 * width, 4 * width)
    shapes = {f"conv_{i}": (3, 3, *pair) for i, pair in enumerate(itertools.pairwise(channels))}
    strides = dict(zip(shapes, (1, 2, 2), strict=True))

    def forward(params: dict, x: jax.Array) -> tuple[jax.Array, dict]:
        hidden = {}
        for name, stride in strides.items():
            layout = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(x, params[name], (stride,) * 2, "SAME", dimension_numbers=layout)
            hidden[name] = x = jax.nn.relu(x)
        return x.mean(axis=(1, 2)) @ params["head"], hidden

    return Model(_draw(shapes | {"head": (channels[-1], 10)}), forward, *_batch((batch, 32, 32, 3)))


def transformer(batch: int, width: int, blocks: int = 2, tokens: int = 16) -> Model:
    """Blocks of attention with four heads and an MLP."""
    heads = 4
    shapes = {"embed": (16, width), "head": (width, 10)}
    for i in range(blocks):
        shapes |= {f"qkv_{i}": (width, 3 * width), f"out_{i}": (width, width)}
        shapes |= {f"up_{i}": (width, 4 * width), f"down_{i}": (4 * width, width)}

    def forward(params: dict, x: jax.Array) -> tuple[jax.Array, dict]:
        x, hidden = x @ params["embed"], {}
        for i in range(blocks):
            q, k, v = jnp.split(
                (jax.nn.standardize(x) @ params[f"qkv_{i}"]).reshape(*x.shape[:2], heads, -1), 3, -1
            )
            x = x + jax.nn.dot_product_attention(q, k, v).reshape(x.shape) @ params[f"out_{i}"]
            hidden[f"mlp_{i}"] = up = jax.nn.gelu(jax.nn.standardize(x) @ params[f"up_{i}"])
            hidden[f"block_{i}"] = x = x + up @ params[f"down_{i}"]
        return x.mean(axis=1) @ params["head"], hidden

    return Model(_draw(shapes), forward, *_batch((batch, tokens, 16)))


def _draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), len(shapes))
    scaled = {name: np.sqrt(2 / np.prod(shape[:-1])) for name, shape in shapes.items()}
    return {
        name: scaled[name].astype(np.float32) * jax.random.normal(key, shapes[name])
        for name, key in zip(shapes, keys, strict=True)
    }


def _batch(shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    x = jax.random.normal(jax.random.key(1), shape)
    return x, jnp.arange(shape[0]) % 10


class Forward(NamedTuple):
    """State of `forward_only`."""

    step: jax.Array
    total: jax.Array


def forward_only(every: int) -> optax.GradientTransformationExtraArgs:
    """Runs the probe as often as CG-ALR, and changes nothing."""

    def init(params: dict) -> Forward:
        del params
        return Forward(jnp.zeros((), jnp.int32), jnp.zeros(()))

    def update(updates, state, params, *, probe, **_):
        def run(_):
            return sum(jnp.sum(layer) for layer in jax.tree.leaves(probe(params)))

        total = jax.lax.cond(state.step % every == 0, run, lambda total: total, state.total)
        return updates, Forward(state.step + 1, total)

    return optax.GradientTransformationExtraArgs(init, update)


def training_step(
    model: Model, mode: str, every: int
) -> tuple[optax.GradientTransformation, Callable[..., tuple]]:
    """The optimizer of a mode, and `step(measure, params, state, x, labels, probe) -> (params, state)`."""
    added = {"plain": optax.identity, "forward": lambda: forward_only(every)}
    if mode not in added:
        hidden = jax.eval_shape(model.forward, model.params, model.inputs)[1]
        stored = {"samples": model.inputs[:PROBE]} if mode == "paired" else {}
        added[mode] = lambda: cgalr_jax.scale_by_connectome(hidden, every=every, **stored)
    tx = optax.chain(optax.sgd(1e-3, momentum=0.9), added[mode]())

    def loss(params, x, labels):
        logits, hidden = model.forward(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), hidden

    def step(measure, params, state, x, labels, probe):
        (_, hidden), grads = jax.value_and_grad(loss, has_aux=True)(params, x, labels)
        fixed = {"probe": lambda params: model.forward(params, probe)[1]}
        extra = {
            "plain": {},
            "forward": fixed,
            "given": {"activations": hidden},
            "paired": {"probe": lambda params, x: model.forward(params, x)[1], "samples": x},
            "probe": fixed,
            "static": fixed | {"measure": measure},
        }
        updates, state = tx.update(grads, state, params, **extra[mode])
        return optax.apply_updates(params, updates), state

    return tx, step


class Program:
    """A training step, compiled, and where it stands."""

    def __init__(self, model: Model, mode: str, every: int, stretch: int):
        self.mode, self.every, self.stretch = mode, every, stretch
        probe = jax.random.normal(jax.random.key(2), (PROBE, *model.inputs.shape[1:]))
        tx, step = training_step(model, mode, every)
        self.state = jax.tree.map(jnp.array, (model.params, tx.init(model.params)))
        self.batch = (model.inputs, model.labels, probe)
        self.steps, self.compile_ms, self.peak_mib = {}, 0.0, 0.0
        for measure in (True, False) if mode == "static" else (None,):
            self.steps[measure], milliseconds = timing.compiled(
                functools.partial(step, measure), *self.state, *self.batch, donate_argnums=(0, 1)
            )
            self.compile_ms += milliseconds
            memory = self.steps[measure].memory_analysis()
            used = (
                memory.argument_size_in_bytes
                + memory.output_size_in_bytes
                - memory.alias_size_in_bytes
                + memory.temp_size_in_bytes
            )
            self.peak_mib = max(self.peak_mib, _mib(used))
        self.state_mib = _mib(sum(leaf.nbytes for leaf in jax.tree.leaves(self.state[1][1])))
        self.taken = 0
        self.faults: list[int] = []

    def train(self) -> tuple:
        """A stretch of steps, waited for at its end, and how many page faults there were."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(self.stretch):
            measure = None
            if self.mode == "static":
                measure = cgalr_jax.is_measurement_step(self.taken, self.every)
            self.state = self.steps[measure](*self.state, *self.batch)
            self.taken += 1
        jax.block_until_ready(self.state)
        self.faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        return self.state


def overhead(ratio: np.ndarray, every: int) -> dict[str, float | None]:
    """Percent that a program's steps take longer than the plain ones of their turns.

    The first of the ratios is that of the second step; the first step measured, like each `every`-th after.
    """
    measuring, other = (ratio[(np.arange(1, len(ratio) + 1) % every == 0) == kind] for kind in (True, False))

    def percent(medians: tuple[float, float]) -> float:
        return 100 * ((medians[0] + (every - 1) * medians[1]) / every - 1)

    def medians(draw: Callable) -> tuple[float, float]:
        return np.median(draw(measuring)), np.median(draw(other)) if every > 1 else 1.0

    rng = np.random.default_rng(0)
    resampled = [medians(lambda x: rng.choice(x, len(x))) for _ in range(1000)]
    low, high = np.percentile([percent(pair) for pair in resampled], (10, 90))
    other_low, other_high = np.percentile([100 * (other - 1) for _, other in resampled], (10, 90))
    kinds = medians(lambda x: x)
    return {
        "overhead_percent": float(percent(kinds)),
        "low_percent": float(low),
        "high_percent": float(high),
        "measuring_percent": float(100 * (kinds[0] - 1)),
        "other_percent": float(100 * (kinds[1] - 1)) if every > 1 else None,
        "other_low_percent": float(other_low) if every > 1 else None,
        "other_high_percent": float(other_high) if every > 1 else None,
    }


def _mib(size: int) -> float:
    return size / 2**20


def measure(
    name: str, model: Model, mode: str, cadences: tuple[int, ...], turns: int, stretch: int
) -> list[arguments.Record]:
    """Overheads of one model in one mode, and with the probe what bounds them.

    A turn is a stretch of so many steps, a multiple of all cadences unless it is one step.
    """
    plain = Program(model, "plain", 1, stretch)  # first: what XLA chooses for its kernels on a GPU, it keeps
    wanted = [(mode, every) for every in cadences]
    if mode == "probe":
        wanted += [("static", 10), ("forward", 10), ("plain", 1)]
    programs = timing.each(lambda kind: Program(model, *kind, stretch), wanted)
    calls = {"": plain.train} | {f"{p.mode} {p.every}": p.train for p in programs}
    times = timing.interleaved(calls, turns)
    alike = {} if stretch == 1 else {"measuring_percent": None}  # each stretch holds steps of both kinds
    return [
        {
            "model": name,
            "mode": program.mode,
            "every": program.every,
            **overhead(
                times[f"{program.mode} {program.every}"] / times[""], program.every if stretch == 1 else 1
            ),
            **alike,
            "faults": float(np.median(program.faults)),
            "plain_faults": float(np.median(plain.faults)),
            "step_ms": float(np.median(times[""])) / stretch,
            "compile_ms": program.compile_ms,
            "compile_ratio": program.compile_ms / plain.compile_ms,
            "peak_mib": program.peak_mib,
            "plain_peak_mib": plain.peak_mib,
            "state_mib": program.state_mib,
            "params_mib": _mib(sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))),
            "platform": jax.default_backend(),
        }
        for program in programs
    ]


# (how a model is made, its batch and width, those on an accelerator, those of `--quick`)
MODELS = {
    "MLP": (mlp, (128, 1024), (1024, 4096), (16, 32)),
    "CNN": (cnn, (128, 16), (256, 64), (4, 4)),
    "transformer": (transformer, (128, 128), (64, 512, 4, 256), (4, 16)),
}


def build(name: str, quick: bool) -> Model:
    """The model of this name, of the size for this platform."""
    make, usual, large, small = MODELS[name]
    return make(*(small if quick else usual if timing.on_cpu() else large))


def main() -> None:
    parser = arguments.parser(
        "benchmarks.speed.step",
        __doc__,
        quick="small networks, one mode, few steps: seconds",
        records="for each model, mode and `every`",
    )
    parser.add_argument("--trim", action="store_true", help="let glibc hand memory back to the kernel")
    parser.add_argument("--model", choices=list(MODELS), help="only this one")
    parser.add_argument("--mode", choices=MODES, help="only this one, and what is beside it")
    options = parser.parse_args()
    one_core.keep()
    if not options.trim:
        timing.keep_memory()
    modes, cadences, turns = (("probe",), (10,), 30) if options.quick else (MODES, (1, 10, 50), 100)
    stretch = 1
    if not timing.on_cpu():
        cadences, turns, stretch = (10, 50), 12, 50
    modes = modes if options.mode is None else (options.mode,)
    models = [name for name in MODELS if options.model in (None, name)]
    records: list[arguments.Record] = []
    for name in models:
        model = build(name, options.quick)
        for mode in modes:
            records += measure(name, model, mode, cadences, turns, stretch)
            arguments.write(options.json, records)  # whatever ends it later
    if jax.default_backend() != "gpu":
        nothing = dict.fromkeys(records[0]) | {
            "mode": "probe",
            "every": 10,
            "platform": "not measured on GPU",
        }
        records += [nothing | {"model": name} for name in models]
    timing.show("Overhead of a training step", records, COLUMNS)
    others = [record for record in records if record["other_percent"] is not None]
    timing.show("Of the steps that do not measure, and to compile all of them", others, OTHER_STEPS)
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
