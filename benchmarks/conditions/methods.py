"""The methods, at each momentum that a task asks for: two tuned baselines, and ours in four ways."""

import functools
from typing import Any

import optax

import cgalr_jax
from benchmarks.conditions import tasks
from benchmarks.paper import methods as paper
from benchmarks.real_size.methods import SAMPLES, Untuned
from benchmarks.study.methods import Family, Method, Setting, plain


def _end_unknown(setting: Setting, momentum: float) -> optax.GradientTransformation:
    """A number for a rate, the default `every`; the average of the parameters is what is scored."""
    samples = None if setting.samples is None else setting.samples[:SAMPLES]
    block = cgalr_jax.cgalr(setting.config["rate"], setting.example, samples=samples, momentum=momentum)
    return optax.chain(block, cgalr_jax.polynomial_averaging())


def _known_length(setting: Setting, **rest: Any) -> optax.GradientTransformation:
    return paper.ours(setting, SAMPLES, every=None, steps=setting.steps, **rest)


REFERENCE, OTHER = "SGD warm-up cosine", "SGD cosine"
OURS, STEPS_KNOWN, END_UNKNOWN = "ours", "ours, steps known", "ours, end unknown"
SHARE = 0.3  # of `max_share`, what `--tune bound` of `benchmarks.training` favours without momentum
LOOSE = f"{STEPS_KNOWN}, max_share={SHARE}"
UNTUNED = (OURS, STEPS_KNOWN, END_UNKNOWN, LOOSE)
NAMES = (REFERENCE, OTHER, *UNTUNED)
WITH_LOOSE = ("as it is", "momentum 0", "momentum 0.5")


def at(name: str, momentum: float) -> str:
    """The name of a method with that momentum."""
    return name if momentum == tasks.MOMENTUM else f"{name}, momentum {momentum:g}"


FAMILIES: dict[str, Family] = {}
METHODS: dict[str, Method] = {}
for _momentum in (tasks.MOMENTUM, *tasks.MOMENTA.values()):
    _base = plain(functools.partial(optax.sgd, momentum=_momentum))
    _ours = functools.partial(paper.ours, rows=SAMPLES, momentum=_momentum)
    _told = functools.partial(_known_length, momentum=_momentum)
    _loose = functools.partial(_known_length, momentum=_momentum, max_share=SHARE)
    _untold = functools.partial(_end_unknown, momentum=_momentum)
    FAMILIES |= {
        at("SGD", _momentum): _base,
        at(OURS, _momentum): Family(_ours, "paired"),
        at(STEPS_KNOWN, _momentum): Family(_told, "paired"),
        at(END_UNKNOWN, _momentum): Family(_untold, "paired"),
        at(LOOSE, _momentum): Family(_loose, "paired"),
    }
    METHODS |= {
        at(REFERENCE, _momentum): Method(at("SGD", _momentum), "warm-up cosine"),
        at(OTHER, _momentum): Method(at("SGD", _momentum), "cosine"),
        at(OURS, _momentum): Untuned(at(OURS, _momentum), "cosine"),
        at(STEPS_KNOWN, _momentum): Untuned(at(STEPS_KNOWN, _momentum), "cosine"),
        at(END_UNKNOWN, _momentum): Untuned(at(END_UNKNOWN, _momentum), "constant"),
        at(LOOSE, _momentum): Untuned(at(LOOSE, _momentum), "cosine"),
    }


def applies(task: str, method: str) -> bool:
    """Whether the method has the momentum of the task; a looser bound is tried under three conditions."""
    names = [name for name in NAMES if name != LOOSE or task in WITH_LOOSE]
    return method in {at(name, tasks.momentum(task)) for name in names}
