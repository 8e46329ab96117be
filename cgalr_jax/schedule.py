"""The learning rate as an Optax `StatefulSchedule`, for users who need the rate and not scaled updates."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from cgalr_jax import _checks, arguments, controllers, signals, transform
from cgalr_jax.instrument import rate_at
from cgalr_jax.signals.base import check_signal
from cgalr_jax.state import ConnectomeState

__all__ = ["ConnectomeSchedule", "connectome_schedule"]


class ConnectomeSchedule:
    """What `connectome_schedule` returns: an Optax `StatefulSchedule`."""

    def __init__(self, block: optax.GradientTransformationExtraArgs, learning_rate: optax.ScalarOrSchedule):
        self._block = block
        self._learning_rate = learning_rate

    def init(self) -> ConnectomeState:
        """The state before the first step."""
        state: Any = self._block.init(())
        return state._replace(cg_rate=self(state))

    def update(
        self,
        state: ConnectomeState,
        *,
        activations: Any = None,
        probe: Callable[..., Any] | None = None,
        samples: Any = None,
        measure: bool | None = None,
        **extra_args: Any,
    ) -> ConnectomeState:
        """One step: measures if a measurement is due, or if the caller says so."""
        del extra_args
        bound = None if probe is None else (lambda params, *args: probe(*args))
        if probe is not None:
            arguments.check_probe(probe, () if samples is None else ("samples",))
        extra = {"activations": activations, "probe": bound, "samples": samples, "measure": measure}
        # Optax computes the rate of this step before it calls `update`.
        applied = self(state)
        after: Any = self._block.update((), state._replace(cg_rate=()), (), **extra)[1]
        return after._replace(cg_rate=applied)

    def __call__(self, state: ConnectomeState, **extra_args: Any) -> jax.Array:
        """The learning rate, f32[]."""
        del extra_args
        if not hasattr(state, "cg_scale"):
            raise ValueError(
                "learning_rate must be a connectome_schedule only where Optax passes its state on, "
                "optax.inject_hyperparams(optax.adam)(learning_rate=...); got one as a plain schedule."
            )
        return rate_at(self._learning_rate, state.cg_step) * state.cg_scale


def connectome_schedule(
    learning_rate: optax.ScalarOrSchedule,
    example: Any,
    *,
    steps: int | None = None,
    every: int | None = None,
    controller: controllers.Controller | None = None,
    signal: signals.Signal | None = None,
    **kwargs: Any,
) -> ConnectomeSchedule:
    """The calibrated learning rate as an Optax `StatefulSchedule`, for `optax.inject_hyperparams`.

    `opt_state.hyperparams["learning_rate"]` is then the rate that was applied. Optax does not pass the
    parameters to a schedule: bind them to the probe, `probe=functools.partial(probe, params)`, and choose a
    signal that reads activations only. A measurement changes the rate from the next step on.

    Args:
        learning_rate: a number or a schedule; it is multiplied by the scale.
        example: see `scale_by_connectome`.
        steps: optimizer steps of the whole run, if known; at least 1. Passed to the default controller, as in
            `cgalr`.
        every: optimizer steps between measurements; default 10, or a fiftieth of `steps` if that is less.
        controller: default `calibrated(learning_rate, steps=steps)` with a schedule and
            `calibrated(steps=steps)` with a number.
        signal: default `signals.frobenius()`.
        **kwargs: the other arguments of `scale_by_connectome`, but for `max_share`: a schedule sees no
            updates that it could bound.

    Returns:
        An Optax `StatefulSchedule`.

    Raises:
        ValueError: if the signal reads parameters, or `steps` is given beside a `controller`; otherwise as
            `scale_by_connectome`.

    Example:
        >>> import jax.numpy as jnp, optax, cgalr_jax
        >>> schedule = cgalr_jax.connectome_schedule(1e-3, {"hidden": 4})
        >>> tx = optax.inject_hyperparams(optax.adam)(learning_rate=schedule)
        >>> params = {"w": jnp.ones((3, 4))}
        >>> state = tx.init(params)
        >>> activations = {"hidden": jnp.eye(3) @ params["w"]}
        >>> updates, state = tx.update(params, state, params, activations=activations)
        >>> 0 < state.hyperparams["learning_rate"] < 1e-3
        Array(True, dtype=bool)
    """
    learning_rate = arguments.check_rate("learning_rate", learning_rate)
    signal = check_signal("signal", signals.frobenius() if signal is None else signal)
    if signal.reads_params:
        raise ValueError(
            "signal must be one that reads activations only, because Optax passes no parameters to a "
            f"schedule, got {_checks.shown(signal)}."
        )
    every, controller = transform.defaults_of_run(steps, learning_rate, every, controller)
    if kwargs.setdefault("max_share", None) is not None:
        raise ValueError(
            "max_share must be left out, because Optax passes no updates to a schedule, got "
            f"{_checks.shown(kwargs['max_share'])}; clip the gradients before the optimizer."
        )
    block = transform.scale_by_connectome(
        example, every=every, controller=controller, signal=signal, **kwargs
    )
    return ConnectomeSchedule(block, learning_rate)
