"""The methods: the paper's preset, ours, the schedules that it is compared with, and the controls.

A `Family` is one computation; the methods of a family differ in numbers only and share a compilation. Every
method is tried at six base rates over a range of 300x, around a middle that the task gives for its kind of
rate: the same budget for all. One whose best is the first or the last of them is tried beyond it, until it is
not or the ladder of ten ends: a middle that does not suit a method must not be what makes it lose.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cgalr_jax
from benchmarks.paper import tasks
from benchmarks.training import methods as training
from benchmarks.training.controllers import listening
from cgalr_jax import presets, signals

Config = dict[str, Any]  # "rate": f32[], "shape": f32[steps], "listen": f32[]
FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
GRID = 2, 8  # of these, what every method is tried at
MIDDLES: dict[str, Callable[[tasks.Task], float]] = {
    "sgd": lambda task: task.sgd,
    "adam": lambda task: task.adam,
    "factor": lambda task: 1.0,  # of what a method finds by itself
    "lion": lambda task: 0.1 * task.adam,  # its updates are all of size 1
    "muon": lambda task: 10 * task.adam,  # those of a matrix have a spectral norm of 1
}


class Setting(NamedTuple):
    """What an optimizer is made from."""

    config: Config
    example: Any  # shapes of the hidden units, of the fixed probe
    samples: Any  # an example of paired samples, or None
    steps: int
    steps_per_epoch: int
    key: jax.Array


class Family(NamedTuple):
    """One computation.

    Attributes:
        build: `Setting -> optax.GradientTransformation`.
        source: where the hidden units come from: None, "fixed", or "paired" where the task allows.
    """

    build: Callable[[Setting], optax.GradientTransformation]
    source: str | None = None


class Method(NamedTuple):
    """A line of the report: a family, the shape of its schedule, the kind of its base rate."""

    family: str
    shape: str
    kind: str = "sgd"  # of its base rate, in `MIDDLES`
    listen: float = 1.0  # of a gate: 1 hears the distance, 0 noise, -1 its inverse

    def rates(self, task: tasks.Task, error: Callable[[float], float | None]) -> tuple[float, ...]:
        """The base rates that it is to be tried at, as far as is known.

        Args:
            task: gives the middle.
            error: the validation error at a base rate, or None where it was not tried yet.
        """
        ladder = [float(np.float32(MIDDLES[self.kind](task) * factor)) for factor in FACTORS]
        first, last = GRID
        while True:
            rates = tuple(ladder[first:last])
            errors = [error(rate) for rate in rates]
            if None in errors:
                return rates
            best = int(np.argmin(np.asarray(errors, np.float64)))
            if best == 0 and first > 0:
                first -= 1
            elif best == len(rates) - 1 and last < len(ladder):
                last += 1
            else:
                return rates


def shapes(steps: int, steps_per_epoch: int) -> dict[str, np.ndarray]:
    """Schedules with a peak of 1, f32[steps]; "envelope" is the upper bound of the paper's preset."""
    epoch = np.arange(steps, dtype=np.float32) // steps_per_epoch
    return training.shapes(steps) | {"envelope": 1 / (1 + epoch / 10)}


def _sgd(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


def _paper(topology: presets.Topology, **rest: Any) -> Family:
    def build(setting: Setting) -> optax.GradientTransformation:
        return presets.paper(
            setting.config["rate"],
            setting.example,
            steps_per_epoch=setting.steps_per_epoch,
            topology=topology,
            **rest,
        )

    return Family(build, "fixed")


def _controlled(setting: Setting) -> optax.GradientTransformation:
    """The paper's preset, but for what its gate hears."""
    gate = presets.paper_gate(setting.steps_per_epoch)
    return cgalr_jax.cgalr(
        setting.config["rate"],
        setting.example,
        every=setting.steps_per_epoch,
        controller=listening(gate, setting.config["listen"], setting.key),
        signal=presets.paper_signal("deaths"),
        max_units=inspect.signature(presets.paper).parameters["max_units"].default,
    )


def ours(setting: Setting, rows: int | None = None, **rest: Any) -> optax.GradientTransformation:
    """The library's default; of paired samples only the first `rows`."""
    schedule = training.rate_of(setting.config)
    samples = None if setting.samples is None else setting.samples[:rows]
    options = {"every": max(setting.steps // training.MEASUREMENTS, 1), **rest}
    return cgalr_jax.cgalr(schedule, setting.example, samples=samples, **options)


FAMILIES: dict[str, Family] = {
    "sgd": Family(lambda setting: _sgd(training.rate_of(setting.config))),
    "adamw": Family(lambda setting: optax.adamw(training.rate_of(setting.config))),
    "prodigy": Family(lambda setting: optax.contrib.prodigy(training.rate_of(setting.config))),
    "dog": Family(
        lambda setting: optax.chain(
            optax.contrib.dog(training.rate_of(setting.config)), cgalr_jax.polynomial_averaging()
        )
    ),
    "paper deaths": _paper("deaths"),
    "paper barcode": _paper("barcode"),
    "paper WD": _paper("wasserstein", max_units=32),  # H1 of more takes seconds a measurement
    "gate control": Family(_controlled, "fixed"),
    "default": Family(ours, "paired"),
    "default of 8": Family(functools.partial(ours, rows=8), "paired"),
    "update norm": Family(lambda setting: ours(setting, signal=signals.update_norm())),
}

METHODS: dict[str, Method] = {
    "paper deaths": Method("paper deaths", "constant"),
    "paper barcode": Method("paper barcode", "constant"),
    "paper WD": Method("paper WD", "constant"),
    "gate on noise": Method("gate control", "constant", listen=0.0),
    "gate reversed": Method("gate control", "constant", listen=-1.0),
    "envelope, no gate": Method("sgd", "envelope"),
    "SGD constant": Method("sgd", "constant"),
    "SGD step": Method("sgd", "step"),
    "SGD exponential": Method("sgd", "exponential"),
    "SGD cosine": Method("sgd", "cosine"),
    "SGD warm-up cosine": Method("sgd", "warm-up cosine"),
    "DoG, averaged": Method("dog", "constant", "factor"),
    "AdamW cosine": Method("adamw", "cosine", "adam"),
    "Prodigy": Method("prodigy", "constant", "factor"),
    "Prodigy cosine": Method("prodigy", "cosine", "factor"),
    "our default": Method("default", "cosine"),
    "our default, 8 samples": Method("default of 8", "cosine"),
    "update norm": Method("update norm", "cosine"),
}


def evaluated(state: Any, params: Any) -> Any:
    """The parameters that are scored: the average where the optimizer keeps one."""
    if isinstance(state, optax.contrib.ScheduleFreeState):
        return optax.contrib.schedule_free_eval_params(state, params)
    if optax.tree.get_all_with_path(state, "averaging_step"):
        return cgalr_jax.averaged_params(state, params)
    return params


def observe(state: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scale, distance and how the calibration ended; 1, 0 and NaN of an optimizer that has none."""
    names = {"cg_scale": 1.0, "cg_distance": 0.0, "ended": jnp.nan}
    scale, distance, ended = (
        jnp.asarray(optax.tree.get(state, name, default=default), jnp.float32)
        for name, default in names.items()
    )
    return scale, distance, ended
