"""Complete configurations by name: the paper's, as far as it is known, in one call.

The abstract and summaries of the paper (He & Songdechakraiwut, "Connectome-Guided Automatic Learning Rates
for Deep Networks", arXiv 2510.23781) describe the parts, but do not give all numbers. Where the public code
of its group (topo-fcnn, topo-clustering) has a number, it is used here. The other numbers are ours, and
marked so.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any, Literal, get_args

import jax
import optax

from cgalr_jax import _checks, controllers, signals, transform
from cgalr_jax.controllers import Controller, Measurement

__all__ = ["Topology", "paper", "paper_gate", "paper_signal"]

Topology = Literal["deaths", "barcode", "wasserstein"]

# Bounds of the scale at step 0: with 1 as the upper one, the base rate is the largest that is ever applied.
_LOWER, _UPPER = 0.1, 1.0
# The gate's own floor, far below the envelope, which bounds the scale.
_FLOOR = 1e-6


def paper(
    learning_rate: float | jax.Array,
    example: Any,
    *,
    steps_per_epoch: int,
    optimizer: Callable[[optax.ScalarOrSchedule], optax.GradientTransformation] | None = None,
    topology: Topology = "deaths",
    window: int = 10,
    tau: float = 10.0,
    max_units: int = 512,
    axis_name: Hashable | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The paper's optimizer: a relative gate on one connectome of all hidden layers, measured once an epoch.

    Call the update with `probe=` on a large, fixed set of training samples: `probe(params) -> activations` of
    the hidden layers after their nonlinearity, in evaluation mode (as in the code of the paper's group). The
    parts, and where each comes from:

    | part | here | source |
    |---|---|---|
    | `"deaths"` | TOP: L2 norm of the differences of sorted deaths | inferred from the paper |
    | `"barcode"` | TOP: the same of births and deaths | the group's code |
    | `"wasserstein"` | WD: H1 of Vietoris-Rips, lengths 1 / (1 + M) | the paper; lengths and H1 the group's |
    | connectome | one, of the units of all layers, convolutions averaged over positions | both |
    | measured | once an epoch, `every = steps_per_epoch` | inferred from the paper |
    | z-score | median and MAD | the paper |
    | `window` | 10 epochs | ours |
    | gate with hysteresis | enters at 1, leaves at 0; times 1.1 and 0.8 | the paper; numbers ours |
    | envelope | Robbins-Monro, `[0.1, 1] / (1 + epoch / tau)` base rates | the paper; numbers ours |
    | `tau` | 10 epochs | ours |
    | optimizer | SGD with momentum 0.9 | the group's code |

    The gate compares distances with earlier ones only, and so cannot find out that a base rate is 100 times
    wrong. Use `cgalr_jax.cgalr` to find a rate.

    Args:
        learning_rate: the base rate, and the largest rate that is ever applied. A number, since the envelope
            anneals: under a decaying schedule its conditions for convergence may fail.
        example: what the probe returns, see `scale_by_connectome`. At least three units in all.
        steps_per_epoch: optimizer steps of an epoch; at least 1.
        optimizer: `learning_rate -> optimizer`, as in `cgalr`; default SGD with momentum 0.9.
        topology: `"deaths"`, `"barcode"` or `"wasserstein"`, see `paper_signal`.
        window: how many epochs' distances a new one is compared with; at least 5.
        tau: epochs after which the envelope has halved; positive.
        max_units: units per layer that are measured; of a larger layer a fixed sub-sample. Deaths of P units
            in all sort P(P - 1)/2 numbers per measurement; take 32 or so for `"wasserstein"`.
        axis_name: see `scale_by_connectome`.

    Returns:
        An optimizer that takes the extra arguments of `scale_by_connectome`.

    Raises:
        ValueError: if an argument is outside its range.
        ImportError: if the topology is `"wasserstein"` and giotto-ph is not installed.

    Example:
        >>> import jax, jax.numpy as jnp, optax, cgalr_jax
        >>> from cgalr_jax import presets
        >>> x = jax.random.normal(jax.random.key(0), (64, 4))
        >>> params = {"w": jax.random.normal(jax.random.key(1), (4, 8))}
        >>> hidden = lambda params: {"hidden": jax.nn.relu(x @ params["w"])}
        >>> tx = presets.paper(0.1, {"hidden": 8}, steps_per_epoch=20)
        >>> state = tx.init(params)
        >>> updates, state = tx.update(params, state, params, probe=hidden)
        >>> print(cgalr_jax.metrics(state)["cgalr/learning_rate"])  # the base rate, until there is a history
        0.1
    """
    steps_per_epoch = _checks.check_integer("steps_per_epoch", steps_per_epoch, 1)
    if callable(learning_rate):
        raise ValueError(
            f"learning_rate must be a number, which the envelope anneals, got {_checks.shown(learning_rate)}."
        )
    return transform.cgalr(
        learning_rate,
        example,
        optimizer=optimizer,
        every=steps_per_epoch,
        controller=paper_gate(steps_per_epoch, window=window, tau=tau),
        signal=paper_signal(topology),
        max_units=max_units,
        axis_name=axis_name,
    )


def paper_signal(topology: Topology = "deaths") -> signals.Signal:
    """The published distances, for one connectome of all layers.

    Args:
        topology: `"deaths"`, the L2 norm of the differences of sorted deaths; `"barcode"`, that of births and
            deaths together; `"wasserstein"`, WD of H1 only, with lengths 1 / (1 + M), computed on the host.

    Returns:
        A `Signal` in the unit of the distance (set-point 1), for a relative controller.

    Raises:
        ValueError: if the topology is none of these.
        ImportError: if the topology is `"wasserstein"` and giotto-ph is not installed.

    Example:
        >>> from cgalr_jax.layers import Layers
        >>> deaths = paper_signal("deaths")
        >>> units = jax.random.normal(jax.random.key(0), (50, 4))
        >>> reading = deaths.read(Layers({"hidden": units}), None)
        >>> print(deaths.compare(reading, reading))
        0.0
    """
    _checks.check_choice("topology", topology, get_args(Topology))
    if topology == "deaths":
        return signals.deaths(normalise=False)
    if topology == "barcode":
        return signals.barcode(normalise=False)
    from cgalr_jax.topology import rips  # giotto-ph and SciPy are optional

    rips.check_installed()
    distance = functools.partial(
        rips.wasserstein_distance, mindim=1, maxdim=1, metric="reciprocal", normalise=False
    )
    return signals.from_connectomes(None, distance, "pooled", None, 1.0)


def paper_gate(steps_per_epoch: int, *, window: int = 10, tau: float = 10.0) -> Controller:
    """The paper's controller: `hysteresis_gate` inside `robbins_monro_bounds`.

    If the envelope clips the scale, the gate continues from the clipped value, so that a change of its mode
    acts at once. For the first five measurements there is no history: the scale is 1, or the upper bound if
    that is smaller.

    Args:
        steps_per_epoch: optimizer steps of an epoch; at least 1.
        window: how many measurements, one per epoch, a new one is compared with; at least 5.
        tau: epochs after which the envelope `[0.1, 1] / (1 + epoch / tau)` has halved; positive.

    Returns:
        A `Controller`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:
        >>> import jax.numpy as jnp
        >>> gate = paper_gate(100, tau=10.0)
        >>> scale, state = gate.init()
        >>> print(gate.update(Measurement(jnp.float32(1), jnp.int32(1000)), state)[0])  # after ten epochs
        0.5
    """
    steps_per_epoch = _checks.check_integer("steps_per_epoch", steps_per_epoch, 1)
    tau = _checks.check_positive("tau", tau)
    bounds = controllers.robbins_monro_bounds(_LOWER, _UPPER, tau=tau * steps_per_epoch)
    bounded = controllers.envelope(controllers.hysteresis_gate(floor=_FLOOR, window=window), bounds)

    def update(measurement: Measurement, state: Any) -> tuple[jax.Array, Any]:
        scale, state = bounded.update(measurement, state)
        return scale, state._replace(controller=state.controller._replace(scale=state.scale))

    return Controller(bounded.init, update)
