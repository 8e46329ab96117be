"""A row as a line, for a progress bar."""

from collections.abc import Mapping, Sequence

from cgalr_jax import controllers

_SHOWN = ("scale", "distance", "z", "skipped", "refused")
_HIDDEN_IF_ZERO = ("skipped", "refused")
# How a calibration ended that did not reach its set-point.
ENDED = {
    controllers.BY_TIME: "by time",
    controllers.BY_GUARD: "by the guard",
    controllers.BY_BOUND: "by the bound on one step",
}


def line(row: Mapping[str, float], keys: Sequence[str]) -> str:
    """`TraceRecorder.summary` of a row: these keys of it, or what is usually looked at."""
    default = sorted((key for key in row if _is_shown(key, row[key])), key=_is_ours)
    parts = [f"{_short_key(key)} {_short(row[key])}" for key in keys or default if key in row]
    for key, ended in row.items():
        if _is_ours(key) and key.endswith("/ended"):
            name = _short_key(key.removesuffix("ended"))
            if ended == controllers.UNFINISHED:
                parts.append(f"{name}calibration unfinished")
            elif ended in ENDED:
                parts.append(f"{name}calibration ended {ENDED[int(ended)]}")
    return " · ".join(parts)


def _is_ours(key: str) -> bool:
    return key.startswith("cgalr/")


def _short_key(key: str) -> str:
    return key.removeprefix("cgalr/")


def _is_shown(key: str, value: float) -> bool:
    name = key.rpartition("/")[2]
    return not _is_ours(key) or (name in _SHOWN and not (name in _HIDDEN_IF_ZERO and value == 0))


def _short(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.3g}"
