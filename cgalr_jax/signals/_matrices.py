"""Arrays of parameters as matrices: their two sides, and how norms depend on these."""

import math

__all__ = ["rank_one", "sides_of"]


def sides_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs n and outputs m of an array of two or more axes: split where min(n, m) is largest."""
    splits = [(math.prod(shape[:axis]), math.prod(shape[axis:])) for axis in range(1, len(shape))]
    return max(splits, key=min)


def rank_one(inputs: int, outputs: int) -> float:
    """Ratio of Frobenius norms, a random matrix to one of rank one, at the same largest singular value."""
    return math.sqrt(inputs * outputs) / (math.sqrt(inputs) + math.sqrt(outputs))
