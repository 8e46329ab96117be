"""The benchmarks of speed run, and write what they say they write."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks.speed import growth, kernels, step, timing

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "speed" / "gpu.sh"
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


def quick_run(name, path):
    """What it prints, and its records."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-m", f"benchmarks.speed.{name}", "--quick", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout, json.loads(path.read_text())


@pytest.mark.slow
def test_the_first_step_is_timed_in_a_first_run_and_a_later_one(tmp_path):
    printed, records = quick_run("first_step", tmp_path / "records.json")
    assert "first run s" in printed
    assert [record["mode"] for record in records] == ["plain", "given", "paired", "probe"]
    assert records[0]["first_added_s"] == records[0]["later_added_s"] == 0
    for record in records:
        assert min(record["first_s"], record["later_s"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_quick_run_prints_a_table_and_writes_flat_records(name, tmp_path):
    printed, records = quick_run(name, tmp_path / "records.json")
    assert "not measured on GPU" in printed
    assert all(set(record) == set(records[0]) >= EXPECTED[name] | {"platform"} for record in records)
    measured = [record for record in records if record["platform"] == "cpu"]
    assert measured
    values = [record.get("median_ms", record.get("overhead_percent")) for record in measured]
    assert all(isinstance(value, float) for value in values)
    assert len(measured) < len(records)


@pytest.mark.slow
def test_growth_counts_the_probe(tmp_path):
    _, (narrow, wide, each, tenth) = quick_run("growth", tmp_path / "records.json")
    assert 0 < narrow["measuring_gflop"] < wide["measuring_gflop"]
    assert tenth["mean_flop_percent"] < each["mean_flop_percent"] < 100 / 2
    assert all(record["other_gflop"] < record["plain_gflop"] / 20 for record in (narrow, wide, each, tenth))


def test_collectives_are_found_in_the_text_of_a_program():
    text = """
  %a = f32[64,2]{1,0} all-reduce(%x), channel_id=1
  %b = (f32[3]{0}, bf16[5]{0}, pred[]) all-gather-start(%y), dimensions={0}
  %c = f32[9]{0} add(%y, %z)
"""
    assert growth.collectives(text) == [4 * 128, 4 * 3 + 2 * 5 + 1]


def test_a_program_is_kept_to_one_core_and_starts_again_once():
    script = """
import os, sys
from benchmarks import one_core
given = one_core.keep()
own = os.sched_getaffinity(0) if given else set()
print(sys.argv[1:], os.environ["OMP_NUM_THREADS"], os.environ["XLA_FLAGS"], own <= given, len(own) <= 1)
"""
    command = [sys.executable, "-c", script, "--quick"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    flags = "--xla_force_host_platform_device_count=1 --xla_cpu_multi_thread_eigen=false"
    assert done.stdout.splitlines() == [f"['--quick'] 1 {flags} True True"]


def test_a_program_for_a_gpu_keeps_its_cores():
    script = """
import os
from benchmarks import one_core
before = dict(os.environ)
given = one_core.keep()
print(dict(os.environ) == before, not given or os.sched_getaffinity(0) == given)
"""
    command = [sys.executable, "-c", script]
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(timing, "on_cpu", lambda: False)


def test_an_accelerator_gets_calls_back_to_back(accelerator, monkeypatch):
    calls, now = {"short": 0, "long": 0}, [0.0]

    def call(name, seconds):
        calls[name] += 1
        now[0] += seconds

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    named = {"short": lambda: call("short", 1 / 1024), "long": lambda: call("long", 1 / 32)}
    times = timing.interleaved(named, rounds=2)
    assert calls == {"short": 2 + 2 * 10, "long": 2 + 2}  # two beforehand; 10 ms hold ten of 1 ms
    assert times["short"].tolist() == [1000 / 1024] * 2
    assert times["long"].tolist() == [1000 / 32] * 2


def test_the_floor_of_boruvka_is_a_row_maximum():
    connectome = np.random.default_rng(0).random((5, 5), np.float32)
    bound = np.ones(5, np.float32)
    for _ in range(3):
        bound = np.minimum(connectome, bound).max(axis=1)
    np.testing.assert_array_equal(kernels.row_maxima_in_rounds(connectome), bound)


def test_the_targets_of_an_accelerator_are_its_own(accelerator):
    rows = {
        ("measurement", "ours", 1024): 0.2,
        ("measurement", "ours", 4096): 3.0,
        ("births", "ours, Boruvka", 4096): 1.0,
        ("births", "floor: Boruvka's passes", 4096): 0.25,
        ("births", "Prim in PyTorch on the GPU", 4096): 200.0,
    }
    records = [
        {"kernel": kernel, "implementation": name, "units": units, "samples": 512, "median_ms": median}
        for (kernel, name, units), median in rows.items()
    ]
    found = [(row["units"], row["value"], row["met"]) for row in kernels.targets(records, 512)]
    assert found == [(1024, 0.2, "yes"), (4096, 3.0, "missed"), (4096, 4.0, "yes"), (4096, 200.0, "yes")]


@pytest.mark.slow
def test_on_an_accelerator_stretches_of_steps_are_compared(accelerator):
    (record,) = step.measure("MLP", step.mlp(4, 8, 1), "given", (2,), turns=2, stretch=4)
    assert record["every"] == 2
    assert record["measuring_percent"] is record["other_percent"] is None
    assert record["low_percent"] <= record["overhead_percent"] <= record["high_percent"]


@pytest.mark.skipif(os.name != "posix", reason="a bash script")
@pytest.mark.parametrize("given", [(), ("--quick",), ("here", "--slow"), ("here", "--quick", "there")])
def test_the_script_for_a_gpu_says_how_it_is_called(given):
    done = subprocess.run(["bash", SCRIPT, *given], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "usage: benchmarks/speed/gpu.sh FOLDER [--quick]\n"


@pytest.mark.skipif(jax.default_backend() != "cpu" or os.name != "posix", reason="there is a GPU")
def test_the_script_for_a_gpu_says_that_there_is_none(tmp_path):
    done = subprocess.run(
        ["bash", SCRIPT, tmp_path / "out"],
        env=os.environ | {"PYTHON": sys.executable, "JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "JAX finds no GPU" in done.stderr
