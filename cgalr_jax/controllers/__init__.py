"""Distances -> scale: how the learning rate follows the motion of the network.

A `Controller` is a pair of pure functions. There are two: `calibrated`, the default, uses absolute distances
and finds the scale at which the network moves at its set-point; `hysteresis_gate`, the paper's, compares each
distance with earlier ones. Users can write others. `envelope` keeps the scale of any controller in bounds.
"""

from cgalr_jax.controllers.base import Controller, Measurement
from cgalr_jax.controllers.calibrated import calibrated
from cgalr_jax.controllers.calibration import (
    ANNEALING,
    BY_BOUND,
    BY_GUARD,
    BY_TIME,
    CALIBRATING,
    ENDINGS,
    REACHED,
    UNFINISHED,
)
from cgalr_jax.controllers.envelope import Bounds, envelope, robbins_monro_bounds
from cgalr_jax.controllers.gate import FAST, HOLD, SLOW, hysteresis_gate, robust_z_score, schmitt_trigger

__all__ = [
    "ANNEALING",
    "BY_BOUND",
    "BY_GUARD",
    "BY_TIME",
    "CALIBRATING",
    "ENDINGS",
    "FAST",
    "HOLD",
    "REACHED",
    "SLOW",
    "UNFINISHED",
    "Bounds",
    "Controller",
    "Measurement",
    "calibrated",
    "envelope",
    "hysteresis_gate",
    "robbins_monro_bounds",
    "robust_z_score",
    "schmitt_trigger",
]
