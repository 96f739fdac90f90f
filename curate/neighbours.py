"""Near-duplicates: near pairs of hashes, their verification on pixels, and groups.

A perceptual hash proposes, pixels decide: brush glyphs on plain paper, pages of text and line drawings collide in 64
bits, so each candidate pair is compared as pictures before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from math import comb, log2
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curate.errors import InputError
from curate.images import ImageFailure
from curate.measure import load_grey
from curate.schema import GROUPS

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int16]]
Keeper = Literal["largest", "sharpest", "first"]

_BRUTE_FORCE = 4096
_GREY_SIDE = 64


def near_pairs(hashes: NDArray[np.uint64], max_distance: int) -> Pairs:
    """All pairs of distinct 64-bit hashes within a Hamming distance; exact: none missed, none invented.

    Few hashes are compared all with all. For many, the 64 bits are cut into bands: two hashes within `d` bits agree
    on at least `bands - d` bands, so sorting by every combination of that many bands brings each pair together at
    least once (the pigeonhole argument of multi-index hashing, Norouzi et al. 2012).

    Args:
        hashes: (N,) distinct values; identical hashes must be collapsed by the caller.
        max_distance: 0 to 16 bits.

    Returns:
        `(i, j, distance)`: int64, int64, int16 arrays of one length, `i < j`, sorted by (i, j).

    Raises:
        InputError: hashes repeat, or the distance is out of range.

    Example:
        >>> i, j, d = near_pairs(np.array([0, 3, 255], dtype=np.uint64), 2)
        >>> i.tolist(), j.tolist(), d.tolist()
        ([0], [1], [2])
    """
    if not 0 <= max_distance <= 16:
        msg = f"max_distance must be 0 to 16 bits, not {max_distance}"
        raise InputError(msg)
    hashes = np.ascontiguousarray(hashes, dtype=np.uint64)
    if len(np.unique(hashes)) != len(hashes):
        msg = "near_pairs wants distinct hashes: collapse identical ones first (numpy.unique)"
        raise InputError(msg)
    if max_distance == 0 or len(hashes) < 2:
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, np.empty(0, dtype=np.int16)
    keys = _all_pairs(hashes, max_distance) if len(hashes) <= _BRUTE_FORCE else _banded(hashes, max_distance)
    n = np.int64(len(hashes))
    i, j = keys // n, keys % n
    return i, j, np.bitwise_count(hashes[i] ^ hashes[j]).astype(np.int16)


def _all_pairs(hashes: NDArray[np.uint64], limit: int) -> NDArray[np.int64]:
    n = len(hashes)
    found = []
    for i in range(n - 1):
        j = np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= limit) + i + 1
        if len(j):
            found.append(np.int64(i) * n + j)
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


@lru_cache
def _scheme(n: int, limit: int) -> tuple[int, int]:
    """How many bands, and how many of them must agree, so that the estimated work is least."""

    def work(bands: int) -> float:
        agree = bands - limit
        bits = agree * 64 / bands
        return comb(bands, agree) * (n * log2(n) + n * n / 2 ** (bits + 1))

    best = min(range(limit + 1, min(limit + 8, 32)), key=work)
    return best, best - limit


def _banded(hashes: NDArray[np.uint64], limit: int) -> NDArray[np.int64]:
    bands, agree = _scheme(len(hashes), limit)
    edges = np.linspace(0, 64, bands + 1).round().astype(int)
    masks = [((1 << int(high - low)) - 1) << int(low) for low, high in pairwise(edges)]
    n = np.int64(len(hashes))
    found = np.empty(0, dtype=np.int64)
    for chosen in combinations(masks, agree):
        mask = np.uint64(sum(chosen))
        order = np.argsort(hashes & mask, kind="stable").astype(np.int64)
        ordered = hashes[order]
        masked = ordered & mask
        step = 1
        # Neighbours in a bucket: compare each with the next, the one after, ... while any bucket is that long.
        starts = np.arange(len(ordered) - 1)
        while len(starts := starts[starts + step < len(ordered)]):
            starts = starts[masked[starts] == masked[starts + step]]
            close = starts[np.bitwise_count(ordered[starts] ^ ordered[starts + step]) <= limit]
            if len(close):
                a, b = order[close], order[close + step]
                found = np.append(found, np.minimum(a, b) * n + np.maximum(a, b))
            step += 1
        if len(found) > 1 << 24:
            found = np.unique(found)
    return np.unique(found)


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


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A pair of images whose hashes are near, with what the pixels say.

    `similarity` is the correlation of their greys at 64 px, -1 to 1; NaN where a file could not be read again.
    """

    first: str
    second: str
    distance: int
    similarity: float


def correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Pearson correlation of two grey pictures of one shape, -1 to 1.

    Plain pictures have no pattern to compare: two of them count as alike where their brightness is.

    Example:
        >>> round(correlation(np.array([[0, 9]], dtype=np.uint8), np.array([[10, 30]], dtype=np.uint8)), 3)
        1.0
    """
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    x_mean, y_mean = x.mean(), y.mean()
    x, y = x - x_mean, y - y_mean
    scale = float(np.sqrt((x @ x) * (y @ y)))
    if min(x.std(), y.std()) < 0.5:
        return 1.0 if max(x.std(), y.std()) < 1 and abs(x_mean - y_mean) < 8 else 0.0
    return float(x @ y) / scale


def verify(files: Sequence[tuple[Path, Path]]) -> NDArray[np.float64]:
    """Similarity of each pair of files on their pixels; NaN where one cannot be read."""
    cached = lru_cache(maxsize=512)(lambda file: load_grey(file, _GREY_SIDE))
    out = np.full(len(files), np.nan)
    for k, (first, second) in enumerate(files):
        try:
            out[k] = correlation(cached(first), cached(second))
        except ImageFailure:
            continue
    return out


def candidates(
    features: pl.DataFrame, root: Path, max_distance: int, *, progress: Callable[[int, int], None] | None = None
) -> list[Candidate]:
    """Pairs of different bytes whose phash is near and whose aspect is alike, with their similarity on pixels.

    One row per sha256 takes part, the first by path; identical bytes are `exact` without looking at pixels.

    Args:
        features: schema `FEATURES`.
        root: folder that paths are relative to.
        max_distance: bits of phash, 0 to 16.
        progress: called with (done, all).
    """
    rows = features.sort("path").unique("sha256", keep="first", maintain_order=True)
    # The largest first: they are likely to stand for their group, and so must meet all others.
    rows = rows.sort(-(pl.col("width").cast(pl.Int64) * pl.col("height")), "path")
    hashes = rows["phash"].to_numpy()
    paths = rows["path"].to_list()
    aspect = np.log(rows["aspect"].to_numpy())
    distinct, inverse = np.unique(hashes, return_inverse=True)
    members: list[list[int]] = [[] for _ in distinct]
    for row, value in enumerate(inverse):
        members[value].append(row)
    wanted: list[tuple[int, int, int]] = []
    for rows_here in members:
        # Runs of equal hashes (blank pages) would be quadratic: in long ones each meets the largest of each shape.
        if len(rows_here) <= 32:
            wanted += [(x, y, 0) for x, y in combinations(rows_here, 2)]
        else:
            hubs = _hubs(rows_here, aspect, 16)
            wanted += [
                (x, y, 0) for x, y in sorted({(min(h, r), max(h, r)) for h in hubs for r in rows_here if h != r})
            ]
    for a, b, distance in zip(*near_pairs(distinct, max_distance), strict=True):
        some = {(x, y) for x in _hubs(members[a], aspect, 8) for y in members[b][:64]}
        some |= {(x, y) for x in members[a][:64] for y in _hubs(members[b], aspect, 8)}
        wanted += [(x, y, int(distance)) for x, y in sorted(some)]
    wanted = [(x, y, d) for x, y, d in wanted if abs(aspect[x] - aspect[y]) < 0.12]
    found: list[Candidate] = []
    for start in range(0, len(wanted), 256):
        part = wanted[start : start + 256]
        similar = verify([(root / paths[x], root / paths[y]) for x, y, _ in part])
        found += [
            Candidate(first=min(paths[x], paths[y]), second=max(paths[x], paths[y]), distance=d, similarity=float(s))
            for (x, y, d), s in zip(part, similar, strict=True)
        ]
        if progress:
            progress(min(start + 256, len(wanted)), len(wanted))
    return sorted(found, key=lambda c: (c.first, c.second))


def _hubs(rows: Sequence[int], aspect: NDArray[np.floating], count: int) -> list[int]:
    """The first `count` of each shape."""
    by_shape: dict[float, list[int]] = {}
    for row in rows:
        by_shape.setdefault(round(float(aspect[row]), 1), []).append(row)
    return [row for part in by_shape.values() for row in part[:count]]


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
