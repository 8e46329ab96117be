"""Every example runs, learns nothing untrue on the way, and the loaders read what the formats say."""

import os
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if path.name != "datasets.py")
sys.path.insert(0, str(FOLDER))


def run(*command, cwd):
    environment = {
        **os.environ,
        "PYTHONPATH": str(FOLDER.parent),
        "MPLBACKEND": "Agg",
        "JAX_PLATFORMS": "cpu",
    }
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:cgalr_jax", *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_example_runs(script, tmp_path):
    assert run(str(FOLDER / script), "--quick", "--seed", "1", cwd=tmp_path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_example_is_short_and_says_what_it_does(script, tmp_path):
    source = (FOLDER / script).read_text()
    assert len(source.splitlines()) <= 200
    shown = run(str(FOLDER / script), "--help", cwd=tmp_path)
    assert {"--quick", "--seed"} <= set(shown.replace(",", " ").split())
    assert source.split('"""')[1].split()[0] in shown
