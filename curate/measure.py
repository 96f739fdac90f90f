"""The measuring pass: perceptual hashes and quality figures of every image, one decode each.

`phash` and `dhash` are those of imagehash (DCT of 32 x 32 greys, 8 x 8 low frequencies against their median; gradients
of 9 x 8 greys), packed into 64 bits, first bit highest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dct

from curate.figures import Job, measure_files
from curate.images import load
from curate.runner import Runner
from curate.schema import FEATURES

_WEIGHTS = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)


def pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack (N, 8, 8) bits into N 64-bit hashes, first bit highest."""
    packed: NDArray[np.uint64] = (bits.reshape(len(bits), 64) * _WEIGHTS).sum(axis=1, dtype=np.uint64)
    return packed


def phash(greys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Perceptual hashes of (N, 32, 32) greys: the bits of `imagehash.phash`."""
    if not len(greys):
        return np.empty(0, dtype=np.uint64)
    low = dct(dct(greys.astype(np.float64), axis=1), axis=2)[:, :8, :8]
    return pack(low > np.median(low, axis=(1, 2), keepdims=True))


def dhash(greys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Difference hashes of (N, 8, 9) greys: the bits of `imagehash.dhash`."""
    return pack(greys[:, :, 1:] > greys[:, :, :-1])


def measure(
    manifest: pl.DataFrame,
    root: Path,
    *,
    runner: Runner,
    previous: pl.DataFrame | None = None,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 64,
) -> Iterator[tuple[pl.DataFrame, dict[str, str]]]:
    """Measure the readable images of a manifest that `previous` does not hold with the same bytes.

    Yields, again and again, the features of all images measured so far (schema `FEATURES`, in the order of the
    manifest) and the reasons of those that cannot be read, so that the caller can save what is there: after every
    batch as long as saving takes less than a twentieth of the time.

    Args:
        manifest: the images.
        root: folder that manifest paths are relative to.
        runner: where to run.
        previous: features of an earlier time.
        progress: called with (done, all).
        batch: images per task.
    """
    readable = manifest.filter(pl.col("status") == "ok")
    have = FEATURES.empty() if previous is None else previous
    have = have.join(readable.select("path", "sha256"), on=["path", "sha256"], how="semi")
    todo = readable.join(have, on=["path", "sha256"], how="anti").select("path", "sha256")
    jobs: list[Job] = [(path, sha, str(root / path)) for path, sha in todo.iter_rows()]
    parts = [have]
    failures: dict[str, str] = {}
    done = 0
    pause = since = 0.0
    for rows, for_phash, for_dhash, failed in runner.map_batches(measure_files, jobs, size=batch):
        hashes = {"phash": phash(for_phash), "dhash": dhash(for_dhash)}
        rest = {name: kind for name, kind in FEATURES.columns.items() if name not in hashes}
        part = pl.DataFrame(rows, schema=rest).with_columns(pl.Series(name, h) for name, h in hashes.items())
        parts.append(part.select(list(FEATURES.columns)))
        failures.update(failed)
        done += len(rows) + len(failed)
        if progress:
            progress(done, len(jobs))
        now = time.monotonic()
        if done < len(jobs) and now - since >= pause:
            parts = [_ordered(parts, readable)]
            yield parts[0], failures
            since = time.monotonic()
            pause = 20 * (since - now)
    yield _ordered(parts, readable), failures


def _ordered(parts: list[pl.DataFrame], manifest: pl.DataFrame) -> pl.DataFrame:
    table = pl.concat(parts)
    return (
        manifest.select("path")
        .join(table, on="path", how="inner", maintain_order="left")
        .select(list(FEATURES.columns))
    )


def load_grey(file: Path, side: int) -> NDArray[np.uint8]:
    """A picture as (side, side) greys, for verifying candidates. Raises `ImageFailure`."""
    image = load(file, draft=2 * side).convert("L")
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
