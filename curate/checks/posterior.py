"""The posterior that a label is wrong: which class is taken for which, and what that makes of each prediction.

Out-of-fold probabilities p of a model trained on given labels approximate P(given | image). With the noise matrix
T[j, i] = P(given = i | true = j), the distribution r of the true class solves r T = p, and Bayes' rule gives
P(true = j | image, given = i) proportional to r_j T[j, i].

T is estimated from *anchors* (Patrini et al. 2017): the images that most surely belong to a class. How often those
carry another label is noise, whereas a label that differs on a hard image may be the image's own doing. So T stays near
the identity where people only stumble over hard images, and becomes what it is where labels were given carelessly. The
anchors depend on r and r on T: both are improved in turns, T by half a step at a time, because whole steps swing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.errors import InputError

Floats = NDArray[np.floating]
Floats64 = NDArray[np.float64]

UNLABELLED = -1
SHARES = (0.4, 0.5, 0.6)
"""Shares of a class's images that serve as its anchors; the mean over them is taken, so that no one share matters."""
_TURNS, _STEPS, _BLOCK, _DENSE, _SUPPORT = 10, 15, 8192, 64, 24
_PRIOR = 5.0
"""Images' worth of the first estimate of T that every class keeps: classes of few images learn little."""


@dataclass(frozen=True)
class ErrorPosterior:
    """What is known of each label.

    Attributes:
        p_wrong: (N,) probability that the given label is wrong, 0 to 1.
        p_true: (N, K) probability of each class being the true one, given the picture and the given label.
        noise: (K, K) estimated P(given = column | true = row).
    """

    p_wrong: Floats64
    p_true: NDArray[np.float32]
    noise: Floats64


def validate_probs(labels: NDArray[np.integer], pred_probs: Floats) -> Floats64:
    """Check labels (N,) and probabilities (N, K); returns the probabilities as float64, rows summing to one.

    Raises:
        InputError: shapes do not fit, a value is NaN or outside [0, 1], a row does not sum to one (half precision is
            allowed for), or a label is not a class index. The first bad row is named.
    """
    probs = np.asarray(pred_probs, dtype=np.float64)
    labels = np.asarray(labels)
    if probs.ndim != 2 or probs.shape[1] < 2 or labels.shape != probs.shape[:1]:
        msg = f"pred_probs must be (N, K) with K >= 2 and labels (N,), not {probs.shape} and {labels.shape}"
        raise InputError(msg)
    bad = ~np.isfinite(probs).all(axis=1) | (probs < 0).any(axis=1) | (np.abs(probs.sum(axis=1) - 1) > 2e-2)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        msg = f"pred_probs row {row} is no distribution ({probs[row][:4]}...): {int(bad.sum())} such rows"
        raise InputError(msg)
    if len(labels) and (labels.min() < 0 or labels.max() >= probs.shape[1]):
        msg = f"labels must be 0 to {probs.shape[1] - 1}, not {labels.min()} to {labels.max()}"
        raise InputError(msg)
    normalised: Floats64 = probs / probs.sum(axis=1, keepdims=True)
    return normalised


def rescale(labels: NDArray[np.integer], probs: Floats) -> tuple[Floats64, float]:
    """Make probabilities mean what they say: temperature scaling (Guo et al. 2017) to the given labels.

    One number for all images, so that it cannot favour any label; it does not change which class is on top.

    Args:
        labels: (N,) class indices, `UNLABELLED` rows are scaled and not learnt from.
        probs: (N, K) out-of-fold probabilities.

    Returns:
        The scaled probabilities, and the temperature: above 1 where the model was too sure.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits = np.log(np.maximum(np.asarray(probs, dtype=np.float64), 1e-7))
    known = np.flatnonzero(labels != UNLABELLED)
    if len(known) > 20_000:  # one number needs no more
        known = known[:: len(known) // 20_000 + 1]
    learnt, at = logits[known], (np.arange(len(known)), labels[known])

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(learnt / np.exp(log_temperature), axis=1)[at].mean())

    best = minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x if len(known) else 0.0
    temperature = float(np.exp(best))
    scaled: Floats64 = np.exp(log_softmax(logits / temperature, axis=1))
    return scaled, temperature


def confident_noise(labels: NDArray[np.integer], probs: Floats64) -> Floats64:
    """P(given = column | true = row), (K, K), from cleanlab's confident joint (Northcutt et al. 2021).

    Classes without an image keep their label. Every entry is a little above zero, so that no confusion is held to be
    impossible.
    """
    from cleanlab.count import compute_confident_joint

    k = probs.shape[1]
    present = np.unique(labels)
    joint = np.eye(k)
    if len(present) > 1:
        index = np.searchsorted(present, labels)
        part = probs[:, present] + 1e-12
        part /= part.sum(axis=1, keepdims=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = compute_confident_joint(index, part, calibrate=True)
        joint[np.ix_(present, present)] = np.asarray(found, dtype=np.float64).T
    joint += 1 / k
    noise: Floats64 = joint / joint.sum(axis=1, keepdims=True)
    return noise


def error_posterior(
    labels: NDArray[np.integer], pred_probs: Floats, *, noise: Floats64 | None = None, steps: int = 30
) -> ErrorPosterior:
    """The probability that each label is wrong, from out-of-fold probabilities; see the head of this file.

    Args:
        labels: (N,) given class indices.
        pred_probs: (N, K) out-of-fold probabilities, rows summing to one.
        noise: (K, K) P(given = column | true = row), where it is known. Left out, it is estimated, and the
            probabilities are scaled to the given labels first (`rescale`).
        steps: of Richardson-Lucy (Richardson 1972, Lucy 1974) with a known noise matrix.

    Raises:
        InputError: see `validate_probs`.

    Example:
        >>> probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
        >>> noise = np.array([[0.9, 0.1], [0.1, 0.9]])
        >>> error_posterior(np.array([0, 1, 1]), probs, noise=noise).p_wrong.round(2).tolist()
        [0.0, 0.02, 0.96]
    """
    probs = validate_probs(labels, pred_probs)
    given: NDArray[np.int64] = np.asarray(labels).astype(np.int64)
    if noise is not None:
        support = _support(given, probs)
        _, joint = _solve(given, probs, support, noise, steps)
        return _result(given, joint, support, noise)
    probs, _ = rescale(given, probs)
    support = _support(given, probs)
    first = confident_noise(given, probs)
    large = probs.shape[1] > _DENSE
    shares, turns = (SHARES[1:2], _TURNS // 2) if large else (SHARES, _TURNS)
    total: Floats64 = np.zeros((len(probs), support.shape[1] if large else probs.shape[1]))
    mean_noise: Floats64 = np.zeros_like(first)
    count = 0
    for share in shares:
        matrix = first
        for turn in range(turns):
            r, joint = _solve(given, probs, support, matrix, _STEPS)
            if turn >= turns // 2:
                total += joint
                mean_noise += matrix
                count += 1
            matrix = 0.5 * (matrix + _anchored(given, r, support, first, share))
    return _result(given, total / count, support, mean_noise / count)


def _support(labels: NDArray[np.int64], probs: Floats64) -> NDArray[np.int64]:
    """(N, m) the classes that come into question for each image: all of few; of many the likeliest and the given."""
    k = probs.shape[1]
    if k <= _DENSE:
        return np.empty((len(probs), 0), dtype=np.int64)
    ranked = probs.copy()
    ranked[np.arange(len(labels)), labels] = 2.0
    top: NDArray[np.int64] = np.argpartition(-ranked, _SUPPORT - 1, axis=1)[:, :_SUPPORT].astype(np.int64)
    return top


def _solve(
    labels: NDArray[np.int64], probs: Floats64, support: NDArray[np.int64], noise: Floats64, steps: int
) -> tuple[Floats64, Floats64]:
    """R with r T = p, and P(true | image, given), both (N, K), or (N, m) over the support; in blocks."""
    sparse = support.shape[1] > 0
    shape = support.shape if sparse else probs.shape
    r_all, joint_all = np.empty(shape), np.empty(shape)
    block = 1024 if sparse else _BLOCK
    for start in range(0, len(probs), block):
        rows = slice(start, start + block)
        y = labels[rows]
        if sparse:
            s = support[rows]
            p = np.take_along_axis(probs[rows], s, axis=1) + 1e-9
            p /= p.sum(axis=1, keepdims=True)
            matrix = noise[s[:, :, None], s[:, None, :]]
            r = p.copy()
            for _ in range(steps):
                mixed = np.maximum(np.matmul(r[:, None, :], matrix)[:, 0], 1e-12)
                r *= np.matmul(matrix, (p / mixed)[:, :, None])[:, :, 0]
                r /= np.maximum(r.sum(axis=1, keepdims=True), 1e-300)
            joint = r * noise[s, y[:, None]]
        else:
            p = np.maximum(probs[rows], 1e-9)
            r = p.copy()
            for _ in range(steps):
                r *= (p / np.maximum(r @ noise, 1e-12)) @ noise.T
                r /= np.maximum(r.sum(axis=1, keepdims=True), 1e-300)
            joint = r * noise[:, y].T
        total = joint.sum(axis=1, keepdims=True)
        r_all[rows], joint_all[rows] = r, np.where(total > 0, joint / np.maximum(total, 1e-300), p)
    return r_all, joint_all


def _anchored(
    labels: NDArray[np.int64], r: Floats64, support: NDArray[np.int64], first: Floats64, share: float
) -> Floats64:
    """The noise matrix as the anchors show it: given labels of the `share` of each class that is surest."""
    k = len(first)
    counts = _PRIOR * first
    if support.shape[1]:
        classes, rows = support.ravel(), np.repeat(np.arange(len(r)), support.shape[1])
        weight = r.ravel()
        order = np.argsort(classes, kind="stable")
        classes, rows, weight = classes[order], rows[order], weight[order]
        chosen = np.empty(len(weight))
        for part in np.split(np.arange(len(classes)), np.searchsorted(classes, np.arange(1, k))):
            chosen[part] = _surest(weight[part], share)
        np.add.at(counts, (classes, labels[rows]), chosen)
    else:
        for j in range(k):
            counts[j] += np.bincount(labels, weights=_surest(r[:, j], share), minlength=k)
    noise: Floats64 = counts / counts.sum(axis=1, keepdims=True)
    return noise


def _surest(weight: Floats64, share: float) -> Floats64:
    """How much each image counts as an anchor of a class, 0 to 1: the `share` of the class that is surest.

    Images that are equally sure share what is left for them. Were the first of them taken, their labels would decide,
    because rows come sorted by folder.
    """
    n = min(int(np.ceil(share * weight.sum())), len(weight))
    if not n:
        return np.zeros(len(weight))
    least = np.partition(weight, len(weight) - n)[len(weight) - n]
    above, level = weight > least + 1e-9, np.abs(weight - least) <= 1e-9
    counted: Floats64 = above + level * ((n - above.sum()) / level.sum())
    return counted


def _result(labels: NDArray[np.int64], joint: Floats64, support: NDArray[np.int64], noise: Floats64) -> ErrorPosterior:
    rows = np.arange(len(labels))
    p_true = joint.astype(np.float32)
    if support.shape[1]:
        p_true = np.zeros((len(labels), len(noise)), dtype=np.float32)
        np.put_along_axis(p_true, support, joint.astype(np.float32), axis=1)
        right = np.where(support == labels[:, None], joint, 0).sum(axis=1)
    else:
        right = joint[rows, labels]
    return ErrorPosterior(np.clip(1 - right, 0, 1), p_true, noise)
