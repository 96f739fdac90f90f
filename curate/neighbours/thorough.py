"""Duplicates beyond one hash of the whole picture: crops, turns, mirror images, frames, captions, watermarks.

Each picture is hashed in eight orientations, through windows that a crop may have left, and by its halves, which a
caption or a watermark leaves alone. Whatever is near in any of these, or in the embeddings of a network where there are
any, is aligned and compared on pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from curate.images import ImageFailure, load_with_header
from curate.measure import phash
from curate.neighbours.alignment import SIDE, similarity, turned
from curate.neighbours.candidates import MIN_ALIGNED, Candidate, passes
from curate.neighbours.graph import groups
from curate.neighbours.hamming import near_pairs
from curate.runner import Runner, cores

Progress = Callable[[str, int, int], None]
Box = tuple[float, float, float, float]

MIN_SIMILARITY = 0.9
WINDOW_DISTANCE = 6
_BATCH = 128
_MOST_COPIES = 24  # of one hash that are compared with one another: plain parts of pictures say nothing


def _windows() -> tuple[Box, ...]:
    """Left, upper, right and lower edge as shares: the middle, the corners, all but a caption, the halves."""
    found: list[Box] = []
    for step in range(1, 9):
        cut = step * 0.015
        found.append((cut, cut, 1 - cut, 1 - cut))
    for size in (0.94, 0.88):
        found += [(x, y, x + size, y + size) for x in (0.0, 1 - size) for y in (0.0, 1 - size)]
    found += [(0.0, 0.0, 1.0, height) for height in (0.94, 0.88, 0.82, 0.76)]
    found += [(0.0, 1 - height, 1.0, 1.0) for height in (0.92, 0.84)]
    found += [(0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    return tuple(found)


WINDOWS = _windows()
_SLOTS = 8 + len(WINDOWS) + 1


@dataclass(frozen=True)
class Views:
    """What pictures look like to the comparison; N of those that could be read.

    Attributes:
        rows: (N,) their numbers.
        greys: (N, 64, 64).
        inner: (N, 64, 64), what uniform margins surround.
        aspect: (N,) width over height.
        hashes: (N, 9 + windows): of the eight orientations, of the windows, of what uniform margins surround.
    """

    rows: NDArray[np.int64]
    greys: NDArray[np.uint8]
    inner: NDArray[np.bool_]
    aspect: NDArray[np.float64]
    hashes: NDArray[np.uint64]


def views(jobs: Sequence[tuple[int, str]]) -> Views:
    """Read pictures, given as (number, file), for comparing; those that cannot be read are left out."""
    rows, greys, inner, aspect, parts = [], [], [], [], []
    boxes = [(SIDE * left, SIDE * upper, SIDE * right, SIDE * lower) for left, upper, right, lower in WINDOWS]
    for number, file in jobs:
        try:
            picture = load_with_header(Path(file), mode="L", longer=2 * SIDE)[0]
        except ImageFailure:
            continue
        small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
        margins = _inside_margins(np.asarray(picture))
        whole = np.asarray(small.resize((32, 32), Image.Resampling.LANCZOS))
        rows.append(number)
        greys.append(np.asarray(small))
        inner.append(_inner(margins, picture.size))
        aspect.append(picture.width / picture.height)
        parts += [turned(whole[None], how)[0] for how in range(8)]
        parts += [np.asarray(small.resize((32, 32), Image.Resampling.LANCZOS, box=box)) for box in boxes]
        parts.append(np.asarray(picture.resize((32, 32), Image.Resampling.LANCZOS, box=margins)))
    hashes = phash(np.stack(parts)) if parts else np.empty(0, dtype=np.uint64)
    return Views(
        np.array(rows, dtype=np.int64), np.array(greys, dtype=np.uint8).reshape(-1, SIDE, SIDE),
        np.array(inner, dtype=bool).reshape(-1, SIDE, SIDE),
        np.array(aspect, dtype=np.float64), hashes.reshape(-1, _SLOTS),
    )  # fmt: skip


def _joined(parts: Iterable[Views]) -> Views:
    found = [views([]), *parts]
    return Views(*(np.concatenate([getattr(part, name) for part in found]) for name in Views.__dataclass_fields__))


def _inside_margins(grey: NDArray[np.uint8], tolerance: int = 24) -> tuple[int, int, int, int]:
    """What a frame surrounds; the whole picture where it is mostly margin."""
    height, width = grey.shape
    rows = np.flatnonzero(grey.max(axis=1) - grey.min(axis=1) > tolerance)
    columns = np.flatnonzero(grey.max(axis=0) - grey.min(axis=0) > tolerance)
    if not len(rows) or not len(columns):
        return 0, 0, width, height
    left, upper, right, lower = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    if (right - left) * (lower - upper) < 0.4 * width * height:
        return 0, 0, width, height
    return left, upper, right, lower


def _inner(box: tuple[int, int, int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The places that lie within the box and not at the edge of a frame."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    left, right = (round(SIDE * edge / size[0]) for edge in (box[0], box[2]))
    upper, lower = (round(SIDE * edge / size[1]) for edge in (box[1], box[3]))
    mask[upper + (upper > 0) : lower - (lower < SIDE), left + (left > 0) : right - (right < SIDE)] = True
    return mask


def by_windows(hashes: NDArray[np.uint64], max_distance: int = WINDOW_DISTANCE) -> set[tuple[int, int]]:
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
    pairs: set[tuple[int, int]] = set()
    for k in range(_MOST_COPIES):
        for m in range(_MOST_COPIES):
            there = (sizes[first] > k) & (sizes[second] > m)
            a, b = order[starts[first[there]] + k], order[starts[second[there]] + m]
            fits = (slot[a] == 0) | (slot[b] == 0) | ((slot[a] == slot[b]) & (slot[a] >= 8))
            fits &= owner[a] != owner[b]
            x, y = owner[a[fits]], owner[b[fits]]
            pairs.update(zip(np.minimum(x, y).tolist(), np.maximum(x, y).tolist(), strict=True))
    return pairs


def by_vectors(vectors: NDArray[np.floating], *, k: int = 12, seed: int = 0) -> set[tuple[int, int]]:
    """Pairs of rows one of which is among the `k` nearest of the other, by the cosine of (N, D) centred vectors.

    More than 128 dimensions are projected at random onto so many, which keeps near ones near.
    """
    x = np.asarray(vectors, dtype=np.float32)
    if len(x) < 2:
        return set()
    x = x - x.mean(axis=0)
    if x.shape[1] > 128:
        x = x @ np.random.default_rng(seed).standard_normal((x.shape[1], 128), dtype=np.float32)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    k = min(k, len(x) - 1)
    pairs: set[tuple[int, int]] = set()
    for start in range(0, len(x), 1024):
        near = x[start : start + 1024] @ x.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        found = np.argpartition(-near, k - 1, axis=1)[:, :k]
        rows = np.repeat(np.arange(start, start + len(near)), k)
        enough = near[np.arange(len(near))[:, None], found].ravel() > 0.5
        a, b = rows[enough], found.ravel()[enough]
        pairs.update(zip(np.minimum(a, b).tolist(), np.maximum(a, b).tolist(), strict=True))
    return pairs


def thorough_candidates(
    features: pl.DataFrame, root: Path, known: Sequence[Candidate], *, runner: Runner,
    embeddings: pl.DataFrame | None = None, min_similarity: float = MIN_SIMILARITY, min_aligned: float = MIN_ALIGNED,
    progress: Progress = lambda *_: None,
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
        progress: called with (what, done, all).
    """
    rows = features.sort("path").unique("sha256", keep="first", maintain_order=True)
    jobs = [(number, str(root / path)) for number, path in enumerate(rows["path"])]
    parts = []
    for part in runner.map_batches(views, jobs, size=_BATCH):
        parts.append(part)
        progress("pictures read", min(len(parts) * _BATCH, len(jobs)), len(jobs))
    seen = _joined(parts)
    paths = [rows["path"][number] for number in seen.rows.tolist()]
    pairs = by_windows(seen.hashes)
    if embeddings is not None and embeddings.height:
        place = {sha: n for n, sha in enumerate(rows["sha256"].gather(seen.rows.tolist()).to_list())}
        some = embeddings.unique("sha256", keep="first", maintain_order=True)
        some = some.filter(pl.col("sha256").is_in(list(place))).sort("sha256")
        at = [place[sha] for sha in some["sha256"]]
        pairs |= {(min(at[x], at[y]), max(at[x], at[y])) for x, y in by_vectors(some["vector"].to_numpy())}
    place_of = {path: n for n, path in enumerate(paths)}
    alike = {(place_of[c.first], place_of[c.second]): c for c in known if {c.first, c.second} <= place_of.keys()}
    area = (rows["width"].cast(pl.Int64) * rows["height"]).gather(seen.rows.tolist()).to_list()
    for _ in range(2):  # what hangs together is compared with its largest: one of them will stand for all
        settled = {pair for pair, c in alike.items() if c.similarity >= min_similarity or c.aligned}
        for c in _aligned(seen, sorted(pairs - settled), paths, progress):
            pair = place_of[c.first], place_of[c.second]
            if pair not in alike or c.similarity >= min_aligned:
                alike[pair] = c
        pairs = _completed([pair for pair, c in alike.items() if passes(c, min_similarity, min_aligned)], area)
    return sorted(alike.values(), key=lambda c: (c.first, c.second))


def _aligned(
    seen: Views, pairs: Sequence[tuple[int, int]], paths: Sequence[str], progress: Progress
) -> Iterator[Candidate]:
    wanted = np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def compare(start: int) -> NDArray[np.float64]:
        x, y = wanted[start : start + _BATCH].T
        inner = seen.inner[x], seen.inner[y]
        return similarity(seen.greys[x], seen.greys[y], seen.aspect[x], seen.aspect[y], inner=inner)[0]

    done = 0
    with ThreadPoolExecutor(cores()) as pool:
        for scores in pool.map(compare, range(0, len(wanted), _BATCH)):
            for score in scores.tolist():
                x, y = pairs[done]
                distance = int(np.bitwise_count(seen.hashes[x, 0] ^ seen.hashes[y, 0]))
                yield Candidate(first=paths[x], second=paths[y], distance=distance, similarity=score, aligned=True)
                done += 1
            progress("pairs aligned", done, len(wanted))


def _completed(edges: Sequence[tuple[int, int]], area: Sequence[int], hubs: int = 6) -> set[tuple[int, int]]:
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
    return pairs
