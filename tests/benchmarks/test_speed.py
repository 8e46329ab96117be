"""The benchmarks of speed run, and write what they say they write."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXPECTED = {
    "kernels": {
        "kernel",
        "implementation",
        "units",
        "samples",
        "median_ms",
        "low_ms",
        "high_ms",
        "compile_ms",
    },
    "step": {
        "model",
        "mode",
        "every",
        "overhead_percent",
        "peak_mib",
        "plain_peak_mib",
        "state_mib",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_quick_run_prints_a_table_and_writes_flat_records(name, tmp_path):
    path = tmp_path / "records.json"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", f"benchmarks.speed.{name}", "--quick", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "not measured on GPU" in done.stdout
    records = json.loads(path.read_text())
    assert all(set(record) == set(records[0]) >= EXPECTED[name] | {"platform"} for record in records)
    measured = [record for record in records if record["platform"] == "cpu"]
    assert measured
    values = [record.get("median_ms", record.get("overhead_percent")) for record in measured]
    assert all(isinstance(value, float) for value in values)
    assert len(measured) < len(records)


def test_a_program_is_kept_to_one_core_and_starts_again_once():
    script = """
import os, sys
from benchmarks.speed import one_core
given = one_core.keep()
own = os.sched_getaffinity(0) if given else set()
print(sys.argv[1:], os.environ["OMP_NUM_THREADS"], os.environ["XLA_FLAGS"], own <= given, len(own) <= 1)
"""
    command = [sys.executable, "-c", script, "--quick"]
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    flags = "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false"
    assert done.stdout.splitlines() == [f"['--quick'] 1 {flags} True True"]
