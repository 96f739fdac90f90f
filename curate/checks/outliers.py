"""Off-topic and odd pictures: far from their nearest neighbours in embedding space, for how dense it is there."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.checks.base import Tables, finding, table
from curate.config import ChecksSpec

OUTLIER = "outlier"


def knn_outlier_score(vectors: NDArray[np.floating], *, k: int) -> NDArray[np.float64]:
    """How far each vector lies from its k nearest others, compared with how far those lie from theirs.

    Cosine distance of centred vectors; the ratio to the neighbours' own distance corrects for density (as the local
    outlier factor does, Breunig et al. 2000). About 1 inside, larger outside.

    Args:
        vectors: (N, D).
        k: neighbours, fewer where there are fewer images.

    Returns:
        (N,) ratios.
    """
    x = np.asarray(vectors, dtype=np.float32)
    x = x - x.mean(axis=0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    n = len(x)
    k = min(k, n - 1)
    if k < 1:
        return np.ones(n)
    distance = np.empty(n)
    near = np.empty((n, k), dtype=np.int64)
    for start in range(0, n, 1024):
        similar = x[start : start + 1024] @ x.T
        similar[np.arange(len(similar)), np.arange(start, start + len(similar))] = -2
        part = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        near[start : start + 1024] = part
        distance[start : start + 1024] = 1 - np.take_along_axis(similar, part, axis=1).mean(axis=1)
    around = distance[near].mean(axis=1)
    score: NDArray[np.float64] = distance * distance / np.maximum(around, 1e-9)
    return score


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings `outlier`: the share of images given in the options that lies farthest from everything else."""
    rows = tables.judged().select("path").join(tables.embeddings, on="path").sort("path")
    if rows.height < 10:
        return table([])
    score = knn_outlier_score(np.asarray(rows["vector"].to_list(), dtype=np.float32), k=options.outlier_neighbours)
    typical = float(np.median(score))
    count = int(np.ceil(options.outlier * len(score)))
    out = []
    for n in np.lexsort((np.arange(len(score)), -score))[:count]:
        ratio = float(score[n]) / max(typical, 1e-9)
        reason = f"unlike any other picture: {ratio:.1f} times as far from its nearest ones as is usual; off topic?"
        out.append(finding(str(rows["path"][int(n)]), OUTLIER, 1 / max(1.0, ratio), reason))
    return table(out)
