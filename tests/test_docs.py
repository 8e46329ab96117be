"""The site tells the truth: the Python blocks of each page run, in order, in one namespace."""

import pathlib
import re
import textwrap

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
OPTIONAL = ("equinox", "flax", "matplotlib", "orbax", "sklearn", "tensorboardX")


def blocks(page):
    """The Python blocks of a page, those inside of notes too."""
    found = re.findall(r"^( *)```python\n(.*?)^\1```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in found]


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if blocks(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_page_runs(page, tmp_path, monkeypatch):
    code = "\n".join(blocks(page))
    for name in OPTIONAL:
        if re.search(rf"^ *(import|from) {name}\b", code, flags=re.MULTILINE):
            pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)


def test_there_are_pages_that_run():
    assert DOCS / "start.md" in PAGES
