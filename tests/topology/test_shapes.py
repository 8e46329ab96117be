"""The shapes and dtypes in the annotations are true: checked at run time, in a process of their own."""

import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent

# The annotations are strings and jaxtyping is imported for type checkers only; here we are one. Whatever else
# looks at TYPE_CHECKING is imported before.
PROGRAM = """
import doctest, importlib, sys, types, typing
import beartype, flax.linen, flax.nnx, jax, jax.numpy as jnp, jaxtyping, numpy, optax, pytest, scipy.optimize
import jax.experimental.checkify

checker = types.ModuleType("checker")
checker.check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # 1 is a float
sys.modules["checker"] = checker
typing.TYPE_CHECKING = True
with jaxtyping.install_import_hook("cgalr_jax.topology", "checker.check"):
    from cgalr_jax import topology
typing.TYPE_CHECKING = False

outer = importlib.import_module("cgalr_jax.topology.moments")._outer
with pytest.raises(jaxtyping.TypeCheckError):
    outer(jnp.zeros((2, 2)))  # it looks

for name in ("_weights", "moments", "connectome", "spanning_tree", "barcode", "distance"):
    result = doctest.testmod(
        importlib.import_module(f"cgalr_jax.topology.{name}"),
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )
    assert result.failed == 0, name
    print(name, result.attempted)

sys.path.insert(0, sys.argv[1])
import test_types

for name, call in test_types.CALLS.items():
    with jax.enable_x64(True):
        call()
"""


@pytest.mark.slow
def test_annotations_hold_at_run_time():
    pytest.importorskip("jaxtyping")
    pytest.importorskip("beartype")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(HERE)], cwd=HERE.parent.parent, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
