"""Which range test finds the better learning rate: the connectome's, or the loss's that people know?

    python -m benchmarks.rate_finder [--quick] [--json FILE]

Each test proposes a rate for SGD (with the task's momentum) from 210 steps without validation data; SGD under
a cosine schedule with that peak is then compared, on the same seeds, with the peak that an oracle chose from
a grid. The loss-based test is Smith's (arXiv 1506.01186): the rate rises geometrically along one run, and
what is proposed is a tenth of the rate with the smallest smoothed loss, or the rate where that falls fastest;
both are in use.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich import progress

import cgalr_jax
from benchmarks import arguments, estimates
from benchmarks.training import methods, runner, tasks

SEEDS = tuple(range(300, 306))
TASKS = ("digits", "digits-raw", "digits-10%-plain", "digits-cnn", "teacher", "classes-x5", "classes-plain")
TASKS += ("layer-norm", "gru", "transformer")
LOWEST, HIGHEST, STEPS = 1e-5, 10.0, 210
FINDERS = ("connectome", "loss, minimum / 10", "loss, steepest")


def propose(task: tasks.Task, prepared: tuple) -> tuple[float, ...]:
    """The rates that the finders propose for one seed, in the order of `FINDERS`."""
    split, params, order, _ = prepared
    inputs = split.inputs[: methods.PROBE_SAMPLES]

    def step(state, rate):
        params, opt_state, count = state
        batch = order[count]
        objective = functools.partial(_loss, task, split, batch)
        gradient = jax.grad(objective)(params)
        updates, opt_state = _sgd(task, rate).update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, count + 1

    start = params, _sgd(task, 1.0).init(params), jnp.zeros((), jnp.int32)
    curve = cgalr_jax.find_learning_rate(
        step, start, lambda state: task.model.apply(state[0], inputs)[1], lowest=LOWEST, highest=HIGHEST
    )

    def ramp(state, rate):
        params, _, count = state
        return step(state, rate), _loss(task, split, order[count], params)

    rates = jnp.geomspace(LOWEST, HIGHEST, STEPS)
    losses = np.asarray(jax.jit(lambda start: jax.lax.scan(ramp, start, rates)[1])(start))
    return curve.rate, *from_losses(np.asarray(rates), losses)


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


def _sgd(task: tasks.Task, rate) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=task.momentum or None)


def _loss(task: tasks.Task, split, batch, params):
    targets = jax.tree.map(lambda leaf: leaf[batch], split.targets)
    return task.loss(task.model.apply(params, split.inputs[batch])[0], targets)


def judge(label: str, seeds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Proposed rates f[S, F], and the scores f[S, F + G] of the proposals and of the grid."""
    task = tasks.catalogue()[label]
    prepared = runner.prepare(label, seeds)
    proposed = np.array(
        [
            propose(task, jax.tree.map(lambda leaf, seed=seed: leaf[seed], prepared))
            for seed in range(len(seeds))
        ]
    )
    grid = np.broadcast_to(np.float32(methods.SGD_RATES), (len(seeds), len(methods.SGD_RATES)))
    rates = np.concatenate([np.float32(proposed), grid], axis=1)
    shape = methods.shapes(task.steps)["cosine"]
    configs = {"rate": rates, "shape": np.broadcast_to(shape, (*rates.shape, len(shape)))}
    train, _ = runner.compile_family(task, methods.FAMILIES["sgd"], seeds, configs)
    return proposed, train().score


def main() -> None:
    options = arguments.parser(
        "benchmarks.rate_finder",
        __doc__,
        quick="one task, two seeds",
        records="for each task, seed and finder",
    ).parse_args()
    labels, seeds = (("cancer",), SEEDS[:2]) if options.quick else (TASKS, SEEDS)

    pairs: dict[str, list] = {name: [] for name in FINDERS}
    records, lines = [], []
    for label in progress.track(labels, description="range tests"):
        proposed, score = judge(label, seeds)
        grid = score[:, len(FINDERS) :]
        best = estimates.oracle(grid)
        row = [label, f"{methods.SGD_RATES[best]:g}"]
        for number, name in enumerate(FINDERS):
            pairs[name].append((score[:, number], grid[:, best]))
            rate = np.exp(np.mean(np.log(proposed[:, number])))
            row.append(f"{rate:.2g}: {estimates.red(*pairs[name][-1])}")
            records += [
                {"task": label, "finder": name, "seed": seed, "rate": float(r), "error": float(e)}
                | {"oracle_rate": methods.SGD_RATES[best], "oracle_error": float(o)}
                for seed, r, e, o in zip(
                    seeds, proposed[:, number], score[:, number], grid[:, best], strict=True
                )
            ]
        lines.append("| " + " | ".join(row) + " |")
        jax.clear_caches()
    print("| task | oracle rate | " + " | ".join(f"{name}: RED %" for name in FINDERS) + " |")
    print("|---" * (len(FINDERS) + 2) + "|")
    print("\n".join(lines))
    print("| **mean** | | " + " | ".join(str(estimates.mean_red(pairs[name])) for name in FINDERS) + " |")
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
