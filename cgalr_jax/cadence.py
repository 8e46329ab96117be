"""Which steps measure: decided inside of the compiled program, or by the loop that calls it."""

import functools
from typing import Any

import jax
import jax.core
import numpy as np

from cgalr_jax import _checks, _paths, controllers
from cgalr_jax.controllers.ramp import longest_ramp
from cgalr_jax.state import metrics

__all__ = ["default_every", "is_measurement_step"]


def default_every(steps: int | None) -> int:
    """Optimizer steps between measurements where nobody says: 10, or a fiftieth of a run that is short."""
    return 10 if steps is None else min(max(steps // 50, 1), 10)


def is_measurement_step(
    step: int, every: int | None = None, *, steps: int | None = None, opt_state: Any = None
) -> bool:
    """Whether this step is one to measure at: what to pass as `measure=`.

    Without `measure=` the transformation decides while the program runs, inside of a `lax.cond`. A Python
    loop can decide beforehand: `tx.update(..., measure=True)` measures without a condition, and with
    `measure=False` neither probe nor comparison is compiled. Two compiled steps and, measured where this
    function says so, the same trajectory, bit for bit, unless XLA fuses the rest of the step differently
    around a conditional, as we saw with BatchNorm and inside of `optax.MultiSteps`.

    ```
    @functools.partial(jax.jit, static_argnames="measure")
    def train_step(params, opt_state, batch, measure): ...

    for step, batch in enumerate(batches):
        measure = cgalr_jax.is_measurement_step(step)
        params, opt_state = train_step(params, opt_state, batch, measure=measure)
    ```

    A controller that knows the length of the run (`cgalr(steps=)`, `calibrated(steps=)`) has each step
    measured until its ramp ends, of the first 260 at most, and only its state knows when that is: pass
    `steps` and `opt_state`. The loop then waits for the device in those of them that are not measured anyway;
    never after them. What a controller of your own asks for with `early` it has to say itself:
    `step < early` and what its state calls `calibrating`.

    Whoever measures at other steps loses nothing but that: a distance is compared with the
    set-point of the steps that it spans.

    Args:
        step: optimizer steps taken before this one, counted by the caller; at least 0. After a restart begin
            at `int(cgalr_jax.metrics(opt_state)["cgalr/step"])`.
        every: as given to the transformation; at least 1. Default: that of `cgalr`, 10, or a fiftieth of
            `steps` if that is less; that of `scale_by_connectome` is 10 whatever the steps.
        steps: as given to `cgalr` or `calibrated`, if it was; at least 1.
        opt_state: beside `steps`: the state before this step, of the optimizer however nested, or an
            `nnx.Optimizer`. With several blocks in it, each step of any ramp is one to measure at.

    Returns:
        True or False, of Python: known when the step is compiled.

    Raises:
        ValueError: if an argument is outside its range or traced, if only one of `steps` and `opt_state` is
            passed, or if no controller in `opt_state` calibrates.

    Example:
        >>> import jax.numpy as jnp, cgalr_jax
        >>> [step for step in range(25) if is_measurement_step(step)]
        [0, 10, 20]
        >>> state = cgalr_jax.cgalr(0.1, {"hidden": 4}, steps=200).init({"w": jnp.ones((3, 4))})
        >>> is_measurement_step(1, steps=200, opt_state=state)  # the ramp has begun
        True
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((step, opt_state))):
        raise ValueError(
            "step and opt_state must be known, got traced values: call is_measurement_step outside of jit, "
            "and make its answer a static argument."
        )
    step = _checks.check_integer("step", step, 0)
    if steps is not None:
        steps = _checks.check_integer("steps", steps, 1)
    if every is not None:
        every = _checks.check_integer("every", every, 1)
    if (steps is None) != (opt_state is None):
        missing = "steps" if steps is None else "opt_state"
        raise ValueError(f"{missing} must be passed too, steps and opt_state go together; got None.")
    regular = step % (default_every(steps) if every is None else every) == 0
    if steps is None:
        return regular
    leaves, form = jax.tree.flatten(_paths.optimizer_state(opt_state))
    places = _places_of_ended(form)
    if not places:
        raise ValueError(
            "opt_state must hold a controller that calibrates, calibrated(steps=) for instance; got none: "
            "without steps nothing is asked of it."
        )
    if regular or step >= longest_ramp(steps):
        return regular
    # Whether a calibration goes on; waits for the device.
    return any(bool(np.any(np.asarray(leaves[place]) == controllers.UNFINISHED)) for place in places)


@functools.lru_cache(maxsize=8)
def _places_of_ended(form: Any) -> tuple[int, ...]:
    """Where states of this form say how their calibrations ended: looked up once, it takes milliseconds."""
    places = metrics(form.unflatten(range(form.num_leaves)))
    return tuple(int(place) for name, place in places.items() if name.endswith("/ended"))
