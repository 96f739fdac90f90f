"""What one decode of a picture gives: figures of its quality, and the small greys that its hashes are made of.

Thresholds live in the checks; here are figures only. Each worker imports this module, which is why it does without data
frames and SciPy: they would take longer to load than a hundred pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curate.images import ImageFailure, load_with_header, read_content

SIDE = 120
"""Pixels of the longer side at which quality figures are taken, so that they compare across sizes.

JPEGs are decoded at the smallest of their scales that has as many: for the 500, 1000 and 1024 pixels of the usual
thumbnails and previews that is a quarter and an eighth. Their hashes differ from those of a full decode by less than
one bit on average.
"""

_LEVELS = np.arange(256) / 255

Job = tuple[str, str, str]
"""Manifest path, sha256, file."""


class Measured(NamedTuple):
    """What was measured of some files.

    Attributes:
        rows: of those that can be read: columns of `FEATURES` but the hashes.
        for_phash: (N, 32, 32) their greys.
        for_dhash: (N, 8, 9) their greys.
        failures: (path, reason) of those that cannot be read.
    """

    rows: list[dict[str, Any]]
    for_phash: NDArray[np.uint8]
    for_dhash: NDArray[np.uint8]
    failures: list[tuple[str, str]]


def measure_files(jobs: Sequence[Job]) -> Measured:
    """Decode each file once and measure it."""
    rows: list[dict[str, Any]] = []
    failures: list[tuple[str, str]] = []
    for_phash: list[NDArray[np.uint8]] = []
    for_dhash: list[NDArray[np.uint8]] = []
    for path, sha, file in jobs:
        try:
            row, hashed = _measure(Path(file))
        except ImageFailure as failure:
            failures.append((path, str(failure)))
            continue
        except MemoryError as error:
            failures.append((path, f"out_of_memory: {error}"))
            continue
        rows.append({"path": path, "sha256": sha} | row)
        for_phash.append(hashed[0])
        for_dhash.append(hashed[1])
    n = len(rows)
    return Measured(
        rows, np.array(for_phash, dtype=np.uint8).reshape(n, 32, 32),
        np.array(for_dhash, dtype=np.uint8).reshape(n, 8, 9), failures,
    )  # fmt: skip


def decoder_died(job: Job) -> Measured:
    """What is told of an image whose decoding ends the process."""
    none = np.empty((0, 32, 32), dtype=np.uint8), np.empty((0, 8, 9), dtype=np.uint8)
    return Measured([], *none, [(job[0], "corrupt: the decoder died")])


def _measure(file: Path) -> tuple[dict[str, Any], tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """The figures of a file, and its greys for phash and dhash."""
    image, header = load_with_header(read_content(file), longer=SIDE)  # one read; Pillow would make dozens
    grey = image.convert("L")
    hashed = [np.asarray(grey.resize(size, Image.Resampling.LANCZOS)) for size in ((32, 32), (9, 8))]
    row = {"width": header.width, "height": header.height, "aspect": header.width / header.height}
    row |= _grey_figures(_within(grey, SIDE, Image.Resampling.BOX))
    # Colour needs no smooth edges: some of the pixels as they are do.
    row |= {"colourfulness": _colourfulness(_within(image, SIDE // 2, Image.Resampling.NEAREST))}
    return row, (hashed[0], hashed[1])


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
    """Share of the area in margins of one colour: outer rows and columns that are wholly as one of the edges is.

    What differs by no more than `tolerance` of 256 levels is the same. So no more than that of a gradient is a margin,
    and none where what lies inside is of one colour too, as in a flag of three stripes.
    """
    low, high = (grey.min(axis=1), grey.min(axis=0)), (grey.max(axis=1), grey.max(axis=0))
    levels = {
        (int(low[way][end]) + int(high[way][end])) // 2
        for way in (0, 1) for end in (0, -1) if int(high[way][end]) - int(low[way][end]) <= tolerance
    }  # fmt: skip
    most = 0.0
    for level in levels:
        box = []
        for way in (0, 1):
            other = np.flatnonzero((low[way] < max(0, level - tolerance)) | (high[way] > min(255, level + tolerance)))
            if not len(other):
                return 1.0
            box.append(slice(int(other[0]), int(other[-1]) + 1))
        inside = grey[box[0], box[1]]
        if int(inside.max()) - int(inside.min()) > tolerance:
            most = max(most, 1.0 - inside.size / grey.size)
    return most


def _within(image: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    """The picture made smaller, where it is larger, so that its longer side has so many pixels."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)
