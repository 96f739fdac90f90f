"""Embeddings: the pooled feature maps of a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from curate.learn.backbones import Backbone, device
from curate.learn.cache import Pixels
from curate.schema import EMBEDDINGS


def features(backbone: Backbone, pictures: NDArray[np.uint8], *, batch: int = 64) -> Iterator[NDArray[np.float32]]:
    """Mean-pooled features of (N, side, side, 3) uint8 pictures: arrays (n, features), batch by batch."""
    where = device()
    body = backbone.body.eval().to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = torch.tensor(backbone.mean, device=where).view(1, 3, 1, 1) * 255
    std = torch.tensor(backbone.std, device=where).view(1, 3, 1, 1) * 255
    with torch.inference_mode():
        for start in range(0, len(pictures), batch):
            x = torch.from_numpy(np.array(pictures[start : start + batch])).to(where).permute(0, 3, 1, 2)
            yield body((x - mean) / std).float().mean((2, 3)).cpu().numpy()


def embed(
    images: pl.DataFrame, pixels: Pixels, backbone: Backbone, *, tag: str, mirror: bool = False,
    previous: pl.DataFrame | None = None, progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:  # fmt: skip
    """Embed images; those that `previous` holds with the same bytes and tag are taken over.

    Args:
        images: columns `path` and `sha256`.
        pixels: their decoded pictures.
        backbone: the frozen body.
        tag: names all that the vectors depend on; goes into the column `backbone`.
        mirror: a vector is the mean of those of the picture and of its mirror image, for pictures that may be flipped.
        previous: a table of schema `EMBEDDINGS`.
        progress: called with (done, all).

    Returns:
        A table of schema `EMBEDDINGS`, in the order of `images`.
    """
    known: dict[str, NDArray[np.float32]] = {}
    if previous is not None and previous.height:
        same = previous.filter(pl.col("backbone") == tag)
        known = dict(zip(same["sha256"].to_list(), same["vector"].to_numpy(), strict=True))
    missing = [sha for sha in images["sha256"].unique(maintain_order=True).to_list() if sha not in known]
    rows = pixels.index(missing)
    done = 0
    for start in range(0, len(rows), 256):
        part = np.sort(rows[start : start + 256])
        by_row = {pixels.rows[sha]: sha for sha in missing[start : start + 256]}
        pictures = pixels.array[part]
        vectors = np.concatenate(list(features(backbone, pictures)))
        if mirror:
            vectors = (vectors + np.concatenate(list(features(backbone, pictures[:, :, ::-1])))) / 2
        known.update(zip((by_row[row] for row in part.tolist()), vectors, strict=True))
        done += len(part)
        if progress:
            progress(done, len(missing))
    width = backbone.features
    vectors = np.stack([known[sha] for sha in images["sha256"]]) if images.height else np.empty((0, width), np.float32)
    columns = {
        "path": images["path"],
        "sha256": images["sha256"],
        "vector": pl.Series(vectors.astype(np.float32), dtype=pl.Array(pl.Float32, width)),
        "backbone": pl.Series([tag] * images.height, dtype=pl.String),
    }
    return pl.DataFrame(columns).select(list(EMBEDDINGS.columns))
