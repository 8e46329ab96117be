"""What a probe holds fixed, so that two readings differ by the parameters and by nothing else.

| in the model | in a probe |
|---|---|
| BatchNorm | normalises by the samples of the probe; running averages are neither read nor changed |
| dropout, also in attention | off |
| random keys of other modules | constants |
| the vector of SpectralNorm | starts from a constant |
| other variables that change | their values when the probe is built, or those stored with the `Samples` |

The first four hold in every mode of the model, whatever its forward pass passes to these layers.
"""

from typing import Any, NamedTuple

import jax

__all__ = ["Samples", "given_samples", "is_mapped"]


class Samples(NamedTuple):
    """Samples together with variables of the model; a probe that is given both runs the model with both.

    Made by `nnx_samples` and `linen_samples`, for models whose forward pass reads variables of their own
    (moving averages, memories). The optimizer stores the samples of one measurement for the next one, and
    these variables with them.
    """

    samples: Any
    variables: Any


def given_samples(fixed: Any, given: tuple[Any, ...]) -> Samples:
    """The samples of one measurement: `fixed` ones of the probe, or those given at the call."""
    if (fixed is None) != (len(given) == 1):
        raise ValueError(
            "samples must be given once: to nnx_probe or linen_probe (fixed probe) or to the probe (paired),"
            f" got {'none' if fixed is None else 'some'} when it was built and {len(given)} at its call."
        )
    samples = given[0] if given else fixed
    return samples if isinstance(samples, Samples) else Samples(samples, None)


def is_mapped(axis_name: Any) -> bool:
    """Whether a mapped axis exists here, and not if shapes of a probe are computed outside of the mapping."""
    try:
        jax.lax.psum(1, axis_name)
    except NameError:
        return False
    return True
