"""The sharding of results on a mesh with Explicit axes; on other meshes XLA decides."""

import jax


def replicated(x: jax.Array, rank: int) -> jax.sharding.NamedSharding | None:
    """A sharding that replicates a result of `rank` axes over the mesh of `x` if the mesh is Explicit."""
    mesh = jax.typeof(x).sharding.mesh
    if jax.sharding.AxisType.Explicit not in mesh.axis_types:
        return None
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*(None,) * rank))
