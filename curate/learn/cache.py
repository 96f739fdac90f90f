"""The decoded cache: square uint8 pictures, memory-mapped, so that folds and epochs do not decode again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from curate.images import load
from curate.runner import Runner
from curate.workspace import Workspace, digest, replacing

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pixels:
    """Decoded pictures: `array` (N, side, side, 3) uint8, and the row of each sha256."""

    array: NDArray[np.uint8]
    rows: Mapping[str, int]

    def index(self, digests: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the pictures with these digests."""
        return np.array([self.rows[sha] for sha in digests], dtype=np.int64)


def square(image: Image.Image, side: int) -> Image.Image:
    """Fit a picture into a square without distorting or cropping it; margins take the colour of its edge.

    Strokes must keep their shape and writing often reaches the edge, so neither squashing nor cropping would do.
    """
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    if small.size == (side, side):
        return small
    pixels = np.asarray(small)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = tuple(int(v) for v in np.median(edge, axis=0))
    canvas = Image.new("RGB", (side, side), colour)
    canvas.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return canvas


def _decode(jobs: Sequence[tuple[str, int]]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(square(load(Path(file), draft=side), side)) for file, side in jobs])


def decoded(
    workspace: Workspace, images: pl.DataFrame, side: int, *, runner: Runner, progress: Progress | None = None
) -> Pixels:
    """The decoded pictures of `images` at `side` pixels; only what the cache lacks is decoded.

    Args:
        workspace: the data set.
        images: columns `path` and `sha256`, readable images only.
        side: pixels.
        runner: where to decode.
        progress: called with (done, all).
    """
    wanted = images.unique("sha256", keep="first", maintain_order=True)
    digests = wanted["sha256"].to_list()
    index_file = workspace.cache / f"pixels-{side}.parquet"
    have: dict[str, int] = {}
    old: NDArray[np.uint8] | None = None
    if index_file.is_file():
        index = pl.read_parquet(index_file)
        array_file = workspace.cache / str(index["file"].first())
        if array_file.is_file():
            old = np.load(array_file, mmap_mode="r")
            have = {sha: row for row, sha in enumerate(index["sha256"].to_list())}
    missing = [sha for sha in digests if sha not in have]
    if old is not None and not missing:
        return Pixels(old, have)
    paths = dict(wanted.select("sha256", "path").iter_rows())
    jobs = [(str(workspace.image(paths[sha])), side) for sha in missing]
    order = [*have, *missing]
    array_file = workspace.cache / f"pixels-{side}-{digest(order)[:12]}.npy"
    with replacing(array_file) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(order), side, side, 3))
        at = len(have)
        if old is not None:
            for start in range(0, at, 1024):
                stop = min(start + 1024, at)
                out[start:stop] = old[start:stop]
        for part in runner.map_batches(_decode, jobs, size=64):
            out[at : at + len(part)] = part
            at += len(part)
            if progress:
                progress(at - len(have), len(missing))
        out.flush()
        del out
    with replacing(index_file) as temporary:
        pl.DataFrame({"sha256": order, "file": [array_file.name] * len(order)}).write_parquet(temporary)
    for stale in workspace.cache.glob(f"pixels-{side}-*.npy"):
        if stale != array_file:
            stale.unlink()
    return Pixels(np.load(array_file, mmap_mode="r"), {sha: row for row, sha in enumerate(order)})
