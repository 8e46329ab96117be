"""Trains a method on a task: vmapped over seeds and base rates, scanned over steps, compiled for a family."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import scores, steps
from benchmarks.study import methods, tasks


class Outcome(NamedTuple):
    """What S seeds gave at one base rate; curves at C points along the run, the last at its end."""

    validation: np.ndarray  # f32[S], at the end
    test: np.ndarray  # f32[S], at the end, all test samples
    validation_curve: np.ndarray  # f32[S, C]
    test_curve: np.ndarray  # f32[S, C], of some test samples
    rate: np.ndarray  # f32[S, C], base rate times schedule times scale
    distance: np.ndarray  # f32[S, C], 0 without a connectome
    ended: np.ndarray  # f32[S], how the calibration ended, see `cgalr_jax.controllers`; NaN without one


_CURVE_SAMPLES = 2000
_AT_ONCE = 250  # samples that are scored: a convolution's patches are nine times its input


def side_by_side() -> bool:
    """Whether many runs at once cost little more than one: an accelerator; the caches of a CPU are small."""
    return jax.default_backend() != "cpu"


class Runner:
    """A task with its data; keeps one compilation for each family and numbers of seeds and base rates."""

    def __init__(self, task: tasks.Task, problem: tasks.Problem, families: Mapping[str, methods.Family]):
        self.task, self.problem, self.families = task, problem, families
        self.steps_per_epoch = len(problem.split(0)["train"]) // task.batch
        self.steps = task.epochs * self.steps_per_epoch
        self._shapes = methods.shapes(self.steps, self.steps_per_epoch)
        self._compiled = functools.cache(self._compile)

    def train(self, method: methods.Method, rates: Sequence[float], seeds: tuple[int, ...]) -> list[Outcome]:
        """All these seeds at each of these base rates: an outcome a rate."""
        config = {"shape": self._shapes[method.shape], "listen": np.float32(method.listen)}
        parts = jax.tree.map(lambda *each: np.stack(each), *map(self.problem.split, seeds))
        train = self._compiled(method.family)
        outcomes = jax.device_get(train(self.problem.data, parts, np.array(seeds), np.float32(rates), config))
        return [Outcome(*each) for each in zip(*outcomes, strict=True)]

    def _compile(self, family: str) -> Any:
        def train_all(data: Any, parts: Any, seeds: jax.Array, rates: jax.Array, config: methods.Config):
            def train_rate(rate: jax.Array) -> Outcome:
                def train_seed(each: tuple[Any, jax.Array]) -> Outcome:
                    return self._train(self.families[family], data, *each, {"rate": rate, **config})

                # A batch as large as there are seeds is a vmap, none a loop.
                together = None if self.task.one_by_one and not side_by_side() else len(seeds)
                return jax.lax.map(train_seed, (parts, seeds), batch_size=together)

            return jax.vmap(train_rate)(rates)

        return jax.jit(train_all)

    def _train(
        self, family: methods.Family, data: Any, parts: Any, seed: jax.Array, config: methods.Config
    ) -> Outcome:
        task, problem = self.task, self.problem
        init_key, order_key, dropout_key, method_key = jax.random.split(jax.random.key(seed), 4)
        params = problem.model.init(init_key)

        def units(params: Any, inputs: Any) -> Any:
            return problem.model.apply(params, inputs, None)[1]

        # 1. The optimizer, and what it is told at each step.
        probed = problem.take(data, "probe", parts["probe"])[0]
        source = "fixed" if family.source == "paired" and not task.paired else family.source
        batch = parts["train"][: task.batch]
        setting = methods.Setting(
            config=config,
            example=jax.eval_shape(units, params, probed),
            samples=problem.take(data, "train", batch)[0] if source == "paired" else None,
            steps=self.steps,
            steps_per_epoch=self.steps_per_epoch,
            key=method_key,
        )
        optimizer = optax.with_extra_args_support(family.build(setting))

        # 2. Steps, epochs, stretches of epochs with a score at the end of each.
        def step(run: steps.Run, given: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[steps.Run, None]:
            numbers, others, key = given

            def loss_of(batch: tuple[Any, Any]) -> Callable[[Any], jax.Array]:
                inputs, targets = batch
                return lambda params: problem.loss(
                    params, problem.model.apply(params, inputs, key)[0], targets
                )

            batch = problem.take(data, "train", numbers)
            if source == "loss":
                told = {"value_fn": loss_of(problem.take(data, "train", others))}
            else:
                told = steps.told(source, units, batch[0], probed)
            return steps.step(optimizer, loss_of(batch), run, **told), None

        def epoch(run: steps.Run, number: jax.Array) -> tuple[steps.Run, None]:
            order = jax.random.permutation(jax.random.fold_in(order_key, number), parts["train"])
            order = order[: self.steps_per_epoch * task.batch].reshape(self.steps_per_epoch, task.batch)
            keys = jax.random.split(jax.random.fold_in(dropout_key, number), self.steps_per_epoch)
            return jax.lax.scan(step, run, (order, jnp.roll(order, -1, axis=0), keys))

        def answered(params: Any, inputs: Any) -> Any:
            """Outputs of samples, so many at a time; of a graph for all of its nodes."""

            def apply(inputs: Any) -> Any:
                return problem.model.apply(params, inputs, None)[0]

            if not isinstance(inputs, jax.Array) or len(inputs) <= _AT_ONCE:
                return apply(inputs)
            chunks = inputs.reshape(-1, math.gcd(len(inputs), _AT_ONCE), *inputs.shape[1:])
            return jax.tree.map(
                lambda leaf: leaf.reshape(len(inputs), *leaf.shape[2:]), jax.lax.map(apply, chunks)
            )

        def score(run: steps.Run, part: str, samples: int | None = None) -> jax.Array:
            inputs, targets = problem.take(data, part, parts[part][:samples])
            outputs = answered(steps.evaluated(run), inputs)
            return scores.capped(problem.score(outputs, targets), task.chance)

        def stretch(run: steps.Run, numbers: jax.Array) -> tuple[steps.Run, tuple]:
            run, _ = jax.lax.scan(epoch, run, numbers)
            last = (numbers[-1] + 1) * self.steps_per_epoch - 1
            rate = config["rate"] * config["shape"][last] * steps.observe(run.state, "cg_scale", 1.0)
            scores = (score(run, part, _CURVE_SAMPLES) for part in ("validation", "test"))
            return run, (*scores, rate, steps.observe(run.state, "cg_distance", 0.0))

        run = steps.Run(params, optimizer.init(params))
        numbers = jnp.arange(task.epochs).reshape(task.points, -1)
        run, curves = jax.lax.scan(stretch, run, numbers)
        ended = steps.observe(run.state, "ended", jnp.nan)
        return Outcome(score(run, "validation"), score(run, "test"), *curves, ended)
