"""A page about one run, made from its trace: `TraceRecorder.report`."""

import html
from collections.abc import Callable, Mapping
from typing import Any

import jax.typing
import numpy as np

from cgalr_jax import _checks
from cgalr_jax._trace import Trace
from cgalr_jax.plotting import _inputs
from cgalr_jax.recorder import _facts, _pictures, _sentences

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --line: #ddd; --warning: #fdeee3 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #181818; --ink: #ddd; --line: #444; --warning: #4a2a12 }
}
body { max-width: 38rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif;
  background: var(--paper); color: var(--ink) }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.2rem; font-size: 1.25rem }
svg { width: 100%; height: auto; display: block }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { font-weight: 600; width: 40% }
.warning { background: var(--warning); padding: .6rem .8rem; border-left: .3rem solid #d55e00 }
footer { margin-top: 3rem; font-size: .85rem; opacity: .7 }
"""


def page(
    trace: Mapping[str, np.ndarray],
    *,
    settings: Mapping[str, Any] | None,
    connectomes: Mapping[int, jax.typing.ArrayLike] | None,
    layers: Mapping[str, int] | None,
    loss: str,
    base_learning_rate: jax.typing.ArrayLike | None,
    set_point: float | None,
    bounds: Callable[[Any], tuple[Any, Any]] | None,
    prefix: str,
) -> str:
    """The HTML page; `TraceRecorder.report` says what the arguments are."""
    for name, value in (("settings", settings), ("connectomes", connectomes)):
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a mapping, got {_checks.shown(value)}.")
    if layers is not None:  # with or without connectomes
        _inputs.check_sizes(layers)
    settings, run = dict(settings or {}), Trace(trace, prefix)

    # What cannot be drawn is refused before anything is said of it.
    frames = _facts.frames(connectomes or {})
    picture = _pictures.of_run(
        trace,
        loss=loss,
        base_learning_rate=base_learning_rate,
        set_point=set_point,
        bounds=bounds,
        prefix=prefix,
    )
    facts = _facts.facts_of(run, base_learning_rate, loss)
    title = _sentences.title(facts)
    parts = [f"<h1>{title}</h1>"]
    parts += [f'<p class="warning">{text}</p>' for text in _sentences.warnings(facts)]
    parts += [f"<p>{_sentences.story(facts)}</p>"]
    parts += ["<h2>Settings</h2>", _table({"seed": "not recorded", **settings})]
    if facts.rows:
        parts += ["<h2>Loss, learning rate, motion</h2>", f"<p>{_sentences.caption(facts)}</p>", picture]
    if frames:
        units = len(next(iter(frames.values())))
        parts += ["<h2>The connectome</h2>", f"<p>{_sentences.caption_of_film(units)}</p>"]
        parts += [_pictures.of_connectomes(frames, layers)]
    advice = _sentences.advice(facts, "seed" in settings)
    parts += ["<h2>What to try next</h2>", f"<ul>{''.join(f'<li>{text}</li>' for text in advice)}</ul>"]
    parts += ["<footer>Made by cgalr_jax.</footer>"]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{title}</title><style>{_STYLE}</style>"
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _table(settings: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(str(value))}</td></tr>"
        for key, value in settings.items()
    )
    return f"<table>{''.join(rows)}</table>"
