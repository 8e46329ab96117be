"""Of a run whose length is known: the shapes of its learning rate, and how often it is measured."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

MEASUREMENTS = 50  # of a run, as the documentation advises


def shapes(steps: int) -> dict[str, np.ndarray]:
    """Optax's schedules, tabulated with a peak of 1: f32[steps]."""
    schedules = {
        "constant": optax.constant_schedule(1.0),
        "step": optax.piecewise_constant_schedule(1.0, {steps // 2: 0.1, steps * 3 // 4: 0.1}),
        "exponential": optax.exponential_decay(1.0, steps, 0.01),
        "cosine": optax.cosine_decay_schedule(1.0, steps),
        "warm-up cosine": optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10, steps),
        "Robbins-Monro": lambda step: 1.0 / (1.0 + step / (0.1 * steps)),
    }
    return {name: np.array(jax.vmap(each)(jnp.arange(steps)), np.float32) for name, each in schedules.items()}


def rate_of(config: dict[str, Any]) -> optax.Schedule:
    """The tabulated schedule times the base rate, as an Optax schedule."""
    return lambda count: config["rate"] * config["shape"][count]


def every(steps: int, measurements: int = MEASUREMENTS) -> int:
    """Steps between two measurements of a run that has so many of them."""
    return max(steps // measurements, 1)
