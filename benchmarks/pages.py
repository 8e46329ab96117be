"""Puts what a benchmark found into its page of docs/results: no figure there is typed by hand."""

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence

RESULTS = pathlib.Path(__file__).parents[1] / "docs" / "results"


def mark(page: pathlib.Path, end: str) -> str:
    """What stands before ("begin") and behind ("end") the tables of a page."""
    return f"<!-- {page.stem} tables: {end} -->"


def rows(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in (header, *cells)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def table(title: str, note: str, header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A section with a table; nothing where it would have no rows."""
    return f"### {title}\n\n{note}\n\n{rows(header, cells)}" if cells else ""


def publish(
    page: pathlib.Path, text: str, plots: Sequence[pathlib.Path], rows: Sequence[Mapping[str, object]]
) -> None:
    """Writes the tables of PAGE.md between their marks, plots as PAGE_NAME and a summary as PAGE.json."""
    if missing := [str(plot) for plot in plots if not plot.exists()]:
        raise SystemExit(f"Not published: {', '.join(missing)} must be there.")
    before, rest = page.read_text().split(mark(page, "begin"))
    _, after = rest.split(mark(page, "end"))
    page.write_text(f"{before}{mark(page, 'begin')}\n\n{text}\n\n{mark(page, 'end')}{after}")
    for plot in plots:
        shutil.copy(plot, page.with_name(f"{page.stem}_{plot.name}"))
    lines = ",\n".join(json.dumps(row) for row in rows)
    page.with_suffix(".json").write_text(f"[{lines}]\n")
