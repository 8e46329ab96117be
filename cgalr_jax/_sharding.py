"""The sharding of results on a mesh with Explicit axes; on other meshes XLA decides."""

import jax


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
