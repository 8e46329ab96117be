"""Experiments that set the library's defaults: on tuning seeds only, and never on a variant.

Each varies settings of a family; the table compares them with SGD cosine, or the base optimizer's own cosine,
at its oracle rate on the same seeds.
"""

import inspect
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

import cgalr_jax
from benchmarks import arguments, estimates, pages
from benchmarks.training import controllers, methods, models, protocols, signals, store, tasks

RATES = (0.003, 0.03, 0.3)
FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
CONSTANTS = {
    name: float(inspect.signature(cgalr_jax.calibrated).parameters[name].default)
    for name in ("target", "start")
}
CHANGES = ({}, {"start": 0.00001}, {"start": 0.0001}, {"start": 0.01}, {"target": 0.7}, {"target": 1.4})


class Setting(NamedTuple):
    """A line of an experiment; settings whose methods name the same family share a compilation."""

    name: str
    method: methods.Method
    family: methods.Family


def _ours(name: str, method: methods.Method, **settings: float) -> Setting:
    """A method of a family that there is, some of its settings replaced."""
    replaced = method._replace(settings={**method.settings, **settings})
    return Setting(name, replaced, methods.FAMILIES[method.family])


def _own(name: str, family: str, made: methods.Family, shape: str = "cosine", **settings: float) -> Setting:
    """A method of a family of its own."""
    return Setting(name, methods.Method(family, shape, methods.OURS, settings), made)


# The experiments. Each yields its lines in the order of the table.


def _set_point() -> Iterator[Setting]:
    for factor in FACTORS:
        for signal in signals.SHARED:
            yield _ours(f"{signal} x{factor}", methods.ours(signal, target=factor))


def _present() -> Iterator[Setting]:
    """The default as it is, and told how long the run is."""
    yield _own("hybrid", "hybrid", methods.connectome_family("hybrid"))
    made = methods.FAMILIES["of known length"]
    yield _own("hybrid, length of the run known", "of known length", made)


def _ramp() -> Iterator[Setting]:
    """How many steps of a run a ramp is worth, each of them measured; and the default, measured less."""
    yield _own("not told the length", "hybrid", methods.connectome_family("hybrid"))
    for steps in controllers.RAMPS:
        made = methods.connectome_family("hybrid", controller=f"ramp of {steps}")
        yield _own(f"a ramp of {steps} steps", f"ramp of {steps}", made)


def _parts() -> Iterator[Setting]:
    """The two signals of the default by themselves, and the control."""
    for signal in ("relative update", "births of 16", "update norm"):
        made = methods.connectome_family(signal, source=None if "update" in signal else "paired")
        yield _own(signal, signal, made)


def _base() -> Iterator[Setting]:
    for factor in FACTORS:
        for signal in ("hybrid", "update norm"):
            yield _ours(f"{signal}, AdamW x{factor}", methods.ours(signal, base="AdamW", target=factor))


def _muon() -> Iterator[Setting]:
    for factor in (0.25, 0.35, *FACTORS):
        for signal in ("hybrid", "update norm"):
            yield _ours(f"{signal}, Muon x{factor}", methods.ours(signal, base="Muon", target=factor))


def _lion() -> Iterator[Setting]:
    """Its updates are signs, as large for noise as for what is to be learnt: is it to move less?"""
    for factor in (0.1, 0.15, 0.2, 0.3, *FACTORS[:3]):
        yield _ours(f"hybrid, Lion x{factor}", methods.ours("hybrid", base="Lion", target=factor))


def _cycles() -> Iterator[Setting]:
    for factor in FACTORS:
        for signal in ("deaths", "deaths over min", "barcode", "barcode over min"):
            yield _of_family(signal, factor)


def _of_16() -> Iterator[Setting]:
    """Births, deaths and both, of sub-samples of 16 units of the layer that moves most."""
    for factor in FACTORS:
        for signal in ("births of 16", "deaths of 16", "barcode of 16"):
            yield _of_family(signal, factor)


def _of_family(family: str, factor: float) -> Setting:
    """A family that there is, at a multiple of its set-point."""
    return _own(f"{family} x{factor}", family, methods.FAMILIES[family], target=factor)


def _share() -> Iterator[Setting]:
    family = "hybrid by share"
    for factor in FACTORS:
        for share in (0.3, 0.5, 0.7, 0.85):
            name = f"share {share:g} x{factor}"
            yield _own(name, family, methods.FAMILIES[family], target=factor, share=share)


def _cadence() -> Iterator[Setting]:
    for factor in FACTORS:
        for every in (2, 5, 10, 20):
            made = methods.connectome_family(None, controller=None, averages=True, every=every)
            for signal in ("hybrid", "frobenius", "update norm", "births over min"):
                method = methods.ours(signal, target=factor)._replace(family=f"every {every}")
                yield Setting(f"{signal}, every {every}, x{factor}", method, made)


def _long() -> Iterator[Setting]:
    """Does the set-point grow with `every`, as the motion of a network that still learns does?"""
    for every in (10, 20, 40, 80):
        made = methods.connectome_family("hybrid", every=every)
        for factor in (1.0, (every / 10) ** 0.65):
            name = f"hybrid, every {every}, x{factor:.2f}"
            yield _own(name, f"every {every}", made, target=factor)


def _target() -> Iterator[Setting]:
    """Where networks are wide or deep, or runs are long: what a user can turn."""
    for target in (0.25, 0.35, 0.5, 0.7, 1.0):
        for controller, suffix in (("calibrated", ""), ("anytime", ", no horizon")):
            made = methods.connectome_family("hybrid", controller=None, averages=True)
            yield Setting(
                f"target {target:g}{suffix}", methods.ours("hybrid", controller, target=target), made
            )


def _horizon() -> Iterator[Setting]:
    for target in (0.7, 1.0, 1.4):
        method = methods.ours("hybrid", "anytime", target=target)
        for measurements in (25, 50, 100, 200):
            made = methods.connectome_family(None, controller=None, averages=True, measurements=measurements)
            name = f"{measurements} measurements, target {target:g}"
            yield Setting(name, method._replace(family=f"{measurements} measurements"), made)
        yield _ours(f"not averaged, target {target:g}", method, averaged=0.0)
        cosine = method._replace(shape="cosine")
        yield _ours(f"a cosine that it is not told, target {target:g}", cosine, averaged=0.0)


def _constants() -> Iterator[Setting]:
    for change in CHANGES:
        name = ", ".join(f"{key} {value:g}" for key, value in change.items()) or "as shipped"
        for signal in ("hybrid", "update norm"):
            yield _ours(f"{signal}, {name}", methods.ours(signal), **{**CONSTANTS, **change})


# Of a recurrent layer [N, T, F] each step is a sample; of a transformer's block only one layer is kept.
SELECTIONS: dict[str, Callable[[models.Layers], models.Layers]] = {
    "all": methods.all_layers,
    "last step": lambda layers: {name: layer[:, -1] for name, layer in layers.items()},
    "attention": lambda layers: _named("project", layers),
    "feed-forward": lambda layers: _named("expand", layers),
}


def _named(end: str, layers: models.Layers) -> models.Layers:
    """The layers whose names end so, or all where none do."""
    return {name: layer for name, layer in layers.items() if name.endswith(end)} or layers


def _layers() -> Iterator[Setting]:
    for name, select in SELECTIONS.items():
        for signal in ("hybrid", "frobenius"):
            made = methods.connectome_family(signal, select=select)
            yield _own(f"{signal}, {name}", f"{signal} of {name}", made)


def _samples() -> Iterator[Setting]:
    sources = ("paired", "paired", (4, 8, 16, 32)), ("probe", "fixed", (8, 16, 32, 64, 128))
    for name, source, counts in sources:
        for samples in counts:
            made = methods.connectome_family("hybrid", source=source, samples=samples)
            yield _own(f"{name}, {samples} samples", f"{name} {samples}", made)


def _clip() -> Iterator[Setting]:
    """Where a squared loss makes training diverge: does a lower target help, does clipping the gradients?"""
    for base in ("sgd", "clipped sgd"):
        made = methods.connectome_family("hybrid", base=base)
        for target in (0.5, 0.7, 1.0):
            yield _own(f"hybrid on {base}, target {target:g}", base, made, target=target)


def _bound() -> Iterator[Setting]:
    """How much one step may do: `max_share`."""
    for most in (0.05, 0.1, 0.2, 0.3, 0.5):
        made = methods.connectome_family("hybrid", max_share=most)
        yield _own(f"max_share {most:g}", f"max_share {most:g}", made)


_SETTINGS: dict[str, Callable[[], Iterator[Setting]]] = {
    "present": _present,
    "ramp": _ramp,
    "parts": _parts,
    "set-point": _set_point,
    "base": _base,
    "muon": _muon,
    "lion": _lion,
    "cycles": _cycles,
    "of-16": _of_16,
    "share": _share,
    "probe": lambda: (_of_family("probe", factor) for factor in FACTORS),
    "cadence": _cadence,
    "long": _long,
    "target": _target,
    "horizon": _horizon,
    "constants": _constants,
    "layers": _layers,
    "samples": _samples,
    "clip": _clip,
    "bound": _bound,
}


def _registered(experiment: str, setting: Setting) -> methods.Method:
    """The method at this page's rates, in a family of its own: experiments vary different settings."""
    own = f"{experiment}: {setting.method.family}"
    FAMILIES[own] = setting.family
    scale = setting.method.rates[2] / methods.OURS[2]  # 1 for SGD, 0.1 for the Adam family
    return setting.method._replace(family=own, rates=tuple(scale * rate for rate in RATES))


FAMILIES = dict(methods.FAMILIES)
EXPERIMENTS: dict[str, dict[str, methods.Method]] = {
    experiment: {setting.name: _registered(experiment, setting) for setting in settings()}
    for experiment, settings in _SETTINGS.items()
} | {"averaged": {"SGD constant, averaged": methods.Method("sgd averaged", "constant", methods.SGD_RATES)}}


def _found(
    folder: pathlib.Path, labels: list[str], name: str, method: methods.Method
) -> dict[str, tuple[store.Record, store.Record]]:
    """A setting's record and its reference's, by task, where both are there."""
    found = {}
    for label in labels:
        other = protocols.reference_of(name)
        record = store.load(folder, label, name, method)
        reference = store.load(folder, label, other, methods.REFERENCES[other])
        if record is not None and reference is not None:
            found[label] = record, reference
    return found


def records(folder: pathlib.Path, labels: list[str], experiments: list[str]) -> list[arguments.Record]:
    """One flat record for each setting and task: RED with its interval, as fractions, and its spread."""
    rows = []
    for experiment in experiments:
        for name, method in EXPERIMENTS[experiment].items():
            for label, (record, reference) in _found(folder, labels, name, method).items():
                found = estimates.red(record.score.mean(1), estimates.at_oracle(reference.score))
                rows.append(
                    {
                        "experiment": experiment,
                        "setting": name,
                        "reference": protocols.reference_of(name),
                        "task": label,
                        "red": found.value,
                        "red_low": found.low,
                        "red_high": found.high,
                        "worst_over_best": estimates.worst_over_best(record.score),
                        "at_chance": _at_chance(label, record),
                    }
                )
    return rows


def _at_chance(label: str, record: store.Record) -> float:
    """Share of the runs that ended within 5 % of a constant answer's score, or worse."""
    return float(tasks.catalogue()[label].at_chance(record.score).mean())


def table(folder: pathlib.Path, labels: list[str], experiments: list[str]) -> str:
    """Markdown: a row for each setting, RED in % against its tuned reference, a column for each task."""
    columns = ["setting", "reference", "mean", "worst task", "worst/best rate", "at chance", *labels]
    parts = []
    for experiment in experiments:
        rows = []
        for name, method in EXPERIMENTS[experiment].items():
            found = _found(folder, labels, name, method)
            if not found:
                continue
            pairs = [
                (record.score.mean(1), estimates.at_oracle(reference.score))
                for record, reference in found.values()
            ]
            each = [estimates.red(*pair).value for pair in pairs]
            spread = np.mean([estimates.worst_over_best(record.score) for record, _ in found.values()])
            chance = np.mean([_at_chance(label, record) for label, (record, _) in found.items()])
            cells = dict(zip(found, each, strict=True))
            rows.append(
                [
                    name,
                    protocols.reference_of(name),
                    str(estimates.mean_red(pairs)),
                    f"{100 * max(each):+.1f}",
                    f"{spread:.2f}",
                    f"{100 * chance:.1f} %",
                    *(f"{100 * cells[label]:+.1f}" if label in cells else "" for label in labels),
                ]
            )
        parts.append(f"\n### {experiment}\n\n{pages.rows(columns, rows)}")
    return "\n".join(parts)
