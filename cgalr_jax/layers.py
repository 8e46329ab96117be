"""Activations -> units: the names of the layers, the choice of units, positions as samples, pooling.

Names and chosen units are static: the example determines them before anything is traced, and every run has
the same.
"""

import itertools
import math
import operator
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cgalr_jax import _checks, _sharding

__all__ = ["Layers", "Layout", "check_layers", "layer_units", "layout_of", "measured_layers", "pooled_units"]


class Layers(Mapping[str, jax.Array]):
    """The measured units of each layer, and the mapped axis over which their samples are split.

    A read-only mapping of names to activations [N, ..., P], in the order of the example.

    Attributes:
        axis_name: the mapped axis (or axes) over which the samples are split; None if arrays are global.
            Pass it on: `topology.functional_connectome(units, axis_name=layers.axis_name)`.

    Example:
        >>> layers = Layers({"hidden": jnp.ones((4, 3))})
        >>> list(layers), layers["hidden"].shape, layers.axis_name
        (['hidden'], (4, 3), None)
    """

    def __init__(self, activations: Mapping[str, jax.Array], axis_name: Hashable | None = None):
        if not isinstance(activations, Mapping):
            raise ValueError(
                f"activations must be a mapping of names to arrays, got {_checks.shown(activations)}."
            )
        self._activations = dict(activations)
        self.axis_name = axis_name

    def __getitem__(self, name: str) -> jax.Array:
        return self._activations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)


class Layout(NamedTuple):
    """Which units of which layers are measured, as determined by an example.

    Attributes:
        widths: {name of the layer: its number of units}.
        chosen: {name of the layer: i64[P], the indices of the units that are measured}.
    """

    widths: dict[str, int]
    chosen: dict[str, np.ndarray]

    @property
    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of two samples of each layer: enough to find the form of a reading."""
        return {name: jax.ShapeDtypeStruct((2, width), jnp.float32) for name, width in self.widths.items()}

    def measured(self) -> dict[str, jax.Array]:
        """Which units of each layer are measured, {name of the layer: bool[F]}, in fresh buffers."""
        return {
            name: jnp.zeros((width,), jnp.bool_).at[self.chosen[name]].set(True)
            for name, width in self.widths.items()
        }


def layout_of(example: Any, max_units: int) -> Layout:
    """Names, widths and measured units of the layers of an example.

    Args:
        example: a pytree whose leaves are activations [N, ..., F], their `jax.ShapeDtypeStruct`s, or numbers
            of units.
        max_units: units per layer that are measured, at least 2; of a larger layer a fixed sub-sample.

    Returns:
        The layout; a leaf is named by the keys that lead to it, joined by slashes.

    Raises:
        ValueError: if there is no layer, a leaf is no layer, or two layers would have the same name.

    Example:
        >>> layout_of({"dense": 3, "blocks": [jnp.zeros((8, 2))]}, max_units=2).widths
        {'blocks/0': 2, 'dense': 3}
    """
    max_units = _checks.check_integer("max_units", max_units, 2)
    widths: dict[str, int] = {}
    for name, leaf in _named_leaves(example, "example"):
        widths[name] = _width(name, leaf)
    if not widths:
        raise ValueError(f"example must hold at least one layer, got {_checks.shown(example)}.")
    return Layout(widths, {name: _choose_units(width, max_units) for name, width in widths.items()})


def measured_layers(activations: Any, layout: Layout, axis_name: Hashable | None = None) -> Layers:
    """The measured units of each layer, after a check against the layout.

    Args:
        activations: what the probe returned: the pytree of the example, each leaf [N, ..., F].
        layout: from `layout_of`.
        axis_name: see `Layers`.

    Returns:
        The layers, [N, ..., P] each; no gradient flows through them.

    Raises:
        ValueError: if the layers, or their numbers of units, differ from those of the layout.

    Example:
        >>> layout = layout_of({"conv": 8, "dense": 3}, max_units=4)
        >>> layers = measured_layers({"conv": jnp.ones((5, 6, 6, 8)), "dense": jnp.ones((5, 3))}, layout)
        >>> {name: units.shape for name, units in layers.items()}
        {'conv': (5, 6, 6, 4), 'dense': (5, 3)}
    """
    _checks.check_kind("layout", layout, Layout, "cgalr_jax.layers")
    leaves = {
        name: _checks.real_or_complex(f"activations[{name!r}]", leaf)
        for name, leaf in _named_leaves(activations, "activations")
    }
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    if {name: shape[-1] if len(shape) > 1 else None for name, shape in shapes.items()} != layout.widths:
        raise ValueError(
            f"activations must be the layers of the example, {layout.widths} (name: units), each [N, ..., "
            f"units]; got shapes {shapes}."
        )
    measured = {
        name: leaf if len(layout.chosen[name]) == layout.widths[name] else _taken(leaf, layout.chosen[name])
        for name, leaf in leaves.items()
    }
    return Layers(jax.lax.stop_gradient(jax.tree.map(jnp.asarray, measured)), axis_name)


def _taken(leaf: jax.typing.ArrayLike, units: np.ndarray) -> jax.Array:
    """Some units of a layer; on an Explicit mesh its other axes stay split as they are."""
    leaf = jnp.asarray(leaf)
    if not _sharding.is_explicit(leaf):
        return jnp.take(leaf, units, axis=-1)
    kind = jax.typeof(leaf).sharding
    spec = jax.sharding.PartitionSpec(*kind.spec[: leaf.ndim - 1], None)
    return leaf.at[..., units].get(out_sharding=jax.sharding.NamedSharding(kind.mesh, spec))


def layer_units(activation: jax.typing.ArrayLike, max_samples: int = 8192) -> jax.Array:
    """The units of one layer: each feature is a unit, each position (pixel, token) of each example a sample.

    Of more than `max_samples` positions every s-th is kept. The stride s is the smallest sufficient one that
    shares no factor with the number of positions, so that no row or column of an image is preferred.

    Args:
        activation: [N, ..., F], of any dtype.
        max_samples: largest number of rows of the result; at least 1.

    Returns:
        [rows, F] with rows <= max_samples, dtype unchanged.

    Raises:
        ValueError: if `activation` has less than two axes or no features, or `max_samples` is less than 1.

    Example:
        >>> layer_units(jnp.zeros((128, 28, 28, 16))).shape  # 100352 positions, every 13th
        (7720, 16)
    """
    activation = jnp.asarray(_checks.real_or_complex("activation", activation))
    if activation.ndim < 2 or activation.shape[-1] == 0:
        raise ValueError(f"activation must be [N, ..., F] with F at least 1, got shape {activation.shape!r}.")
    max_samples = _checks.check_integer("max_samples", max_samples, 1)
    units = _sharding.in_rows(activation)
    rows = units.shape[0]
    enough = -(-rows // max_samples)
    stride = next(s for s in itertools.count(enough) if math.gcd(s, rows) == 1)
    if stride == 1:
        return units
    # A gather, not a slice: for a slice of sharded samples no output sharding can be given.
    kept = jnp.arange(0, rows, stride, dtype=jnp.int32)
    return units.at[kept].get(mode="promise_in_bounds", out_sharding=_sharding.replicated(units, 2))


def check_layers(layers: Any) -> None:
    """Raises a ValueError unless they are names and something for each.

    Args:
        layers: {name: activations [N, ..., P]}, at least one.

    Raises:
        ValueError: if it is no mapping, or an empty one.

    Example:
        >>> check_layers({"dense": jnp.ones((8, 2))})
        >>> check_layers(jnp.ones((8, 2)))
        Traceback (most recent call last):
        ...
        ValueError: layers must be a mapping of names to arrays, got an array of shape (8, 2) and...
    """
    if not isinstance(layers, Mapping) or not layers:
        raise ValueError(f"layers must be a mapping of names to arrays, got {_checks.shown(layers)}.")


def pooled_units(layers: Mapping[str, jax.Array]) -> jax.Array:
    """The units of all layers side by side: positions are averaged, and each example is one sample.

    Args:
        layers: {name: activations [N, ..., P]}, all with the same N.

    Returns:
        f32[N, sum of P].

    Raises:
        ValueError: if the layers differ in N.

    Example:
        >>> pooled_units({"conv": jnp.ones((8, 3, 3, 4)), "dense": jnp.ones((8, 2))}).shape
        (8, 6)
    """
    check_layers(layers)
    layers = {name: jnp.asarray(_checks.real_array(f"layers[{name!r}]", x)) for name, x in layers.items()}
    if short := {name: x.shape for name, x in layers.items() if x.ndim < 2}:
        raise ValueError(f"layers must hold arrays [N, ..., P], got shapes {short}.")
    means = [jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim - 1))) for x in layers.values()]
    if len({x.shape[0] for x in means}) > 1:
        sizes = {name: x.shape for name, x in layers.items()}
        raise ValueError(f"layers must have the same number of samples, their first axis, got {sizes}.")
    return jnp.concatenate(means, axis=1)


def _named_leaves(tree: Any, argument: str) -> list[tuple[str, Any]]:
    """Pairs (name, leaf): a name joins the keys that lead to the leaf by slashes; no name occurs twice."""
    leaves = [
        (jax.tree_util.keystr(path, simple=True, separator="/") or "activations", leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    names = [name for name, _ in leaves]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{argument} must have a different name for each layer, got {twice} twice.")
    return leaves


def _width(name: str, leaf: Any) -> int:
    if callable(leaf):
        raise ValueError(
            "example must be what the probe returns, jax.eval_shape(probe, params), got a function: "
            f"{_checks.shown(leaf)}."
        )
    shape = getattr(leaf, "shape", ())
    if (number := _known_integer(leaf)) is not None:
        width = number
    elif len(shape) >= 2:
        width = shape[-1]
    else:
        raise ValueError(
            "example must hold activations [N, ..., F], their jax.ShapeDtypeStructs (jax.eval_shape(probe, "
            f"params)) or numbers of units, got {_checks.shown(leaf)} for layer {name!r}."
        )
    if width < 2:
        raise ValueError(
            f"example must have at least 2 units in each layer, got {width} in layer {name!r}: leave it out."
        )
    if width > _checks.LARGEST:
        raise ValueError(
            f"example must have at most {_checks.LARGEST} units in each layer, got {width} in layer {name!r}."
        )
    return width


def _known_integer(leaf: Any) -> int | None:
    """The integer that a leaf is, of Python, NumPy or JAX; None if it is none, or one that is traced."""
    if isinstance(leaf, (bool, np.ma.MaskedArray)):  # which Python would take for integers
        return None
    try:
        return operator.index(leaf)
    except TypeError:
        return None


def _choose_units(width: int, max_units: int) -> np.ndarray:
    """Indices of the units that are measured: all, or a fixed sub-sample, the same in each run."""
    if width <= max_units:
        return np.arange(width)
    return np.sort(np.random.default_rng(width).choice(width, max_units, replace=False))
