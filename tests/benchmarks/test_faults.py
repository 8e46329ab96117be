"""Some hundred schedules of faults: whatever is wrong, wherever, the scale is usable and the run goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.faults import __main__ as command
from benchmarks.faults import one_gradient, runs, schedules

COUNT = 101  # schedules of a construction, the undisturbed among them


@pytest.mark.slow
@pytest.mark.parametrize("program", runs.programs(quick=True), ids=" ".join)
def test_no_fault_decides_a_run(program):
    fault = schedules.draw(1, program.sites, runs.STEPS, COUNT)
    outcome = runs.run(program, fault)
    records = command.records_of(program, fault, outcome)
    assert len(records) == COUNT - 1
    for invariant in ("scale", "updates", "recovered"):
        assert getattr(outcome, invariant).all(), [r for r in records if not r[invariant]]
    # What a schedule returns reaches the state of the first calibrated controller; `anchor` is its too.
    assert all(record["state"] for record in records if record["site"] != "schedule")
    assert not outcome.counted[0]
    assert (outcome.counted > 0).mean() > 0.1  # the faults are there


def test_schedules_are_drawn_anew_and_leave_time_to_recover():
    fault = schedules.draw(3, tuple(schedules.SITES), 90, 500)
    assert not fault.kind[0].any()
    assert fault.kind[1:].any(axis=1).all()
    assert not fault.kind[:, 60:].any()
    assert set(fault.site[1:]) == set(range(len(schedules.SITES)))
    assert set(np.unique(fault.kind)) == set(range(1 + len(schedules.KINDS)))
    for number in range(1, 500):
        site, kind = list(schedules.SITES)[fault.site[number]], schedules.KINDS[fault.kind[number].max() - 1]
        assert kind in schedules.SITES[site]
    other = schedules.draw(4, tuple(schedules.SITES), 90, 500)
    assert np.any(fault.kind != other.kind)


def test_every_signal_controller_and_way_is_run():
    every = runs.programs(quick=False)
    assert len(every) * command.SCHEDULES >= 3000
    for place, names in enumerate((runs.SIGNALS, runs.CONTROLLERS, runs.WAYS)):
        assert {program[place] for program in every} == set(names)
    assert set(runs.programs(quick=True)) < set(every)
    assert {site for program in every for site in program.sites} == set(schedules.SITES)


def test_the_table_counts():
    record = {"site": "signal", **dict.fromkeys(runs.INVARIANTS, True)}
    text = command.table([record, {**record, "scale": False}], "site")
    assert text.splitlines()[1].split() == ["signal", "2", "1", "2", "2", "2", "2"]


@pytest.mark.slow
def test_one_huge_gradient_is_there_once_and_clipping_undoes_it():
    def error(tx, factor):
        fault = jnp.float32(factor), jnp.int32(20), jnp.int32(0)
        return float(jax.jit(lambda: one_gradient.train(optax.with_extra_args_support(tx), *fault)[0])())

    sound, hit = error(optax.sgd(0.03, 0.9), 1), error(optax.sgd(0.03, 0.9), 1e4)
    assert sound < 0.05
    assert hit > 2 * sound
    clipped = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.3, 0.9))
    assert error(clipped, 1e4) < 0.08


def test_the_cosine_is_shown_at_the_rate_that_is_best_without_the_fault_and_with_it():
    def record(method, rate, factor, error, anchor=None):
        run = {"optimizer": "Adam", "method": method, "rate": rate, "factor": factor, "seed": 0}
        return {**run, "error": error, "anchor": anchor}

    first, second, *others = one_gradient.RATES["Adam"]
    records = []
    for factor in one_gradient.FACTORS:
        errors = (0.2, 0.4) if factor == 1 else (0.8, 0.5)
        records += [
            record("cosine", *pair) for pair in zip((first, second), (factor,) * 2, errors, strict=True)
        ]
        records += [record("cosine", rate, factor, 0.9) for rate in others]
        records += [
            record(method, first, factor, 0.4, anchor=2.5 if factor > 1 else 1.0)
            for method in one_gradient.OURS
        ]
    rows = list(one_gradient.rows("Adam", records))
    assert len(rows) == len(one_gradient.FACTORS) * len(one_gradient.OURS)
    assert rows[0][3:7] == ["40.0", f"20.0 at {first:g}", "+100.0 [+100.0, +100.0]", f"20.0 at {first:g}"]
    assert rows[-1][4] == f"80.0 at {first:g}"
    assert rows[-1][6] == f"50.0 at {second:g}"
    assert rows[-1][7] == "-20.0 [-20.0, -20.0]"
    assert rows[-1][9] == "100%"
