"""A trace of a run: the scalars of `cgalr_jax.metrics`, and yours, step by step.

The transformation prints nothing and writes nothing; this does, where you ask for it. matplotlib and
tensorboardX are imported only by what needs them.
"""

from cgalr_jax.recorder.trace import TraceRecorder

__all__ = ["TraceRecorder"]
