"""One huge gradient, which an optimizer remembers for long: does it decide a run?

    python -m benchmarks.faults.one_gradient            # three optimizers, five minutes
    python -m benchmarks.faults.one_gradient --quick    # one optimizer, few seeds

An MLP learns scikit-learn's digits. At one step, drawn for each seed from the first quarter of the run, the
gradient is multiplied by 30, 1000 or 100,000. Beside ours, untuned, stands the same optimizer with a cosine
under the same faults: at the base rate, of seven, that is best without a fault, and at the best for just this
one, which nobody could know beforehand.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cgalr_jax
from benchmarks import arguments, estimates, pages, scores
from examples import datasets

STEPS, BATCH, SAMPLES, WIDTH = 600, 64, 32, 64
FIRST = STEPS // 4  # the fault comes before this step: in the ramp or soon after it
FACTORS = (1.0, 30.0, 1e3, 1e5)  # 1: no fault
SEEDS, QUICK_SEEDS = 20, 3
OPTIMIZERS: dict[str, Callable[[optax.Schedule], optax.GradientTransformation]] = {
    "SGD": functools.partial(optax.sgd, momentum=0.9),
    "Adam": optax.adam,
    "Adam, clipped": lambda schedule: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)),
}
_GRID = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
RATES = {name: tuple(30 * rate if name == "SGD" else rate for rate in _GRID) for name in OPTIMIZERS}
OURS = {"ours": None, "ours, steps known": STEPS}  # at the smallest of these rates


def run(optimizer: str, seeds: int) -> list[arguments.Record]:
    """A flat record for each method, base rate, factor and seed."""
    hits = np.random.default_rng(0).integers(0, FIRST, seeds)
    faults = [(factor, int(hit), seed) for factor in FACTORS for seed, hit in enumerate(hits)]
    batch = tuple(map(jnp.asarray, zip(*faults, strict=True)))
    make, rates = OPTIMIZERS[optimizer], RATES[optimizer]

    def ours(steps: int | None, *fault: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        schedule = optax.cosine_decay_schedule(rates[0], STEPS)
        example = {"first": WIDTH, "second": WIDTH}
        error, state = train(cgalr_jax.cgalr(schedule, example, optimizer=make, steps=steps), *fault)
        metrics = cgalr_jax.metrics(state)
        return error, {name: metrics[f"cgalr/{name}"] for name in ("anchor", "ended")}

    def cosine(rate: jax.Array, *fault: jax.Array) -> jax.Array:
        shape = optax.cosine_decay_schedule(1.0, STEPS)
        return train(optax.with_extra_args_support(make(lambda step: rate * shape(step))), *fault)[0]

    found: list[tuple[str, float, Any, dict[str, Any]]] = []
    for name, steps in OURS.items():
        found.append((name, rates[0], *jax.jit(jax.vmap(functools.partial(ours, steps)))(*batch)))
    tuned = jax.jit(jax.vmap(cosine, (None, 0, 0, 0)))
    found += [("cosine", rate, tuned(rate, *batch), {}) for rate in rates]
    return [
        {"optimizer": optimizer, "method": method, "rate": rate, "factor": factor, "step": hit, "seed": seed}
        | {"error": float(errors[row])}
        | {name: float(ends[name][row]) if ends else None for name in ("anchor", "ended")}
        for method, rate, errors, ends in found
        for row, (factor, hit, seed) in enumerate(faults)
    ]


def train(
    tx: optax.GradientTransformationExtraArgs, factor: jax.Array, hit: jax.Array, seed: jax.Array
) -> tuple[jax.Array, Any]:
    """The test error and the optimizer's state after a run whose gradient is `factor` times as large once."""
    data = datasets.digits()
    x, y, x_test, y_test = map(jnp.asarray, data)
    x, x_test = (images.reshape(len(images), -1) for images in (x, x_test))
    key = jax.random.key(seed)

    def layers(params: Any, x: jax.Array) -> dict[str, jax.Array]:
        first = jnp.tanh(x @ params["first"])
        second = jnp.tanh(first @ params["second"])
        return {"first": first, "second": second, "logits": second @ params["logits"]}

    def loss(params: Any, rows: jax.Array) -> jax.Array:
        return scores.cross_entropy(layers(params, x[rows])["logits"], y[rows])

    def probe(params: Any) -> dict[str, jax.Array]:
        found = layers(params, x[:SAMPLES])
        return {"first": found["first"], "second": found["second"]}

    def step(carry: Any, number: jax.Array) -> tuple[Any, None]:
        params, state = carry
        rows = jax.random.randint(jax.random.fold_in(key, number), (BATCH,), 0, len(x))
        grads = jax.grad(loss)(params, rows)
        grads = jax.tree.map(lambda g: g * jnp.where(number == hit, factor, 1.0), grads)
        updates, state = tx.update(grads, state, params, probe=probe)
        return (optax.apply_updates(params, updates), state), None

    shapes = {"first": (x.shape[1], WIDTH), "second": (WIDTH, WIDTH), "logits": (WIDTH, 10)}
    params = {
        name: jax.random.normal(jax.random.fold_in(key, STEPS + k), shape) / jnp.sqrt(shape[0])
        for k, (name, shape) in enumerate(shapes.items())
    }
    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(STEPS))
    return scores.capped(scores.error(layers(params, x_test)["logits"], y_test), 0.9), state


COLUMNS = (
    "optimizer",
    "gradient, times",
    "method",
    "error, %",
    "cosine, tuned without it",
    "RED, %",
    "cosine, tuned for it",
    "RED, %",
    "anchor, times the sound run's",
    "off by more than 2",
)


def rows(optimizer: str, records: Sequence[arguments.Record]) -> Iterator[list[str]]:
    """Of each fault and way to use ours: beside the cosine at two base rates, and what its anchor is."""
    runs: dict[Any, list[arguments.Record]] = {}
    for record in records:
        if record["optimizer"] == optimizer:
            runs.setdefault((record["factor"], record["method"], record["rate"]), []).append(record)

    def of(name: str, *run: Any) -> np.ndarray:
        return np.asarray([record[name] for record in runs[run]])

    def best(factor: float) -> float:
        return min(RATES[optimizer], key=lambda rate: of("error", factor, "cosine", rate).mean())

    first = RATES[optimizer][0]
    for factor in FACTORS:
        for method in OURS:
            ours = of("error", factor, method, first)
            cells = [optimizer, f"{factor:,.0f}", method, f"{100 * ours.mean():.1f}"]
            for rate in (best(1.0), best(factor)):
                cosine = of("error", factor, "cosine", rate)
                cells += [f"{100 * cosine.mean():.1f} at {rate:g}", str(estimates.red(ours, cosine))]
            ratio = of("anchor", factor, method, first) / of("anchor", 1.0, method, first)
            cells += [f"{np.median(ratio):.2g} ({ratio.min():.2g} to {ratio.max():.2g})"]
            yield [*cells, f"{np.mean((ratio < 0.5) | (ratio > 2)):.0%}"]


def main(given: list[str] | None = None) -> None:
    parser = arguments.parser(
        "benchmarks.faults.one_gradient",
        __doc__ or "",
        quick=f"Adam on {QUICK_SEEDS} seeds",
        records="for each run",
    )
    options = parser.parse_args(given)
    chosen = ("Adam",) if options.quick else tuple(OPTIMIZERS)
    seeds = QUICK_SEEDS if options.quick else SEEDS
    records = [record for optimizer in chosen for record in run(optimizer, seeds)]
    print(pages.rows(COLUMNS, [row for optimizer in chosen for row in rows(optimizer, records)]))
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
