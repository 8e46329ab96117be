"""What a trace tells about its run."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.typing
import numpy as np

from cgalr_jax import _checks, controllers
from cgalr_jax._trace import Trace
from cgalr_jax.plotting import _inputs

_FRAMES = 6  # of a film


class Calibration(NamedTuple):
    """What is known of the last calibration of a run."""

    ended: int | None  # as in `cgalr/ended`; None where it is not known
    ended_at: int | None  # step; None if it is not over
    opened_again: int  # times
    found: float  # the calibrated rate, or scale; NaN if there is none
    found_is_rate: bool


class Facts(NamedTuple):
    """What the sentences say."""

    rows: int
    steps: int
    loss: str
    first_loss: float  # NaN if it was not recorded
    last_loss: float
    lost: int  # rows in which the loss was not finite
    has_phases: bool
    calibration: Calibration | None
    measurements: int | None
    skipped: int
    refused: int
    cut: int  # steps
    peak: float  # largest motion; NaN if that is not known


def facts_of(trace: Trace, base: Any, loss: str) -> Facts:
    """Looks them up in a trace.

    Args:
        trace: of the run.
        base: f64[] or f64[n], the base learning rate; None: as the trace has it, if it does.
        loss: key of the loss.
    """
    losses = trace.key(loss)
    finite = losses[np.isfinite(losses)]
    part = max(len(finite) // 20, 1)  # the first and the last twentieth: one batch is noise
    ends = (np.median(finite[:part]), np.median(finite[-part:])) if len(finite) else (math.nan, math.nan)
    motion = trace.ours("motion")
    peak = np.max(motion, where=np.isfinite(motion), initial=0.0)
    return Facts(
        rows=trace.rows,
        steps=_whole(trace, "step", trace.rows),
        loss=loss,
        first_loss=float(ends[0]),
        last_loss=float(ends[1]),
        lost=_lost(losses) if loss in trace.arrays else 0,
        has_phases=bool(np.isfinite(trace.ours("phase")).any()),
        calibration=_calibration(trace, base),
        measurements=_whole(trace, "measurements"),
        skipped=_whole(trace, "skipped", 0),
        refused=_whole(trace, "refused", 0),
        cut=_whole(trace, "cut", 0),
        peak=float(peak) if peak > 0 else math.nan,
    )


def _whole(trace: Trace, name: str, otherwise: Any = None) -> Any:
    """The last number of a counter."""
    last = trace.last(name)
    return int(last) if math.isfinite(last) else otherwise


def _calibration(trace: Trace, base: Any) -> Calibration | None:
    """How the calibration went; None where the trace has nothing of one."""
    if not (trace.has("anchor") or trace.has("ended")):
        return None
    if trace.has("ended"):
        known, over = np.isfinite(trace.ours("ended")), trace.ours("ended") > controllers.UNFINISHED
    else:
        known, over = np.isfinite(trace.ours("phase")), trace.ours("phase") == controllers.ANNEALING
    # A calibration that proves wrong is opened again: what counts is the last one, if it is over.
    turns = np.flatnonzero(known)[np.diff(over[known], prepend=False)]  # rows where it ends, or opens again
    is_over = len(turns) % 2 == 1
    ended = _whole(trace, "ended")
    if ended is None and known.any() and not is_over and trace.has("anchor"):
        ended = controllers.UNFINISHED
    if not is_over:
        return Calibration(ended, None, len(turns) // 2, math.nan, False)
    row, anchor = int(turns[-1]), trace.ours("anchor")
    base = trace.base_rate() if base is None else np.broadcast_to(np.asarray(base, np.float64), (trace.rows,))
    step, rate = trace.steps()[row], (base * anchor)[row]
    return Calibration(
        ended=ended,
        ended_at=int(step) if math.isfinite(step) else None,
        opened_again=len(turns) // 2,
        found=float(rate if math.isfinite(rate) else anchor[row]),
        found_is_rate=math.isfinite(rate),
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
    numbers = [np.asarray(matrix, np.result_type(matrix, np.float32)) for matrix in matrices.values()]
    moved = [float(np.linalg.norm(b - a)) for a, b in itertools.pairwise(numbers)]
    path = np.concatenate([[0.0], np.cumsum(moved)])
    chosen = {int(np.argmin(np.abs(path - share))) for share in np.linspace(0, path[-1], _FRAMES)}
    return {step: matrix for k, (step, matrix) in enumerate(matrices.items()) if k in chosen}
