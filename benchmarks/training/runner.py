"""Train a task with a family: mapped over seeds, vmapped over configurations, scanned over steps.

The step counter inside an optimizer state does not depend on the configuration, so vmap leaves it unbatched
and a ``lax.cond`` on it stays a real branch: measuring every tenth step costs nothing in between.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import scores, steps
from benchmarks.training import data, methods, models, tasks

CHECKPOINTS = 20  # scores along the way, for the time to target
CURVE_SAMPLES = 500  # test samples (windows, nodes) such a score is taken on


class Outcome(NamedTuple):
    """What K configurations did on S seeds; f32[S, K] and, with a trailing axis, along the run."""

    score: Any
    curve: Any  # [S, K, CHECKPOINTS]
    scale: Any  # [S, K, steps]
    distance: Any  # [S, K, steps]


def batches(key: jax.Array, samples: int, batch: int, steps: int) -> jax.Array:
    """Shuffled epochs: int32[steps, batch], every sample once an epoch, an incomplete last batch dropped."""
    epochs = -(-steps // (samples // batch))
    orders = jax.vmap(lambda each: jax.random.permutation(each, samples))(jax.random.split(key, epochs))
    return orders[:, : samples // batch * batch].reshape(-1, batch)[:steps]


def _take(tree: Any, indices: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[indices], tree)


def _train_one(task: tasks.Task, family: methods.Family, prepared: tuple, config: methods.Config) -> Outcome:
    split, params, order, key = prepared
    example = split.inputs[: task.batch]
    optimizer = optax.with_extra_args_support(family.build(task, config, key, example))
    curve_split = split._replace(
        test_inputs=split.test_inputs[:CURVE_SAMPLES],
        test_targets=_take(split.test_targets, slice(CURVE_SAMPLES)),
    )

    def step(run: steps.Run, indices: jax.Array):
        inputs, targets = split.inputs[indices], _take(split.targets, indices)

        def objective(params: models.Params) -> jax.Array:
            return task.loss(task.model.apply(params, inputs)[0], targets)

        run = steps.step(optimizer, objective, run, **family.extras(task, split, inputs))
        return run, tuple(steps.observe(run.state, name, 1.0) for name in ("cg_scale", "cg_distance"))

    def stretch(run: steps.Run, indices: jax.Array):
        run, observed = jax.lax.scan(step, run, indices)
        return run, (observed, score(run, curve_split))

    def score(run: steps.Run, split: data.Split) -> jax.Array:
        params = steps.evaluated(run, averaged=config.get("averaged", 1.0) > 0)
        return scores.capped(task.score(task.model, params, split), task.chance)

    run = steps.Run(params, optimizer.init(params))
    run, (observed, curve) = jax.lax.scan(stretch, run, order.reshape(CHECKPOINTS, -1, task.batch))
    scale, distance = (leaf.reshape(-1) for leaf in observed)
    return Outcome(score(run, split), curve, scale, distance)


def _prepare(task: tasks.Task, seed: jax.Array) -> tuple:
    """The split, the initial parameters and the order of the data: the same for every method."""
    split_key, init_key, order_key, method_key = jax.random.split(jax.random.key(seed), 4)
    split = task.split(split_key)
    order = batches(order_key, split.inputs.shape[0], task.batch, task.steps)
    return split, task.model.init(init_key), order, method_key


@functools.lru_cache(maxsize=2)
def prepare(task_label: str, seeds: tuple[int, ...]) -> tuple:
    """`_prepare` for all seeds of a task, leaves [S, ...]; apart, so that no family compiles it again."""
    task = tasks.catalogue()[task_label]
    return jax.jit(jax.vmap(functools.partial(_prepare, task)))(jnp.array(seeds))


def compile_family(
    task: tasks.Task, family: methods.Family, seeds: tuple[int, ...], configs: methods.Config
) -> tuple[Callable[[], Outcome], float]:
    """Compile; returns the function that trains all seeds x configurations, and the seconds spent compiling.

    Args:
        task: what is trained.
        family: how; configurations of one family share the computation and differ in numbers only.
        seeds: S of them.
        configs: the numbers; every leaf has leading axes [S, K].
    """

    def train_seed(each: tuple[tuple, methods.Config]) -> Outcome:
        prepared, config = each
        return jax.vmap(functools.partial(_train_one, task, family, prepared))(config)

    # One seed after the other: the working set stays in the cache.
    train_all = jax.jit(lambda prepared, configs: jax.lax.map(train_seed, (prepared, configs)))
    prepared = prepare(tasks.label(task), seeds)
    began = time.perf_counter()
    compiled = train_all.lower(prepared, configs).compile()
    return lambda: jax.tree.map(np.asarray, compiled(prepared, configs)), time.perf_counter() - began
