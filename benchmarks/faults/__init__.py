"""Fault injection: what one bad measurement, or many, does to a run. `python -m benchmarks.faults`."""
