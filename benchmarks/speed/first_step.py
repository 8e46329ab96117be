"""How long a user waits for the first step: it is traced and compiled, and XLA takes its time.

    python -m benchmarks.speed.first_step [--quick] [--json FILE]

The networks and modes of `benchmarks.speed.step`, each in a process of its own, as a training script is; the
plain step beside them, in turn, three times. Each twice: as the first run of a script, and as a later one,
with JAX's persistent compilation cache:

    JAX_COMPILATION_CACHE_DIR=FOLDER python train.py

Seconds are CPU time on one core, from before the first step is traced until it is done; importing JAX and
making the parameters do not count.
"""

import concurrent.futures
import functools
import itertools
import multiprocessing
import tempfile
import time

import jax
import numpy as np

from benchmarks import arguments, one_core, progress
from benchmarks.speed import step, timing

MODES = ("plain", *step.MODES)
RUNS = ("first", "later")
COLUMNS = {
    "model": "model",
    "mode": "mode",
    "first_s": "first run s",
    "first_added_s": "of it added",
    "later_s": "later run s",
    "later_added_s": "of it added",
    "platform": "platform",
}


def wait(name: str, small: bool, mode: str, cache: str) -> float:
    """Seconds until the first step is done, in a process that has not compiled anything."""
    jax.config.update("jax_compilation_cache_dir", cache)
    model = step.build(name, small)
    tx, run = step.training_step(model, mode, every=10)
    probe = jax.random.normal(jax.random.key(2), (step.PROBE, *model.inputs.shape[1:]))
    state = jax.block_until_ready((model.params, tx.init(model.params)))
    started = time.process_time()
    stepped = jax.jit(functools.partial(run, None))(*state, model.inputs, model.labels, probe)
    jax.block_until_ready(stepped)
    return time.process_time() - started


def measure(name: str, small: bool, rounds: int) -> list[arguments.Record]:
    """A record for each mode: medians over the rounds, and what is added to the plain step of a round."""
    seconds = {(mode, run): [] for mode in MODES for run in RUNS}
    spawn = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as processes,
        progress.bar() as bar,
    ):
        meter = bar.add_task(name, total=rounds * len(seconds))
        for _, mode in itertools.product(range(rounds), MODES):
            with tempfile.TemporaryDirectory() as cache:
                for run in RUNS:
                    seconds[mode, run].append(processes.submit(wait, name, small, mode, cache).result())
                    bar.advance(meter)

    def medians(mode: str, run: str) -> arguments.Record:
        added = np.subtract(seconds[mode, run], seconds["plain", run])
        return {f"{run}_s": float(np.median(seconds[mode, run])), f"{run}_added_s": float(np.median(added))}

    platform = {"platform": jax.default_backend()}
    return [
        {"model": name, "mode": mode} | medians(mode, "first") | medians(mode, "later") | platform
        for mode in MODES
    ]


def main() -> None:
    options = arguments.parser(
        "benchmarks.speed.first_step",
        __doc__,
        quick="one small network, once: a minute",
        records="for each model and mode",
    ).parse_args()
    one_core.keep()
    names, rounds = (("MLP",), 1) if options.quick else (tuple(step.MODELS), 3)
    records = [record for name in names for record in measure(name, options.quick, rounds)]
    timing.show("The first step, with what is added to the plain one", records, COLUMNS)
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
