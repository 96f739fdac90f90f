"""Groups of duplicates from verified pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curate.neighbours.candidates import Candidate
from curate.schema import GROUPS

Keeper = Literal["largest", "sharpest", "first"]


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


def group_table(
    manifest: pl.DataFrame,
    features: pl.DataFrame,
    found: Iterable[Candidate],
    *,
    min_similarity: float,
    keeper: Sequence[Keeper] = ("largest", "sharpest", "first"),
    distinct: Iterable[tuple[str, str]] = (),
) -> pl.DataFrame:
    """Groups of duplicates: exact by bytes, near by verified pairs.

    Every member is itself near the group's representative: a chain of weak links is cut, the best image by the keeper
    rule taking its direct neighbours first. The result does not depend on the order of rows.

    Args:
        manifest: schema `MANIFEST`; unreadable images never group.
        features: schema `FEATURES`.
        found: verified candidates.
        min_similarity: the least correlation on pixels that makes a candidate a duplicate.
        keeper: what makes an image the representative: largest area, highest sharpness, first obtained; ties by path.
        distinct: pairs of paths that a person called not duplicates.

    Returns:
        A table of schema `GROUPS`: images in a group of at least two. `kind` is `exact` where the bytes are those of
        the representative (for the representative: where all members are exact). `distance` (bits) and `similarity`
        are those to the representative.
    """
    facts = manifest.filter(pl.col("status") == "ok").join(
        features.select("path", "sharpness", pl.col("width").alias("w"), pl.col("height").alias("h")), on="path"
    )
    order = {
        "largest": -(pl.col("w").cast(pl.Int64) * pl.col("h")),
        "sharpest": -pl.col("sharpness"),
        "first": pl.col("obtained"),
    }
    facts = facts.sort([*(order[rule] for rule in keeper), pl.col("path")])
    paths = facts["path"].to_list()
    rank = {path: place for place, path in enumerate(paths)}
    rows_of: dict[str, list[str]] = {}
    sha_of: dict[str, str] = dict(facts.select("path", "sha256").iter_rows())
    for path, sha in sha_of.items():
        rows_of.setdefault(sha, []).append(path)
    apart = {frozenset(pair) for pair in distinct}
    near: dict[str, dict[str, Candidate]] = {}
    for candidate in found:
        # A candidate speaks for all rows with its bytes.
        a, b = sha_of.get(candidate.first), sha_of.get(candidate.second)
        if a is None or b is None or a == b or not candidate.similarity >= min_similarity:
            continue
        near.setdefault(a, {})[b] = candidate
        near.setdefault(b, {})[a] = candidate
    out = []
    taken: set[str] = set()
    for path in paths:
        if path in taken:
            continue
        sha = sha_of[path]
        members: list[tuple[str, str, int, float]] = [
            (other, "exact", 0, 1.0) for other in rows_of[sha] if other != path
        ]
        for other_sha, candidate in near.get(sha, {}).items():
            members += [(other, "near", candidate.distance, candidate.similarity) for other in rows_of[other_sha]]
        members = [m for m in members if m[0] not in taken and frozenset((path, m[0])) not in apart]
        if not members:
            continue
        members.sort(key=lambda m: rank[m[0]])
        kind = "exact" if all(m[1] == "exact" for m in members) else "near"
        taken.update([path, *(m[0] for m in members)])
        out.append([(path, kind, 0, 1.0), *members])
    out.sort(key=lambda group: min(member[0] for member in group))
    rows = [
        (path, number, kind, group[0][0], distance, similarity)
        for number, group in enumerate(out)
        for path, kind, distance, similarity in group
    ]
    return pl.DataFrame(rows, schema=GROUPS.columns, orient="row")
