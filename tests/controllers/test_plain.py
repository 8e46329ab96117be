"""`calibrated` against the same in plain Python, on drawn histories in which everything happens."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain_calibration import Calibration
from scalars import f32, i32

from cgalr_jax import controllers
from cgalr_jax.controllers import BY_BOUND, BY_GUARD, BY_TIME, REACHED, UNFINISHED, Measurement

RUNS, LENGTH = 100, 160
COSINE = optax.cosine_decay_schedule(0.3, 1600)
WARM_UP = optax.warmup_cosine_decay_schedule(0.0, 0.3, 400, 1600)


def with_bad_values(step):
    """A warm-up, at some steps NaN, infinite, negative or far too large."""
    value = WARM_UP(step)
    bad = {70: math.nan, 230: -1.0, 500: math.inf, 640: 30.0, 900: math.nan}
    return functools.reduce(lambda v, at: jnp.where(step == at, bad[at], v), bad, value)


CASES = {
    "no schedule": {},
    "cosine": {"schedule": COSINE},
    "a short run": {"schedule": COSINE, "steps": 103},
    "warm-up with bad values, steps known": {"schedule": with_bad_values, "steps": 597, "target": 0.7},
    "a start of one": {"schedule": WARM_UP, "start": 1.0},
}


def history(random):
    """Factors of the distance, shares of cut steps and steps between measurements: f[LENGTH] each.

    Noise; single bad measurements and rows of them; rows in which nothing moves; jumps of the sensitivity
    that stay; rows of cut steps. No number of measurements is exactly as long as the slow part may take:
    rounding would decide whether it is over.
    """
    factors = np.exp(random.choice([0.05, 0.3]) * random.normal(size=LENGTH))
    cuts = np.zeros(LENGTH)
    for _ in range(random.integers(0, 7)):
        at, row = random.integers(0, LENGTH), random.choice([1, 2, 3, 12])
        match random.integers(0, 5):
            case 0:
                factors[at : at + row] = random.choice([math.nan, math.inf, -1.0])
            case 1:
                factors[at : at + row] = 10 ** random.uniform(-4, 4)
            case 2:
                factors[at : at + random.choice([1, 5, 40])] = 0.0
            case 3:
                factors[at:][np.isfinite(factors[at:])] *= 10 ** random.uniform(-2, 2)
            case 4:
                cuts[at : at + row] = random.uniform(0.2, 1.0)
    return factors, cuts, random.choice([1, 3, 9, 23]) * np.ones(LENGTH, int)


@pytest.mark.parametrize("case", CASES)
def test_each_measurement_gives_what_plain_python_gives(case):
    arguments = CASES[case]
    controller = controllers.calibrated(**arguments)
    schedule = arguments.get("schedule", lambda step: jnp.ones(()))

    @jax.jit
    @jax.vmap
    def run(right, most, above, factors, cuts, passed):
        def measure(carry, now):
            scale, state, step = carry
            factor, cut, more = now
            step = step + more
            rate = jnp.asarray(schedule(step), jnp.float32)
            rate = jnp.where((rate >= 0) & (rate < 1), rate, 0.3)
            moved = jnp.minimum(scale * rate / right, most)
            distance = jnp.where(jnp.isfinite(factor), factor * moved, factor)
            cut = jnp.where(scale > above, f32(0.6), cut)
            scale, state = controller.update(Measurement(distance, step, cut), state)
            return (scale, state, step), (distance, step, cut, scale, state)

        return jax.lax.scan(measure, (*controller.init(), jnp.int32(0)), (factors, cuts, passed))[1]

    random = np.random.default_rng(1)
    rights = 10 ** random.uniform(-4, 4, RUNS)
    # Some networks stop moving faster, of some the steps are cut from a certain scale on.
    most = np.where(random.uniform(size=RUNS) < 0.3, 10 ** random.uniform(-3, 0, RUNS), np.inf)
    above = np.where(random.uniform(size=RUNS) < 0.3, rights * 10 ** random.uniform(-2, 1, RUNS), np.inf)
    drawn = [np.stack(each) for each in zip(*(history(random) for _ in range(RUNS)), strict=True)]
    factors, cuts, passed = drawn
    found = jax.tree.map(np.asarray, run(*map(f32, (rights, most, above, factors, cuts)), i32(passed)))
    distances, steps, cuts, scales, states = found
    values = np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(2 * steps.max())))
    if "schedule" in arguments:
        arguments = arguments | {"schedule": lambda step: float(values[step])}
    for number in range(RUNS):
        plain = Calibration(**arguments)
        for k in range(LENGTH):
            expected = plain.update(
                float(distances[number, k]), int(steps[number, k]), float(cuts[number, k])
            )
            where = f"run {number}, measurement {k}"
            assert scales[number, k] == pytest.approx(expected, rel=2e-3), where
            assert states.anchor[number, k] == pytest.approx(plain.anchor, rel=2e-3), where
            assert (states.phase[number, k], states.ended[number, k]) == (plain.phase, plain.ended), where
        assert states.refused[number, -1] == plain.refused
    assert set(np.unique(states.ended)) == {UNFINISHED, REACHED, BY_TIME, BY_GUARD, BY_BOUND}
