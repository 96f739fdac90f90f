"""Duplicates beyond one hash of the whole picture: crops, turns, mirror images, frames, captions, watermarks.

Whatever is near in any hash of its views, or in the embeddings of a network where there are any, is aligned and
compared on pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.neighbours.alignment import similarity
from curate.neighbours.candidates import MIN_ALIGNED, MIN_SIMILARITY, Candidate, passes
from curate.neighbours.graph import groups
from curate.neighbours.hamming import near_pairs
from curate.neighbours.memory import Memory
from curate.neighbours.views import Views, cached_views
from curate.runner import Runner

Progress = Callable[[str, int, int], None]
PairRows = NDArray[np.int64]
"""(N, 2) places of two pictures, the lower first; sorted, each once."""

WINDOW_DISTANCE = 6
_MOST_COPIES = 24  # of one hash that are compared with one another: plain parts of pictures say nothing


def _distinct(first: Sequence[NDArray[np.int64]], second: Sequence[NDArray[np.int64]], n: int) -> PairRows:
    x, y = np.concatenate([np.empty(0, np.int64), *first]), np.concatenate([np.empty(0, np.int64), *second])
    keys = np.unique(np.minimum(x, y) * n + np.maximum(x, y))
    return np.stack(np.divmod(keys, max(n, 1)), axis=1)


def by_windows(hashes: NDArray[np.uint64], max_distance: int = WINDOW_DISTANCE) -> PairRows:
    """Pairs of pictures, as rows of `Views.hashes`, one of which is near the other or a window of it.

    A pair counts where a whole picture is near any orientation or window of the other, or the same window of both is.
    """
    n, slots = hashes.shape
    owner, slot = np.divmod(np.arange(n * slots), slots)
    distinct, inverse = np.unique(hashes.ravel(), return_inverse=True)
    order = np.lexsort((slot, inverse))  # whole pictures first
    starts = np.searchsorted(inverse[order], np.arange(len(distinct) + 1))
    i, j, _ = near_pairs(distinct, max_distance)
    itself = np.arange(len(distinct))
    first, second = np.concatenate([itself, i]), np.concatenate([itself, j])
    sizes = np.minimum(np.diff(starts), _MOST_COPIES)
    found: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for k in range(_MOST_COPIES):
        there = sizes[first] > k
        first, second = first[there], second[there]
        others_first, others = first, second
        for m in range(_MOST_COPIES):
            there = sizes[others] > m
            others_first, others = others_first[there], others[there]
            if not len(others):
                break
            a, b = order[starts[others_first] + k], order[starts[others] + m]
            fits = (slot[a] == 0) | (slot[b] == 0) | ((slot[a] == slot[b]) & (slot[a] >= 8))
            fits &= owner[a] != owner[b]
            found[0].append(owner[a[fits]])
            found[1].append(owner[b[fits]])
    return _distinct(*found, n)


def by_vectors(vectors: NDArray[np.floating], *, k: int = 12, seed: int = 0) -> PairRows:
    """Pairs of rows one of which is among the `k` nearest of the other, by the cosine of (N, D) centred vectors.

    More than 128 dimensions are projected at random onto so many, which keeps near ones near.
    """
    x = np.asarray(vectors, dtype=np.float32)
    if len(x) < 2:
        return np.empty((0, 2), dtype=np.int64)
    x = x - x.mean(axis=0)
    if x.shape[1] > 128:
        x = x @ np.random.default_rng(seed).standard_normal((x.shape[1], 128), dtype=np.float32)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    k = min(k, len(x) - 1)
    found: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for start in range(0, len(x), 1024):
        near = x[start : start + 1024] @ x.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        nearest = np.argpartition(-near, k - 1, axis=1)[:, :k]
        rows = np.repeat(np.arange(start, start + len(near)), k)
        enough = near[np.arange(len(near))[:, None], nearest].ravel() > 0.5
        found[0].append(rows[enough])
        found[1].append(nearest.ravel()[enough])
    return _distinct(*found, len(x))


def thorough_candidates(
    features: pl.DataFrame, root: Path, known: Sequence[Candidate], *, runner: Runner,
    embeddings: pl.DataFrame | None = None, min_similarity: float = MIN_SIMILARITY, min_aligned: float = MIN_ALIGNED,
    cache: Path | None = None, memory: Memory | None = None, progress: Progress = lambda *_: None,
) -> list[Candidate]:  # fmt: skip
    """The known candidates, and those that only alignment shows to be the same picture.

    Args:
        features: schema `FEATURES`; one row per sha256 takes part, the first by path.
        root: folder that paths are relative to.
        known: what `candidates` found; its pairs are compared again only where they were not alike.
        runner: where pictures are read.
        embeddings: schema `EMBEDDINGS`, of some or all images; proposes further pairs.
        min_similarity: of known candidates, and
        min_aligned: of aligned ones, what makes them duplicates: these are compared with more of their kind.
        cache: a folder that keeps what pictures look like.
        memory: what was compared before is not compared again.
        progress: called with (what, done, all).
    """
    rows = features.sort("path").unique("sha256", keep="first", maintain_order=True)
    seen = cached_views(
        [(sha, str(root / path)) for sha, path in rows.select("sha256", "path").iter_rows()],
        runner=runner, cache=cache, progress=lambda done, total: progress("pictures read", done, total),
    )  # fmt: skip
    n = len(seen.digest)
    place = {sha: row for row, sha in enumerate(seen.digest.tolist())}
    rows = rows.filter(pl.col("sha256").is_in(list(place)))
    paths = rows["path"].to_list()
    area = (rows["width"].cast(pl.Int64) * rows["height"]).to_list()
    proposed = [by_windows(seen.hashes)]
    if embeddings is not None and embeddings.height:
        some = embeddings.unique("sha256", keep="first", maintain_order=True)
        some = some.filter(pl.col("sha256").is_in(list(place))).sort("sha256")
        at = np.array([place[sha] for sha in some["sha256"]], dtype=np.int64)
        proposed.append(at[by_vectors(some["vector"].to_numpy())])
    pairs = _distinct([part[:, 0] for part in proposed], [part[:, 1] for part in proposed], n)
    place_of = {path: row for row, path in enumerate(paths)}
    alike = {(place_of[c.first], place_of[c.second]): c for c in known if {c.first, c.second} <= place_of.keys()}
    memory = memory or Memory(None)
    for _ in range(2):  # what hangs together is compared with its largest: one of them will stand for all
        settled = {pair for pair, c in alike.items() if c.similarity >= min_similarity or c.aligned}
        pairs = pairs[[pair not in settled for pair in map(tuple, pairs.tolist())]]
        for pair, score in _aligned(seen, pairs, memory, progress):
            if pair not in alike or score >= min_aligned:
                distance = int(np.bitwise_count(seen.hashes[pair[0], 0] ^ seen.hashes[pair[1], 0]))
                alike[pair] = Candidate(
                    first=paths[pair[0]], second=paths[pair[1]], distance=distance, similarity=score, aligned=True
                )
        pairs = _completed([pair for pair, c in alike.items() if passes(c, min_similarity, min_aligned)], area)
    return sorted(alike.values(), key=lambda c: (c.first, c.second))


def _aligned(seen: Views, pairs: PairRows, memory: Memory, progress: Progress) -> list[tuple[tuple[int, int], float]]:
    """Each pair with its similarity after alignment."""

    def compare(some: PairRows) -> NDArray[np.float64]:
        x, y = some.T
        inner = seen.judged(x), seen.judged(y)
        return similarity(seen.grey[x], seen.grey[y], seen.aspect[x], seen.aspect[y], inner=inner)[0]

    scores = memory.compared(
        seen.digest.tolist(), pairs, compare, lambda done, total: progress("pairs aligned", done, total)
    )
    return [((x, y), score) for (x, y), score in zip(pairs.tolist(), scores.tolist(), strict=True)]


def _completed(edges: Sequence[tuple[int, int]], area: Sequence[int], hubs: int = 6) -> PairRows:
    """Pairs of the largest of each connected set with all its others."""
    first, second = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    members: dict[int, list[int]] = {}
    number = groups((first, second), len(area))
    for row in sorted({*first.tolist(), *second.tolist()}):
        members.setdefault(int(number[row]), []).append(row)
    pairs = set()
    for rows in members.values():
        for hub in sorted(rows, key=lambda row: (-area[row], row))[:hubs]:
            pairs |= {(min(hub, row), max(hub, row)) for row in rows if row != hub}
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
