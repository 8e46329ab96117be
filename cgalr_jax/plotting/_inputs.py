"""What comes in, as NumPy arrays: a ValueError names the argument, its range and what it was."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.typing
import numpy as np
from matplotlib.axes import Axes

from cgalr_jax import _checks, topology

_ROUNDING = 1e-6  # by which a correlation may exceed 1


def check_axes(name: str, ax: Any) -> None:
    """Raises a ValueError unless `ax` is one to draw on: not removed from its figure, and not round."""
    if not isinstance(ax, Axes) or ax.figure is None or not {"top", "right"} <= set(ax.spines):
        raise ValueError(
            f"{name} must be matplotlib Axes, rectangular ones of a figure, got {_checks.shown(ax)}."
        )


def as_list(name: str, values: Any, of: str = "") -> list[Any]:
    """The values one by one; a text or a mapping is no list. The error says what they are to be `of`."""
    try:
        if not isinstance(values, (str, Mapping)):
            return list(values)
    except TypeError:  # cannot be gone through
        pass
    raise ValueError(f"{name} must be a list{of}, got {_checks.shown(values)}.")


def as_numbers(name: str, values: Any) -> np.ndarray:
    """An array of real numbers as f64."""
    return np.asarray(_checks.real_array(name, values), dtype=np.float64)


def _in_unit_interval(array: np.ndarray) -> bool:
    return bool(np.all((array >= 0) & (array <= 1 + _ROUNDING)))  # NaN fails


def as_square(name: str, matrix: jax.typing.ArrayLike) -> np.ndarray:
    """A matrix [P, P] of real numbers as f64."""
    return np.asarray(_checks.square_array(name, matrix), dtype=np.float64)


def as_matrix(name: str, matrix: jax.typing.ArrayLike) -> np.ndarray:
    """A connectome [P, P] in [0, 1], in the dtype that it came in."""
    numbers = as_square(name, matrix)
    if not _in_unit_interval(numbers):
        raise ValueError(f"{name} must lie in [0, 1], got {numbers.min()} to {numbers.max()}.")
    return np.asarray(matrix)


def check_same_units(name: str, matrices: Iterable[np.ndarray]) -> None:
    """Raises a ValueError unless all connectomes have the same number of units."""
    if len(units := {len(matrix) for matrix in matrices}) > 1:
        raise ValueError(f"{name} must have the same units, got {sorted(units)} of them.")


def as_weights(name: str, weights: Any) -> np.ndarray:
    """A row of numbers in [0, 1], in the dtype that it came in."""
    numbers = as_numbers(name, weights)
    if numbers.ndim != 1 or not _in_unit_interval(numbers):
        raise ValueError(f"{name} must be a row of numbers in [0, 1], got {_checks.shown(weights)}.")
    return np.asarray(weights)


def as_tree(tree: topology.Tree) -> tuple[np.ndarray, np.ndarray]:
    """Edges and weights, after a check that they connect all units."""
    edges, weights = np.asarray(getattr(tree, "edges", None)), np.asarray(getattr(tree, "weights", None))
    if edges.shape != (*weights.shape, 2) or weights.ndim != 1 or edges.dtype.kind not in "iu":
        got = _checks.shown(tree)
        raise ValueError(f"tree must have edges i32[P - 1, 2] and weights f32[P - 1], got {got}.")
    component = np.arange(len(edges) + 1)
    for i, j in edges:
        if not 0 <= min(i, j) <= max(i, j) < len(component) or component[i] == component[j]:
            raise ValueError(f"tree must connect the units 0 to {len(edges)}, got the edge ({i}, {j}) in it.")
        component[component == component[i]] = component[j]
    numbers = as_numbers("tree.weights", weights)
    # The sign of a bool cannot be changed, and that of an unsigned integer not without wrapping.
    return edges, numbers if weights.dtype.kind in "bui" else weights


def as_series(name: str, trace: Any) -> dict[str, np.ndarray]:
    """The arrays f64[n] of a trace, n being the same."""
    if not isinstance(trace, Mapping):
        raise ValueError(f"{name} must be a mapping of keys to arrays, got {_checks.shown(trace)}.")
    values = {key: as_numbers(f"{name}[{key!r}]", array) for key, array in trace.items()}
    shapes = {array.shape for array in values.values()}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        got = {key: array.shape for key, array in values.items()}
        raise ValueError(f"{name} must hold arrays [n] of one length, got shapes {got}.")
    return values


def check_sizes(layers: Any) -> None:
    """Raises a ValueError unless they are names and numbers of units."""
    if not isinstance(layers, Mapping):
        raise ValueError(
            f"layers must be a mapping of names to numbers of units, got {_checks.shown(layers)}."
        )
    for name, size in layers.items():
        _checks.check_integer(f"layers[{name!r}]", size, 1)


def as_layers(layers: Mapping[str, int] | None, units: int) -> dict[str, int]:
    """Names and numbers of units, of all of them; one layer where none are given."""
    if layers is None:
        return {f"{units} units": units}
    check_sizes(layers)
    layers = dict(layers)
    if sum(layers.values()) != units:
        raise ValueError(f"layers must have {units} units together, got {layers!r}.")
    return layers
