"""The methods: every baseline from Optax, ours through the public interface, and the controls.

A `Family` is one computation; its configurations differ in numbers only (base rate, shape of the schedule,
set-point), so that they share a compilation and are vmapped. A `Method` is a line of the report: a family, a
schedule, the base rates it is tried at.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import cgalr_jax
from benchmarks import schedules, steps
from benchmarks.training import controllers, models, signals, tasks

Config = dict[str, Any]  # "rate": f32[], "shape": f32[steps], and a family's own numbers
PROBE_SAMPLES = 128
OTHER_BASES = ("AdamW", "Muon", "Lion")  # beside SGD


def all_layers(layers: models.Layers) -> models.Layers:
    """Every layer that the model hands out."""
    return layers


class Family(NamedTuple):
    """One computation; ``build(task, config, key, inputs)`` makes its optimizer from an example batch."""

    build: Callable[..., optax.GradientTransformation]
    source: str | None = None  # where activations come from: None, "fixed" or "paired"
    samples: int | None = None  # how many are forwarded; None: the whole batch, or 128 of a probe
    select: Callable[[models.Layers], models.Layers] = all_layers  # which of the model's are measured

    def extras(self, task: tasks.Task, split: Any, inputs: jax.Array) -> dict[str, Any]:
        """The extra arguments of ``update``."""

        def units(params: models.Params, samples: jax.Array) -> models.Layers:
            return self.select(task.model.apply(params, samples)[1])

        fixed = split.inputs[: self.samples or PROBE_SAMPLES]
        return steps.told(self.source, units, inputs[: self.samples], fixed)


# What a configuration chooses by the place of a name: arrays hold no names.
CHOICES = {"signal": signals.SHARED, "controller": controllers.SHARED}


class Method(NamedTuple):
    """A line of the report."""

    family: str
    shape: str
    rates: tuple[float, ...]
    settings: dict[str, float | str] = {}  # noqa: RUF012  # numbers, or names in `CHOICES`

    @property
    def judged(self) -> slice:
        """The middle five of its rates, a range of 100x; the others only serve to find its best one."""
        return slice((len(self.rates) - 5) // 2, (len(self.rates) - 5) // 2 + 5)


def _sgd(task: tasks.Task, config: Config) -> optax.GradientTransformation:
    return optax.sgd(schedules.rate_of(config), momentum=task.momentum or None)


BASES = {
    "sgd": _sgd,
    "clipped sgd": lambda task, config: optax.chain(optax.clip_by_global_norm(1.0), _sgd(task, config)),
    "adam": lambda task, config: optax.adam(schedules.rate_of(config)),
    "adamw": lambda task, config: optax.adamw(schedules.rate_of(config)),
    "muon": lambda task, config: optax.contrib.muon(schedules.rate_of(config)),
    "lion": lambda task, config: optax.lion(schedules.rate_of(config)),
}


def _plain(base: Callable[..., optax.GradientTransformation]) -> Family:
    return Family(lambda task, config, key, inputs: base(task, config))


def _averaged(base: Callable[..., optax.GradientTransformation]) -> Family:
    """Scores the average of the parameters, unless the configuration forbids."""
    return _plain(lambda *given: optax.chain(base(*given), cgalr_jax.polynomial_averaging()))


def connectome_family(
    signal: str | None,
    *,
    controller: str | None = "calibrated",
    base: str = "sgd",
    source: str | None = "paired",
    every: int | None = None,
    measurements: int = schedules.MEASUREMENTS,
    averages: bool = False,
    samples: int | None = None,
    select: Callable[[models.Layers], models.Layers] = all_layers,
    **rest: Any,
) -> Family:
    """Ours: any base optimizer, then ``scale_by_connectome`` with a signal and a controller, by their names.

    ``None`` for one of them: the configuration chooses among those that share a compilation. Without
    ``every`` a run has as many measurements as are asked for. ``rest`` are arguments of the block.
    """
    make_signal = signals.SIGNALS[signal] if signal else signals.chosen
    make_controller = controllers.CONTROLLERS[controller] if controller else controllers.chosen

    def build(task: tasks.Task, config: Config, key: jax.Array, inputs: jax.Array):
        block = cgalr_jax.scale_by_connectome(
            jax.eval_shape(lambda: select(task.model.apply(task.model.init(key), inputs)[1])),
            samples=inputs[:samples] if source == "paired" else None,
            every=every or schedules.every(task.steps, measurements),
            controller=make_controller(config, key),
            signal=make_signal(config),
            **rest,
        )
        average = [cgalr_jax.polynomial_averaging()] if averages else []
        return optax.chain(BASES[base](task, config), block, *average)

    return Family(build, source, samples, select)


SGD_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
ADAM_RATES = tuple(rate / 10 for rate in SGD_RATES)
FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)  # for methods that ask for no rate, multiples of what they find
OURS = SGD_RATES[1:6]

FAMILIES: dict[str, Family] = {
    "sgd": _plain(_sgd),
    "plateau": _plain(
        lambda task, config: optax.chain(
            _sgd(task, config),
            optax.contrib.reduce_on_plateau(factor=0.5, patience=3, accumulation_size=20),
        )
    ),
    "adamw": _plain(BASES["adamw"]),
    "adam": _plain(BASES["adam"]),
    "muon": _plain(BASES["muon"]),
    "lion": _plain(BASES["lion"]),
    "dog": _averaged(lambda task, config: optax.contrib.dog(schedules.rate_of(config))),
    "dowg": _averaged(lambda task, config: optax.contrib.dowg(schedules.rate_of(config))),
    "prodigy": _plain(lambda task, config: optax.contrib.prodigy(schedules.rate_of(config))),
    "d-adapt": _plain(lambda task, config: optax.contrib.dadapt_adamw(schedules.rate_of(config))),
    "mechanic": _plain(lambda task, config: optax.contrib.mechanize(_sgd(task, config))),
    "schedule-free": _plain(lambda task, config: optax.contrib.schedule_free_sgd(config["rate"])),
    "sgd averaged": _averaged(_sgd),
    # Every signal with `calibrated`, and every controller with the hybrid, by their own names.
    **{name: connectome_family(name) for name in signals.SIGNALS},
    **{name: connectome_family("hybrid", controller=name) for name in controllers.CONTROLLERS},
    # Those that share a compilation, by the name of the base optimizer.
    **{
        f"ours on {base}": connectome_family(None, controller=None, averages=True, base=base.lower())
        for base in ("SGD", *OTHER_BASES)
    },
    "yoked": connectome_family("update norm", source=None, controller="replay"),
    "probe": connectome_family("hybrid", source="fixed"),
}

BASELINES: dict[str, Method] = {
    "SGD constant": Method("sgd", "constant", SGD_RATES),
    "SGD step": Method("sgd", "step", SGD_RATES),
    "SGD exponential": Method("sgd", "exponential", SGD_RATES),
    "SGD cosine": Method("sgd", "cosine", SGD_RATES),
    "SGD warm-up cosine": Method("sgd", "warm-up cosine", SGD_RATES),
    "SGD Robbins-Monro": Method("sgd", "Robbins-Monro", SGD_RATES),
    "SGD on plateau": Method("plateau", "constant", SGD_RATES),
    "AdamW cosine": Method("adamw", "cosine", ADAM_RATES),
    "Adam": Method("adam", "constant", ADAM_RATES),
    "Muon cosine": Method("muon", "cosine", ADAM_RATES),
    "schedule-free SGD": Method("schedule-free", "constant", SGD_RATES),
    "mechanic SGD cosine": Method("mechanic", "cosine", OURS),
    "DoG": Method("dog", "constant", FACTORS),
    "DoWG": Method("dowg", "constant", FACTORS),
    "Prodigy": Method("prodigy", "constant", FACTORS),
    "Prodigy cosine": Method("prodigy", "cosine", FACTORS),
    "D-Adapt AdamW": Method("d-adapt", "constant", FACTORS),
}


def ours(
    signal: str, controller: str = "calibrated", base: str = "SGD", target: float = 1.0, listen: float = 1.0
) -> Method:
    """A method of ours that shares a compilation: which signal, which controller, on which base optimizer."""
    settings = {
        "signal": signal,
        "controller": controller,
        "averaged": float(controller == "anytime"),
        "target": target,
        "listen": listen,
    }
    rates = OURS if base == "SGD" else ADAM_RATES[1:6]
    return Method(f"ours on {base}", "constant" if controller == "anytime" else "cosine", rates, settings)


CONNECTOME: dict[str, Method] = {
    "CG-ALR hybrid": ours("hybrid"),
    "CG-ALR hybrid, steps known": Method("of known length", "cosine", OURS),
    "CG-ALR hybrid, probe": Method("probe", "cosine", OURS),
    "CG-ALR Frobenius": ours("frobenius"),
    "CG-ALR births": ours("births"),
    "CG-ALR births, each layer": ours("births over min"),
    "CG-ALR deaths, each layer": Method("deaths over min", "cosine", OURS),
    "CG-ALR barcode, each layer": Method("barcode over min", "cosine", OURS),
    "CG-ALR hybrid AdamW": ours("hybrid", base="AdamW"),
    "CG-ALR hybrid Muon": ours("hybrid", base="Muon"),
    "CG-ALR hybrid, no horizon": ours("hybrid", "anytime"),
    "paper's gate": ours("births", "gate"),
}

CONTROLS: dict[str, Method] = {
    "update norm": ours("update norm"),
    # The two parts of the hybrid by themselves.
    "relative update": Method("relative update", "cosine", OURS),
    "births of 16": Method("births of 16", "cosine", OURS),
    "update norm AdamW": ours("update norm", base="AdamW"),
    "update norm Muon": ours("update norm", base="Muon"),
    "random gate": ours("births", "gate", listen=0.0),
    "reversed gate": ours("births", "gate", listen=-1.0),
    "random distance": ours("update norm", "random distance"),
    "yoked hybrid": Method("yoked", "cosine", OURS),
}

METHODS = BASELINES | CONNECTOME | CONTROLS
# What experiments are compared with: one base optimizer more than the report has.
REFERENCES = BASELINES | {"Lion cosine": Method("lion", "cosine", ADAM_RATES)}
DEFAULT = "CG-ALR hybrid"  # the library's defaults; the yoked control replays its scales


def configurations(task: tasks.Task, chosen: list[Method], seeds: int) -> Config:
    """The numbers of some methods of one family, all their rates side by side; leaves [S, K, ...]."""
    table = schedules.shapes(task.steps)
    rows = [
        {"rate": rate, "shape": table[method.shape]}
        | {name: _number(name, value) for name, value in method.settings.items()}
        for method in chosen
        for rate in method.rates
    ]
    stacked = {name: np.stack([np.float32(row[name]) for row in rows]) for name in rows[0]}
    return {name: np.broadcast_to(leaf, (seeds, *leaf.shape)) for name, leaf in stacked.items()}


def _number(name: str, value: float | str) -> float:
    return CHOICES[name].index(value) if isinstance(value, str) else value
