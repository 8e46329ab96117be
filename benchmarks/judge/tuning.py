"""Experiments that set the library's defaults: on tuning seeds only, and never on a variant.

Each varies numbers of a family; the table compares them with SGD cosine, or the base optimizer's own cosine,
at its oracle rate on the same seeds.
"""

import inspect
import pathlib
from collections.abc import Callable

import numpy as np

import cgalr_jax
from judge import controls, methods, models, statistics, store, tasks

RATES = (0.003, 0.03, 0.3)
FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
CONSTANTS = {
    name: float(inspect.signature(cgalr_jax.calibrated).parameters[name].default)
    for name in ("start", "gain", "patience", "guard")
}

FAMILIES = dict(methods.FAMILIES)
EXPERIMENTS: dict[str, dict[str, methods.Method]] = {}


def _add(
    experiment: str, name: str, family: methods.Family, method: methods.Method, **numbers: float
) -> None:
    """One more line; a family of its own for each experiment, since the numbers that it varies differ."""
    own = f"{experiment}: {method.family}"
    FAMILIES[own] = family
    scale = method.rates[2] / methods.OURS[2]  # 1 for SGD, 0.1 for the Adam family
    rates = tuple(scale * rate for rate in RATES)
    method = method._replace(family=own, rates=rates, numbers={**method.numbers, **numbers})
    EXPERIMENTS.setdefault(experiment, {})[name] = method


def _add_ours(experiment: str, name: str, method: methods.Method, **numbers: float) -> None:
    _add(experiment, name, methods.FAMILIES[method.family], method, **numbers)


for _factor in FACTORS:
    for _signal in controls.SIGNALS:
        _add_ours("set-point", f"{_signal} x{_factor}", methods.ours(_signal, target=_factor))
        if _signal in ("hybrid", "update norm"):
            _name = f"{_signal}, AdamW x{_factor}"
            _add_ours("base", _name, methods.ours(_signal, base="AdamW", target=_factor))
    for _signal in ("hybrid", "update norm"):
        _name = f"{_signal}, Muon x{_factor}"
        _add_ours("muon", _name, methods.ours(_signal, base="Muon", target=_factor))
    for _kind in ("deaths", "deaths over min", "barcode", "barcode over min"):
        _method = methods.Method(_kind, "cosine", methods.OURS)
        _add_ours("cycles", f"{_kind} x{_factor}", _method, target=_factor)
    for _share in (0.3, 0.5, 0.7, 0.85):
        _method = methods.Method("share", "cosine", methods.OURS)
        _made = methods.connectome_family("hybrid")
        _add("share", f"share {_share:g} x{_factor}", _made, _method, target=_factor, share=_share)
    for _kind in ("per layer", "update norm per layer", "probe"):
        _method = methods.Method(_kind, "cosine", methods.OURS)
        _add_ours(_kind, f"{_kind} x{_factor}", _method, target=_factor)
    for _every in (2, 5, 10, 20):
        _made = methods.connectome_family(None, law=controls.chosen_law, averages=True, every=_every)
        for _signal in ("hybrid", "frobenius", "update norm", "births over min"):
            _method = methods.ours(_signal, target=_factor)._replace(family=f"every {_every}")
            _add("cadence", f"{_signal}, every {_every}, x{_factor}", _made, _method)

# Does the set-point grow with `every`, as the motion of a network that still learns does?
for _every in (10, 20, 40, 80):
    _made = methods.connectome_family("hybrid", every=_every)
    _method = methods.Method(f"every {_every}", "cosine", methods.OURS)
    for _factor in (1.0, (_every / 10) ** 0.65):
        _add("long", f"hybrid, every {_every}, x{_factor:.2f}", _made, _method, target=_factor)

# Where networks are wide or deep, or runs are long: what a user can turn.
for _target in (0.25, 0.35, 0.5, 0.7, 1.0):
    _made = methods.connectome_family("hybrid", law=controls.chosen_law, averages=True)
    for _law, _suffix in (("calibrated", ""), ("anytime", ", no horizon")):
        _method = methods.ours("hybrid", _law, target=_target)
        _add("target", f"target {_target:g}{_suffix}", _made, _method)

for _target in (0.7, 1.0, 1.4):
    _method = methods.ours("hybrid", "anytime", target=_target)
    for _measurements in (25, 50, 100, 200):
        _made = methods.connectome_family(
            None, law=controls.chosen_law, averages=True, measurements=_measurements
        )
        _name = f"{_measurements} measurements, target {_target:g}"
        _add("horizon", _name, _made, _method._replace(family=f"{_measurements} measurements"))
    _add_ours("horizon", f"not averaged, target {_target:g}", _method, averaged=0.0)
    _add_ours(
        "horizon",
        f"a cosine that it is not told, target {_target:g}",
        _method._replace(shape="cosine"),
        averaged=0.0,
    )
EXPERIMENTS["averaged"] = {
    "SGD constant, averaged": methods.Method("sgd averaged", "constant", methods.SGD_RATES)
}

for _averaged, _suffix in ((1.0, ""), (0.0, ", not averaged")):
    _own = methods.ours("hybrid", "anytime")
    _add_ours("noise", f"its own decay{_suffix}", _own, averaged=_averaged)
    for _cut in (0.5, 0.7, 0.85):
        _made = methods.connectome_family("hybrid", law=controls.anneal_by_noise, averages=True)
        _method = methods.Method("cut", "constant", methods.OURS, {"averaged": _averaged})
        _add("noise", f"cut to {_cut} when noise{_suffix}", _made, _method, cut=_cut)

for _change in (
    {},
    {"start": 0.00001},
    {"start": 0.0001},
    {"start": 0.01},
    {"gain": 0.15},
    {"gain": 0.5},
    {"patience": 2.0},
    {"guard": 12.0},
    {"guard": 24.0},
    {"guard": 100.0},
):
    for _signal in ("hybrid", "update norm"):
        _label = ", ".join(f"{key} {value:g}" for key, value in _change.items()) or "as shipped"
        _add_ours("constants", f"{_signal}, {_label}", methods.ours(_signal), **{**CONSTANTS, **_change})


# Of a recurrent layer [N, T, F] each step is a sample; of a transformer's block all but one layer left out.
SELECTIONS: dict[str, Callable[[models.Layers], models.Layers]] = {
    "all": methods.all_layers,
    "last step": lambda layers: {name: layer[:, -1] for name, layer in layers.items()},
    "attention": lambda layers: _named("project", layers),
    "feed-forward": lambda layers: _named("expand", layers),
}


def _named(end: str, layers: models.Layers) -> models.Layers:
    """The layers whose names end so, or all where none do."""
    return {name: layer for name, layer in layers.items() if name.endswith(end)} or layers


for _name, _select in SELECTIONS.items():
    for _signal in ("hybrid", "frobenius"):
        _made = methods.connectome_family(_signal, select=_select)
        _method = methods.Method(f"{_signal} of {_name}", "cosine", methods.OURS)
        _add("layers", f"{_signal}, {_name}", _made, _method)

for _source, _counts in (("paired", (4, 8, 16)), ("probe", (16, 32, 64, 128))):
    for _samples in _counts:
        _made = methods.connectome_family("hybrid", source=_source, samples=_samples)
        _method = methods.Method(f"{_source} {_samples}", "cosine", methods.OURS)
        _add("samples", f"{_source}, {_samples} samples", _made, _method)

# What breaks on a squared loss: does a lower target help, does clipping the gradients?
for _base in ("sgd", "clipped sgd"):
    _made = methods.connectome_family("hybrid", base=_base)
    for _target in (0.5, 0.7, 1.0):
        _method = methods.Method(_base, "cosine", methods.OURS, {"target": _target})
        _add("clip", f"hybrid on {_base}, target {_target:g}", _made, _method)

for _source in ("paired", "probe"):
    for _name, _law in (
        ("as shipped", controls.calibrated),
        ("no end of the ramp by time", controls.endless),
    ):
        _made = methods.connectome_family("hybrid", source=_source, law=_law)
        _method = methods.Method(f"{_source}, {_name}", "cosine", methods.OURS)
        _add("ramp", f"hybrid, {_source}, {_name}", _made, _method)


def _oracle(folder: pathlib.Path, label: str, reference: str) -> np.ndarray:
    record = store.load(folder, label, reference)
    return record.score[:, statistics.oracle(record.score)]


def reference_of(name: str) -> str:
    """The baseline that a setting is compared with: the cosine of its own base optimizer."""
    return next((f"{base} cosine" for base in ("AdamW", "Muon") if base in name), "SGD cosine")


def table(folder: pathlib.Path, labels: list[str], experiments: list[str]) -> str:
    """Markdown: a row a setting, RED in % against the oracle-tuned reference, a column a task."""
    lines = []
    for experiment in experiments:
        lines += [
            f"\n### {experiment}\n",
            "| setting | reference | mean | worst task | worst/best rate | at chance | "
            + " | ".join(labels)
            + " |",
            "|---" * (len(labels) + 6) + "|",
        ]
        for name in EXPERIMENTS[experiment]:
            reference = reference_of(name)
            records = {label: store.load(folder, label, name) for label in labels}
            records = {label: record for label, record in records.items() if record is not None}
            if not records:
                continue
            pairs = [(r.score.mean(1), _oracle(folder, label, reference)) for label, r in records.items()]
            each = [statistics.red(*pair).value for pair in pairs]
            spread = np.mean([statistics.worst_over_best(record.score) for record in records.values()])
            chance = np.mean(
                [(r.score >= 0.95 * tasks.catalogue()[label].chance).mean() for label, r in records.items()]
            )
            mean = statistics.mean_red(pairs)
            cells = dict(zip(records, each, strict=True))
            row = [f"{100 * cells[label]:+.1f}" if label in cells else "" for label in labels]
            lines.append(
                f"| {name} | {reference} | {mean} | "
                f"{100 * max(each):+.1f} | {spread:.2f} | {100 * chance:.1f} % | " + " | ".join(row) + " |"
            )
    return "\n".join(lines)
