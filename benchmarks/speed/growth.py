"""How the cost of a measurement grows with the network, as compiled programs count it: no clock is read.

    python -m benchmarks.speed.growth [--quick] [--json FILE]

One number at a time is varied, the others stay; the network is the MLP of `benchmarks.speed.step`, with a
fixed probe. Three programs are compiled: the plain step, the step that measures, the step that does not.
XLA's own analysis of each gives floating-point operations and bytes (per device); its text gives the
collectives. Of what a measurement adds an exponent is fitted, the slope over logarithms: 1 is linear. At last
a transformer of 1.2 billion parameters, which is lowered and not compiled: its operations only.

What the analysis does not see: a loop whose length is not known counts as one turn. Ours is the spanning
tree, of 16 units by default.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import arguments
from benchmarks.speed import step, timing

BATCH = 128
DEVICES = 8  # virtual ones, on a CPU


class Setting(NamedTuple):
    """What is varied."""

    width: int = 512
    depth: int = 4
    samples: int = 128
    every: int = 10
    devices: int = 1


AXES = {
    "width": (256, 512, 1024, 2048, 4096),
    "depth": (2, 4, 8, 16, 48),
    "samples": (8, 32, 128, 512),
    "every": (1, 10, 50, 100),
    "devices": (1, 2, 4, 8),
}
QUICK = {"width": (16, 32), "every": (1, 10)}
# (width, blocks, tokens, batch, sequences of the probe)
LARGE, LARGE_QUICK = (2048, 24, 2048, 256, 8), (16, 2, 4, 4, 2)
COLUMNS = {
    "axis": "varied",
    "value": "value",
    "plain_gflop": "plain GFLOP",
    "measuring_gflop": "measuring adds",
    "other_gflop": "other steps add",
    "mean_flop_percent": "a step, %",
    "plain_mib": "plain MiB moved",
    "measuring_mib": "measuring adds",
    "other_mib": "other steps add",
    "mean_bytes_percent": "a step, %",
    "plain_collectives": "collectives",
    "measuring_collectives": "measuring adds",
    "measuring_payload_kib": "their KiB",
    "state_mib": "state MiB",
}
EXPONENTS = {
    "axis": "varied",
    "measuring_gflop": "operations",
    "measuring_mib": "bytes",
    "state_mib": "state",
}
LARGE_COLUMNS = {
    "parameters": "parameters",
    "plain_gflop": "plain GFLOP",
    "measuring_gflop": "measuring adds",
    "measuring_percent": "of a step, %",
}
_COLLECTIVE = re.compile(
    r" = (.*?) (?:all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("
)


def abstract(make: Callable[[], step.Model]) -> step.Model:
    """The model with shapes in the place of its arrays: a billion parameters take no memory."""
    forward: list[Callable] = []

    def arrays() -> tuple:
        model = make()
        forward.append(model.forward)
        return model.params, model.inputs, model.labels

    params, inputs, labels = jax.eval_shape(arrays)
    return step.Model(params, forward[0], inputs, labels)


def lowered(model: step.Model, samples: int, devices: int = 1) -> tuple[dict[str, Any], int]:
    """The three programs, lowered, and the bytes of our state."""
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
    )
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))

    def placed(sharding: NamedSharding, tree: Any) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    probe = jax.ShapeDtypeStruct((samples, *model.inputs.shape[1:]), model.inputs.dtype)
    batch = placed(split, (model.inputs, model.labels, probe))
    programs, size = {}, 0
    for name, mode, measure in (
        ("plain", "plain", None),
        ("measuring", "static", True),
        ("other", "static", False),
    ):
        tx, train = step.training_step(model, mode, 1)
        state = jax.eval_shape(tx.init, model.params)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state[1]))
        programs[name] = jax.jit(
            lambda *now, train=train, measure=measure: train(measure, *now), out_shardings=whole
        ).lower(*placed(whole, (model.params, state)), *batch)
    return programs, size


@functools.cache
def counts(width: int, depth: int, samples: int, devices: int) -> tuple[dict, dict, int]:
    """XLA's analysis of the three programs, what their collectives carry, and the bytes of our state."""
    programs, size = lowered(abstract(lambda: step.mlp(BATCH, width, depth)), samples, devices)
    compiled = {name: program.compile() for name, program in programs.items()}
    analysed = {name: program.cost_analysis() for name, program in compiled.items()}
    return analysed, {name: collectives(program.as_text()) for name, program in compiled.items()}, size


def cost(setting: Setting) -> arguments.Record:
    """What the three programs of one setting cost, and what a step adds on the average."""
    # Of `every` the programs know nothing: the axes share those of the setting where they meet.
    counted, carried, size = counts(setting.width, setting.depth, setting.samples, setting.devices)
    record: arguments.Record = {"state_mib": size / 2**20}
    for unit, key, each in (("gflop", "flops", 1e9), ("mib", "bytes accessed", 2**20)):
        plain, measuring, other = (counted[name][key] / each for name in ("plain", "measuring", "other"))
        mean = (measuring + (setting.every - 1) * other) / setting.every
        record |= {
            f"plain_{unit}": plain,
            f"measuring_{unit}": measuring - plain,
            f"other_{unit}": other - plain,
            f"mean_{'flop' if unit == 'gflop' else 'bytes'}_percent": 100 * (mean / plain - 1),
        }
    record |= {
        "plain_collectives": len(carried["plain"]),
        "measuring_collectives": len(carried["measuring"]) - len(carried["plain"]),
        "measuring_payload_kib": (sum(carried["measuring"]) - sum(carried["plain"])) / 2**10,
    }
    return record


def collectives(text: str) -> list[int]:
    """The bytes that each collective of a compiled program returns."""
    return [
        sum(
            max(int(bits or 8) // 8, 1) * math.prod(int(n) for n in shape.split(",") if n)
            # f32, bf16, s8, f8e4m3fn; a pred is a byte
            for bits, shape in re.findall(r"[a-z]+(\d*)\w*\[([\d,]*)\]", result)
        )
        for result in _COLLECTIVE.findall(text)
    ]


def exponents(records: list[arguments.Record]) -> list[arguments.Record]:
    """The slope of what a measurement adds, over logarithms, for each axis that changes it."""
    found = []
    for axis, group in itertools.groupby(records, lambda record: record["axis"]):
        rows = list(group)
        x = np.log([row["value"] for row in rows])
        found.append(
            {"axis": axis} | {key: _slope(x, [row[key] for row in rows]) for key in list(EXPONENTS)[1:]}
        )
    return found


def _slope(x: np.ndarray, values: list[float]) -> float | None:
    return None if min(values) <= 0 else round(float(np.polyfit(x, np.log(values), 1)[0]), 2)


def large(width: int, blocks: int, tokens: int, batch: int, samples: int) -> arguments.Record:
    """The operations of a transformer, counted before XLA sees it."""
    model = abstract(lambda: step.transformer(batch, width, blocks, tokens))
    programs, _ = lowered(model, samples)
    plain, measuring = (programs[name].cost_analysis()["flops"] / 1e9 for name in ("plain", "measuring"))
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(model.params)),
        "plain_gflop": plain,
        "measuring_gflop": measuring - plain,
        "measuring_percent": 100 * (measuring / plain - 1),
    }


def main() -> None:
    parser = arguments.parser(
        "benchmarks.speed.growth",
        __doc__,
        quick="small networks, two axes: seconds",
        records="for each value of each axis",
    )
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)
    axes = QUICK if options.quick else AXES
    records = [
        {"axis": axis, "value": value, **cost(Setting()._replace(**{axis: value}))}
        for axis, values in axes.items()
        for value in values
        if axis != "devices" or value <= jax.device_count()
    ]
    timing.show("What XLA counts, per device", records, COLUMNS)
    timing.show("Exponents of what a measurement adds", exponents(records), EXPONENTS)
    timing.show("A large transformer", [large(*(LARGE_QUICK if options.quick else LARGE))], LARGE_COLUMNS)
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
