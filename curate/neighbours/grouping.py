"""Groups of duplicates from verified pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl

from curate.neighbours.candidates import MIN_ALIGNED, Candidate, passes
from curate.neighbours.graph import groups
from curate.schema import GROUPS, PAIRS

Keeper = Literal["largest", "sharpest", "first"]


def _reach(near: Mapping[str, Mapping[str, Candidate]], rank: Mapping[str, int]) -> dict[str, bool]:
    """Whether an image is near as many of its connected set as any; true of all where none were aligned."""
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

    A chain of weak links is cut: the best image by the keeper rule takes all that it is near, then the best of the
    others does. Where pictures were aligned, one that is near as many of its connected set as any begins (a close crop
    has little in common with the picture in its frame, which is the largest); the representative is then the best of
    those that are near at least half of the group. The result does not depend on the order of rows.

    Args:
        manifest: schema `MANIFEST`; unreadable images never group.
        features: schema `FEATURES`.
        found: verified candidates.
        min_similarity: the least similarity of pictures as they are that makes a candidate a duplicate.
        min_aligned: the least similarity of candidates that were aligned.
        keeper: what makes an image the representative: largest area, highest sharpness, first obtained; ties by path.
        distinct: pairs of paths that a person called not duplicates: they, and all with the same bytes, never share a
            group. Of equal bytes that is not so.

    Returns:
        A table of schema `GROUPS`: images in a group of at least two, the representative first, then by the keeper
        rule. `kind` is `exact` where the bytes or all pixels are those of the representative (for the representative:
        where all members are exact). `distance` (bits) and `similarity` are those to the representative, or to what
        began the group where those two were not compared.
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
    sha_of: dict[str, str] = dict(facts.select("path", "sha256").iter_rows())
    rows_of: dict[str, list[str]] = {}
    for path, sha in sha_of.items():
        rows_of.setdefault(sha, []).append(path)
    rank = {sha: place for place, sha in enumerate(rows_of)}
    apart: dict[str, set[str]] = {}
    for a, b in ((sha_of.get(x), sha_of.get(y)) for x, y in distinct):
        if a and b:
            apart.setdefault(a, set()).add(b)
            apart.setdefault(b, set()).add(a)
    near: dict[str, dict[str, Candidate]] = {}
    for candidate in found:
        # A candidate speaks for all rows with its bytes.
        one, other = sha_of.get(candidate.first), sha_of.get(candidate.second)
        if one is None or other is None or one == other or not passes(candidate, min_similarity, min_aligned):
            continue
        if other not in apart.get(one, ()):
            near.setdefault(one, {})[other] = candidate
            near.setdefault(other, {})[one] = candidate
    out = []
    taken: set[str] = set()
    reaching = _reach(near, rank)
    for sha in sorted(rank, key=lambda sha: (not reaching.get(sha, True), rank[sha])):
        if sha in taken:
            continue
        group = [sha]
        for other in sorted(near.get(sha, ()), key=rank.__getitem__):
            if other not in taken and not apart.get(other, set()) & set(group):
                group.append(other)
        taken.update(group)
        if len(group) > 1 or len(rows_of[sha]) > 1:
            out.append(_members(group, near, rank, rows_of))
    out.sort(key=lambda group: min(member[0] for member in group))
    rows = [
        (path, number, kind, group[0][0], distance, similarity)
        for number, group in enumerate(out)
        for path, kind, distance, similarity in group
    ]
    return pl.DataFrame(rows, schema=GROUPS.columns, orient="row")


def _members(
    group: Sequence[str], near: Mapping[str, Mapping[str, Candidate]], rank: Mapping[str, int],
    rows_of: Mapping[str, Sequence[str]],
) -> list[tuple[str, str, int, float]]:  # fmt: skip
    """The rows of a group, the representative first: path, kind, distance, similarity."""
    begin = group[0]

    def central(sha: str) -> bool:
        return sha == begin or 2 * sum(other in near[sha] for other in group) >= len(group) - 1

    first = min((sha for sha in group if central(sha)), key=rank.__getitem__)
    rest = sorted((sha for sha in group if sha != first), key=rank.__getitem__)
    members = [(path, "exact", 0, 1.0) for path in rows_of[first][1:]]
    for sha in rest:
        candidate = near[sha].get(first) or near[sha][begin]
        kind = "exact" if candidate.equal and first in near[sha] else "near"
        members += [(path, kind, candidate.distance, candidate.similarity) for path in rows_of[sha]]
    kind = "exact" if all(member[1] == "exact" for member in members) else "near"
    return [(rows_of[first][0], kind, 0, 1.0), *members]


def pair_table(
    manifest: pl.DataFrame, found: Iterable[Candidate], *, min_similarity: float, min_aligned: float = MIN_ALIGNED,
    distinct: Iterable[tuple[str, str]] = (),
) -> pl.DataFrame:  # fmt: skip
    """The verified pairs that groups are made of, schema `PAIRS`: groups are cut, but what leaks is told by pairs.

    Pairs that a person called not duplicates, and all with their bytes, are left out.
    """
    sha_of = dict(manifest.select("path", "sha256").iter_rows())
    apart = {frozenset((sha_of.get(a), sha_of.get(b))) for a, b in distinct}
    rows = [
        (c.first, c.second, c.distance, c.similarity, c.aligned, c.equal)
        for c in found
        if passes(c, min_similarity, min_aligned)
        and frozenset((sha_of.get(c.first), sha_of.get(c.second))) not in apart
    ]
    return pl.DataFrame(rows, schema=PAIRS.columns, orient="row")


def touching(manifest: pl.DataFrame, pairs: pl.DataFrame) -> tuple[dict[str, list[str]], dict[str, int]]:
    """What shows the same picture, by path, in two readings.

    Args:
        manifest: readable images.
        pairs: schema `PAIRS`; a pair speaks for all rows with its bytes.

    Returns:
        `(direct, connected)`: path to all others with the same bytes or in a pair with it; and path to the number of
        what hangs together, through however many pairs. Images that are alone are in neither.
    """
    rows_of: dict[str, list[str]] = {}
    for path, sha in manifest.select("path", "sha256").sort("path").iter_rows():
        rows_of.setdefault(sha, []).append(path)
    sha_of = {path: sha for sha, paths in rows_of.items() for path in paths}
    linked: dict[str, set[str]] = {sha: set() for sha in rows_of}
    for a, b in pairs.select("first", "second").iter_rows():
        if a in sha_of and b in sha_of:
            linked[sha_of[a]].add(sha_of[b])
            linked[sha_of[b]].add(sha_of[a])
    place = {sha: n for n, sha in enumerate(rows_of)}
    edges = [(place[a], place[b]) for a, others in linked.items() for b in others]
    first, second = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    number = groups((first, second), len(place))
    direct, connected = {}, {}
    for sha, paths in rows_of.items():
        others = [path for other in (sha, *sorted(linked[sha])) for path in rows_of[other]]
        if len(others) > 1:
            for path in paths:
                direct[path] = sorted(other for other in others if other != path)
                connected[path] = int(number[place[sha]])
    return direct, connected
