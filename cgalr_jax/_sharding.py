"""The sharding of results on a mesh with Explicit axes; on other meshes XLA decides."""

import jax
import jax.numpy as jnp


def is_explicit(x: jax.Array) -> bool:
    """Whether an array lies on a mesh with Explicit axes."""
    return jax.sharding.AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def replicated(x: jax.Array, rank: int) -> jax.sharding.NamedSharding | None:
    """A sharding that replicates a result of `rank` axes over the mesh of `x` if the mesh is Explicit."""
    if not is_explicit(x):
        return None
    return jax.sharding.NamedSharding(
        jax.typeof(x).sharding.mesh, jax.sharding.PartitionSpec(*(None,) * rank)
    )


def in_rows(x: jax.Array) -> jax.Array:
    """An array [N, ..., F] as [rows, F]: rows are split as samples and positions are."""
    out_sharding = None
    if is_explicit(x):
        # JAX works this out where the samples are split, but not where the positions only are.
        kind = jax.typeof(x).sharding
        split = [axes if isinstance(axes, tuple) else (axes,) for axes in kind.spec[: x.ndim - 1] if axes]
        spec = jax.sharding.PartitionSpec(sum(split, ()) or None, *kind.spec[x.ndim - 1 :])
        out_sharding = jax.sharding.NamedSharding(kind.mesh, spec)
    return jnp.reshape(x, (-1, x.shape[-1]), out_sharding=out_sharding)
