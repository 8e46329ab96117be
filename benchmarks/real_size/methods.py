"""The methods: ours as it comes, what practitioners set, the update norm, and ours on other optimizers."""

import functools
from collections.abc import Callable
from typing import Any

import optax

import cgalr_jax
from benchmarks import schedules
from benchmarks.paper import methods as paper
from benchmarks.real_size.newton import generalised_newton
from benchmarks.real_size.schedule_free_plus import schedule_free_plus
from benchmarks.study.methods import Base, Family, Method, Setting, plain
from benchmarks.study.tasks import Task
from cgalr_jax import controllers, signals

SAMPLES = 32  # that ours measures on, as the documentation advises


def _fixed_relative_update(rate: optax.Schedule) -> optax.GradientTransformation:
    """Each array moves by that share of its own norm, as in Hyperball and, with momentum, LARS."""
    return optax.chain(optax.trace(0.9), optax.scale_by_trust_ratio(), optax.scale_by_learning_rate(rate))


BASES: dict[str, tuple[Base, str]] = {  # and the kind of its base rate
    "SGD": (paper.SGD, "sgd"),
    "AdamW": (optax.adamw, "adam"),
    "NadamW": (optax.nadamw, "adam"),
    "SGD without momentum": (optax.sgd, "sgd"),
    "Nesterov": (functools.partial(paper.SGD, nesterov=True), "sgd"),
    "Adam": (optax.adam, "adam"),
    "Lion": (optax.lion, "lion"),
    "Muon": (optax.contrib.muon, "muon"),
    "Adafactor": (optax.adafactor, "muon"),
    "fixed relative update": (_fixed_relative_update, "share"),
}
OTHER_BASES = ("SGD without momentum", "Nesterov", "Adam", "Lion", "Muon", "Adafactor")


def _ours_on(base: Base, **rest: Any) -> Family:
    """The base optimizer, then `scale_by_connectome` at its defaults: nobody tells it of the schedule."""

    def build(setting: Setting) -> optax.GradientTransformation:
        block = cgalr_jax.scale_by_connectome(
            setting.example,
            samples=None if setting.samples is None else setting.samples[:SAMPLES],
            every=schedules.every(setting.steps),
            **rest,
        )
        return optax.chain(base(schedules.rate_of(setting.config)), block)

    return Family(build, "paired")


def _known_length(setting: Setting) -> optax.GradientTransformation:
    """`cgalr`, told the length of the run, which chooses `every`, too: each step of its ramp is measured."""
    return paper.ours(setting, SAMPLES, every=None, steps=setting.steps)


def _schedule_free(setting: Setting) -> optax.GradientTransformation:
    return optax.contrib.schedule_free_adamw(setting.config["rate"], warmup_steps=setting.steps // 10)


def _schedule_free_plus(setting: Setting) -> optax.GradientTransformation:
    return schedule_free_plus(setting.config["rate"], setting.steps // 10)


def _generalised_newton(setting: Setting) -> optax.GradientTransformation:
    shape = setting.config["shape"]
    return optax.chain(paper.SGD(1.0), generalised_newton(setting.config["rate"], lambda step: shape[step]))


BOUNDS = (0.3, 0.05, 0.02)  # of one step, tried beside the default of 0.1
TARGETS = {"Muon": 0.35}  # what `--tune muon` of `benchmarks.training` favours over the default of 1

FAMILIES: dict[str, Family] = {
    **{name: plain(base) for name, (base, _) in BASES.items()},
    **{f"ours on {name}": _ours_on(base) for name, (base, _) in BASES.items()},
    **{
        f"ours on {name}, target={target}": _ours_on(
            BASES[name][0], controller=controllers.calibrated(target=target)
        )
        for name, target in TARGETS.items()
    },
    **{
        f"update norm on {name}": _ours_on(BASES[name][0], signal=signals.update_norm())
        for name in ("SGD", "AdamW")
    },
    **{f"max_share={bound}": _ours_on(BASES["SGD"][0], max_share=bound) for bound in BOUNDS},
    "known schedule": Family(functools.partial(paper.ours, rows=SAMPLES), "paired"),
    "known length": Family(_known_length, "paired"),
    "schedule-free AdamW": Family(_schedule_free),
    "ScheduleFree+": Family(_schedule_free_plus),
    "Mechanic": plain(lambda rate: optax.contrib.mechanize(paper.SGD(rate))),
    "GeN": Family(_generalised_newton, "loss"),
    "Prodigy": paper.FAMILIES["prodigy"],
    "DoG": paper.FAMILIES["dog"],
}

BASELINES: dict[str, Method] = {
    "SGD cosine": Method("SGD", "cosine"),
    "SGD warm-up cosine": Method("SGD", "warm-up cosine"),
    "AdamW cosine": Method("AdamW", "cosine", "adam"),
    "AdamW warm-up cosine": Method("AdamW", "warm-up cosine", "adam"),
    "NadamW warm-up cosine": Method("NadamW", "warm-up cosine", "adam"),
    "schedule-free AdamW": Method("schedule-free AdamW", "constant", "adam"),
    "ScheduleFree+": Method("ScheduleFree+", "constant", "factor"),
    "Prodigy cosine": Method("Prodigy", "cosine", "factor"),
    "DoG, averaged": Method("DoG", "constant", "factor"),
    "Mechanic, SGD cosine": Method("Mechanic", "cosine"),
    "GeN, SGD cosine": Method("GeN", "cosine"),
    "fixed relative update cosine": Method("fixed relative update", "cosine", "share"),
}


class Untuned(Method):
    """Is tried at the six base rates of the grid and never beyond: none of them is chosen."""

    __slots__ = ()

    def rates(self, task: Task, error: Callable[[float], float | None]) -> tuple[float, ...]:
        """All of them."""
        del error
        return super().rates(task, lambda rate: None)


DEFAULT, REFERENCE = "ours on SGD", "SGD warm-up cosine"  # what the page is about
OURS = {
    f"ours on {name}": Untuned(f"ours on {name}", "cosine", kind)
    for name, (_, kind) in BASES.items()
    if name != "NadamW"
} | {
    f"ours on {name}, target={target}": Untuned(f"ours on {name}, target={target}", "cosine", BASES[name][1])
    for name, target in TARGETS.items()
}
CONTROLS = {
    f"update norm on {name}": Untuned(f"update norm on {name}", "cosine", BASES[name][1])
    for name in ("SGD", "AdamW")
}
STEPS_KNOWN = "ours on SGD, steps known"
VARIANTS = {
    STEPS_KNOWN: Untuned("known length", "cosine"),
    "ours on SGD, schedule known": Untuned("known schedule", "cosine"),
    **{f"ours on SGD, max_share={bound}": Untuned(f"max_share={bound}", "cosine") for bound in BOUNDS},
}
OTHERS = {f"{name} cosine": Method(name, "cosine", BASES[name][1]) for name in OTHER_BASES}

METHODS: dict[str, Method] = BASELINES | OURS | CONTROLS | VARIANTS | OTHERS
