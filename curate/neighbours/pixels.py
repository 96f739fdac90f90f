"""Pairs of candidates compared as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.images import ImageFailure, load
from curate.measure import load_grey

_GREY_SIDE = 64


def correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Pearson correlation of two grey pictures of one shape, -1 to 1.

    Plain pictures have no pattern to compare: two of them count as alike where their brightness is.

    Example:
        >>> round(correlation(np.array([[0, 9]], dtype=np.uint8), np.array([[10, 30]], dtype=np.uint8)), 3)
        1.0
    """
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    x_mean, y_mean = x.mean(), y.mean()
    x, y = x - x_mean, y - y_mean
    scale = float(np.sqrt((x @ x) * (y @ y)))
    if min(x.std(), y.std()) < 0.5:
        return 1.0 if max(x.std(), y.std()) < 1 and abs(x_mean - y_mean) < 8 else 0.0
    return float(x @ y) / scale


def same_pixels(first: Path, second: Path) -> bool:
    """Whether two files hold the same picture, pixel by pixel; False where one cannot be read."""
    try:
        one, other = load(first), load(second)
    except ImageFailure:
        return False
    return one.size == other.size and one.tobytes() == other.tobytes()


def verify(pairs: Sequence[tuple[str, str, bool]]) -> list[tuple[float, bool]]:
    """Compare pairs of files, given with whether their pixels may be equal.

    Returns:
        `(similarity, equal)` of each pair: the correlation of their greys at 64 px, NaN where one cannot be read; and
        whether all pixels are equal, which only pairs that may be so and look so are decoded in full for.
    """
    seen = lru_cache(maxsize=512)(lambda file: load_grey(Path(file), _GREY_SIDE))
    out = []
    for first, second, maybe in pairs:
        try:
            similarity = correlation(seen(first), seen(second))
        except ImageFailure:
            out.append((float("nan"), False))
            continue
        equal = maybe and similarity > 0.9999 and same_pixels(Path(first), Path(second))
        out.append((similarity, equal))
    return out
