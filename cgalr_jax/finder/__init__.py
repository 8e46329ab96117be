"""The ramp of `calibrated` as a tool of its own: at which learning rate does a network move as it should?"""

from cgalr_jax.finder.ramp import LearningRateCurve, find_learning_rate

__all__ = ["LearningRateCurve", "find_learning_rate"]
