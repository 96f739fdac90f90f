"""Off-topic and odd pictures: far from their nearest neighbours in embedding space."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.checks.base import Tables, finding, table
from curate.config import ChecksSpec

OUTLIER = "outlier"


def knn_distance(
    vectors: NDArray[np.floating], *, k: int, group: NDArray[np.integer] | None = None
) -> NDArray[np.float64]:
    """Mean cosine distance of each centred vector to its k nearest others (Ramaswamy et al. 2000).

    What does not belong comes in small clusters (a few seals, a few blank pages), so k should be larger than such a
    cluster; copies of one picture are no neighbours of one another.

    Args:
        vectors: (N, D).
        k: neighbours, fewer where there are fewer images.
        group: (N,) ids: images of one duplicate group share one.

    Returns:
        (N,) distances, 0 to 2; larger is odder.
    """
    x = np.asarray(vectors, dtype=np.float32)
    x = x - x.mean(axis=0)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    n = len(x)
    ids = np.arange(n) if group is None else np.asarray(group)
    k = min(k, n - 1)
    distance = np.zeros(n)
    for start in range(0, n if k >= 1 else 0, 1024):
        similar = x[start : start + 1024] @ x.T
        similar[ids[start : start + 1024, None] == ids[None, :]] = -np.inf
        near = np.partition(similar, n - k, axis=1)[:, n - k :]
        others = np.isfinite(near)  # fewer than k where a large group leaves no more
        found = 1 - near.sum(axis=1, where=others, dtype=np.float64) / np.maximum(others.sum(axis=1), 1)
        distance[start : start + 1024] = np.where(others.any(axis=1), found, 0.0)
    return distance


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings `outlier`: the share of images given in the options that lies farthest from everything else."""
    rows = tables.judged().select("path").join(tables.embeddings, on="path").sort("path")
    if rows.height < 10:
        return table([])
    number = rows.select("path").join(
        tables.groups.select("path", "group"), on="path", how="left", maintain_order="left"
    )
    alone = pl.int_range(pl.len()) + int(tables.groups["group"].max() or 0) + 1  # type: ignore[arg-type]
    group = number.select(pl.coalesce("group", alone).alias("group"))["group"].to_numpy()
    distance = knn_distance(rows["vector"].to_numpy(), k=options.outlier_neighbours, group=group)
    typical = float(np.median(distance))
    count = int(np.ceil(options.outlier * len(distance)))
    out = []
    for n in np.lexsort((np.arange(len(distance)), -distance))[:count]:
        ratio = float(distance[n]) / max(typical, 1e-9)
        if ratio <= 1:
            break
        reason = f"unlike any other picture: {ratio:.1f} times as far from its nearest ones as is usual; off topic?"
        out.append(finding(str(rows["path"][int(n)]), OUTLIER, 1 / max(1.0, ratio), reason))
    return table(out)
