"""Independent answers in NumPy float64 and SciPy, for the tests of the pure stages."""

import numpy as np
import scipy.sparse.csgraph


def connectome(units):
    """|Pearson correlation| by `np.corrcoef` in float64, zero diagonal; no dead units allowed."""
    correlation = np.abs(np.atleast_2d(np.corrcoef(np.asarray(units, np.float64), rowvar=False)))
    np.fill_diagonal(correlation, 0)
    return correlation


def births(connectome):
    """Weights of the maximum spanning tree by SciPy, ascending, exact.

    SciPy wants a minimum spanning tree and reads 0 as no edge: so the weights are replaced by their ranks,
    counted down from the heaviest, at least 1.
    """
    connectome = np.asarray(connectome)
    weights, rank = np.unique(connectome, return_inverse=True)
    cost = (weights.size - rank).reshape(connectome.shape).astype(float)
    tree = scipy.sparse.csgraph.minimum_spanning_tree(np.triu(cost, 1))
    return weights[np.sort(weights.size - tree.data.astype(int))]


def barcode(connectome):
    """Births, and the edge weights that are left when each birth has been taken out once."""
    connectome = np.asarray(connectome)
    born = births(connectome)
    edges = np.sort(connectome[np.triu_indices(connectome.shape[0], 1)])
    weights, counts = np.unique(edges, return_counts=True)
    values, taken = np.unique(born, return_counts=True)
    counts[np.searchsorted(weights, values)] -= taken
    return born, np.repeat(weights, counts)
