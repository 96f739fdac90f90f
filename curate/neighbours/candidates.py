"""Which pairs of images to compare, and what their pixels say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.neighbours.hamming import near_pairs
from curate.neighbours.pixels import same_pixels, verify

MIN_ALIGNED = 0.65
"""The least similarity after alignment that makes a candidate a duplicate, see `alignment.similarity`."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A pair of images whose hashes are near, with what the pixels say.

    `similarity` is the correlation of their greys at 64 px, -1 to 1; NaN where a file could not be read again. Where
    they are `aligned` (one turned, cropped or written over), it is `alignment.similarity`, 0 to 1, which is lower.
    """

    first: str
    second: str
    distance: int
    similarity: float
    aligned: bool = False
    equal: bool = False
    """The same pixels in other containers."""


def passes(candidate: Candidate, min_similarity: float, min_aligned: float) -> bool:
    """Whether a candidate is a duplicate; what could not be compared is none."""
    return candidate.similarity >= (min_aligned if candidate.aligned else min_similarity)  # NaN never is


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
    sizes = rows.select("width", "height").rows()
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
        for (x, y, d), s in zip(part, similar.tolist(), strict=True):
            first, second = sorted((paths[x], paths[y]))
            # A lossless copy has the same hash and shape; only what looks so is decoded in full.
            equal = d == 0 and s > 0.9999 and sizes[x] == sizes[y] and same_pixels(root / first, root / second)
            found.append(Candidate(first=first, second=second, distance=d, similarity=s, equal=equal))
        if progress:
            progress(min(start + 256, len(wanted)), len(wanted))
    return sorted(found, key=lambda c: (c.first, c.second))


def _hubs(rows: Sequence[int], aspect: NDArray[np.floating], count: int) -> list[int]:
    """The first `count` of each shape."""
    by_shape: dict[float, list[int]] = {}
    for row in rows:
        by_shape.setdefault(round(float(aspect[row]), 1), []).append(row)
    return [row for part in by_shape.values() for row in part[:count]]
