"""The average of the parameters along a run: it replaces annealing if the length of the run is not known.

A schedule lowers the rate towards the end, so that the noise of the gradients averages out. If no end is
known, averaging the parameters does the same, at any step, while training goes on at a larger rate.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cgalr_jax import _checks, _leaves, _paths
from cgalr_jax._counting import one_more
from cgalr_jax._paths import Path
from cgalr_jax.arguments import check_state, check_types
from cgalr_jax.state import find_states

__all__ = ["AveragingState", "averaged_params", "polynomial_averaging"]


class AveragingState(NamedTuple):
    """State of `polynomial_averaging`."""

    averaging_step: jax.Array  # i32[], number of updates so far
    averaging_params: Any  # the average: the tree and shapes of the parameters, f32 or wider


def polynomial_averaging(eta: float = 8.0) -> optax.GradientTransformationExtraArgs:
    r"""Keeps the polynomial-decay average of the parameters; the updates pass unchanged.

    After update t = 1, 2, ... the parameters x_t enter the average with the weight

    .. math:: \bar x_t = \bar x_{t-1} + \frac{\eta + 1}{t + \eta} (x_t - \bar x_{t-1})

    (Shamir and Zhang, "Stochastic gradient descent for non-smooth optimization", arXiv 1212.1824). The
    weights grow like t^eta, so that about the last 1 / (eta + 1) of a run counts, whatever its length: unlike
    an exponential average, it needs no decay rate. The default eta is the one that the authors of DoG advise.

    Put it last in the chain, where it sees the updates that are applied. Evaluate `averaged_params`, and go
    on training with the parameters themselves.

    Args:
        eta: at least 0; 0 gives the plain mean, larger values forget earlier parameters faster.

    Returns:
        A transformation that needs `params`. Its state is one float32 copy of the parameters.

    Raises:
        ValueError: if eta is out of range, or `params` is missing from the update.

    Example:
        >>> import jax.numpy as jnp, optax, cgalr_jax
        >>> tx = optax.chain(optax.sgd(1.0), cgalr_jax.polynomial_averaging(eta=0.0))
        >>> params = {"w": jnp.zeros(())}
        >>> state = tx.init(params)
        >>> for gradient in (-1.0, -1.0, -1.0):  # w = 1, 2, 3
        ...     updates, state = tx.update({"w": jnp.float32(gradient)}, state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> print(params["w"], cgalr_jax.averaged_params(state, params)["w"])
        3.0 2.0
    """
    eta = _checks.check("eta", eta, lambda x: 0 <= x < math.inf, "finite and at least 0")

    def init_fn(params: optax.Params) -> AveragingState:
        # A copy, so that the parameters and the state can both be donated.
        average = jax.tree.map(
            lambda x: jnp.array(x, _leaves.wide(jnp.result_type(x)), copy=True) if _trains(x) else None,
            params,
        )
        return AveragingState(jnp.zeros((), jnp.int32), average)

    def update_fn(
        updates: optax.Updates, state: AveragingState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, AveragingState]:
        del extra_args
        check_state("opt_state", state, AveragingState)
        check_types("opt_state", state, {"averaging_step": jnp.int32})
        if params is None:
            raise ValueError(
                "params must be passed to update, tx.update(grads, opt_state, params); got None."
            )
        leaves = jax.tree_util.tree_leaves_with_path(state.averaging_params)
        # By path: a restored average may be of other containers, a list for a tuple.
        means = _matched({_paths.keys_of(path): mean for path, mean in leaves}, params)
        step = one_more(True, state.averaging_step)
        weight = (eta + 1) / (step.astype(jnp.float32) + eta)

        def moved(mean: Any, old: Any, update: Any) -> Any:
            if mean is None:
                return None
            # The next parameters with the rounding of training.
            if update is not None and jnp.shape(update) != jnp.shape(old):
                raise ValueError(
                    f"updates must have the shapes of params, got {_checks.shown(update)} for "
                    f"{_checks.shown(old)}."
                )
            new = old if update is None else optax.apply_updates(old, update)
            mean = jnp.asarray(mean)  # a restored one may be of NumPy
            if mean.dtype != _leaves.wide(mean.dtype):
                raise ValueError(
                    "opt_state.averaging_params must be float32 or wider, as init returns them, got "
                    f"{_checks.shown(mean)}. Cast the parameters, not the state of their optimizer."
                )
            new = jnp.asarray(new, mean.dtype)
            # What stays as it is adds 0: of a mask of -inf the difference would be NaN.
            new, from_ = (jnp.where(new == mean, 0, x) for x in (new, mean))
            return mean + weight.astype(mean.dtype) * (new - from_)

        leaves, form = jax.tree.flatten(means, is_leaf=lambda x: x is None)
        try:
            each = [leaves, *(form.flatten_up_to(tree) for tree in (params, updates))]
        except ValueError as error:
            raise ValueError(f"updates must have the structure of params, got another: {error}") from None
        return updates, AveragingState(step, form.unflatten(map(moved, *each)))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def averaged_params(opt_state: Any, params: optax.Params) -> optax.Params:
    """The parameters to evaluate: the average that `polynomial_averaging` keeps.

    Args:
        opt_state: an Optax state (nested or not), a flax `TrainState`, an `nnx.Optimizer`, its `nnx.state` or
            the pure dict of that.
        params: the current parameters, for structure and dtypes.

    Returns:
        The average, with the structure and dtypes of `params`. Leaves that are not averaged (integers,
        functions) are those of `params`.

    Raises:
        ValueError: if `opt_state` does not contain exactly one state of `polynomial_averaging`, or `params`
            differ from the averaged ones in structure or shapes.

    Example:
        >>> import jax.numpy as jnp, optax, cgalr_jax
        >>> tx = cgalr_jax.polynomial_averaging(eta=0.0)  # the plain mean
        >>> params = {"w": jnp.zeros(2, jnp.bfloat16)}
        >>> state = tx.init(params)
        >>> for update in ([1.0, 0.0], [1.0, 4.0]):  # to [1, 0], then to [2, 4]
        ...     updates, state = tx.update({"w": jnp.array(update, jnp.bfloat16)}, state, params)
        ...     params = optax.apply_updates(params, updates)
        >>> cgalr_jax.averaged_params(state, params)
        {'w': Array([1.5, 2], dtype=bfloat16)}
    """
    # The average of parameters none of which trains has no leaf by which it could be known.
    fields = (
        AveragingState._fields if any(map(_trains, jax.tree.leaves(params))) else AveragingState._fields[:1]
    )
    states = find_states(opt_state, fields)
    if len(states) != 1:
        raise ValueError(
            f"opt_state must contain one state of polynomial_averaging, got {len(states)} in a "
            f"{type(opt_state).__name__}."
        )
    # By path, never by position: a list that was restored as a mapping has keys that sort as text.
    means = {path[1:]: mean for path, mean in states[0].items() if path[0] == "averaging_params"}

    def average(leaf: Any, mean: Any) -> Any:
        # A copy: the state may be donated to the next step.
        return leaf if mean is None else jnp.array(mean, jnp.result_type(leaf), copy=True)

    return jax.tree.map(average, params, _matched(means, params))


def _matched(means: Mapping[Path, Any], params: Any) -> Any:
    """The mean of each parameter, None of what is not averaged: a tree like `params`.

    Raises a ValueError unless these are the parameters that are averaged.
    """
    known = sorted("/".join(keys) for keys in means)
    seen = set()

    def mean_of(path: Any, leaf: Any) -> Any:
        if not _trains(leaf):
            return None
        keys = _found(_paths.keys_of(path), means)
        if keys not in means:
            raise ValueError(
                f"params must be those that polynomial_averaging averages, {known}, got {'/'.join(keys)!r}."
            )
        if jnp.shape(means[keys]) != jnp.shape(leaf):
            raise ValueError(
                "params must have the shapes that polynomial_averaging averages, "
                f"{jnp.shape(means[keys])} for {'/'.join(keys)!r}, got {jnp.shape(leaf)}."
            )
        seen.add(keys)
        return means[keys]

    matched = jax.tree_util.tree_map_with_path(mean_of, params)
    if missing := means.keys() - seen:
        raise ValueError(
            f"params must be those that polynomial_averaging averages, {known}, got none of "
            f"{sorted('/'.join(keys) for keys in missing)}."
        )
    return matched


def _trains(leaf: Any) -> bool:
    """Whether a leaf is averaged; integers and functions are not."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise ValueError(
            f"params must be arrays, whose values are averaged, got {_checks.shown(leaf)}; the shapes of the "
            "state are jax.eval_shape(tx.init, params)."
        )
    return _leaves.is_inexact(leaf)


def _found(keys: Path, means: Mapping[Path, Any]) -> Path:
    """The keys of the same parameter, of which one may be a variable of nnx and the other its value."""
    same = (keys, _paths.without_value(keys), (*keys, "value"))
    return next((each for each in same if each in means), keys)
