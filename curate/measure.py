"""The measuring pass: perceptual hashes and quality figures of every image, one decode each.

`phash` and `dhash` are those of imagehash (DCT of 32 x 32 greys, 8 x 8 low frequencies against their median; gradients
of 9 x 8 greys), packed into 64 bits, first bit highest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.fft import dct

from curate.figures import Job, Measured, decoder_died, measure_files
from curate.images import is_passing
from curate.runner import Runner
from curate.schema import FEATURES
from curate.workspace import append_log, read_log

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
    log: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 64,
) -> tuple[pl.DataFrame, dict[str, str]]:
    """Measure the readable images of a manifest that `previous` does not hold with the same bytes.

    Args:
        manifest: the images.
        root: folder that manifest paths are relative to.
        runner: where to run.
        previous: features of an earlier time.
        log: every batch is kept in this file as it is done, and what a run that was ended left there is taken over;
            the caller removes it when the features are written.
        progress: called with (done, all).
        batch: images per task.

    Returns:
        The features (schema `FEATURES`, in the order of the manifest), and the reasons of images that cannot be read.
    """
    readable = manifest.filter(pl.col("status") == "ok").select("path", "sha256")
    have = FEATURES.empty() if previous is None else previous
    parts = [have.join(readable, on=["path", "sha256"], how="semi")]
    waiting = dict(readable.join(parts[0], on=["path", "sha256"], how="anti").iter_rows())
    failures: dict[str, str] = {}
    rows = []
    for line in read_log(log).records if log else ():
        if waiting.get(line["path"]) == line["sha256"]:
            del waiting[line["path"]]
            if "error" in line:
                failures[line["path"]] = line["error"]
            else:
                rows.append(line)
    parts.append(pl.DataFrame(rows, schema=FEATURES.columns))
    jobs: list[Job] = [(path, sha, str(root / path)) for path, sha in waiting.items()]
    done = 0
    for measured in runner.map_batches(measure_files, jobs, size=batch, lost=decoder_died):
        part = _table(measured)
        parts.append(part)
        if len(parts) > 256:  # many small tables take several times the room of one
            parts = [pl.concat(parts, rechunk=True)]
        failures.update(measured.failures)
        if log:
            lasting = [failed for failed in measured.failures if not is_passing(failed[1])]
            failed = [{"path": path, "sha256": waiting[path], "error": error} for path, error in lasting]
            append_log(log, part.to_dicts() + failed, sync=False)
        done += part.height + len(measured.failures)
        if progress:
            progress(done, len(jobs))
    return _ordered(parts, readable), failures


def _table(measured: Measured) -> pl.DataFrame:
    hashes = {"phash": phash(measured.for_phash), "dhash": dhash(measured.for_dhash)}
    rest = {name: kind for name, kind in FEATURES.columns.items() if name not in hashes}
    figures = pl.DataFrame(measured.rows, schema=rest)
    return figures.with_columns(pl.Series(name, h) for name, h in hashes.items()).select(list(FEATURES.columns))


def _ordered(parts: list[pl.DataFrame], manifest: pl.DataFrame) -> pl.DataFrame:
    table = pl.concat(parts)
    return (
        manifest.select("path")
        .join(table, on="path", how="inner", maintain_order="left")
        .select(list(FEATURES.columns))
    )
