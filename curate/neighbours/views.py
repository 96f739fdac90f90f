"""What pictures look like to the thorough search, read once and kept in the cache.

Each picture is hashed in eight orientations, through windows that a crop may have left, and by its halves, which a
caption or a watermark leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.images import ImageFailure, load_with_header
from curate.measure import phash
from curate.neighbours.alignment import SIDE, turned
from curate.neighbours.store import Columns, Job, digests, read_once
from curate.runner import Runner

VERSION = 1
"""Raised when views change, so that those in the cache are made anew."""

Box = tuple[float, float, float, float]


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
    """What N pictures look like to the comparison; those that cannot be read are left out.

    Attributes:
        digest: (N,) the SHA-256 of their bytes.
        grey: (N, 64, 64).
        inner: (N, 4) left, upper, right and lower edge, in pixels of `grey`, of what uniform margins surround.
        aspect: (N,) width over height.
        hashes: (N, 9 + windows): of the eight orientations, of the windows, of what uniform margins surround.
    """

    digest: NDArray[np.str_]
    grey: NDArray[np.uint8]
    inner: NDArray[np.uint8]
    aspect: NDArray[np.float64]
    hashes: NDArray[np.uint64]

    def judged(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N, 64, 64) places of some of them that lie within their margins."""
        left, upper, right, lower = (self.inner[rows, edge, None] for edge in range(4))
        at = np.arange(SIDE)
        across, down = (at >= left) & (at < right), (at >= upper) & (at < lower)
        return np.asarray(down[:, :, None] & across[:, None, :])


def views(jobs: Sequence[Job]) -> Columns:
    """Read pictures for comparing: the columns of `Views`."""
    read, greys, inner, aspect, parts = [], [], [], [], []
    boxes = [(SIDE * left, SIDE * upper, SIDE * right, SIDE * lower) for left, upper, right, lower in WINDOWS]
    for sha, file in jobs:
        try:
            picture = load_with_header(Path(file), mode="L", longer=2 * SIDE)[0]
        except ImageFailure:
            continue
        small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
        margins = _inside_margins(np.asarray(picture))
        whole = np.asarray(small.resize((32, 32), Image.Resampling.LANCZOS))
        read.append(sha)
        greys.append(np.asarray(small))
        inner.append(_inner(margins, picture.size))
        aspect.append(picture.width / picture.height)
        parts += [turned(whole[None], how)[0] for how in range(8)]
        parts += [np.asarray(small.resize((32, 32), Image.Resampling.LANCZOS, box=box)) for box in boxes]
        parts.append(np.asarray(picture.resize((32, 32), Image.Resampling.LANCZOS, box=margins)))
    hashes = phash(np.stack(parts)) if parts else np.empty(0, dtype=np.uint64)
    return {
        "digest": digests(read), "grey": np.array(greys, dtype=np.uint8).reshape(-1, SIDE, SIDE),
        "inner": np.array(inner, dtype=np.uint8).reshape(-1, 4), "aspect": np.array(aspect, dtype=np.float64),
        "hashes": hashes.reshape(-1, _SLOTS),
    }  # fmt: skip


def cached_views(
    jobs: Sequence[Job], *, runner: Runner, cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Views:  # fmt: skip
    """The views of pictures, see `curate.neighbours.store.read_once`."""
    folder = cache / f"views-{VERSION}" if cache else None
    return Views(**read_once(views, jobs, runner=runner, folder=folder, progress=progress))


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


def _inner(box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The places that lie within the box and not at the edge of a frame: left, upper, right, lower."""
    left, right = (round(SIDE * edge / size[0]) for edge in (box[0], box[2]))
    upper, lower = (round(SIDE * edge / size[1]) for edge in (box[1], box[3]))
    return left + (left > 0), upper + (upper > 0), right - (right < SIDE), lower - (lower < SIDE)
