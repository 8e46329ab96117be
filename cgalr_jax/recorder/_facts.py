"""What a trace tells about its run."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.typing
import numpy as np

from cgalr_jax import _checks, controllers
from cgalr_jax.plotting import _inputs

_FRAMES = 6  # of a film


class Facts(NamedTuple):
    """What the sentences say."""

    rows: int
    steps: int
    loss: str
    first_loss: float  # NaN if it was not recorded
    last_loss: float
    lost: int  # rows in which the loss was not finite
    has_calibration: bool
    ended: int | None  # as in `cgalr/ended`; None where it is not known
    ended_at: int | None  # step
    opened_again: int  # times
    found: float  # the calibrated rate, or scale; NaN if there is none
    found_is_rate: bool
    measurements: int | None
    skipped: int
    refused: int
    cut: int  # steps
    peak: float  # largest distance, in set-points; NaN if that is not known


def facts_of(
    trace: Mapping[str, np.ndarray], base: Any, in_set_points: bool, loss: str, prefix: str
) -> Facts:
    """Looks them up in a trace.

    Args:
        trace: f64[n] a key; the distance in set-points if `in_set_points`.
        base: f64[] or f64[n], the base learning rate; None: as the trace has it, if it does.
        in_set_points: whether the largest distance means something.
        loss: key of the loss.
        prefix: of our keys.
    """
    rows = max((len(array) for array in trace.values()), default=0)
    missing = np.full(rows, np.nan)

    def series(name: str) -> np.ndarray:
        return trace.get(f"{prefix}/{name}", missing)

    def last(name: str) -> float:
        known = series(name)[np.isfinite(series(name))]
        return float(known[-1]) if len(known) else math.nan

    steps = last("step") if math.isfinite(last("step")) else rows
    losses = trace.get(loss, missing)
    finite = losses[np.isfinite(losses)]
    part = max(len(finite) // 20, 1)
    ends = (np.median(finite[:part]), np.median(finite[-part:])) if len(finite) else (math.nan, math.nan)

    # When the calibration ended, what it had found.
    has_calibration = f"{prefix}/anchor" in trace or f"{prefix}/ended" in trace
    if f"{prefix}/ended" in trace:
        known, over = np.isfinite(series("ended")), series("ended") > controllers.UNFINISHED
    else:
        known, over = np.isfinite(series("phase")), series("phase") == controllers.ANNEALING
    # A calibration that proves wrong is opened again: what counts is the last one, if it is over.
    turns = np.flatnonzero(known)[np.diff(over[known], prepend=False)]  # rows where it ends, or opens again
    is_over = len(turns) % 2 == 1
    row = int(turns[-1]) if is_over else rows - 1
    rate, anchor = missing, series("anchor")
    if base is not None:
        rate = np.broadcast_to(np.asarray(base, dtype=np.float64), (rows,)) * anchor
    elif f"{prefix}/learning_rate" in trace:
        scale = series("scale")
        rate = series("learning_rate") * anchor / np.where(scale == 0, np.nan, scale)
    found_is_rate = bool(is_over and math.isfinite(rate[row]))
    found = (rate if found_is_rate else anchor)[row] if is_over else math.nan
    ended = int(last("ended")) if math.isfinite(last("ended")) else None
    if ended is None and known.any() and not is_over and f"{prefix}/anchor" in trace:
        ended = controllers.UNFINISHED
    step_of = trace.get(f"{prefix}/step", np.arange(rows))
    distance = series("distance")
    peak = np.max(distance, where=np.isfinite(distance), initial=0.0)
    return Facts(
        rows=rows,
        steps=int(steps),
        loss=loss,
        first_loss=float(ends[0]),
        last_loss=float(ends[1]),
        lost=_lost(losses) if loss in trace else 0,
        has_calibration=has_calibration,
        ended=ended,
        ended_at=int(step_of[row]) if is_over and math.isfinite(step_of[row]) else None,
        opened_again=len(turns) // 2 if has_calibration else 0,
        found=float(found),
        found_is_rate=found_is_rate,
        measurements=int(last("measurements")) if math.isfinite(last("measurements")) else None,
        skipped=int(np.nan_to_num(last("skipped"))),
        refused=int(np.nan_to_num(last("refused"))),
        cut=int(np.nan_to_num(last("cut"))),
        peak=float(peak) if in_set_points and peak > 0 else math.nan,
    )


def _lost(losses: np.ndarray) -> int:
    """Rows in which the loss was not finite; NaN may only say that it was not recorded there."""
    finite = np.isfinite(losses)
    last = len(losses) - int(np.argmax(finite[::-1])) if finite.any() else 0
    if finite[:last].all():  # recorded in each row, until it was lost
        return len(losses) - last
    return int(np.sum(np.isinf(losses)))


def frames(connectomes: Mapping[int, jax.typing.ArrayLike]) -> dict[int, np.ndarray]:
    """A few of the finite connectomes, between which it moved about equally far."""
    for step in connectomes:
        _checks.check("steps of connectomes", step, lambda x: 0 <= x < math.inf, "finite and at least 0")
    names = {step: f"connectomes[{step!r}]" for step in sorted(connectomes)}
    squares = {step: _inputs.as_square(name, connectomes[step]) for step, name in names.items()}
    _inputs.check_same_units("connectomes", squares.values())
    matrices = {
        step: _inputs.as_matrix(names[step], connectomes[step])
        for step, square in squares.items()
        if np.all(np.isfinite(square))
    }
    if len(matrices) <= _FRAMES:
        return matrices
    moved = [float(np.linalg.norm(b - a)) for a, b in itertools.pairwise(matrices.values())]
    path = np.concatenate([[0.0], np.cumsum(moved)])
    chosen = {int(np.argmin(np.abs(path - share))) for share in np.linspace(0, path[-1], _FRAMES)}
    return {step: matrix for k, (step, matrix) in enumerate(matrices.items()) if k in chosen}
