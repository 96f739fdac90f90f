"""What a review is worth: how many errors the first k of a queue hold, and how many remain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.errors import InputError

UNDECIDED = -1
_DRAWS, _BINS = 2000, 200
# The prior in log odds: standard deviation of the shift, of the stretch (a share), and of bends with their length.
_SHIFT, _STRETCH, _BEND, _LENGTH = 2.0, 0.7, 1.5, 1.5
_LOW, _HIGH = -6.0, 5.0
"""Log odds between which p_wrong is believed: no model is surer than 99.3%."""
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

    The probabilities of a model are seldom calibrated. What was decided corrects them: the log odds of an error are
    taken to be those of `p_wrong` plus a smooth function of them, a Gaussian process (Rasmussen and Williams 2006,
    Laplace's approximation, chapter 3) whose prior allows a shift, a stretch and slow bends. Intervals hold both what
    is unknown of that function and the chance of each image.

    Args:
        p_wrong: (N,) probability that each label is wrong, in the order of the queue.
        decided: (N,) 1 where the label was found wrong, 0 where it was found right, `UNDECIDED` elsewhere. It should
            hold a few images from everywhere, not only from the head.
        k: length of the review, 0 to N.
        strata: (N,) small integers: images that came into the queue for different reasons are corrected each by their
            own decisions. What an outlier turns out to be says nothing about labels.

    Raises:
        InputError: shapes do not fit, a probability is outside [0, 1], a decision is none of the three, or k is
            outside 0 to N.

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
    if len(strange := known[~np.isin(known, (0, 1, UNDECIDED))]):
        msg = f"decided must be 1, 0 or {UNDECIDED}, not {strange[0]}"
        raise InputError(msg)
    if not 0 <= k <= len(p):
        msg = f"a review of {k} images does not fit a queue of {len(p)}"
        raise InputError(msg)
    safe = np.clip(p, 1e-9, 1 - 1e-9)
    logit = np.clip(np.log(safe / (1 - safe)), _LOW, _HIGH)
    head = np.arange(len(p)) < k
    rng = np.random.default_rng(0)
    expected = {True: float((known[head] == 1).sum()), False: float((known[~head] == 1).sum())}
    drawn = {place: np.full(_DRAWS, expected[place]) for place in expected}
    calibrated = np.empty(len(p))
    for stratum in np.unique(part_of):
        mine = np.flatnonzero(part_of == stratum)
        bins = _bins(logit[mine])
        chance = _draw_chances(logit[mine], bins, known[mine], rng)
        calibrated[mine] = chance.mean(axis=0)[bins]
        for place in (True, False):
            wanted = (head[mine] == place) & (known[mine] == UNDECIDED)
            count = np.bincount(bins[wanted], minlength=chance.shape[1])
            mean, variance = chance @ count, (chance * (1 - chance)) @ count
            expected[place] += float(mean.mean())
            drawn[place] += mean + rng.standard_normal(_DRAWS) * np.sqrt(variance)
    intervals = {}
    for place, part in ((True, head), (False, ~head)):
        least, most = float((known[part] == 1).sum()), float((known[part] != 0).sum())
        low, high = np.clip(np.quantile(drawn[place], [0.05, 0.95]), least, most)
        intervals[place] = float(low), float(high)
    calibrated[known == 1], calibrated[known == 0] = 1.0, 0.0
    return Expectation(k, expected[True], intervals[True], expected[False], intervals[False], calibrated)


def calibration_sample(p_wrong: NDArray[np.floating], n: int, *, seed: int) -> NDArray[np.int64]:
    """Places in a queue whose decisions tell most about all of it: drawn from everywhere, most where it matters.

    Half by the standard deviation of the outcome that p_wrong names, the rest spread over the first quarter (four
    fifths) and over what follows, because p_wrong may be mistaken; one image from each of `n` such slices.

    Args:
        p_wrong: (N,) in the order of the queue, worst first.
        n: images, at most N.
        seed: of the draw.

    Returns:
        At most n distinct places, sorted.
    """
    p = np.asarray(p_wrong, dtype=np.float64)
    if not len(p) or n < 1:
        return np.empty(0, dtype=np.int64)
    spread = np.sqrt(np.clip(p * (1 - p), 1e-3, None))
    quarter = max(1, len(p) // 4)
    first = np.arange(len(p)) < quarter
    density = 0.5 * spread / spread.sum() + np.where(first, 0.4 / quarter, 0.1 / max(1, len(p) - quarter))
    total = np.cumsum(density)
    # One uniform number in each of n slices of equal mass: systematic, so that no part is missed.
    at = (np.arange(n) + np.random.default_rng(seed).random(n)) / n * total[-1]
    return np.unique(np.minimum(np.searchsorted(total, at), len(p) - 1))


def _bins(logit: Floats) -> NDArray[np.int64]:
    """Number of a bin of like values for each image, at most `_BINS`, so that the cost does not grow with N."""
    bins = np.empty(len(logit), dtype=np.int64)
    for number, part in enumerate(np.array_split(np.argsort(logit, kind="stable"), min(_BINS, len(logit)))):
        bins[part] = number
    return bins


def _draw_chances(
    logit: Floats, bins: NDArray[np.int64], known: NDArray[np.integer], rng: np.random.Generator
) -> Floats:
    """(_DRAWS, bins) draws of the chance of an error, from the posterior given what was decided."""
    size = int(bins.max()) + 1
    x = np.bincount(bins, weights=logit) / np.bincount(bins)
    prior = _SHIFT**2 + _STRETCH**2 * np.outer(x, x)
    prior += _BEND**2 * np.exp(-0.5 * ((x[:, None] - x) / _LENGTH) ** 2) + 1e-6 * np.eye(size)
    told = known != UNDECIDED
    trials = np.bincount(bins[told], minlength=size).astype(np.float64)
    wrong = np.bincount(bins[told & (known == 1)], minlength=size).astype(np.float64)
    f, root = _mode(prior, x, trials, wrong)
    part = np.linalg.solve(np.linalg.cholesky(np.eye(size) + root[:, None] * prior * root), root[:, None] * prior)
    values, vectors = np.linalg.eigh(prior - part.T @ part)
    scatter = vectors * np.sqrt(np.maximum(values, 0))
    drawn: Floats = 1 / (1 + np.exp(-(f + rng.standard_normal((_DRAWS, size)) @ scatter.T)))
    return drawn


def _mode(prior: Floats, mean: Floats, trials: Floats, wrong: Floats) -> tuple[Floats, Floats]:
    """Most likely log odds of each bin, and the root of the curvature there, by Newton's method with step halving."""
    size = len(mean)
    weights = np.zeros(size)

    def height(weights: Floats) -> float:
        f = mean + prior @ weights
        return float(-0.5 * weights @ (prior @ weights) + (wrong * f - trials * np.logaddexp(0, f)).sum())

    best = height(weights)
    f = mean.copy()
    for _ in range(100):
        q = 1 / (1 + np.exp(-f))
        curvature = trials * q * (1 - q)
        root = np.sqrt(curvature)
        factor = np.linalg.cholesky(np.eye(size) + root[:, None] * prior * root)
        target = curvature * (f - mean) + wrong - trials * q
        inner = np.linalg.solve(factor.T, np.linalg.solve(factor, root * (prior @ target)))
        step = target - root * inner - weights
        length = 1.0
        while length > 1e-4 and height(weights + length * step) < best:
            length /= 2
        weights = weights + length * step
        f = mean + prior @ weights
        before, best = best, height(weights)
        if best - before < 1e-7:
            break
    q = 1 / (1 + np.exp(-f))
    return f, np.sqrt(trials * q * (1 - q))
