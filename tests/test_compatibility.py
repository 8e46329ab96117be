"""`docs/compatibility.md` names tests that exist, and constructions that are in the table of the contract."""

import pathlib
import re

import pytest

pytestmark = pytest.mark.smoke

HERE = pathlib.Path(__file__).parent
COMPATIBILITY = (HERE.parent / "docs" / "compatibility.md").read_text()


def rows():
    for section in COMPATIBILITY.split("\n## ")[1:]:
        for line in section.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if line.startswith("|") and len(cells) == 4 and not cells[0].startswith(("place", "--")):
                yield cells


def test_every_row_is_a_test():
    source = "".join(
        (HERE / f"{name}.py").read_text()
        for name in (
            "test_contract",
            "capture/test_capture",
            "capture/test_still",
            "test_devices",
            "test_checkpoint",
            "test_cadence",
            "regressions/test_meshes",
            "capture/test_bridge",
            "capture/test_places",
        )
    )
    functions = set(re.findall(r"def test_(\w+)\(", source))
    constructions = set(re.findall(r'^    "([^"]+)": Construction\(', source, re.MULTILINE))
    table = list(rows())
    assert len(table) > 30
    for place, answer, _, tests in table:
        assert answer in ("works", "one line", "cannot"), place
        quoted = re.findall(r"`([\w*]+)`", tests)
        plain = [part.strip() for part in re.split(r"[,;:]", re.sub(r"`[^`]*`", "", tests)) if part.strip()]
        for name in quoted:
            assert name == "contract" or any(re.fullmatch(name.replace("*", r"\w+"), f) for f in functions), (
                place,
                name,
            )
        for name in plain:
            assert any(name in construction for construction in constructions), (
                place,
                name,
            )
        assert quoted or plain, place
