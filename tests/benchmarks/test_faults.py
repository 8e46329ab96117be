"""Some hundred schedules of faults: whatever is wrong, wherever, the scale is usable and the run goes on."""

import numpy as np
import pytest

from benchmarks.faults import __main__ as command
from benchmarks.faults import runs, schedules

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
