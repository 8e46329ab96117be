"""What the benchmarks of speed share: interleaved timing on one core, and tables."""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import jax
import numpy as np
import rich.console
import rich.table

from benchmarks import arguments

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h


def keep_memory() -> None:
    """Tells glibc's malloc to keep what it has been given, so that no call pays for pages handed back before.

    One arena, too: those of threads are made of heaps of 64 MiB that are handed back whatever the thresholds
    are. To be called before JAX starts its threads; where there is no glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(option, 2**30)


@contextlib.contextmanager
def spread_over(cores: Collection[int]) -> Iterator[None]:
    """Lets a rival that is asked to use several threads run on all of these cores (Linux; elsewhere none)."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compiled(function: Callable, *inputs, **jit_options) -> tuple[Callable, float]:
    """The compiled function and how many ms it took to trace, lower and compile it."""
    started = time.perf_counter()
    executable = jax.jit(function, **jit_options).lower(*inputs).compile()
    return executable, 1e3 * (time.perf_counter() - started)


def milliseconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    jax.block_until_ready(call())
    return 1e3 * (clock() - started)


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_below: float = 0.0,
    thrice_above: float = np.inf,
    threaded: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Times every call once a round, in random order, so that whatever else goes on falls on all of them.

    On a CPU the clock is the CPU time of this process, which is kept to one core: what other processes do may
    slow it, through caches and memory, but does not count. On other platforms it is the wall clock.

    Args:
        calls: by name; each is called once beforehand.
        rounds: how many.
        warm_below: a call shorter than this many ms is made twice a round and timed the second time, so that
            it does not pay for the caches that the one before it has emptied.
        thrice_above: a call longer than this many ms is timed three times in all.
        threaded: names of calls that use several threads; timed by the wall clock.

    Returns:
        By name, ms of every timed call.
    """
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    clocks = {name: time.perf_counter if name in threaded else clock for name in calls}
    first = {name: milliseconds(call, clocks[name]) for name, call in calls.items()}
    times = {name: [one] if one > thrice_above else [] for name, one in first.items()}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(calls)):
            call = calls[name]
            if first[name] > thrice_above and len(times[name]) == 3:
                continue
            if first[name] < warm_below:
                jax.block_until_ready(call())
            times[name].append(milliseconds(call, clocks[name]))
    return {name: np.array(series) for name, series in times.items()}


def spread(times: np.ndarray) -> dict[str, float]:
    """Median and the middle 80 %."""
    low, median, high = np.percentile(times, (10, 50, 90))
    return {"median_ms": float(median), "low_ms": float(low), "high_ms": float(high)}


def show(title: str, records: list[arguments.Record], columns: Mapping[str, str]) -> None:
    """Prints records, if any, as a table; `columns` maps their keys to headings."""
    if not records:
        return
    table = rich.table.Table(title=title, title_justify="left")
    for heading in columns.values():
        left = heading in ("kernel", "implementation", "model")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading == "platform")
    for record in records:
        table.add_row(*(_text(record[key]) for key in columns))
    rich.console.Console(width=200).print(table)


def _text(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)
