"""What several places say of the release is the same, and the parts that tools look for are there."""

import datetime
import importlib.metadata
import inspect
import pathlib
import re
import sys
import tomllib

import pytest

import cgalr_jax

pytestmark = pytest.mark.smoke

ROOT = pathlib.Path(__file__).parent.parent


def text(name):
    return (ROOT / name).read_text()


def test_one_version_and_one_date():
    version, date = re.search(r"^## \[([\d.]+)\] - (\S+)$", text("CHANGELOG.md"), re.MULTILINE).groups()
    assert version == cgalr_jax.__version__ == importlib.metadata.version("cgalr_jax")
    citation = re.search(r"^version: (\S+)\n(?:date-released: (\S+)\n)?", text("CITATION.cff"), re.MULTILINE)
    assert citation.groups() == (version, None if date == "unreleased" else date)
    assert date == "unreleased" or datetime.date.fromisoformat(date)
    # Of what is released nobody needs the repository.
    pages = [text("README.md"), *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    assert date == "unreleased" or not any("git+https" in page for page in pages)


def test_the_citation_is_the_same_in_readme_and_file():
    citation = text("CITATION.cff")
    for place in ("title", "value"):  # of the paper, and its page
        assert re.findall(rf'^ +{place}: "(.*)"$', citation, re.MULTILINE)[-1] in text("README.md")


def test_links_and_pictures_of_the_readme_work_on_pypi():
    """There it stands by itself: each target has its address, and each address a file in the repository."""
    shown = text("README.md")
    project = tomllib.loads(text("pyproject.toml"))
    for each in project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        shown = re.sub(each["pattern"], each["replacement"], shown)
    targets = re.findall(r"\]\(([^)\s]+)\)", shown)
    assert not [each for each in targets if not each.startswith(("https://", "#"))]
    here = "https://(?:raw.githubusercontent|github).com/cgalr-jax/cgalr_jax/(?:blob/)?main/([^#]+)"
    files = [match[1] for each in targets if (match := re.match(here, each))]
    assert len(files) > 15
    assert all((ROOT / file).exists() for file in files)
    assert all("/raw." in each for each in re.findall(r"!\[[^]]*\]\(([^)]+)\)", shown) if "assets" in each)


def test_types_are_announced():
    assert (pathlib.Path(cgalr_jax.__file__).parent / "py.typed").exists()
    assert "Typing :: Typed" in text("pyproject.toml")


def test_every_public_name_is_in_the_reference():
    reference = "".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
    directives = re.findall(r"^::: (\S+)$", reference, re.MULTILINE)
    assert len(directives) == len(set(directives))
    for room in (cgalr_jax, cgalr_jax.controllers, cgalr_jax.signals, cgalr_jax.topology):
        for name in room.__all__:
            # Under any of its public names, or with the whole of its module.
            member = getattr(room, name)
            whole = f"{room.__name__}.{name}"
            # A function may have the name of its module: then it is shown where it is defined.
            defined = f"{getattr(member, '__module__', None)}.{name}"
            known = defined if whole in sys.modules else whole
            shown = {known, f"cgalr_jax.{name}", room.__name__, defined} & set(directives)
            made = inspect.isfunction(inspect.unwrap(member)) or inspect.isclass(member)
            told = shown or inspect.ismodule(member) or (not made and f"`{name}`" in reference)
            assert told, f"no page of docs/reference has ::: {known}"
