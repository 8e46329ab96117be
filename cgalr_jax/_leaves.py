"""Which leaves of a user's tree are numbers that train: a tree may be a whole model, with functions in it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array or a Python number, not a function, a name or a placeholder of Optax."""
    if isinstance(leaf, (np.ndarray, np.generic)):  # NumPy has arrays of names and of objects, too
        return jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == np.bool_
    return isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct, int, float, complex))


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is a real or complex floating array (or Python number), like parameters that train."""
    return is_array(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def wide(dtype: Any) -> Any:
    """The type that products and means of this one are computed in: a narrow one rounds and overflows."""
    return dtype if dtype.itemsize >= 4 and jnp.issubdtype(dtype, jnp.inexact) else jnp.float32
