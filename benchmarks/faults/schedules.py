"""Which faults come when: drawn, so that nobody has chosen them."""

from typing import NamedTuple

import numpy as np

# What can be wrong with numbers. `Fault.kind` counts from 1; 0 is no fault.
KINDS = ("NaN", "infinite", "zeros", "huge", "negative", "constant", "one row", "skipped")
_NUMBERS = KINDS[:6]
# Where it happens, and which kinds exist there.
SITES = {
    "activations": KINDS[:7],  # what the forward pass returns, as the probe or the training step sees it
    "samples": KINDS[:7],  # paired: the batch that is stored
    "updates": (*_NUMBERS, "skipped"),
    "parameters": _NUMBERS,  # as the update is told them, for these steps
    "schedule": _NUMBERS,
    "bounds": _NUMBERS,
    "controller": _NUMBERS,  # the scale that a user's controller returns
    "signal": _NUMBERS,  # the distance that a user's signal returns
}


class Fault(NamedTuple):
    """One schedule of faults, or a batch of them.

    Attributes:
        site: i32[], the index in `SITES`.
        kind: i32[steps], 1 + the index in `KINDS` where the fault is there, 0 where it is not.
        whole: bool[], whether all entries are hit, or the first only.
    """

    site: np.ndarray
    kind: np.ndarray
    whole: np.ndarray


def draw(seed: int, sites: tuple[str, ...], steps: int, count: int) -> Fault:
    """A batch of schedules; the first one is undisturbed.

    Each has one to three faults of one kind at one site, of 1 to 25 steps, anywhere in the first two thirds
    of the run: the last third is left to recover in.
    """
    rng = np.random.default_rng(seed)
    site, kind = np.zeros(count, np.int32), np.zeros((count, steps), np.int32)
    names = list(SITES)
    for number in range(1, count):
        name = sites[number % len(sites)]
        site[number] = names.index(name)
        chosen = 1 + KINDS.index(rng.choice(SITES[name]))
        for _ in range(rng.integers(1, 4)):
            length = rng.choice([1, 1, 2, 3, 10, 25])
            start = rng.integers(0, steps * 2 // 3)
            kind[number, start : min(start + length, steps * 2 // 3)] = chosen
    return Fault(site, kind, rng.random(count) < 0.5)
