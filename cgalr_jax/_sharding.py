"""Where results live on a mesh whose axes are Explicit; elsewhere XLA decides, and there is nothing to say."""

import jax


def replicated(x: jax.Array, rank: int) -> jax.sharding.NamedSharding | None:
    """Where a result of `rank` axes is to live when the sharding of `x` leaves it open: on every device."""
    mesh = jax.typeof(x).sharding.mesh
    if jax.sharding.AxisType.Explicit not in mesh.axis_types:
        return None
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*(None,) * rank))
