"""A TrainState of Flax that passes a probe on to the optimizer."""

import dataclasses
import functools
import inspect
from typing import Any

import optax
from flax.training import train_state

__all__ = ["TrainState"]


class TrainState(train_state.TrainState):
    """Flax's TrainState whose `apply_gradients` passes `probe`, `samples`, `activations` to the optimizer.

    Attributes:
        extra_arguments: the names that `apply_gradients` passes on, a class attribute: those of ours and of
            Optax's transformations. If a transformation of your own takes another one, say so in a subclass:
            `extra_arguments = (*capture.TrainState.extra_arguments, "loss")`, without an annotation.

    Example:
        >>> import jax, jax.numpy as jnp, optax, cgalr_jax
        >>> from cgalr_jax import capture
        >>> from flax import linen
        >>> net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
        >>> x = jax.random.normal(jax.random.key(0), (8, 3))
        >>> params = net.init(jax.random.key(1), x)['params']
        >>> block = cgalr_jax.scale_by_connectome({"layers_0": 5}, samples=x, every=1)
        >>> tx = optax.chain(optax.sgd(0.1), block)
        >>> state = TrainState.create(apply_fn=net.apply, params=params, tx=tx)
        >>> for _ in range(3):  # the first step reads, the others compare
        ...     state = state.apply_gradients(grads=state.params, probe=capture.linen_probe(net), samples=x)
        >>> print(cgalr_jax.metrics(state)["cgalr/measurements"])
        2
    """

    # No annotation: this is no field of the state.
    extra_arguments = (
        *("probe", "samples", "activations", "measure"),
        *("value", "grad", "value_fn"),  # line searches, Polyak's step size, Momo, reduce_on_plateau
        *("sum_sq_diff_grads", "sample_size"),  # optax.experimental
    )

    def apply_gradients(self, *, grads: Any, **kwargs: Any) -> Any:
        """Applies the gradients.

        Args:
            grads: gradients, like `params`.
            **kwargs: fields of the state (`batch_stats=...`) are replaced; `extra_arguments`, and the
                arguments that a `value_fn` among them takes, go to `tx.update`.

        Returns:
            The next state.

        Raises:
            ValueError: if there is any other name, which would get lost: optimizers ignore what they do not
                know.
        """
        fields = {field.name for field in dataclasses.fields(self)}
        replaced = {key: kwargs.pop(key) for key in sorted(fields & kwargs.keys())}
        # A line search passes them on to the function.
        searched = inspect.signature(kwargs["value_fn"]).parameters if kwargs.get("value_fn") else ()
        known = sorted(fields | {*self.extra_arguments, *searched})
        for name in kwargs:
            if name not in known:
                raise ValueError(
                    f"keyword arguments must be fields of the state or extra arguments of the optimizer, "
                    f"{known}, got {name!r}; one of an optimizer of your own goes into a subclass: "
                    f'extra_arguments = (*capture.TrainState.extra_arguments, "{name}").'
                )
        update = optax.with_extra_args_support(self.tx).update
        tx = optax.GradientTransformationExtraArgs(self.tx.init, functools.partial(update, **kwargs))
        # Flax's own method does the rest (it handles fp8 parameters), with `kwargs` bound to the update.
        state = train_state.TrainState.apply_gradients(self.replace(tx=tx), grads=grads, **replaced)
        return state.replace(tx=replaced.get("tx", self.tx))
