"""What CG-ALR adds to a training step, in percent of the step without it, and to peak memory.

    python benchmarks/step_overhead.py [--json FILE] [--quick]

Three networks on one core, SGD with momentum, with and without `scale_by_connectome` at its defaults:

- given: the activations that the forward pass computes anyway;
- paired: the samples of one measurement forwarded again at the next, two forward passes of a batch;
- probe: one forward pass of 128 samples that never change.

The programs of a mode run interleaved, ten steps each in turn, in a new order each time, so that other work
on the machine falls on all of them; each stretch is divided by the plain one of its round. The spread is the
middle 80 % of these quotients. On a CPU the clock is the CPU time of this process.
"""

import timing  # isort: skip, before NumPy and JAX

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cgalr_jax

MODES = ("given", "paired", "probe")
STRETCH = 10  # steps of one program before the next has its turn
PROBE = 128
COLUMNS = {
    "model": "model",
    "mode": "mode",
    "every": "every",
    "overhead_percent": "overhead %",
    "low_percent": "10 %",
    "high_percent": "90 %",
    "step_ms": "plain step ms",
    "compile_ms": "compile ms",
    "peak_mib": "peak MiB",
    "plain_peak_mib": "plain peak MiB",
    "state_mib": "state MiB",
    "params_mib": "params MiB",
    "platform": "platform",
}


class Model(NamedTuple):
    """A network and a batch for it."""

    params: dict
    forward: Callable  # (params, inputs) -> logits, {layer: activations [N, ..., F]}
    inputs: jax.Array
    labels: jax.Array


def mlp(batch: int, width: int) -> Model:
    """Four hidden layers."""
    sizes = (784, width, width, width, width, 10)
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


def transformer(batch: int, width: int) -> Model:
    """Two blocks of attention with four heads and an MLP, over 16 tokens."""
    blocks, heads = 2, 4
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

    return Model(_draw(shapes), forward, *_batch((batch, 16, 16)))


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


class Program:
    """One compiled training step and where it stands."""

    def __init__(self, model: Model, mode: str | None, every: int):
        base = optax.sgd(1e-3, momentum=0.9)
        probe = jax.random.normal(jax.random.key(2), (PROBE, *model.inputs.shape[1:]))
        if mode is None:
            tx = optax.with_extra_args_support(base)
        else:
            hidden = jax.eval_shape(model.forward, model.params, model.inputs)[1]
            stored = {"samples": model.inputs} if mode == "paired" else {}
            tx = optax.chain(base, cgalr_jax.scale_by_connectome(hidden, every=every, **stored))

        def loss(params, x, labels):
            logits, hidden = model.forward(params, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), hidden

        def step(params, state, x, labels, probe):
            (_, hidden), grads = jax.value_and_grad(loss, has_aux=True)(params, x, labels)
            extra = {
                "given": {"activations": hidden},
                "paired": {"probe": lambda params, x: model.forward(params, x)[1], "samples": x},
                "probe": {"probe": lambda params: model.forward(params, probe)[1]},
            }
            updates, state = tx.update(grads, state, params, **extra.get(mode, {}))
            return optax.apply_updates(params, updates), state

        self.state = jax.tree.map(jnp.array, (model.params, tx.init(model.params)))
        self.batch = (model.inputs, model.labels, probe)
        self.step, self.compile_ms = timing.compiled(step, *self.state, *self.batch, donate_argnums=(0, 1))
        extra_state = self.state[1][1] if mode else ()
        self.state_mib = _mib(sum(leaf.nbytes for leaf in jax.tree.leaves(extra_state)))
        memory = self.step.memory_analysis()
        self.peak_mib = _mib(
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )

    def stretch(self) -> tuple:
        """Trains for some steps."""
        for _ in range(STRETCH):
            self.state = self.step(*self.state, *self.batch)
        return self.state


def _mib(size: int) -> float:
    return size / 2**20


def measure(
    name: str, model: Model, mode: str, cadences: tuple[int, ...], periods: int
) -> list[timing.Record]:
    """Overheads of one model in one mode; a period is as long as the slowest cadence."""
    plain = Program(model, None, 1)
    programs = {every: Program(model, mode, every) for every in cadences}
    calls = {str(every): program.stretch for every, program in programs.items()}
    turns = max(cadences) // STRETCH
    times = timing.interleaved({"plain": plain.stretch} | calls, turns * periods)
    records = []
    for every, program in programs.items():
        together = max(every // STRETCH, 1)
        ratio = times[str(every)].reshape(-1, together).sum(axis=1) / times["plain"].reshape(
            -1, together
        ).sum(axis=1)
        low, median, high = np.percentile(100 * (ratio - 1), (10, 50, 90))
        records.append(
            {
                "model": name,
                "mode": mode,
                "every": every,
                "overhead_percent": float(median),
                "low_percent": float(low),
                "high_percent": float(high),
                "step_ms": float(np.median(times["plain"])) / STRETCH,
                "compile_ms": program.compile_ms,
                "peak_mib": program.peak_mib,
                "plain_peak_mib": plain.peak_mib,
                "state_mib": program.state_mib,
                "params_mib": _mib(sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))),
                "platform": jax.default_backend(),
            }
        )
    return records


def main() -> None:
    options = timing.arguments(__doc__.splitlines()[0])
    if options.quick:
        models = {"MLP": mlp(16, 32), "CNN": cnn(4, 4), "transformer": transformer(4, 16)}
        modes, cadences, periods = ("probe",), (10,), 3
    else:
        models = {"MLP": mlp(128, 1024), "CNN": cnn(128, 16), "transformer": transformer(128, 128)}
        modes, cadences, periods = MODES, (1, 10, 50), 1
    records = [
        record
        for name, model in models.items()
        for mode in modes
        for record in measure(name, model, mode, cadences, periods)
    ]
    if jax.default_backend() != "gpu":
        nothing = dict.fromkeys(COLUMNS) | {"mode": "probe", "every": 10, "platform": "not measured on GPU"}
        records += [nothing | {"model": name} for name in models]
    timing.show("Overhead of a training step", records, COLUMNS)
    timing.write(options.json, records)


if __name__ == "__main__":
    main()
