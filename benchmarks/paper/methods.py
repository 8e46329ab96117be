"""The methods: the paper's preset, ours, the schedules that it is compared with, and the controls."""

import functools
import inspect
from typing import Any

import optax

import cgalr_jax
from benchmarks import schedules
from benchmarks.study.methods import Family, Method, Setting, plain
from benchmarks.training.controllers import listening
from cgalr_jax import presets, signals

SGD = functools.partial(optax.sgd, momentum=0.9)


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
    schedule = schedules.rate_of(setting.config)
    samples = None if setting.samples is None else setting.samples[:rows]
    options = {"every": schedules.every(setting.steps), **rest}
    return cgalr_jax.cgalr(schedule, setting.example, samples=samples, **options)


FAMILIES: dict[str, Family] = {
    "sgd": plain(SGD),
    "adamw": plain(optax.adamw),
    "prodigy": plain(optax.contrib.prodigy),
    "dog": plain(lambda rate: optax.chain(optax.contrib.dog(rate), cgalr_jax.polynomial_averaging())),
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
