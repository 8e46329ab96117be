"""Which leaves of a user's tree are numbers that train: whole models come in, functions and all."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array or a Python number; not so for functions, names, Optax's placeholders."""
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct, int, float, complex))


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is a real or complex floating array (or Python number), as parameters that train are."""
    return is_array(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
