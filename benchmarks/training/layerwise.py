"""An experiment: every layer its own motion and its own scale, applied to its own parameters.

Built from the public transformation, one for each layer. The parameters of a layer are those whose path
begins with its name; what belongs to no measured layer gets the geometric mean of the scales.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import cgalr_jax


def _owner(path: Any, layers: Any) -> str | None:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return next((layer for layer in layers if name.startswith(layer + "/")), None)


def scale_layers_by_connectome(
    example: dict[str, Any], *, samples: Any, make_controller: Callable[[], Any], **rest: Any
) -> optax.GradientTransformationExtraArgs:
    """One `scale_by_connectome` for each layer of the example.

    The probe runs once a layer: enough to see what the idea is worth, not a way to ship it.
    """
    blocks = {
        name: cgalr_jax.scale_by_connectome(
            {name: layer}, samples=samples, controller=make_controller(), **rest
        )
        for name, layer in example.items()
    }

    def owned(params: Any, layer: str) -> list[jax.Array]:
        leaves = jax.tree_util.tree_leaves_with_path(params)
        return [leaf for path, leaf in leaves if _owner(path, blocks) == layer]

    def init(params: Any) -> dict[str, Any]:
        return {name: block.init(owned(params, name)) for name, block in blocks.items()}

    def update(updates: Any, state: Any, params: Any = None, *, probe: Any = None, **extra: Any):
        new_state = {}
        for name, block in blocks.items():

            def own(_: Any, *given: Any, name: str = name) -> dict[str, jax.Array]:
                return {name: probe(params, *given)[name]}

            measured = extra if probe is None else {**extra, "probe": own}
            _, new_state[name] = block.update({}, state[name], owned(params, name), **measured)
        scales = {name: each.cg_scale for name, each in new_state.items()}
        mean = jnp.exp(jnp.mean(jnp.log(jnp.stack(list(scales.values())))))
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * scales.get(_owner(path, blocks), mean), updates
        )
        return scaled, new_state

    return optax.GradientTransformationExtraArgs(init, update)
