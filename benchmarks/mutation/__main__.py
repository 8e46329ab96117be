"""Mutation testing of a room: each mutant is tried by the quick tests of that room only.

    python -m benchmarks.mutation controllers/gate topology/distance
    python -m benchmarks.mutation signals/combined --every 3      # every third mutant

A mutant is killed by a test that fails, or that does not come to its end in time. The project is copied, and
nothing of it is changed. Needs a system with `fork`.
"""

import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from benchmarks import arguments
from benchmarks.mutation.mutants import mutants

ROOT = pathlib.Path(__file__).parents[2]
# {room: its tests}
ROOMS = {
    "topology/moments": ["tests/topology/test_connectome.py", "tests/topology/test_types.py"],
    "topology/connectome": ["tests/topology/test_connectome.py", "tests/topology/test_types.py"],
    "topology/spanning_tree": ["tests/topology/test_spanning_tree.py"],
    "topology/barcode": ["tests/topology/test_spanning_tree.py", "tests/topology/test_types.py"],
    "topology/distance": ["tests/topology/test_distance.py"],
    "topology/_weights": ["tests/topology/test_spanning_tree.py"],
    "signals/base": ["tests/signals/test_signals.py", "tests/signals/test_sub_samples.py"],
    "signals/connectome": ["tests/signals/test_signals.py", "tests/signals/test_sub_samples.py"],
    "signals/combined": ["tests/signals/test_signals.py", "tests/signals/test_sub_samples.py"],
    "signals/share": ["tests/signals/test_update.py"],
    "signals/update": ["tests/signals/test_update.py", "tests/signals/test_signals.py"],
    "controllers/base": ["tests/controllers/test_base.py"],
    "controllers/calibrated": [
        "tests/controllers/test_plain.py",
        "tests/controllers/test_calibrated.py",
        "tests/test_deprecated.py::test_arguments_of_the_old_ramp_warn",
    ],
    "controllers/ramp": ["tests/controllers/test_plain.py", "tests/controllers/test_calibrated.py"],
    "controllers/annealing": ["tests/controllers/test_plain.py", "tests/controllers/test_calibrated.py"],
    "controllers/calibration": ["tests/controllers/test_plain.py", "tests/controllers/test_calibrated.py"],
    "controllers/following": ["tests/controllers/test_plain.py", "tests/controllers/test_calibrated.py"],
    "controllers/sensitivity": ["tests/controllers/test_plain.py", "tests/controllers/test_calibrated.py"],
    "controllers/envelope": [
        "tests/controllers/test_envelope.py",
        "tests/regressions/test_states.py::test_refusals_are_counted_to_the_largest_integer",
    ],
    "controllers/gate": [
        "tests/controllers/test_gate.py",
        "tests/regressions/test_states.py::test_counters_stop_at_the_largest_integer",
    ],
    "arguments": ["tests/test_transform.py", "tests/regressions/test_casts.py"],
    "averaging": ["tests/test_averaging.py", "tests/regressions/test_casts.py"],
    "stopping": ["tests/test_stopping.py"],
    "state": ["tests/test_state.py", "tests/test_checkpoint.py", "tests/regressions/test_states.py"],
    "instrument": ["tests/test_transform.py", "tests/regressions/test_trees.py"],
    "transform": ["tests/test_transform.py"],
}


def tested(folder: pathlib.Path, tests: list[str], seconds: float) -> bool:
    """Whether these tests pass in time, in a process that has JAX already."""
    child = os.fork()
    if child == 0:
        code = 1
        try:  # whatever happens, this process ends here
            os.setsid()
            os.chdir(folder)
            sys.path.insert(0, str(folder))
            os.environ["PYTHONPATH"] = str(folder)  # of the programs that tests start
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            import pytest

            code = int(
                pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-m", "not slow", *tests])
            )
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def run(room: str, every: int, slowest: float, folder: pathlib.Path) -> list[arguments.Record]:
    """The mutants of a room, each with what became of it."""
    path = folder / "cgalr_jax" / f"{room}.py"
    source = path.read_text()
    start = time.monotonic()
    if not tested(folder, ROOMS[room], 1e9):
        raise SystemExit(f"The tests of {room} fail without a mutant: {' '.join(ROOMS[room])}")
    # A mutant compiles what it changes; a loop that never ends shall not cost more than a few times that.
    limit = min(slowest, 30 + 5 * (time.monotonic() - start))
    records = []
    for mutant in list(mutants(source))[::every]:
        path.write_text(mutant.source)
        killed = not tested(folder, ROOMS[room], limit)
        records.append({"room": room, "line": mutant.line, "change": mutant.change, "killed": killed})
        print(f"{'killed' if killed else 'SURVIVED'}  {room}:{mutant.line}  {mutant.change}", flush=True)
    path.write_text(source)
    return records


def main(given: list[str] | None = None) -> None:
    parser = arguments.parser(
        "benchmarks.mutation", __doc__, quick="every tenth mutant", records="for each mutant"
    )
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(ROOMS)}; default: all")
    parser.add_argument("--every", type=arguments.positive_integer, metavar="N", help="default: 1")
    parser.add_argument(
        "--seconds", type=arguments.positive_integer, default=300, metavar="N", help="at most, for a mutant"
    )
    options = parser.parse_args(given)
    if unknown := [room for room in options.rooms if room not in ROOMS]:
        parser.error(f"ROOM must be one of {', '.join(ROOMS)}, got {', '.join(unknown)}")
    if options.quick and options.every:
        parser.error("argument --every: --quick takes every tenth")
    every = 10 if options.quick else options.every or 1
    records = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for part in ("cgalr_jax", "tests", "docs", "benchmarks", "examples"):
            shutil.copytree(ROOT / part, folder / part)
        compiled = ".pytest_cache/d/jax"  # what the tests have compiled before, see tests/conftest.py
        if (ROOT / compiled).is_dir():
            shutil.copytree(ROOT / compiled, folder / compiled)
        for part in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / part, folder / part)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / compiled)
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        # Before the first fork, so that no mutant waits for them; no device is touched.
        import optax  # noqa: F401, and JAX with it

        for room in options.rooms or ROOMS:
            records += run(room, every, options.seconds, folder)
    print()
    for room in dict.fromkeys(record["room"] for record in records):
        tried = [record["killed"] for record in records if record["room"] == room]
        print(f"{room:24} {sum(tried):4} of {len(tried):4} killed, {sum(tried) / len(tried):.0%}")
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
