"""The mutants are what they say, and every room that is mutated has tests."""

import ast
import pathlib

import pytest

from benchmarks.mutation import __main__ as command
from benchmarks.mutation.mutants import mutants

SOURCE = '''
"""Text 3."""
LIMIT: "f32[2]" = -1.5

def f(x: int = 2) -> bool:
    if not x < LIMIT:
        raise ValueError(f"{x + 1} of 3")
    return x is not None and jnp.minimum(x, 0.0) == 4
'''


def test_each_mutant_is_one_change_that_can_be_read():
    found = [mutant.change for mutant in mutants(SOURCE)]
    assert found == [
        "-1.5  ->  +1.5",
        "1.5  ->  3.0",
        "2  ->  3",
        "not x < LIMIT  ->  +(x < LIMIT)",
        "x < LIMIT  ->  x <= LIMIT",
        "x is not None and jnp.minimum(x, 0.0) == 4  ->  x is not None or jnp.minimum(x, 0.0) == 4",
        "x is not None  ->  x is None",
        "jnp.minimum(x, 0.0) == 4  ->  jnp.minimum(x, 0.0) != 4",
        "jnp.minimum  ->  jnp.maximum",
        "0.0  ->  1.0",
        "4  ->  5",
    ]
    plain = ast.unparse(ast.parse(SOURCE))
    for mutant in mutants(SOURCE):
        assert mutant.source != plain
        assert len(mutant.source.splitlines()) == len(plain.splitlines())


@pytest.mark.parametrize("room", command.ROOMS)
def test_rooms_and_their_tests_are_there(room):
    assert (command.ROOT / "cgalr_jax" / f"{room}.py").is_file()
    assert all(pathlib.Path(command.ROOT, test.split("::")[0]).exists() for test in command.ROOMS[room])


def test_a_part_is_chosen_in_one_way(capsys):
    with pytest.raises(SystemExit):
        command.main(["--quick", "--every", "3"])
    assert "argument --every: --quick takes every tenth" in capsys.readouterr().err


def test_an_unknown_room_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["nosuch"])
    assert "ROOM must be one of" in capsys.readouterr().err
