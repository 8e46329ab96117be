"""The site tells the truth: the Python blocks of each page run, in order, in one namespace."""

import json
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
SLOW = {
    "concepts/index.md",
    "concepts/paper.md",
    "guides/checkpoints.md",
    "guides/devices.md",
    "guides/jobs.md",
    "guides/measuring.md",
    "guides/optimizers.md",
    "guides/precision.md",
    "guides/trace.md",
    "start.md",  # what it begins with is in README, which `test_readme.py` runs
}


def name_of(page):
    return str(page.relative_to(DOCS))


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if name_of(page) in SLOW else ()) for page in PAGES],
    ids=name_of,
)
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


# --- Notebooks: committed without outputs, and what they claim is so.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["anatomy_of_a_run", "find_a_rate", "first_steps"])
def test_a_notebook_runs(name, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    for package in ("flax", "matplotlib", "sklearn"):
        pytest.importorskip(package)
    names = cells(name)
    if name == "first_steps":
        ours = [names["runs"][rate, True][0] for rate in names["base_rates"]]
        plain = [names["runs"][rate, False][0] for rate in names["base_rates"]]
        assert max(ours) < 0.06
        assert max(ours) < max(plain) / 2
    elif name == "find_a_rate":
        assert names["curve"].reached
        assert names["errors"][1.0] < 0.06
        assert names["errors"][1.0] < max(names["errors"].values()) / 2
    else:
        assert names["error"] < 0.08
        assert names["trace"]["cgalr/phase"][-1] == 1


def cells(name):
    """The namespace after the cells of a notebook ran in order."""
    names = {}
    for cell in json.loads((DOCS / "notebooks" / f"{name}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), name, "exec"), names)
    return names


def test_notebooks_are_committed_without_outputs():
    notebooks = sorted(DOCS.rglob("*.ipynb"))
    assert len(notebooks) == 3
    for path in notebooks:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None
