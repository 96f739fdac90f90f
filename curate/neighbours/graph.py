"""What hangs together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def groups(pairs: tuple[NDArray[np.int64], NDArray[np.int64]], n: int) -> NDArray[np.int64]:
    """Connected groups of `n` items: (n,) group ids, numbered by their first member.

    Example:
        >>> groups((np.array([0, 3]), np.array([2, 4])), 5).tolist()
        [0, 1, 0, 2, 2]
    """
    i, j = np.asarray(pairs[0], dtype=np.int64), np.asarray(pairs[1], dtype=np.int64)
    graph = coo_array((np.ones(len(i), dtype=np.int8), (i, j)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[inverse].astype(np.int64)
