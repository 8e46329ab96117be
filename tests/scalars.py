"""Numbers as the transformation passes them on: strongly typed, for strict promotion."""

import jax.numpy as jnp


def f32(value):
    return jnp.array(value, jnp.float32)


def i32(value):
    return jnp.array(value, jnp.int32)
