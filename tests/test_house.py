"""How the house is built: no import upwards, public names listed and told apart, nothing optional loaded."""

import ast
import importlib
import inspect
import itertools
import pathlib
import re
import subprocess
import sys

import pytest

import cgalr_jax

ROOT = pathlib.Path(cgalr_jax.__file__).parent
# From the top of the house down; what is on one line does not see the others on it.
FLOORS = (
    (
        "_checks",
        "_control_flow",
        "_counting",
        "_leaves",
        "_paths",
        "_sharding",
        "_submodules",
        "_units",
        "_warnings",
    ),
    ("layers",),
    ("topology",),
    ("signals",),
    ("controllers",),
    ("state", "_trace"),
    ("arguments", "base_optimizer", "cadence"),
    ("_deprecated", "instrument"),
    ("transform",),
    ("plotting", "capture"),
    ("schedule", "presets", "finder", "averaging", "stopping"),
    ("recorder",),
    ("",),  # the face
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Within a wing: its own order.
WINGS = {
    "topology": (
        ("_weights",),
        ("moments",),
        ("connectome",),
        ("spanning_tree",),
        ("barcode",),
        ("distance",),
        ("rips",),
    ),
    "signals": (("_matrices", "base"), ("connectome", "update", "share"), ("combined", "rips")),
    "controllers": (
        ("_ring", "base", "calibration"),
        ("following", "sensitivity"),
        ("ramp", "annealing"),
        ("calibrated", "gate", "envelope"),
    ),
    "plotting": (("_style", "_inputs"), ("trees", "barcodes", "runs", "rates"), ("connectomes",)),
    "recorder": (
        ("_summary", "_streams", "_files", "_facts", "_pictures"),
        ("_sentences",),
        ("_page",),
        ("trace",),
    ),
    "finder": (("_fit",), ("ramp",)),
    "capture": (
        ("_flax", "choice", "frozen", "train_state"),
        ("calls",),
        ("linen_modules",),
        ("outputs", "listening"),
        ("nnx", "linen"),
        ("shapes",),
    ),
}
# Which files may import what is optional, by the beginnings of their names; types are checked elsewhere.
GUESTS = {
    "flax": ("capture/",),
    "matplotlib": ("plotting/", "recorder/_pictures"),
    "tensorboardX": ("recorder/_streams",),
    "gph": ("topology/rips",),
    "scipy": ("topology/rips",),
    "jaxtyping": ("topology/",),
}
CORE = {"cgalr_jax", "jax", "numpy", "optax", *sys.stdlib_module_names}
OPTIONAL = ("flax", "matplotlib", "gph", "sklearn", "scipy.sparse", "tensorboardX", "rich", "jaxtyping")


def files():
    return sorted(ROOT.rglob("*.py"))


def place(path):
    """(room, file within its wing) of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts == ("__init__",):
        return "", ""
    return parts[0], parts[1] if len(parts) > 1 else ""


def imports_of(path):
    """(room, file) of every import of ours in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cgalr_jax":
            parts = node.module.split(".")[1:]
            for alias in node.names:
                whole = [*parts, alias.name]
                found = ROOT.joinpath(*whole)
                inner = whole if found.is_dir() or found.with_suffix(".py").is_file() else parts
                yield (inner[0] if inner else ""), (inner[1] if len(inner) > 1 else "")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "cgalr_jax":
                    parts = [*alias.name.split(".")[1:], "", ""]
                    yield parts[0], parts[1]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_above_it(path):
    room, file = place(path)
    order = {name: floor for floor, names in enumerate(WINGS.get(room, ())) for name in names}
    assert not order or file in ("__init__", *order), f"{file} has no place in WINGS[{room!r}]"
    for other, inner in imports_of(path):
        if other == room and order and file != "__init__":
            assert inner in order, f"{file} imports from cgalr_jax.{room}: name the file there"
            assert order[inner] < order[file], f"{file} imports {inner}"
        elif other != room:
            assert FLOOR[other] < FLOOR[room], f"{room} imports {other}"


def test_every_room_has_a_floor():
    assert {place(path)[0] for path in files()} == set(FLOOR)


def test_the_way_of_one_activation_goes_down_the_house():
    text = (
        (ROOT.parent / "CONTRIBUTING.md")
        .read_text()
        .split("## The way of one activation")[1]
        .split("\n## ")[0]
    )
    rows = re.findall(r"^\|[^|]*\| `([\w/]+)\.py` \| (.*) \|$", text, flags=re.MULTILINE)
    assert len(rows) > 10
    depths = []
    for file, functions in rows:
        module = importlib.import_module(f"cgalr_jax.{file.replace('/', '.')}")
        for name in re.findall(r"`(\w+)`", functions):
            assert getattr(module, name).__module__.startswith("cgalr_jax"), f"{file}: {name}"
        room, inner = place(ROOT / f"{file}.py")
        within = [number for number, names in enumerate(WINGS.get(room, ())) if inner in names]
        depths.append((FLOOR[room], *within))
    assert depths == sorted(depths)


def public_modules():
    names = []
    for path in files():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        names.append(".".join(("cgalr_jax", *(part for part in parts if part != "__init__"))))
    return names


def loaded(name):
    if name in ("cgalr_jax.signals.rips", "cgalr_jax.topology.rips"):
        pytest.importorskip("scipy")
    return importlib.import_module(name)


def defined_in(module):
    """Names of the functions, classes and constants of a module."""
    for node in ast.parse(pathlib.Path(module.__file__).read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            targets = (each for target in node.targets for each in ast.walk(target))
            yield from (each.id for each in targets if isinstance(each, ast.Name))


@pytest.mark.parametrize("name", public_modules())
def test_a_public_module_lists_what_is_public(name):
    module = loaded(name)
    assert sorted(module.__all__) == sorted(set(module.__all__))
    if not hasattr(module, "__path__"):  # the face of a room names what its files define
        assert {each for each in defined_in(module) if not each.startswith("_")} <= set(module.__all__)
    for each in module.__all__:
        assert hasattr(module, each)
        assert not each.startswith("_")
        member = getattr(module, each)
        if inspect.isfunction(member) or inspect.isclass(member):
            assert inspect.getdoc(member), f"{name}.{each} has no docstring"


# What has no example, and why: nobody constructs it, and the example of what makes or takes it shows it.
WITHOUT_EXAMPLE = {
    "Barcode": "a record, from compute_barcode",
    "Choice": "keyword arguments, of nnx_probe and others",
    "ConnectomeState": "a record, the state of scale_by_connectome",
    "LearningRateCurve": "a record, from find_learning_rate",
    "Measurement": "a record, which Controller.update takes",
    "Moments": "a record, from init_moments",
    "Tree": "a record, from spanning_tree",
}


def shown():
    """(name, member) of the functions and classes that the reference shows, by name or with their module."""
    text = "".join(path.read_text() for path in (ROOT.parent / "docs" / "reference").glob("*.md"))
    for directive in sorted(re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)):
        if directive in public_modules():
            module = loaded(directive)
            members = [(each, getattr(module, each)) for each in module.__all__]
        else:
            module, _, each = directive.rpartition(".")
            members = [(each, getattr(loaded(module), each))]
        for each, member in members:
            if inspect.isfunction(inspect.unwrap(member)) or inspect.isclass(member):
                yield each, member


def test_what_the_reference_shows_has_an_example_that_runs():
    pytest.importorskip("scipy")
    members = dict(shown())
    assert {"births", "plot_film", "TraceRecorder", "levelled", "pooled_units"} < members.keys()
    without = {each for each, member in members.items() if ">>> " not in inspect.getdoc(member)}
    assert without == WITHOUT_EXAMPLE.keys()
    for each in without - {"Choice"}:  # a TypedDict
        assert members[each]._fields, f"{each} is more than a record"


SECTION = re.compile(r"(Args|Attributes|Example|Raises|Returns):")


def docstrings(path):
    """(name, docstring) of a module and all that is in it, without the indentation of the code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield getattr(node, "name", path.stem), ast.get_docstring(node) or ""


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_sections_of_docstrings_have_one_layout(path):
    for name, text in docstrings(path):
        lines = text.splitlines()
        for number, line in enumerate(lines):
            assert not re.fullmatch(r" +(Args|Raises|Returns):", line), f"{name}: {line}"
            if not SECTION.fullmatch(line):
                continue
            section = list(itertools.takewhile(lambda x: not x or x[0] == " ", lines[number + 1 :]))
            assert re.match(r" {4}\S", section[0]), f"{name}: {section[0]!r} is not four spaces behind {line}"
            if line == "Raises:":
                for entry in (each for each in section if re.match(r" {4}\S", each)):
                    assert re.match(r" {4}\w+: if ", entry), f"{name}: {entry}"
            if line in ("Args:", "Attributes:", "Raises:"):
                wrong = [each for each in section if not re.match(r"( {4}| {8,})\S|$", each)]
                assert wrong == [], f"{name}: {wrong}"


def test_no_two_public_functions_share_a_name():
    found = {}
    for name in public_modules():
        module = loaded(name)
        for each in module.__all__:
            member = getattr(module, each)
            if inspect.isfunction(inspect.unwrap(member)) or callable(member):
                found.setdefault(each, set()).add(id(member))
    assert [each for each, members in found.items() if len(members) > 1] == []


def test_the_face_is_short():
    functions = [n for n in cgalr_jax.__all__ if not inspect.ismodule(getattr(cgalr_jax, n))]
    assert len(functions) <= 18
    rooms = {"capture", "plotting", "presets", "recorder", "stopping"}
    assert set(dir(cgalr_jax)) == {*cgalr_jax.__all__, *rooms, "__version__"}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_some_rooms_import_what_is_optional(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        for guest in {name.split(".")[0] for name in names} - CORE:
            assert str(path.relative_to(ROOT)).startswith(GUESTS.get(guest, ())), guest


def run_apart(script):
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


def test_importing_loads_nothing_optional():
    look = f"print(*(name for name in {OPTIONAL!r} if name in sys.modules))"
    script = f"import sys\nimport cgalr_jax\ndir(cgalr_jax)\n{look}\ncgalr_jax.plotting\n{look}"
    assert run_apart(script) == "\nmatplotlib\n"  # nothing, and it would have been seen


def names_written():
    """The names of ours in the docs and in the package, but for the directives of the reference."""
    files = [*ROOT.rglob("*.py"), *(ROOT.parent / "docs").rglob("*.md"), ROOT.parent / "README.md"]
    text = re.sub(r"^::: .*$", "", "\n".join(path.read_text() for path in files), flags=re.MULTILINE)
    return sorted(set(re.findall(r"(?<![\w./])cgalr_jax(?:\.[a-zA-Z]\w*)+", text)))


def test_a_name_that_is_written_or_public_is_found_without_an_import_of_its_module():
    pytest.importorskip("scipy")
    names = [*names_written(), *public_modules()]
    assert {"cgalr_jax.capture.TrainState", "cgalr_jax.topology.rips", "cgalr_jax.stopping"} < set(names)
    look = "operator.attrgetter(name.partition('.')[2] or '__name__')(cgalr_jax)"
    assert run_apart(f"import operator\nimport cgalr_jax\nfor name in {names!r}: {look}") == ""


@pytest.mark.parametrize(
    ("name", "needs"), [("capture", "flax"), ("plotting", "matplotlib"), ("signals.rips", "scipy.optimize")]
)
def test_a_module_whose_extra_is_missing_says_so(name, needs):
    call = f"import sys\nsys.modules[{needs!r}] = None\nimport cgalr_jax\n"
    call += f"try: cgalr_jax.{name}\nexcept ImportError as error: print(error)"
    assert needs in run_apart(call)


@pytest.mark.parametrize("room", [cgalr_jax, cgalr_jax.signals, cgalr_jax.topology])
def test_a_name_that_is_no_module_is_no_attribute(room):
    assert not hasattr(room, "nosuch")
