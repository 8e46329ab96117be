"""Keeps a program to one core, so that its processor time is the time of its work, unless a GPU does that."""

import os
import sys

_FLAG = "--xla_cpu_multi_thread_eigen=false"
_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_ACCELERATORS = {"cuda", "gpu", "rocm", "tpu"}


def keep() -> set[int]:
    """Keeps this program to one thread and one core; returns the cores that it was given.

    NumPy reads its part of the environment when it is imported, which has happened by now: where the
    environment is not yet as it should be, the program is started again, with the same arguments. To be
    called before JAX starts its threads: they stay on the core of the one that starts them.

    An accelerator needs the threads of its host, to compile and to be kept busy: where `JAX_PLATFORMS` names
    one (JAX itself cannot be asked yet), nothing is restricted.
    """
    given = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()  # Linux has it
    if not _ACCELERATORS.isdisjoint(os.environ.get("JAX_PLATFORMS", "").split(",")):
        return given
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags or any(os.environ.get(pool) != "1" for pool in _POOLS):
        os.environ.update(dict.fromkeys(_POOLS, "1"), XLA_FLAGS=f"{flags} {_FLAG}".strip())
        os.execv(sys.executable, sys.orig_argv)
    if given:
        os.sched_setaffinity(0, {max(given)})
    return given
