"""What a report says of a run: facts -> sentences."""

import html
import math
from collections.abc import Iterator

from cgalr_jax import controllers
from cgalr_jax.recorder._facts import Calibration, Facts

# Fewer measurements than these, and the calibration has hardly begun: see `scale_by_connectome`.
_ADVISED_MEASUREMENTS = 50
# If more than this share of the steps was cut, that is no single accident.
_OFTEN_CUT = 0.1
# Why a calibration ended that did not reach its set-point.
_REASONS = {
    controllers.BY_TIME: "the set-point was not reached in the steps that it had",
    controllers.BY_GUARD: "the network moved in a way that the rate does not explain, and the scale was kept "
    "where it was safe",
    controllers.BY_BOUND: "steps had to be cut before the network moved at its set-point",
}


def title(facts: Facts) -> str:
    """The heading of the page."""
    return f"A run of {_count(facts.steps, 'step')}"


def warnings(facts: Facts) -> list[str]:
    """What has to be seen before anything else; often nothing."""
    found = []
    ended = None if facts.calibration is None else facts.calibration.ended
    if ended == controllers.UNFINISHED:
        found.append(
            "The calibration is unfinished: the run ended while the scale was still looking for its level."
        )
    if ended in _REASONS:
        found.append(f"The calibration ended {controllers.ENDINGS[ended]}: {_REASONS[ended]}.")
    if facts.lost:
        found.append(f"The {html.escape(facts.loss)} was not a finite number in {_count(facts.lost, 'row')}.")
    return found


def story(facts: Facts) -> str:
    """What happened, in a few sentences."""
    if not facts.rows:
        return "Nothing was recorded."
    text = ""
    if math.isfinite(facts.first_loss):
        went = "fell" if facts.last_loss < facts.first_loss else "rose"
        went = "stayed" if facts.last_loss == facts.first_loss else went
        ends = f"from {_number(facts.first_loss)} to {_number(facts.last_loss)}"
        ends = f"at {_number(facts.last_loss)}" if went == "stayed" else ends
        text += f"The {html.escape(facts.loss)} {went} {ends}. "
    text += _of_the_calibration(facts.calibration)
    if math.isfinite(facts.peak):
        text += f"The network moved by at most {_number(facts.peak)} set-points between two measurements. "
    return text.strip() or f"Recorded: {_count(facts.rows, 'row')}."


def _of_the_calibration(calibration: Calibration | None) -> str:
    if calibration is None:
        return "There was no calibration to follow: its keys are not in the trace. "
    text = ""
    if calibration.opened_again:
        text += f"The calibration was opened again ({_count(calibration.opened_again, 'time')}). "
    if calibration.ended_at is not None:
        how = "reached its set-point and ended" if calibration.ended == controllers.REACHED else "ended"
        if calibration.ended in _REASONS:
            how += f" {controllers.ENDINGS[calibration.ended]}"
        what = "a learning rate" if calibration.found_is_rate else "a scale"
        text += f"The calibration {how} at step {calibration.ended_at}"
        text += f", at {what} of {_number(calibration.found)}. " if math.isfinite(calibration.found) else ". "
    return text


def caption(facts: Facts) -> str:
    """What the picture of the run shows."""
    text = "Shaded is what the controller was doing, as the legend says. " if facts.has_phases else ""
    return text + "A panel is empty if nothing was recorded for it."


def caption_of_film(units: int) -> str:
    """What the pictures of the connectome show."""
    return (
        f"Correlations of {units} units, in the order of the last spanning tree; lines part the "
        "layers. White is no correlation, black a full one. From one picture to the next the connectome "
        "has moved about equally far."
    )


def advice(facts: Facts, has_seed: bool) -> list[str]:
    """What to try next, at least one thing."""
    found = [*_after_the_calibration(facts.calibration), *_after_the_rest(facts)]
    if not has_seed:
        found.append(
            'Give it the seed (<code>settings={"seed": ...}</code>), so that the run can be repeated.'
        )
    return found or ["Nothing stands out: try other seeds, to tell how much of the result is luck."]


def _after_the_calibration(calibration: Calibration | None) -> Iterator[str]:
    if calibration is None:
        return
    if calibration.ended == controllers.UNFINISHED:
        yield (
            "Let it run longer, measure more often (a smaller <code>every</code>), or begin with a base "
            "learning rate ten times as large: then less is left to look for."
        )
    if calibration.ended == controllers.BY_TIME:
        yield (
            "Begin with a base learning rate ten times as large, so that the set-point is within reach; if "
            "it is not reached then either, ask less of the connectome (<code>target</code> below 1)."
        )
    if calibration.ended == controllers.BY_GUARD:
        at = "" if calibration.ended_at is None else f" around step {calibration.ended_at}"
        yield (
            f"Look at the loss and the distance{at}. A probe that sees other samples, dropout or running "
            "statistics each time moves without any step: measure on fixed or paired samples, in evaluation "
            "mode. If the loss jumped, clip the gradients."
        )
    if calibration.ended == controllers.BY_BOUND:
        yield (
            "On larger networks that is the usual end: where the loss fell well, nothing is wrong. With a "
            "squared loss clip the gradients."
        )
    if calibration.ended == controllers.REACHED and calibration.found_is_rate:
        yield (
            f"A second run that begins at a base learning rate of {_number(calibration.found)} has little "
            "left to find; other seeds tell how much of the result is luck."
        )


def _after_the_rest(facts: Facts) -> Iterator[str]:
    # Of a short run, half of its steps: more are hardly to be had.
    advised = min(_ADVISED_MEASUREMENTS, facts.steps // 2)
    if facts.measurements is not None and facts.measurements < advised:
        yield (
            f"With {facts.measurements} measurements there is little to go by: take a smaller "
            f"<code>every</code>, so that there are {advised} or more."
        )
    if facts.skipped:
        yield (
            f"Measurements that were skipped: {facts.skipped}. Activations or distances were not finite; "
            "look for overflow, dead layers and batches of one sample."
        )
    if facts.refused:
        yield (
            f"Values that were refused: {facts.refused}. A schedule, bounds or a controller gave one "
            "that cannot be used; the last good one was used in its place."
        )
    if facts.cut > _OFTEN_CUT * facts.steps:
        yield (
            f"Steps that were cut to <code>max_share</code>: {facts.cut} of {facts.steps}. Each would have "
            "changed an array by more than that share of it: clip the gradients, or take a lower "
            "<code>target</code>."
        )
    if facts.lost:
        yield "Find the first row in which the loss is not finite, and what the rate was before it."
    if facts.last_loss > facts.first_loss:
        yield "The loss rose: lower <code>target</code>, or clip the gradients."


def _number(value: float) -> str:
    return f"{value:.3g}"


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")
