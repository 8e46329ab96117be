"""What holds for every controller, and the checks of a user's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scalars import f32, i32

from cgalr_jax import controllers
from cgalr_jax.controllers import Controller, Measurement
from cgalr_jax.controllers.base import check_controller

pytestmark = pytest.mark.usefixtures("strict")

CONTROLLERS = {
    "gate": controllers.hysteresis_gate(),
    "calibrated": controllers.calibrated(),
    "envelope": controllers.envelope(
        controllers.hysteresis_gate(), controllers.robbins_monro_bounds(0.1, 1.0, tau=10.0)
    ),
}


@pytest.mark.parametrize("controller", CONTROLLERS.values(), ids=CONTROLLERS.keys())
def test_update_is_the_same_under_jit_and_keeps_shapes_and_dtypes(controller):
    _, state = controller.init()
    eager = controller.update(Measurement(f32(0.3), i32(100)), state)
    jitted = jax.jit(controller.update)(Measurement(f32(0.3), i32(100)), state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), eager) == jax.tree.map(
        lambda x: (x.shape, x.dtype, x.weak_type), jitted
    )
    assert jax.tree.structure(eager[1]) == jax.tree.structure(state)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(eager[1]), strict=True):
        assert (before.shape, before.dtype, before.weak_type) == (after.shape, after.dtype, after.weak_type)
    for one, other in zip(jax.tree.leaves(eager), jax.tree.leaves(jitted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def scale():
    return f32(1.0)


WRONG = {
    "^controller must be a cgalr_jax.Controller, got 3": 3,
    r"^controller must be .* got the function calibrated; call it: calibrated\(\)": controllers.calibrated,
    "^controller.update must be a function": Controller(lambda: (scale(), ()), None),
    r"^controller.init must return \(scale f32\[\], state\)": Controller(
        lambda: scale(), lambda m, s: (s, s)
    ),
    r"^controller.update must return \(scale": Controller(lambda: (scale(), ()), lambda m, s: m.distance),
    "^controller.update must return a state of the same structure": Controller(
        lambda: (scale(), ()), lambda m, s: (m.distance, m)
    ),
    "^controller.update must keep the shapes": Controller(
        lambda: (scale(), scale()), lambda m, s: (s, jnp.stack([s, s]))
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_controller_is_refused_when_it_is_made(message):
    with pytest.raises(ValueError, match=message):
        check_controller("controller", WRONG[message])


def test_a_measurement_without_a_bound_has_no_cut_steps():
    assert Measurement(scale(), jnp.int32(1)).cut == 0


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [
        (1, lambda s: s * 0.5, False),
        (True, lambda s: s.astype(jnp.int32), False),
        (1.0, lambda s: s.astype(jnp.complex64), False),
        (1, lambda s: s + 1, True),
        (1.0, lambda s: s * 0.5, True),
        (1.0, lambda s: jnp.int32(2), True),
    ],
)
def test_a_state_whose_numbers_become_richer_is_no_state(first, then, kept):
    """It would be cut to what it was: a half to zero."""
    controller = Controller(lambda: (f32(1.0), first), lambda measurement, state: (f32(1.0), then(state)))
    if kept:
        check_controller("controller", controller)
    else:
        with pytest.raises(
            ValueError, match=r"controller.update must keep the shapes and the kinds of numbers"
        ):
            check_controller("controller", controller)
