"""Four virtual CPU devices, compilations that are kept, a reproducible Hypothesis, and strict JAX."""

import gc
import os
import pathlib
import sys
from importlib import metadata

# Read once, when jax is imported: before anything else. Four fifths of the suite's time is XLA compiling, and
# it compiles four times as fast what it does not optimise, in one piece. `CGALR_JAX_OPTIMISED=1 pytest` tests
# what users run. The last two flags are gone in later versions, and an unknown one ends the process.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        *(
            []
            if "CGALR_JAX_OPTIMISED" in os.environ
            else ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
        ),
        *(
            []
            if "CGALR_JAX_OPTIMISED" in os.environ or not metadata.version("jaxlib").startswith("0.10.")
            else ["--xla_cpu_parallel_codegen_split_count=1", "--xla_cpu_use_fusion_emitters=false"]
        ),
    ]
)

# What it made is kept beside pytest's own cache, for the other worker and for the next run. `pytest
# --cache-clear` removes it.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(pathlib.Path(__file__).parents[1] / ".pytest_cache/d/jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import hypothesis
import jax
import pytest
import xdist.scheduler

hypothesis.settings.register_profile("cgalr_jax", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("cgalr_jax")
sys.path.insert(0, str(pathlib.Path(__file__).parent))  # import-mode=importlib leaves out `oracles`


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Neighbours on one worker, which has compiled for them already; who is idle takes from the end."""
    return xdist.scheduler.WorkStealingScheduling(config, log)


def pytest_collection_finish():
    """What is imported and collected stays: the collector of garbage need not visit it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items):
    """`-m smoke` begins with the example in each public docstring: all rooms, in half a minute."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker("smoke")


@pytest.fixture
def strict():
    """No silent promotion of a dtype or a rank: `pytestmark = pytest.mark.usefixtures("strict")`."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
