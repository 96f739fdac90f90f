"""What candidates look like in small, read once and kept in the cache, and how alike two of them are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.images import ImageFailure, load
from curate.neighbours.store import Columns, Job, digests, read_once
from curate.runner import Runner

VERSION = 1
"""Raised when looks change, so that those in the cache are made anew."""

SIDE = 64
_CHROMA = 16
_CHUNK = 2048  # pairs compared at a time

PLAIN = 0.5
"""Standard deviation of greys below which a picture has no pattern to compare."""
COLOURFUL = 6.0
"""Root mean square of chroma, in levels of 256, from which a picture counts as coloured."""
ROUGHLY = 0.7
"""Cosine of chroma that even narrow crops and captions leave."""


def read_looks(jobs: Sequence[Job]) -> Columns:
    """Read pictures in small: (N, 64, 64) `grey`, and (N, 2, 16, 16) `chroma`, Cb and Cr from -128 to 127."""
    read, greys, chroma = [], [], []
    for sha, file in jobs:
        try:
            image = load(Path(file), draft=2 * SIDE)
        except ImageFailure:
            continue
        read.append(sha)
        greys.append(np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)))
        small = np.asarray(image.resize((_CHROMA, _CHROMA), Image.Resampling.BOX).convert("YCbCr"))
        chroma.append((small[:, :, 1:].astype(np.int16) - 128).astype(np.int8).transpose(2, 0, 1))
    return {
        "digest": digests(read), "grey": np.array(greys, dtype=np.uint8).reshape(-1, SIDE, SIDE),
        "chroma": np.array(chroma, dtype=np.int8).reshape(-1, 2, _CHROMA, _CHROMA),
    }  # fmt: skip


def read_pixels(jobs: Sequence[Job]) -> Columns:
    """A SHA-256 of all `pixels` of each picture, as they are seen; equal ones are the same in other containers."""
    read, pixels = [], []
    for sha, file in jobs:
        try:
            image = load(Path(file), mode="native")
        except ImageFailure:
            continue
        if image.mode in {"1", "L", "LA", "P", "PA", "RGB"}:  # eight bits a channel at most: all of it fits
            image = image.convert("RGBA")
        read.append(sha)
        pixels.append(hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest())
    return {"digest": digests(read), "pixels": digests(pixels)}


def pixel_digests(
    jobs: Sequence[Job], *, runner: Runner, cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, str]:  # fmt: skip
    """SHA-256 of the file to that of all its pixels, for files that can be read."""
    folder = cache / f"pixels-digest-{VERSION}" if cache else None
    seen = read_once(read_pixels, jobs, runner=runner, folder=folder, progress=progress)
    return dict(zip(seen["digest"].tolist(), seen["pixels"].tolist(), strict=True))


@dataclass(frozen=True)
class Looks:
    """N pictures in small: (N,) `digest`, (N, 64, 64) `grey`, (N, 2, 16, 16) `chroma`."""

    digest: NDArray[np.str_]
    grey: NDArray[np.uint8]
    chroma: NDArray[np.int8]

    @classmethod
    def read(
        cls, jobs: Sequence[Job], *, runner: Runner, cache: Path | None = None,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> Looks:  # fmt: skip
        """Those of some files, in their order; what cannot be read is left out."""
        folder = cache / f"looks-{VERSION}" if cache else None
        return cls(**read_once(read_looks, jobs, runner=runner, folder=folder, progress=progress))

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N,) means and standard deviations of the greys."""
        flat = self.grey.reshape(len(self.grey), SIDE**2)
        mean, deviation = np.empty(len(flat)), np.empty(len(flat))
        for start in range(0, len(flat), _CHUNK):
            part = flat[start : start + _CHUNK].astype(np.float64)
            mean[start : start + _CHUNK], deviation[start : start + _CHUNK] = part.mean(axis=1), part.std(axis=1)
        return mean, deviation

    @cached_property
    def _colour(self) -> NDArray[np.float64]:
        """(N,) root mean squares of chroma."""
        flat = self.chroma.reshape(len(self.chroma), 2 * _CHROMA**2).astype(np.float32)
        return np.asarray(np.sqrt((flat * flat).mean(axis=1)), dtype=np.float64)

    def similarity(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32]:
        """How alike pairs of rows are, -1 to 1.

        The Pearson correlation of the greys; where both are coloured, no more than the cosine of their chroma, which
        tells two flags of one pattern apart and hardly changes with brightness and saturation. Plain pictures have no
        pattern: two of them are alike (1) where their brightness is, and otherwise not (0).
        """
        out = np.empty(len(first), dtype=np.float32)
        mean, deviation = self._moments
        for start in range(0, len(first), _CHUNK):
            i, j = first[start : start + _CHUNK], second[start : start + _CHUNK]
            x, y = (self.grey[k].reshape(len(k), -1).astype(np.float32) for k in (i, j))
            x -= mean[i, None].astype(np.float32)
            y -= mean[j, None].astype(np.float32)
            alike = np.einsum("nk,nk->n", x, y) / (x.shape[1] * np.maximum(deviation[i] * deviation[j], 1e-9))
            both = np.maximum(deviation[i], deviation[j])
            same = (both < 2 * PLAIN) & (np.abs(mean[i] - mean[j]) < 8)
            alike = np.where(np.minimum(deviation[i], deviation[j]) < PLAIN, same.astype(float), alike)
            coloured = np.minimum(self._colour[i], self._colour[j]) >= COLOURFUL
            out[start : start + len(i)] = np.where(coloured, np.minimum(alike, self._agreement(i, j)), alike)
        return out

    def agree_in_colour(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the colours of pairs of rows are roughly alike, place by place, or one of them has none."""
        coloured = np.minimum(self._colour[first], self._colour[second]) >= COLOURFUL
        return ~coloured | (self._agreement(first, second) >= ROUGHLY)

    def _agreement(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
        x, y = (self.chroma[k].reshape(len(k), 2 * _CHROMA**2).astype(np.float32) for k in (i, j))
        squares = np.einsum("nk,nk->n", x, x) * np.einsum("nk,nk->n", y, y)
        return np.asarray(np.einsum("nk,nk->n", x, y) / np.sqrt(np.maximum(squares, 1e-9)), dtype=np.float64)
