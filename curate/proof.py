"""Whether the data set got better: a paired comparison on the same holdout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """Accuracy before and after, 0 to 1, their difference, and its 95% interval."""

    before: float
    after: float
    difference: float
    ci95: tuple[float, float]


def compare(before: NDArray[np.bool_], after: NDArray[np.bool_], *, resamples: int = 4000, seed: int = 0) -> Comparison:
    """Compare two ways of training on one holdout by a paired bootstrap (Efron and Tibshirani, 1993).

    Images are drawn with replacement, the same for both; so are the seeds of training, in pairs. The interval thus
    holds what another holdout and other seeds would have changed.

    Args:
        before: (S, N) whether the model of each seed was right on each image.
        after: (S, N) likewise, same seeds and images.
        resamples: number of bootstrap samples.
        seed: of the bootstrap.

    Raises:
        InputError: the shapes differ or are empty.

    Example:
        >>> right = np.array([[True, False] * 50])
        >>> compare(right, np.ones((1, 100), dtype=bool)).difference
        0.5
    """
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        msg = f"before and after must be (seeds, images) of one shape, not {a.shape} and {b.shape}"
        raise InputError(msg)
    rng = np.random.default_rng(seed)
    gain = b - a
    seeds, images = gain.shape
    drawn = np.empty(resamples)
    for n in range(resamples):
        # Weights instead of index arrays: the same bootstrap, without copying the matrix.
        by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds)) @ gain / seeds
        drawn[n] = by_seed @ rng.multinomial(images, np.full(images, 1 / images)) / images
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Comparison(float(a.mean()), float(b.mean()), float(gain.mean()), (float(low), float(high)))
