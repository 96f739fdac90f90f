"""One decode per image: perceptual hashes and quality figures.

Thresholds live in the checks; here are figures only. `phash` and `dhash` are those of imagehash (DCT of 32 x 32
greys, 8 x 8 low frequencies against their median; gradients of 9 x 8 greys), packed into 64 bits, first bit highest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dct

from curate.images import ImageFailure, load, load_with_header
from curate.runner import Runner
from curate.schema import FEATURES

SIDE = 120
"""Pixels of the longer side at which quality figures are taken, so that they compare across sizes.

JPEGs are decoded at the smallest of their scales that has as many: for the 500, 1000 and 1024 pixels of the usual
thumbnails and previews that is a quarter and an eighth. Their hashes differ from those of a full decode by less than
one bit on average.
"""

_WEIGHTS = np.uint64(1) << np.arange(63, -1, -1, dtype=np.uint64)

_LEVELS = np.arange(256) / 255

Job = tuple[str, str, str]
"""Manifest path, sha256, file."""


def pack(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack (N, 8, 8) bits into N 64-bit hashes, first bit highest."""
    packed: NDArray[np.uint64] = (bits.reshape(len(bits), 64) * _WEIGHTS).sum(axis=1, dtype=np.uint64)
    return packed


def phash(greys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Perceptual hashes of (N, 32, 32) greys: the bits of `imagehash.phash`."""
    low = dct(dct(greys.astype(np.float64), axis=1), axis=2)[:, :8, :8]
    return pack(low > np.median(low, axis=(1, 2), keepdims=True))


def dhash(greys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Difference hashes of (N, 8, 9) greys: the bits of `imagehash.dhash`."""
    return pack(greys[:, :, 1:] > greys[:, :, :-1])


def figures(image: Image.Image) -> dict[str, float]:
    """Quality figures of an RGB picture, taken at `SIDE` pixels.

    Returns:
        `brightness` (mean, 0 to 1), `contrast` (standard deviation, 0 to 1), `entropy` (bits of the histogram of 256
        greys), `sharpness` (variance of the Laplacian, brightness in 0 to 1; Pech-Pacheco et al. 2000),
        `colourfulness` (mean difference of the strongest and weakest channel, 0 to 1), `border` (share of the area
        in uniform margins).
    """
    return _grey_figures(image.convert("L")) | {"colourfulness": _colourfulness(image)}


def _grey_figures(image: Image.Image) -> dict[str, float]:
    grey = np.asarray(image, dtype=np.uint8)
    histogram = np.array(image.histogram(), dtype=np.float64) / grey.size
    brightness = float(histogram @ _LEVELS)
    present = histogram[histogram > 0]
    if min(grey.shape) >= 3:
        values = grey.astype(np.int16)
        laplacian = values[:-2, 1:-1] + values[2:, 1:-1]
        laplacian += values[1:-1, :-2]
        laplacian += values[1:-1, 2:]
        laplacian -= 4 * values[1:-1, 1:-1]
        flat = laplacian.ravel().astype(np.float32)
        sharpness = float(flat @ flat / flat.size - flat.mean() ** 2) / 255**2
    else:
        sharpness = 0.0
    return {
        "brightness": brightness,
        "contrast": float(np.sqrt(histogram @ (_LEVELS - brightness) ** 2)),
        "entropy": max(0.0, float(-(present @ np.log2(present)))),
        "sharpness": max(0.0, sharpness),
        "border": _border(grey),
    }


def _colourfulness(image: Image.Image) -> float:
    red, green, blue = (np.asarray(channel, dtype=np.uint8) for channel in image.split())
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return float(spread.mean()) / 255


def _border(grey: NDArray[np.uint8], tolerance: int = 5) -> float:
    """Share of the area in margins whose rows or columns are uniform, but for so many of 256 levels."""
    height, width = grey.shape
    rows = np.flatnonzero(grey.max(axis=1) - grey.min(axis=1) > tolerance)
    columns = np.flatnonzero(grey.max(axis=0) - grey.min(axis=0) > tolerance)
    if not len(rows) or not len(columns):
        return 1.0
    inside = int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1)
    return 1.0 - inside / float(height * width)


def measure_batch(jobs: Sequence[Job]) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Measure some files; returns rows of `FEATURES` and (path, reason) of those that cannot be read."""
    rows: list[dict[str, Any]] = []
    failures: list[tuple[str, str]] = []
    for_phash: list[NDArray[np.uint8]] = []
    for_dhash: list[NDArray[np.uint8]] = []
    for path, sha, file in jobs:
        try:
            image, header = _load(Path(file))
        except ImageFailure as failure:
            failures.append((path, str(failure)))
            continue
        grey = image.convert("L")
        for_phash.append(np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS)))
        for_dhash.append(np.asarray(grey.resize((9, 8), Image.Resampling.LANCZOS)))
        width, height = header
        row = {"path": path, "sha256": sha, "width": width, "height": height, "aspect": width / height}
        row |= _grey_figures(_within(grey, SIDE, Image.Resampling.BOX))
        # Colour needs no smooth edges: some of the pixels as they are do.
        rows.append(row | {"colourfulness": _colourfulness(_within(image, SIDE // 2, Image.Resampling.NEAREST))})
    if rows:
        hashes = zip(phash(np.stack(for_phash)).tolist(), dhash(np.stack(for_dhash)).tolist(), strict=True)
        for row, (p, d) in zip(rows, hashes, strict=True):
            row["phash"], row["dhash"] = p, d
    return rows, failures


def _within(image: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    """The picture made smaller, where it is larger, so that its longer side has so many pixels."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)


def _load(file: Path) -> tuple[Image.Image, tuple[int, int]]:
    try:
        content = file.read_bytes()  # one read; Pillow would make dozens
    except OSError as error:
        raise ImageFailure("unreadable_file", error.strerror or str(error)) from error
    image, header = load_with_header(content, longer=SIDE)
    return image, (header.width, header.height)


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
    for rows, failed in runner.map_batches(measure_batch, jobs, size=batch):
        parts.append(pl.DataFrame(rows, schema=FEATURES.columns))
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
