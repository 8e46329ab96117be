"""Four virtual CPU devices, a reproducible Hypothesis, and strict JAX for the pure stages."""

import os
import pathlib
import sys

# Read once, when jax is imported: before anything else.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"

import hypothesis
import jax
import pytest

hypothesis.settings.register_profile("cgalr_jax", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("cgalr_jax")
sys.path.insert(0, str(pathlib.Path(__file__).parent))  # import-mode=importlib leaves out `oracles`


@pytest.fixture
def strict():
    """No silent promotion of a dtype or a rank: `pytestmark = pytest.mark.usefixtures("strict")`."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
