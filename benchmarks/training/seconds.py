"""What a step costs: processor seconds of a run, one network at a time, nothing scored along the way."""

import json
import pathlib
import time
from collections.abc import Callable

import optax

from benchmarks import arrays
from benchmarks.training import methods, runner, tasks

TASKS = ("digits-10%", "classes", "digits-cnn", "gru", "transformer", "graph")
# Each signal by itself: in the comparison they share a compilation and are all read.
FAMILIES = {
    "SGD cosine": methods.FAMILIES["sgd"],
    "AdamW cosine": methods.FAMILIES["adamw"],
    "Prodigy cosine": methods.FAMILIES["prodigy"],
    "CG-ALR hybrid": methods.connectome_family("hybrid"),
    "CG-ALR Frobenius": methods.connectome_family("frobenius"),
    "CG-ALR births, each layer": methods.connectome_family("births over min"),
    "update norm": methods.connectome_family("update norm", source=None),
}
METHODS = tuple(FAMILIES)
ROUNDS = 9


def measure(file: pathlib.Path, rounds: int = ROUNDS) -> None:
    """Writes ``{task: {method: [seconds of a run, round by round]}}``, one method after the other in turn.

    Processor time, because it stays the same when the machine does something else beside.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for label in TASKS:
        task = unscored(label)
        runs = {}
        for name in METHODS:
            method = methods.METHODS[name]._replace(rates=(methods.METHODS[name].rates[2],))
            configs = methods.configurations(task, [method], 1)
            runs[name], _ = runner.compile_family(task, FAMILIES[name], (0,), configs)
            runs[name]()  # warm
        found[label] = {name: [] for name in METHODS}
        for _ in range(rounds):
            for name, train in runs.items():
                found[label][name].append(_seconds(train))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1))


def unscored(label: str) -> tasks.Task:
    """The task without its test set; a norm is left, as a training that nobody looks at is dropped."""
    return tasks.catalogue()[label]._replace(
        score=lambda model, params, split: optax.tree.norm(params), chance=float("inf")
    )


def _seconds(train: Callable[[], runner.Outcome]) -> float:
    began = time.process_time()
    train()
    return time.process_time() - began


def load(file: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """What `measure` wrote, or nothing."""
    with arrays.readable(file):
        return json.loads(file.read_text()) if file.exists() else {}
