"""What holds still while a probe runs, so that two readings differ by the parameters and by nothing else.

| in the model | in a probe |
|---|---|
| BatchNorm | normalises by the samples of the probe; running averages are neither read nor changed |
| dropout, that of attention too | off |
| keys of whatever else draws | constants |
| the vector of SpectralNorm | starts from a constant |
| what changes and is none of these | as where the probe is built, or as stored with the `Samples` |

The first four hold whatever mode the model is in, and whatever its forward pass passes to these layers.
"""

from typing import Any, NamedTuple

import jax


class Samples(NamedTuple):
    """Samples, and the variables that belong to them: a probe that is given both runs the model with both.

    Made by `nnx_samples` and `linen_samples`, for models that keep variables of their own (moving averages,
    memories) and read them in the forward pass. The optimizer stores the samples of one measurement for the
    next, and these variables with them.
    """

    samples: Any
    variables: Any


def given_samples(fixed: Any, given: tuple[Any, ...]) -> Samples:
    """The samples of one measurement: those the probe holds, or those it is given."""
    if (fixed is None) != (len(given) == 1):
        raise ValueError(
            "samples must be given once, to the probe's builder (a fixed probe set) or to the probe (paired),"
            f" got {len(given)} at the call and {'none' if fixed is None else 'some'} at the builder."
        )
    samples = given[0] if given else fixed
    return samples if isinstance(samples, Samples) else Samples(samples, None)


def is_mapped(axis_name: Any) -> bool:
    """Whether a mapped axis is there: not where the shapes of a probe are asked for outside of its mesh."""
    try:
        jax.lax.psum(1, axis_name)
    except NameError:
        return False
    return True
