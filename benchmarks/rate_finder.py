"""Which range test finds the better learning rate: the connectome's, or the loss's that people know?

    python -m benchmarks.rate_finder --data FOLDER [--tuning] [--quick] [--json FILE]

Each test proposes a rate for SGD with momentum and for AdamW, without validation data; the optimizer under a
cosine schedule with that peak is then compared, on the same seeds, with the peak that an oracle chose from a
grid by validation error. Errors are of test data. The loss-based test is Smith's (arXiv 1506.01186): the rate
rises geometrically along one run, and what is proposed is a tenth of the rate with the smallest smoothed
loss, or the rate where that falls fastest; both are in use. `--tuning`: the networks on which the two
constants of `cgalr_jax/finder/ramp.py` were chosen, instead of those that are reported. FOLDER is that of
`python -m benchmarks.paper`.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich import progress

import cgalr_jax
from benchmarks import arguments, pages, scores
from benchmarks.paper import methods, models, tasks
from benchmarks.study import lines, problems, runner
from benchmarks.study.tasks import Parts, Problem, Task, deterministic
from benchmarks.training import runner as training
from benchmarks.training import tasks as small
from examples import datasets

SEEDS = (0, 1)
LOWEST, HIGHEST, STEPS = 1e-5, 10.0, 210
FINDERS = ("connectome", "loss, minimum / 10", "loss, steepest")
PROBE_SAMPLES = 128
CLOSE = 0.1  # a relative difference in error that is small


class Optimizer(NamedTuple):
    """What takes a rate, and the grid that an oracle chooses from."""

    make: Callable[[jax.Array], optax.GradientTransformation]
    method: str  # the same under a cosine, in `benchmarks.paper`
    grid: tuple[float, ...]


_GRID = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
OPTIMIZERS = {
    "SGD": Optimizer(methods.SGD, "SGD cosine", _GRID),
    "AdamW": Optimizer(optax.adamw, "AdamW cosine", tuple(rate / 10 for rate in _GRID)),
}


# ------------------------------------------------------------------------------------------------------------
# Networks
# ------------------------------------------------------------------------------------------------------------


def _task(load: Callable[[pathlib.Path], Problem], epochs: int, batch: int, chance: float) -> Task:
    return Task(load, epochs, batch, sgd=0.0, adam=0.0, chance=chance, points=1, one_by_one=True)


def _fashion(*widths: int, train: int = 6000, epochs: int = 5) -> Task:
    """Fashion-MNIST by a network of these widths."""

    def load(folder: pathlib.Path) -> Problem:
        model = models.mlp((784, *widths, 10))
        return problems.images(datasets.fashion_mnist(folder), model, train, validation=2000, pool=8000)

    return _task(load, epochs, 50, 0.9)


def _small(label: str) -> Task:
    """A task of `benchmarks.training`; a fifth of what it trains on is for validation."""
    task = small.catalogue()[label]

    def load(folder: pathlib.Path) -> Problem:
        del folder
        whole = task.split(jax.random.key(0))
        samples, tested = len(whole.inputs), len(whole.test_inputs)
        data = {"train": (whole.inputs, whole.targets), "test": (whole.test_inputs, whole.test_targets)}

        def split(seed: int) -> Parts:
            order = np.random.default_rng(seed).permutation(samples).astype(np.int32)
            train, validation = np.split(order, [samples * 4 // 5])
            test = np.arange(tested, dtype=np.int32)
            return {"train": train, "validation": validation, "test": test, "probe": train[:128]}

        def take(data: Any, part: str, numbers: jax.Array) -> tuple[jax.Array, jax.Array]:
            inputs, targets = data["test" if part == "test" else "train"]
            return inputs[numbers], targets[numbers]

        def loss(params: Any, outputs: jax.Array, targets: jax.Array) -> jax.Array:
            del params
            return task.loss(outputs, targets)

        score = scores.error if whole.targets.ndim == 1 else task.loss  # nats for sequences
        return Problem(data, split, take, deterministic(task.model), loss, score)

    samples = jax.eval_shape(task.split, jax.random.key(0)).inputs.shape[0] * 4 // 5
    return _task(load, max(task.steps // (samples // task.batch), 1), task.batch, task.chance)


def networks(*, tuning: bool, quick: bool) -> dict[str, Task]:
    """By name; what is tuned on is not reported."""
    if quick:
        return {"digits-10%": _small("digits-10%")}
    if tuning:
        return {
            "Fashion-MNIST 128-64": _fashion(128, 64),
            "Fashion-MNIST 128-64, 2000 images": _fashion(128, 64, train=2000, epochs=10),
            "Fashion-MNIST 4 x 128": _fashion(128, 128, 128, 128),
            "Cora, GCN": tasks.TASKS["cora"]._replace(points=1, one_by_one=True),
            **{label: _small(label) for label in ("classes", "digits-10%", "gru")},
        }
    return {
        "Fashion-MNIST 2 x 64": _fashion(64, 64),
        "Fashion-MNIST 6 x 256, 3000 images": _fashion(*6 * (256,), train=3000, epochs=4),
        "CiteSeer, GCN": tasks.TASKS["citeseer"]._replace(points=1, one_by_one=True),
        **{label: _small(label) for label in ("digits-cnn", "layer-norm", "transformer")},
    }


# ------------------------------------------------------------------------------------------------------------
# The two tests
# ------------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What the tests say, of one run each."""

    rates: tuple[float, ...]  # of each of `FINDERS`
    curve: cgalr_jax.LearningRateCurve


def propose(task: Task, problem: Problem, optimizer: Optimizer, seed: int = SEEDS[0]) -> Found:
    """The rates that the finders propose, from the parameters that this seed trains."""
    parts = problem.split(seed)
    init_key, order_key, dropout_key, _ = jax.random.split(jax.random.key(seed), 4)
    order = parts["train"][training.batches(order_key, len(parts["train"]), task.batch, STEPS)]
    params = problem.model.init(init_key)

    def loss(params, data, count):
        inputs, targets = problem.take(data, "train", jnp.asarray(order)[count % STEPS])
        key = jax.random.fold_in(dropout_key, count)
        return problem.loss(params, problem.model.apply(params, inputs, key)[0], targets)

    def step(state, rate):
        params, opt_state, count, data = state
        gradient = jax.grad(loss)(params, data, count)
        updates, opt_state = optimizer.make(rate).update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, count + 1, data

    def probe(state):
        inputs, _ = problem.take(state[-1], "probe", jnp.asarray(parts["probe"][:PROBE_SAMPLES]))
        return problem.model.apply(state[0], inputs, None)[1]

    # The data is in the state: closed over, it would be a constant of the program.
    start = params, optimizer.make(jnp.float32(1.0)).init(params), jnp.int32(0), problem.data
    curve = cgalr_jax.find_learning_rate(step, start, probe, lowest=LOWEST, highest=HIGHEST)

    def ramp(state, rate):
        params, _, count, data = state
        return step(state, rate), loss(params, data, count)

    rates = jnp.geomspace(LOWEST, HIGHEST, STEPS)
    losses = np.asarray(jax.jit(lambda start: jax.lax.scan(ramp, start, rates)[1])(start))
    return Found((curve.rate, *from_losses(np.asarray(rates), losses)), curve)


def from_losses(rates: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """The two readings of a loss curve, up to where the smoothed loss has left four times its minimum."""
    smooth, value = [], losses[0]
    for loss in losses:
        value = 0.9 * value + 0.1 * loss
        if not value < 4 * min([*smooth, losses[0]]):
            break
        smooth.append(value)
    smooth = np.array(smooth)
    steepest = np.gradient(smooth, np.log(rates[: len(smooth)])).argmin() if len(smooth) > 1 else 0
    return float(rates[smooth.argmin()] / 10), float(rates[steepest])


# ------------------------------------------------------------------------------------------------------------
# The comparison
# ------------------------------------------------------------------------------------------------------------


def judge(task: Task, problem: Problem, optimizer: Optimizer) -> list[arguments.Record]:
    """One record for each finder: the rate it found, the oracle's, and the mean errors over seeds of both."""
    trainer = runner.Runner(task, problem, methods.FAMILIES)

    def train(rate: float) -> runner.Outcome:
        return trainer.train(methods.METHODS[optimizer.method], (rate,), SEEDS)[0]

    line = lines.Line(optimizer.grid, tuple(map(train, optimizer.grid)), optimizer.grid)
    found = propose(task, problem, optimizer)
    records = [
        {"finder": finder, "rate": rate, "error": float(train(rate).test.mean())}
        | {"oracle_rate": line.rates[line.best], "oracle_error": float(line.chosen.test.mean())}
        for finder, rate in zip(FINDERS, found.rates, strict=True)
    ]
    records[0] |= {name: getattr(found.curve, name) for name in ("low", "high", "reached")}
    return records


def report(groups: dict[tuple[str, str], list[arguments.Record]]) -> str:
    """The table, and what it says of all."""
    header = ["network", "optimizer", "oracle rate: error", "low to high"]
    header += [f"{name}: RED %" for name in FINDERS]
    rows, reds = [], []
    for (network, optimizer), records in groups.items():
        ours = records[0]
        reds.append([record["error"] / record["oracle_error"] - 1 for record in records])
        cells = [network, optimizer, f"{ours['oracle_rate']:g}: {ours['oracle_error']:.3f}"]
        cells.append(f"{ours['low']:.2g} to {ours['high']:.2g}")
        cells += [f"{r['rate']:.2g}: {100 * red:+.1f}" for r, red in zip(records, reds[-1], strict=True)]
        rows.append(cells)
    means = [f"{100 * mean:+.1f}" for mean in np.mean(reds, axis=0)]
    close = [f"{count} of {len(reds)}" for count in np.sum(np.array(reds) <= CLOSE, axis=0)]
    ours = [records[0] for records in groups.values()]
    covered = sum(record["low"] <= record["oracle_rate"] <= record["high"] for record in ours)
    return "\n".join(
        [
            pages.rows(header, rows),
            f"| **mean** | | | | {' | '.join(means)} |",
            f"| **within {100 * CLOSE:g} %** | | | | {' | '.join(close)} |",
            "",
            f"Low to high held the oracle's rate in {covered} of {len(ours)}; the set-point was reached in "
            f"{sum(record['reached'] for record in ours)}.",
        ]
    )


def main(given: list[str] | None = None) -> None:
    parser = arguments.parser(
        "benchmarks.rate_finder",
        __doc__ or "",
        quick="one small network, which needs no data",
        records="for each network, optimizer and finder",
    )
    arguments.add_data(parser)
    parser.add_argument("--tuning", action="store_true", help="the networks that constants were chosen on")
    options = parser.parse_args(given)
    if options.quick and options.tuning:
        parser.error("argument --tuning: --quick is of one network, which is reported")
    if options.quick:
        arguments.need_no_data(parser, options, "--quick needs no data")
    elif options.data is None:
        parser.error("argument --data: must name the folder of the data sets")
    chosen = networks(tuning=options.tuning, quick=options.quick)
    with arguments.reading_data(parser):
        problems = {name: task.load(options.data or pathlib.Path()) for name, task in chosen.items()}

    groups = {}
    places = [(network, optimizer) for network in chosen for optimizer in OPTIMIZERS]
    for network, optimizer in progress.track(places, description="range tests"):
        groups[network, optimizer] = judge(chosen[network], problems[network], OPTIMIZERS[optimizer])
        arguments.write(
            options.json,
            [
                {"network": network, "optimizer": optimizer} | record
                for (network, optimizer), records in groups.items()
                for record in records
            ],
        )
        jax.clear_caches()
    print(report(groups))


if __name__ == "__main__":
    main()
