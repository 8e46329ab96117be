"""Experiments that set the library's defaults: on tuning seeds only, and never on a variant.

Each is a family with several set-points or constants; the report compares them with SGD cosine (or the base
optimizer's own cosine) at its oracle rate on the same seeds.
"""

import pathlib

import numpy as np

from judge import controls, methods, statistics, store, tasks
from judge.methods import Method, connectome_family

RATES = (0.003, 0.03, 0.3)
FACTORS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)

FAMILIES = dict(methods.FAMILIES)
EXPERIMENTS: dict[str, dict[str, Method]] = {}


def _sweep(
    experiment: str, family: str, made: methods.Family, shape: str, rates, settings: dict[str, dict]
) -> None:
    FAMILIES[family] = made
    EXPERIMENTS.setdefault(experiment, {}).update(
        {f"{family}: {label}": Method(family, shape, rates, numbers) for label, numbers in settings.items()}
    )


def _targets(factors=FACTORS) -> dict[str, dict[str, float]]:
    return {f"x{factor}": {"target": factor} for factor in factors}


EXPERIMENTS["reference"] = {
    "SGD cosine": methods.BASELINES["SGD cosine"],
    "SGD constant": methods.BASELINES["SGD constant"],
    "AdamW cosine": methods.BASELINES["AdamW cosine"],
    "Muon cosine": Method("muon", "cosine", methods.ADAM_RATES[2:]),
    "SGD constant, averaged": Method("sgd averaged", "constant", methods.SGD_RATES),
}
FAMILIES["muon"] = methods.Family(lambda task, config, key, inputs: methods.BASES["muon"](task, config))
FAMILIES["sgd averaged"] = methods.Family(
    lambda task, config, key, inputs: methods.BASES["sgd"](task, config), averages=True
)

for _signal in ("frobenius", "births", "births over min", "hybrid"):
    for _source in ("paired", "probe"):
        _name = f"{_signal}, {_source}"
        _sweep("set-point", _name, connectome_family(_signal, source=_source), "cosine", RATES, _targets())
_sweep("set-point", "update norm", connectome_family("update norm", source=None), "cosine", RATES, _targets())
for _every in (5, 10, 20):
    for _signal, _source in (("hybrid", "paired"), ("frobenius", "paired"), ("update norm", None)):
        _name = f"{_signal}, every {_every}"
        _made = connectome_family(_signal, source=_source, every=_every)
        _sweep("cadence", _name, _made, "cosine", RATES, _targets((0.5, 0.7, 1.0, 1.4)))

_sweep(
    "constants",
    "hybrid, constants",
    connectome_family("hybrid"),
    "cosine",
    RATES,
    {
        f"start {start}, gain {gain}, patience {patience}, guard {guard}": {
            "start": start,
            "gain": gain,
            "patience": patience,
            "guard": guard,
        }
        for start, gain, patience, guard in (
            (0.01, 0.3, 2, 12.0),
            (0.001, 0.3, 2, 12.0),
            (0.1, 0.3, 2, 12.0),
            (0.01, 0.15, 2, 12.0),
            (0.01, 0.5, 2, 12.0),
            (0.01, 0.3, 1, 12.0),
            (0.01, 0.3, 3, 12.0),
            (0.01, 0.3, 2, 6.0),
            (0.01, 0.3, 2, 30.0),
        )
    },
)

for _base, _rates in (("adamw", 0.1), ("adam", 0.1), ("muon", 0.1)):
    for _signal, _source in (("hybrid", "paired"), ("frobenius", "paired"), ("update norm", None)):
        _name = f"{_signal} {_base}"
        _made = connectome_family(_signal, source=_source, base=_base)
        _few = tuple(_rates * rate for rate in RATES)
        if (_base, _signal) != ("adam", "frobenius"):
            _sweep("base", _name, _made, "cosine", _few, _targets((0.35, 0.5, 0.7, 1.0, 1.4)))

for _signal, _source in (("hybrid", "paired"), ("frobenius", "paired"), ("update norm", None)):
    _made = connectome_family(_signal, source=_source, law=controls.anytime, averages=True)
    _sweep(
        "horizon", f"{_signal}, no horizon", _made, "constant", RATES, _targets((0.25, 0.35, 0.5, 0.7, 1.0))
    )


for _signal, _source in (
    ("frobenius", "paired"),
    ("births over min", "paired"),
    ("update norm", None),
    ("hybrid", "paired"),
):
    _made = connectome_family(_signal, source=_source, per_layer=True)
    _sweep("per layer", f"{_signal}, per layer", _made, "cosine", RATES, _targets((0.5, 0.7, 1.0, 1.4, 2.0)))


def _oracle(folder: pathlib.Path, label: str, reference: str) -> np.ndarray:
    record = store.load(folder, label, reference)
    return record.score[:, statistics.oracle(record.score)]


def _reference_of(name: str) -> str:
    base = name.partition(":")[0].rpartition(" ")[2]
    return {"adamw": "AdamW cosine", "adam": "AdamW cosine", "muon": "Muon cosine"}.get(base, "SGD cosine")


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
            reference = _reference_of(name)
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
