"""Traces of the recorder, filled and compared."""

import numpy as np

from cgalr_jax import recorder


def filled(rows):
    trace = recorder.TraceRecorder()
    for row in rows:
        trace.record(row)
    return trace


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[key], b[key], equal_nan=True) for key in a)
