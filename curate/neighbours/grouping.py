"""Groups of duplicates from verified pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl

from curate.neighbours.candidates import MIN_ALIGNED, Candidate, passes
from curate.neighbours.graph import groups
from curate.schema import GROUPS

Keeper = Literal["largest", "sharpest", "first"]


def _reach(near: Mapping[str, Mapping[str, Candidate]], rank: Mapping[str, int]) -> dict[str, bool]:
    """Whether an image is near as many of its connected set as any, where some were aligned.

    A frame around a picture makes it the largest, but a close crop has too little in common with it: what reaches
    most of the others comes first there.
    """
    shas = sorted(near, key=lambda sha: rank[sha])
    place = {sha: n for n, sha in enumerate(shas)}
    edges = [(place[a], place[b]) for a in shas for b in near[a]]
    first, second = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    number = groups((first, second), len(shas)).tolist()
    most: dict[int, int] = {}
    aligned: set[int] = set()
    for sha, group in zip(shas, number, strict=True):
        most[group] = max(most.get(group, 0), len(near[sha]))
        if any(candidate.aligned for candidate in near[sha].values()):
            aligned.add(group)
    return {sha: group not in aligned or len(near[sha]) == most[group] for sha, group in zip(shas, number, strict=True)}


def group_table(
    manifest: pl.DataFrame,
    features: pl.DataFrame,
    found: Iterable[Candidate],
    *,
    min_similarity: float,
    min_aligned: float = MIN_ALIGNED,
    keeper: Sequence[Keeper] = ("largest", "sharpest", "first"),
    distinct: Iterable[tuple[str, str]] = (),
) -> pl.DataFrame:
    """Groups of duplicates: exact by bytes, near by verified pairs.

    Every member is itself near the group's representative: a chain of weak links is cut, the best image by the keeper
    rule taking its direct neighbours first; where pictures were aligned, the best of those that are near the most
    others. The result does not depend on the order of rows.

    Args:
        manifest: schema `MANIFEST`; unreadable images never group.
        features: schema `FEATURES`.
        found: verified candidates.
        min_similarity: the least correlation on pixels that makes a candidate a duplicate.
        min_aligned: the least similarity of candidates that were aligned.
        keeper: what makes an image the representative: largest area, highest sharpness, first obtained; ties by path.
        distinct: pairs of paths that a person called not duplicates.

    Returns:
        A table of schema `GROUPS`: images in a group of at least two. `kind` is `exact` where the bytes or all pixels
        are those of the representative (for the representative: where all members are exact). `distance` (bits) and
        `similarity` are those to the representative.
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
        if a is None or b is None or a == b or not passes(candidate, min_similarity, min_aligned):
            continue
        near.setdefault(a, {})[b] = candidate
        near.setdefault(b, {})[a] = candidate
    out = []
    taken: set[str] = set()
    reaching = _reach(near, {sha: rank[rows[0]] for sha, rows in rows_of.items()})
    for path in sorted(paths, key=lambda path: (not reaching.get(sha_of[path], True), rank[path])):
        if path in taken:
            continue
        sha = sha_of[path]
        members: list[tuple[str, str, int, float]] = [
            (other, "exact", 0, 1.0) for other in rows_of[sha] if other != path
        ]
        for other_sha, candidate in near.get(sha, {}).items():
            kind = "exact" if candidate.equal else "near"
            members += [(other, kind, candidate.distance, candidate.similarity) for other in rows_of[other_sha]]
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
