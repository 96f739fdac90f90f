"""What a review is worth: how many errors the first k of a queue hold, and how many remain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.errors import InputError

UNDECIDED = -1
_DRAWS = 4000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Expectation:
    """Errors to expect in the first `k` of the queue and beyond, with 90% intervals.

    Attributes:
        k: length of the review.
        first: expected errors among the first k; what is decided counts as it was decided.
        first_interval: (low, high).
        beyond: expected errors after the first k.
        beyond_interval: (low, high).
        p_wrong: (N,) recalibrated probabilities; 0 or 1 where decided.
    """

    k: int
    first: float
    first_interval: tuple[float, float]
    beyond: float
    beyond_interval: tuple[float, float]
    p_wrong: Floats


def expect(
    p_wrong: NDArray[np.floating], decided: NDArray[np.integer] | None = None, *, k: int,
    strata: NDArray[np.integer] | None = None,
) -> Expectation:  # fmt: skip
    """Expected errors in the first k of a queue and beyond it.

    The probabilities of a model are seldom calibrated. What was decided corrects them: the log odds are taken to be
    a + b log odds(p_wrong), with a normal prior on a around 0 and on log b around 0 (Platt's scaling, 1999, in its
    Bayesian form), and the posterior over (a, b) is summed on a grid. Intervals hold both what is unknown of a and b
    and the chance of each image.

    Args:
        p_wrong: (N,) probability that each label is wrong, in the order of the queue.
        decided: (N,) 1 where the label was found wrong, 0 where it was found right, `UNDECIDED` elsewhere. It should
            hold a few images from everywhere, not only from the head.
        k: length of the review, 0 to N.
        strata: (N,) small integers: images that came into the queue for different reasons are corrected each by their
            own decisions. What an outlier turns out to be says nothing about labels.

    Raises:
        InputError: shapes do not fit, a probability is outside [0, 1], or k is outside 0 to N.

    Example:
        >>> e = expect(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 1, -1, -1]), k=2)
        >>> e.first, 0 < e.beyond < 1
        (2.0, True)
    """
    p = np.asarray(p_wrong, dtype=np.float64)
    known = np.full(len(p), UNDECIDED) if decided is None else np.asarray(decided)
    part_of = np.zeros(len(p), dtype=np.int64) if strata is None else np.asarray(strata)
    if p.ndim != 1 or known.shape != p.shape or part_of.shape != p.shape or not np.all((p >= 0) & (p <= 1)):
        shapes = f"{p.shape}, {known.shape}, {part_of.shape}"
        msg = f"p_wrong (N,) must lie in [0, 1], and decided and strata be (N,) too, not {shapes}"
        raise InputError(msg)
    if not 0 <= k <= len(p):
        msg = f"a review of {k} images does not fit a queue of {len(p)}"
        raise InputError(msg)
    logit = np.log(np.clip(p, 1e-6, 1 - 1e-6) / (1 - np.clip(p, 1e-6, 1 - 1e-6)))
    head = np.arange(len(p)) < k
    rng = np.random.default_rng(0)
    expected = {True: float((known[head] == 1).sum()), False: float((known[~head] == 1).sum())}
    drawn = {place: np.full(_DRAWS, expected[place]) for place in expected}
    calibrated = np.empty(len(p))
    for stratum in np.unique(part_of):
        mine = part_of == stratum
        told = mine & (known != UNDECIDED)
        a, b, weight = _posterior(logit[told], known[told])
        calibrated[mine] = _calibrated(logit[mine], a, b, weight)
        chosen = rng.choice(len(weight), size=_DRAWS, p=weight)
        for place, part in ((True, head), (False, ~head)):
            mean, variance = _sums(logit[mine & part & (known == UNDECIDED)], a, b)
            expected[place] += float(weight @ mean)
            drawn[place] += rng.normal(mean[chosen], np.sqrt(variance[chosen]))
    limits = {
        place: (float((known[part] == 1).sum()), float((known[part] != 0).sum()))
        for place, part in ((True, head), (False, ~head))
    }
    intervals = {}
    for place, (least, most) in limits.items():
        low, high = np.clip(np.quantile(drawn[place], [0.05, 0.95]), least, most)
        intervals[place] = float(low), float(high)
    calibrated[known == 1], calibrated[known == 0] = 1.0, 0.0
    return Expectation(k, expected[True], intervals[True], expected[False], intervals[False], calibrated)


def _posterior(logit: Floats, wrong: NDArray[np.integer]) -> tuple[Floats, Floats, Floats]:
    """Grid of (a, b) with the posterior weight of each point."""
    a, log_b = (g.ravel() for g in np.meshgrid(np.linspace(-3, 3, 61), np.linspace(-1.5, 1.0, 26)))
    b = np.exp(log_b)
    log_weight = -0.5 * (a / 1.0) ** 2 - 0.5 * (log_b / 0.5) ** 2
    for x, y in zip(logit, wrong, strict=True):
        z = a + b * x
        log_weight += -np.logaddexp(0, -z) if y == 1 else -np.logaddexp(0, z)
    weight = np.exp(log_weight - log_weight.max())
    return a, b, weight / weight.sum()


def _binned(logit: Floats, bins: int = 512) -> tuple[Floats, Floats]:
    """At most `bins` representative values and their counts, so that the cost does not grow with N."""
    if len(logit) <= bins:
        return logit, np.ones(len(logit))
    parts = np.array_split(np.sort(logit), bins)
    return np.array([part.mean() for part in parts]), np.array([float(len(part)) for part in parts])


def _sums(logit: Floats, a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Per grid point: expected errors, and their variance."""
    if not len(logit):
        return np.zeros(len(a)), np.zeros(len(a))
    values, counts = _binned(logit)
    q = 1 / (1 + np.exp(-(a[:, None] + b[:, None] * values[None, :])))
    return q @ counts, (q * (1 - q)) @ counts


def _calibrated(logit: Floats, a: Floats, b: Floats, weight: Floats) -> Floats:
    likely = np.argsort(-weight)[:200]
    share = weight[likely] / weight[likely].sum()
    out = np.zeros(len(logit))
    for x, y, w in zip(a[likely], b[likely], share, strict=True):
        out += w / (1 + np.exp(-(x + y * logit)))
    return out
