"""The README tells the truth: its example runs and learns, its commands are those that the gate runs."""

import pathlib
import re

import cgalr_jax

README = pathlib.Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_example_learns(capsys):
    names = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    value, scale = map(float, capsys.readouterr().out.split())
    untrained = float(names["loss"]({"w": names["params"]["w"], "v": 0 * names["params"]["v"]}))
    assert value < 0.5 * untrained
    assert scale > 10  # the base rate is far too small


def test_the_example_is_short():
    lines = [
        line for line in blocks("python")[0].splitlines() if line.strip() and not line.startswith("import")
    ]
    assert len(lines) <= 22


def test_the_commands_are_the_first_two():
    commands = [line for line in blocks("bash")[0].splitlines() if line.startswith("python3 ")]
    assert [command.split()[-1] for command in commands[:1]] == ["examples/quickstart.py"]
    assert "pytest" in commands[1]


def test_every_public_name_is_in_the_table():
    text = README.read_text()
    missing = [name for name in cgalr_jax.__all__ if f"`{name}" not in text]
    assert not missing
