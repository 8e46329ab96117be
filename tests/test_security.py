"""The promises of SECURITY.md that can be read off the source, and one that is watched at run time."""

import ast
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest

import cgalr_jax
from cgalr_jax import recorder

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = sorted(pathlib.Path(cgalr_jax.__file__).parent.rglob("*.py"))
SCRIPTS = sorted(path for folder in ("examples", "benchmarks") for path in (ROOT / folder).rglob("*.py"))

NETWORK = {"aiohttp", "asyncio", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "urllib"}
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
PROCESSES = {"ctypes", "multiprocessing", "pty", "subprocess"}
FILES_AS_CODE = {"code", "codeop", "imp", "runpy"}
CALLS = {"__import__", "compile", "eval", "exec", "os.popen", "os.system"}


def imported(tree):
    """The first word of each module that is imported, at the top or in a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def called(tree):
    return {ast.unparse(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.stem)
def test_the_package_has_no_network_no_pickle_no_process_and_runs_no_text(path):
    tree = ast.parse(path.read_text())
    assert not set(imported(tree)) & (NETWORK | PICKLES | PROCESSES | FILES_AS_CODE)
    assert not called(tree).keys() & CALLS


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_examples_and_benchmarks_have_no_network(path):
    tree = ast.parse(path.read_text())
    assert not set(imported(tree)) & NETWORK
    assert not called(tree).keys() & CALLS


def test_only_the_loader_of_planetoid_knows_pickles():
    found = {path.name for path in SCRIPTS if PICKLES & set(imported(ast.parse(path.read_text())))}
    assert found == {"datasets.py"}


@pytest.mark.parametrize("path", PACKAGE + SCRIPTS, ids=lambda path: path.stem)
def test_numpy_files_are_read_without_pickles(path):
    """NumPy's own default since 1.16.3; nobody may turn it on."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False"


class Malicious:
    def __reduce__(self):
        return exec, ("raise AssertionError('a file ran code')",)


def test_a_trace_that_holds_objects_is_refused(tmp_path):
    path = tmp_path / "trace.npz"
    np.savez(path, trace=np.array([Malicious()], dtype=object))
    with pytest.raises(ValueError, match="pickled, and nothing is unpickled"):
        recorder.TraceRecorder.load(path)
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match="^path must be a file of TraceRecorder.save"):
        recorder.TraceRecorder.load(path)


WATCHED = """
import sys

import jax, jax.numpy as jnp, numpy, optax  # what they do of their own is theirs

SEEN = []
FORBIDDEN = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "pickle.find_class"}


def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if event in FORBIDDEN or writes:
        SEEN.append((event, str(arguments)[:200]))


sys.dont_write_bytecode = True
sys.addaudithook(watch)
import cgalr_jax

tx = cgalr_jax.cgalr(0.1, {"hidden": 4}, every=1)
probe = lambda params: {"hidden": jnp.arange(24.0).reshape(6, 4) ** 0.5 * params["w"]}
params = {"w": jnp.arange(1.0, 5.0)}
state, update = tx.init(params), jax.jit(lambda *args: tx.update(*args, probe=probe))
for _ in range(2):
    updates, state = update(params, state, params)
assert cgalr_jax.metrics(state)["cgalr/measurements"] == 1
assert not SEEN, SEEN
"""


def test_a_run_connects_to_nothing_and_writes_nothing(tmp_path):
    # Without the cache of compilations that the tests themselves keep.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", WATCHED]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
