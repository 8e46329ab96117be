"""Keeps this process to one core. To be imported before NumPy and JAX, which read the environment once."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
for pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[pool] = "1"
ALL = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
ONE = {max(ALL)} if ALL else set()
if ALL:  # Linux; threads that start later stay on this core, too
    os.sched_setaffinity(0, ONE)
