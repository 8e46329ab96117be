"""A row as a line, for a progress bar."""

from collections.abc import Mapping, Sequence

from cgalr_jax import controllers

_SHOWN = ("scale", "motion", "distance", "z", "skipped", "refused")
_HIDDEN_IF_ZERO = ("skipped", "refused")


def line(row: Mapping[str, float], keys: Sequence[str]) -> str:
    """`TraceRecorder.summary` of a row: these keys of it, or what is usually looked at."""
    default = sorted((key for key in row if _is_shown(key, row)), key=_is_ours)
    parts = [f"{_short_key(key)} {_short(row[key])}" for key in keys or default if key in row]
    for key, ended in row.items():
        if _is_ours(key) and key.endswith("/ended"):
            name = _short_key(key.removesuffix("ended"))
            if ended == controllers.UNFINISHED:
                parts.append(f"{name}calibration unfinished")
            elif ended in controllers.ENDINGS and ended != controllers.REACHED:
                parts.append(f"{name}calibration ended {controllers.ENDINGS[int(ended)]}")
    return " · ".join(parts)


def _is_ours(key: str) -> bool:
    return key.startswith("cgalr/")


def _short_key(key: str) -> str:
    return key.removeprefix("cgalr/")


def _is_shown(key: str, row: Mapping[str, float]) -> bool:
    if not _is_ours(key):
        return True
    place, _, name = key.rpartition("/")
    if name == "distance" and f"{place}/motion" in row:  # the same in a unit that says more
        return False
    return name in _SHOWN and not (name in _HIDDEN_IF_ZERO and row[key] == 0)


def _short(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.3g}"
