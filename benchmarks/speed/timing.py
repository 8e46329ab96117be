"""What the benchmarks of speed share: interleaved timing, on one core or an accelerator, and tables."""

import concurrent.futures
import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TypeVar

import jax
import numpy as np
import rich.console
import rich.table

from benchmarks import arguments

T = TypeVar("T")
R = TypeVar("R")
STRETCH_MS = 10  # of calls that an accelerator gets back to back
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h


def on_cpu() -> bool:
    """Whether JAX computes on the CPU, and not on an accelerator."""
    return jax.default_backend() == "cpu"


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


def each(function: Callable[[T], R], inputs: Iterable[T]) -> list[R]:
    """What a function that compiles makes of each input; for an accelerator, which takes long, side by side.

    There, `compiled` measures the time of a program among others that are compiled.
    """
    if on_cpu():
        return list(map(function, inputs))
    with concurrent.futures.ThreadPoolExecutor() as threads:
        return list(threads.map(function, inputs))


def milliseconds(call: Callable[[], object], clock: Callable[[], float], count: int = 1) -> float:
    """Of one call, when `count` are made back to back and the last one is waited for."""
    started = clock()
    for _ in range(count - 1):
        call()
    jax.block_until_ready(call())
    return 1e3 * (clock() - started) / count


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_below: float = 0.0,
    thrice_above: float = np.inf,
    threaded: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Times every call once a round, in random order, so that whatever else goes on falls on all of them.

    On a CPU the clock is the CPU time of this process, which is kept to one core: what other processes do may
    slow it, through caches and memory, but does not count. On other platforms it is the wall clock, and what
    is timed is a stretch of calls back to back, up to 10 ms of them, waited for once and divided by their
    number: to hand over one call and to wait for it takes longer than a small kernel. A kernel shorter than
    its host takes to hand it over (some 10 us) is as long as that.

    Args:
        calls: by name; each is called once beforehand, on an accelerator once more before that.
        rounds: how many.
        warm_below: a call shorter than this many ms is made twice a round and timed the second time, so that
            it does not pay for the caches that the one before it has emptied.
        thrice_above: a call longer than this many ms is timed three times in all.
        threaded: names of calls that use several threads; timed by the wall clock.

    Returns:
        By name, ms of every timed call.
    """
    clock = time.process_time if on_cpu() else time.perf_counter
    clocks = {name: time.perf_counter if name in threaded else clock for name in calls}
    if not on_cpu():  # the first call of a program loads it
        jax.block_until_ready([call() for call in calls.values()])
    first = {name: milliseconds(call, clocks[name]) for name, call in calls.items()}
    counts = {name: 1 if on_cpu() else max(1, int(STRETCH_MS / one)) for name, one in first.items()}
    times = {name: [one] if one > thrice_above else [] for name, one in first.items()}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(calls)):
            call = calls[name]
            if first[name] > thrice_above and len(times[name]) == 3:
                continue
            if first[name] < warm_below:
                jax.block_until_ready(call())
            times[name].append(milliseconds(call, clocks[name], counts[name]))
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
