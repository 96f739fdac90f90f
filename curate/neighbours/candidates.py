"""Which pairs of images to compare, and what their pixels say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.neighbours.alignment import similarity
from curate.neighbours.hamming import near_pairs
from curate.neighbours.looks import Looks, pixel_digests
from curate.neighbours.memory import Memory
from curate.runner import Runner, get_runner

MIN_SIMILARITY = 0.9
"""The least similarity of two pictures as they are that makes them duplicates, see `Looks.similarity`."""
MIN_ALIGNED = 0.65
"""The least similarity after alignment that makes a candidate a duplicate, see `alignment.similarity`."""

_ALIKE_IN_SHAPE = 0.12
"""How far the logarithms of two aspects may differ."""
_EQUAL_WITHIN = 4
"""Bits by which hashes of equal pixels may differ: a JPEG is measured at a smaller scale than a PNG of it."""
_WORTH_ALIGNING = 0.5
"""The least similarity as they are of pictures that are aligned."""
_SHORT = 32
"""A longer run of one hash (blank pages, one placeholder) is not compared all with all."""
_MOST_LEADERS = 64

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A pair of images with what the pixels say.

    `similarity` is that of the pictures in small, -1 to 1, see `Looks.similarity`. Where they are `aligned` (one
    turned, cropped or written over), it is `alignment.similarity`, 0 to 1, which is lower.
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
    features: pl.DataFrame, root: Path, max_distance: int, *, min_similarity: float = MIN_SIMILARITY,
    min_aligned: float = MIN_ALIGNED, runner: Runner | None = None, cache: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Candidate]:  # fmt: skip
    """Pairs of different bytes whose phash is near, whose aspect is alike, and whose pictures are alike in small.

    What is nearly alike is aligned and compared once more: a watermark, a caption or a narrow crop leaves a hash near.
    One row per sha256 takes part, the first by path; identical bytes are `exact` without looking at pixels. In a long
    run of one hash each picture is paired with the largest that it is like, so that runs of thousands do not cost the
    square of their length.

    Args:
        features: schema `FEATURES`.
        root: folder that paths are relative to.
        max_distance: bits of phash, 0 to 16.
        min_similarity: pairs that are less alike, and
        min_aligned: after alignment less alike than this, are left out.
        runner: where pictures are read; by default on all cores.
        cache: a folder that keeps what pictures look like.
        progress: called with (what, done, all).
    """
    runner = runner or get_runner()
    rows = features.sort("path").unique("sha256", keep="first", maintain_order=True)
    # The largest first: they are likely to stand for their group, and so must meet all others.
    rows = rows.sort(-(pl.col("width").cast(pl.Int64) * pl.col("height")), "path")
    distinct, bucket, count = np.unique(rows["phash"].to_numpy(), return_inverse=True, return_counts=True)
    near = near_pairs(distinct, max_distance)
    taking_part = count > 1
    taking_part[near[0]] = taking_part[near[1]] = True
    rows = rows.filter(pl.Series(taking_part[bucket]))
    jobs = [(sha, str(root / path)) for sha, path in rows.select("sha256", "path").iter_rows()]
    looks = Looks.read(
        jobs, runner=runner, cache=cache, progress=lambda done, total: progress("candidates read", done, total)
    )
    rows = rows.filter(pl.col("sha256").is_in(looks.digest.tolist()))  # in the order of `looks`
    search = _Search(looks, np.log(rows["aspect"].to_numpy()), min_similarity)
    members = _members(np.searchsorted(distinct, rows["phash"].to_numpy()), len(distinct))
    parts = list(search.pairs(members, near, lambda done, total: progress("pairs compared", done, total)))
    first, second = (np.concatenate([np.empty(0, np.int64), *(part[k] for part in parts)]) for k in (0, 1))
    hashes = rows["phash"].to_numpy()
    alike = np.concatenate([np.empty(0, np.float32), *(part[2] for part in parts)])
    aligned = alike < min_similarity
    alike[aligned] = search.aligned(
        first[aligned], second[aligned], Memory(cache, "near-pairs"),
        lambda done, total: progress("pairs aligned", done, total),
    )  # fmt: skip
    enough = ~aligned | (alike >= min_aligned)
    first, second, alike, aligned = first[enough], second[enough], alike[enough], aligned[enough]
    distance = np.bitwise_count(hashes[first] ^ hashes[second])
    size = rows.select("width", "height").to_numpy()
    maybe = ~aligned & (distance <= _EQUAL_WITHIN) & (alike >= 0.99) & (size[first] == size[second]).all(axis=1)
    wanted = np.unique(np.concatenate([first[maybe], second[maybe]]))
    paths, shas = rows["path"].to_list(), rows["sha256"].to_list()
    pixels = pixel_digests(
        [(shas[row], str(root / paths[row])) for row in wanted.tolist()], runner=runner, cache=cache,
        progress=lambda done, total: progress("pixels compared", done, total),
    )  # fmt: skip
    found = []
    columns = (first, second, distance, alike, aligned, maybe)
    for x, y, bits, similar, fitted, same in zip(*(column.tolist() for column in columns), strict=True):
        equal = same and shas[x] in pixels and pixels[shas[x]] == pixels.get(shas[y])
        a, b = sorted((paths[x], paths[y]))
        found.append(Candidate(first=a, second=b, distance=bits, similarity=similar, aligned=fitted, equal=equal))
    return sorted(found, key=lambda c: (c.first, c.second))


def _members(bucket: Rows, n: int) -> list[Rows]:
    """The rows of each bucket, in order."""
    order = np.argsort(bucket, kind="stable")
    return np.split(order, np.searchsorted(bucket[order], np.arange(1, n)))


class _Search:
    """Pairs of rows that are alike in small; rows come with the largest picture first."""

    def __init__(self, looks: Looks, aspect: NDArray[np.floating], min_similarity: float) -> None:
        self._looks = looks
        self._aspect = aspect
        self._least = min_similarity

    def pairs(
        self, members: Sequence[Rows], near: tuple[Rows, Rows, NDArray[np.int16]],
        progress: Callable[[int, int], None],
    ) -> Iterator[tuple[Rows, Rows, NDArray[np.float32]]]:  # fmt: skip
        """Rows and similarity of pairs within buckets of one hash, and of buckets with near hashes."""
        leading = list(members)
        for number, rows in enumerate(members):
            if len(rows) > _SHORT:
                led = list(self._led(rows))
                yield from (part for _, part in led)
                leading[number] = np.array([leader for leader, _ in led[:_MOST_LEADERS]], dtype=np.int64)
            elif len(rows) > 1:
                first, second = np.array(list(combinations(rows.tolist(), 2)), dtype=np.int64).T
                yield self._alike(first, second)
        size = np.array([len(rows) for rows in members], dtype=np.int64)
        a, b = near[0], near[1]
        alone = (size[a] == 1) & (size[b] == 1)
        only = np.array([rows[0] if len(rows) else -1 for rows in members], dtype=np.int64)
        x, y = only[a[alone]], only[b[alone]]
        step = 1 << 14
        for start in range(0, len(x), step):
            yield self._alike(x[start : start + step], y[start : start + step])
            progress(min(start + step, len(x)), len(x))
        for i, j in zip(a[~alone].tolist(), b[~alone].tolist(), strict=True):
            some = {(p, q) for p in leading[i].tolist() for q in members[j].tolist()}
            some |= {(p, q) for p in members[i].tolist() for q in leading[j].tolist()}
            if some:
                first, second = np.array(sorted(some), dtype=np.int64).T
                yield self._alike(first, second)

    def aligned(
        self, first: Rows, second: Rows, memory: Memory, progress: Callable[[int, int], None]
    ) -> NDArray[np.float32]:
        """The similarity of pairs after alignment; 0 where their colours differ."""
        fits = np.flatnonzero(self._looks.agree_in_colour(first, second))

        def compare(some: Rows) -> NDArray[np.float64]:
            x, y = some.T
            grey, aspect = self._looks.grey, np.exp(self._aspect)
            return similarity(grey[x], grey[y], aspect[x], aspect[y])[0]

        out = np.zeros(len(first), dtype=np.float32)
        pairs = np.stack([first[fits], second[fits]], axis=1)
        out[fits] = memory.compared(self._looks.digest.tolist(), pairs, compare, progress)
        return out

    def _alike(
        self, first: Rows, second: Rows, least: float = _WORTH_ALIGNING
    ) -> tuple[Rows, Rows, NDArray[np.float32]]:
        """Those pairs that are alike enough to be aligned, or more."""
        fits = np.abs(self._aspect[first] - self._aspect[second]) < _ALIKE_IN_SHAPE
        first, second = first[fits], second[fits]
        alike = self._looks.similarity(first, second)
        enough = alike >= min(least, self._least)
        return first[enough], second[enough], alike[enough]

    def _led(self, rows: Rows) -> Iterator[tuple[int, tuple[Rows, Rows, NDArray[np.float32]]]]:
        """The largest picture with all that it is like, the largest of the others with those that it is like, ..."""
        while len(rows):
            leader, others = int(rows[0]), rows[1:]
            found = self._alike(np.full(len(others), leader), others, self._least)
            yield leader, found
            rows = others[~np.isin(others, found[1])]
