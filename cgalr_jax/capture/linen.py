"""Flax linen models -> activations."""

import functools
import itertools
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import core, linen, nnx
from jax.core import Tracer

from cgalr_jax import _checks
from cgalr_jax.capture import _flax, calls, frozen, outputs
from cgalr_jax.capture import choice as choices
from cgalr_jax.capture.choice import Activations, Choice
from cgalr_jax.capture.linen_modules import hold_linen_still, is_linen_layer, linen_units

__all__ = ["check_params", "is_variables", "linen_forward", "linen_probe", "linen_samples"]

_RUNS = itertools.count()
_UNREACHABLE = (
    "an nn.scan or nn.vmap that does not return 'intermediates', an nn.map_variables (linen.WeightNorm), an "
    "nn.cond, nn.switch or nn.while_loop, or a jax.vmap, jax.grad, jax.lax.scan or the like around a module "
    "of the model; add 'intermediates': 0 to the variable_axes, use nn.vmap, nn.grad, nn.scan"
)


def linen_probe(
    model: linen.Module,
    variables: Mapping[str, Any] | None = None,
    samples: Any = None,
    **choice: Unpack[Choice],
) -> Callable[..., Activations]:
    """Builds the probe of a linen model.

    Two readings must differ by the parameters and by nothing else, so everything else that changes in
    training is held fixed: BatchNorm normalises by the samples of the probe instead of its running averages,
    dropout is off, random keys are constants, and changes that the forward pass makes are discarded. So
    'batch_stats' need not be passed, and both values of an argument such as `train` give the same
    activations; if the model requires such an argument, pass `forward=lambda model, x: model(x,
    train=False)`. Other collections keep the values given here. If the forward pass reads some that change in
    training, store them with the samples, see `linen_samples`.

    Args:
        model: the model.
        variables: collections other than the parameters that the forward pass reads; 'params' is ignored.
            None if there are none, or only those of BatchNorm and the like.
        samples: the samples of a fixed probe, in the form that `forward` takes; None for paired measurements.
        **choice: see `Choice`.

    Returns:
        `probe(params, samples) -> activations`; `probe(params) -> activations` if `samples` is given here. As
        `params`, all variables, `{'params': ..., ...}`, are accepted, too, and the `nnx.State` of a model
        that is one `nnx.bridge.ToNNX`.

    Raises:
        ValueError: if an argument is not of this form; from the probe, if no layer matches, or if the axes of
            an array cannot be determined.

    Example:
        >>> net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
        >>> params = net.init(jax.random.key(0), jnp.ones((4, 3)))['params']
        >>> jax.tree.map(jnp.shape, linen_probe(net)(params, jnp.ones((4, 3))))
        {'layers_0': (4, 5)}
    """
    choices.check(model, linen.Module, choice)
    if variables is not None:
        _check_collections(variables, "the third argument is samples")

    def probe(params: Any, *batch: Any) -> Activations:
        check_params(params, "probe(params, samples)")
        inputs, moving = frozen.given_samples(samples, batch)
        if moving is not None and not all(isinstance(held, Mapping) for held in moving.values()):
            raise ValueError(
                "samples must be those of a linen model, linen_samples(variables, x), got other variables: "
                f"{_checks.shown(jax.tree.map(jnp.shape, moving))}."
            )
        # A model that is one `nnx.bridge.ToNNX` hands its parameters out as nnx does.
        params = nnx.to_pure_dict(params) if isinstance(params, nnx.State) else params
        # Given all collections, as `model.init` returns them, each replaces the one from above.
        given = params if is_variables(params) else {"params": params}
        return _run(model, {**(variables or {}), **(moving or {}), **given}, inputs, choice)[1]

    return probe


def linen_samples(variables: Mapping[str, Any], samples: Any) -> frozen.Samples:
    """Samples together with the present collections of a model, if its forward pass reads changing ones.

    A probe that is given both runs the model with both, and discards changes of the collections. Only
    collections of your own need this, such as a moving average that you wrote: the probe holds Flax's
    BatchNorm, dropout and random keys fixed.

    Args:
        variables: the collections; 'params' and 'intermediates' are left out.
        samples: samples in the form that `forward` takes.

    Returns:
        A pytree to pass as `samples=`: paired, to `scale_by_connectome` and to each update; for a fixed
        probe, to `linen_probe` (made once, before training, and passed to the step as an argument).

    Raises:
        ValueError: if `variables` is no mapping of collections.

    Example:
        >>> net = linen.BatchNorm(use_running_average=True)
        >>> variables = net.init(jax.random.key(0), jnp.ones((4, 3)))
        >>> jax.tree.map(jnp.shape, linen_samples(variables, jnp.ones((4, 3))))
        Samples(samples=(4, 3), variables={'batch_stats': {'mean': (3,), 'var': (3,)}})
    """
    _check_collections(variables, "the samples come second")
    kept = {key: value for key, value in variables.items() if key not in ("params", "intermediates")}
    return frozen.Samples(samples, kept)


def linen_forward(
    model: linen.Module,
    variables: Mapping[str, Any],
    samples: Any,
    *,
    rngs: Any = None,
    mutable: Sequence[str] = (),
    **choice: Unpack[Choice],
) -> tuple[Any, Activations, dict[str, Any]]:
    """Runs a linen model and returns (output, activations, changed collections), see `nnx_forward`.

    Args:
        model: the model.
        variables: all collections, 'params' among them.
        samples: samples in the form that `forward` takes.
        rngs: random keys, as in `model.apply`.
        mutable: the collections that the forward pass may change, such as ('batch_stats',).
        **choice: see `Choice`.

    Returns:
        The model's output, the activations {layer name: array [N, ..., F]}, the collections in `mutable`.

    Raises:
        ValueError: if an argument is not of this form, if no layer matches, or if the axes of an array cannot
            be determined.

    Example:
        >>> net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
        >>> variables = net.init(jax.random.key(0), jnp.ones((4, 3)))
        >>> output, activations, changed = linen_forward(net, variables, jnp.ones((4, 3)))
        >>> output.shape, sorted(activations), changed
        ((4, 2), ['layers_0'], {})
    """
    choices.check(model, linen.Module, choice)
    _check_collections(variables, "the samples are the third argument")
    if variables and "params" not in variables:
        raise ValueError(
            "variables must hold all collections, {'params': params, ...}, as model.init returns them, got"
            f" {sorted(variables)}."
        )
    if not isinstance(mutable, (list, tuple)) or not all(isinstance(name, str) for name in mutable):
        raise ValueError(f"mutable must be a list of collections, got {_checks.shown(mutable)}.")
    return _run(model, variables, samples, choice, rngs=rngs, mutable=tuple(mutable), still=False)


def check_params(params: Any, call: str) -> None:
    """Raises a ValueError unless `params`, which come before the samples in this call, are a mapping."""
    if not isinstance(params, Mapping):
        raise ValueError(
            "params must be the parameters of the model, model.init(...)['params'], before the samples:"
            f" {call}, got {_checks.shown(params)}."
        )


def is_variables(tree: Any) -> bool:
    """Whether `tree` holds all collections of a model, not only its parameters."""
    return isinstance(tree, Mapping) and isinstance(tree.get("params"), Mapping)


def _check_collections(variables: Any, hint: str) -> None:
    if not isinstance(variables, Mapping) or not all(isinstance(key, str) for key in variables):
        raise ValueError(
            "variables must be a mapping of collections, such as {'batch_stats': ...}"
            f" ({hint}), got {_checks.shown(variables)}."
        )


def _run(
    model: linen.Module,
    variables: Mapping[str, Any],
    samples: Any,
    choice: Choice,
    *,
    rngs: Any = None,
    mutable: tuple[str, ...] = (),
    still: bool = True,
) -> tuple[Any, Activations, dict[str, Any]]:
    """Runs a linen model and collects what its modules sow; with `still`, as in a probe."""
    listener = calls.Listener(choice, is_linen_layer, linen_units, _UNREACHABLE)
    variables = {"params": {}, **{key: value for key, value in variables.items() if key != "intermediates"}}
    # A flag of this run only. A model that runs inside, by its own `apply`, has none, and is left alone. A
    # class under nn.jit keeps its traces, in which nobody listens again, by their flags: each run has a trace
    # of its own.
    own = f"cgalr:{next(_RUNS)}"

    def heard(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or not _flax.has_flag(module, own):
            return method(*args, **kwargs)
        if still:
            args, kwargs = hold_linen_still(module, context.orig_method, args, kwargs)
        return listener.call(
            _flax.linen_path(module),
            module,
            lambda: _ranks(module.variables.get("params", {})),
            lambda: method(*args, **kwargs),
            functools.partial(_sow, module),
            kwargs,
        )

    with linen.intercept_methods(heard):
        output, changed = _flax.apply_flagged(
            lambda model: listener.forward(model, samples),
            model,
            variables,
            own,
            # Flax draws missing streams from that of 'params', so that one constant key serves all.
            rngs={"params": jax.random.key(0)} if still else rngs,
            mutable=core.DenyList("params") if still else [*mutable, "intermediates"],
        )
    ranks = {path: _ranks(_subtree(variables["params"], path)) for path in listener.paths}
    activations = outputs.collect(changed.get("intermediates", {}), ranks, listener, output)
    kept = {key: value for key, value in changed.items() if key in mutable}
    if "intermediates" in kept:
        kept["intermediates"] = outputs.without_notes(kept["intermediates"])
    return output, activations, kept


def _sow(module: linen.Module, name: str, value: jax.Array) -> bool:
    """Sows a value if it comes out of its place again, as the value of a transformation of JAX's does not."""
    lost = isinstance(value, Tracer) and not _flax.is_in_trace_of_model(module)
    return not lost and not _in_a_branch() and module.sow("intermediates", name, value)


def _in_a_branch() -> bool:
    """Whether this forward pass is in a branch of Flax's, which only the stack of calls tells."""
    frames = (frame for frame, _ in traceback.walk_stack(None))
    ours = itertools.takewhile(lambda frame: frame.f_code is not _run.__code__, frames)
    return _flax.has_branch(ours)


def _ranks(parameters: Any) -> list[int]:
    """The rank of each parameter of a linen module."""
    return [jnp.ndim(leaf) for leaf in jax.tree.leaves(parameters)]


def _subtree(tree: Any, path: calls.Path) -> Any:
    """The part of a nested dict under a path; empty if there is none."""
    for key in path:
        tree = tree.get(key, {})
    return tree
