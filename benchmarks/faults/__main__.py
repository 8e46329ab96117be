"""Faults at drawn steps of a run: does one bad measurement, or many, decide it?

    python -m benchmarks.faults            # every signal, controller and way to measure, some minutes
    python -m benchmarks.faults --quick    # three constructions

Faults (NaN, infinite, zeros, huge, negative, constant, one row for all, skipped updates) come at drawn steps
in the activations, samples, updates, parameters, the schedule, the bounds, or in what a user's controller
or signal returns. Printed for each: in how many schedules each invariant held.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import arguments
from benchmarks.faults import runs, schedules

SCHEDULES, QUICK_SCHEDULES = 67, 34  # of a construction, beside the undisturbed one


def records_of(
    program: runs.Program, fault: schedules.Fault, outcome: runs.Outcome
) -> list[arguments.Record]:
    """A flat record for each schedule but the undisturbed."""
    records = []
    for number in range(1, len(fault.site)):
        hit = int(fault.kind[number].max())
        records.append(
            {
                **program._asdict(),
                "site": list(schedules.SITES)[int(fault.site[number])],
                "kind": schedules.KINDS[hit - 1] if hit else "none",
                "steps": int((fault.kind[number] > 0).sum()),
                **{name: bool(getattr(outcome, name)[number]) for name in runs.INVARIANTS},
                "counted": int(outcome.counted[number]),
            }
        )
    return records


def table(records: Sequence[arguments.Record], by: str) -> str:
    """How many schedules kept each invariant."""
    lines = [f"{by:22}{'schedules':>10}" + "".join(f"{name:>11}" for name in runs.INVARIANTS)]
    for group in [*dict.fromkeys(record[by] for record in records), "all"]:
        chosen = [record for record in records if group in ("all", record[by])]
        kept = [sum(record[name] for record in chosen) for name in runs.INVARIANTS]
        lines.append(f"{group:22}{len(chosen):10}" + "".join(f"{count:11}" for count in kept))
    return "\n".join(lines)


def run(quick: bool, seed: int = 0) -> list[arguments.Record]:
    """All schedules; says where it is, since the first result of each construction is compiled."""
    records, start = [], time.perf_counter()
    chosen = runs.programs(quick)
    for number, program in enumerate(chosen, 1):
        count = 1 + (QUICK_SCHEDULES if quick else SCHEDULES)
        fault = schedules.draw(seed + number, program.sites, runs.STEPS, count)
        records += records_of(program, fault, runs.run(program, fault))
        seconds = time.perf_counter() - start
        print(
            f"{number} of {len(chosen)}, {seconds:.0f} s: {', '.join(program)}", file=sys.stderr, flush=True
        )
    return records


def main(given: list[str] | None = None) -> None:
    parser = arguments.parser(
        "benchmarks.faults", __doc__, quick="three constructions", records="for each schedule"
    )
    options = parser.parse_args(given)
    records = run(options.quick)
    for by in ("site", "kind", "controller", "signal", "way"):
        print(table(records, by), end="\n\n")
    hit = np.mean([record["counted"] > 0 for record in records])
    print(f"{len(records)} schedules; in {hit:.0%} of them something was counted as skipped or refused.")
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
