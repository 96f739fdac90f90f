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
from scipy.sparse import csr_array

from curate.errors import InputError

Floats = NDArray[np.floating]
Floats64 = NDArray[np.float64]

UNLABELLED = -1
MANY = 500
"""More classes than this have their probabilities on disk, in half precision; they are read in blocks."""
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
        p_true: (N, K) probability of each class being the true one, given the picture and the given label; for more
            than `MANY` classes a sparse matrix (`scipy.sparse.csr_array`): most of them do not come into question.
        noise: (K, K) estimated P(given = column | true = row).
        likely: (N,) the likeliest true class.
    """

    p_wrong: Floats64
    p_true: NDArray[np.float32] | csr_array
    noise: Floats64
    likely: NDArray[np.int64]


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
    found = temperature(labels, probs)
    return tempered(probs, found), found


def temperature(labels: NDArray[np.integer], probs: Floats) -> float:
    """The temperature of `rescale`, learnt from 20,000 images at most, and fewer where there are many classes."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    known = np.flatnonzero(labels != UNLABELLED)
    most = min(20_000, max(2_000, 20_000_000 // probs.shape[1]))  # one number needs no more
    if len(known) > most:
        known = known[:: len(known) // most + 1]
    if not len(known):
        return 1.0
    learnt, at = _logits(probs[known]), (np.arange(len(known)), labels[known])

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(learnt / np.exp(log_temperature), axis=1)[at].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))


def tempered(probs: Floats, degree: float) -> Floats64:
    """(N, K) probabilities at another temperature."""
    from scipy.special import softmax

    scaled: Floats64 = softmax(_logits(probs) / degree, axis=1)
    return scaled


def _logits(probs: Floats) -> Floats64:
    return np.log(np.maximum(np.asarray(probs, dtype=np.float64), 1e-7))


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
        pred_probs: (N, K) out-of-fold probabilities, rows summing to one; with more than 64 classes they are read in
            blocks, so that they can be mapped from disk.
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
    given: NDArray[np.int64] = np.asarray(labels).astype(np.int64)
    degree = 1.0
    if np.ndim(pred_probs) == 2 and np.shape(pred_probs)[1] > _DENSE:
        if noise is None:
            degree = temperature(given, pred_probs)
        support, probs = _support(given, pred_probs, degree)
    else:
        probs = validate_probs(labels, pred_probs)
        support = np.empty((len(probs), 0), dtype=np.int64)
        if noise is None:
            probs, _ = rescale(given, probs)
    if noise is not None:
        _, joint = _solve(given, probs, support, noise, steps)
        return _result(given, joint, support, noise)
    large = support.shape[1] > 0
    first = _noise_of_many(given, support, probs, np.shape(pred_probs)[1]) if large else confident_noise(given, probs)
    shares, turns = (SHARES[1:2], _TURNS // 2) if large else (SHARES, _TURNS)
    total: Floats64 = np.zeros(probs.shape)
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


def _support(labels: NDArray[np.int64], pred_probs: Floats, degree: float) -> tuple[NDArray[np.int64], Floats64]:
    """(N, m) the classes that come into question for each image, the likeliest and the given; and (N, m) how likely.

    Reads the probabilities in blocks, so that they can lie on disk.
    """
    if np.shape(labels) != np.shape(pred_probs)[:1]:
        validate_probs(labels, pred_probs)  # tells what is wrong
    support = np.empty((len(labels), _SUPPORT), dtype=np.int64)
    likely: Floats64 = np.empty((len(labels), _SUPPORT))
    block = max(64, 8_000_000 // np.shape(pred_probs)[1])
    for start in range(0, len(labels), block):
        rows = slice(start, start + block)
        part = validate_probs(labels[rows], pred_probs[rows])
        if degree != 1:
            part = tempered(part, degree)
        ranked = part.copy()
        ranked[np.arange(len(ranked)), labels[rows]] = 2.0
        support[rows] = np.argpartition(-ranked, _SUPPORT - 1, axis=1)[:, :_SUPPORT]
        likely[rows] = np.take_along_axis(part, support[rows], axis=1)
    return support, likely


def _noise_of_many(labels: NDArray[np.int64], support: NDArray[np.int64], probs: Floats64, k: int) -> Floats64:
    """As `confident_noise`, from the classes that come into question alone."""
    rows = np.arange(len(labels))
    count = np.bincount(labels, minlength=k)
    own = np.where(support == labels[:, None], probs, 0.0).sum(axis=1)
    threshold = np.where(count > 0, np.bincount(labels, weights=own, minlength=k) / np.maximum(count, 1), np.inf)
    sure = np.where(probs >= threshold[support], probs, -1.0)
    best = sure.argmax(axis=1)
    counted = sure[rows, best] >= 0
    joint = np.zeros((k, k))
    np.add.at(joint, (labels[counted], support[rows, best][counted]), 1.0)
    total = joint.sum(axis=1)
    joint[np.diag_indices(k)] += total == 0
    joint *= (count / np.maximum(joint.sum(axis=1), 1))[:, None]  # as many as carry the label
    noise: Floats64 = joint.T + np.where(count > 0, 0.0, 1.0) * np.eye(k) + 1 / k
    noise /= noise.sum(axis=1, keepdims=True)
    return noise


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
            p = probs[rows] + 1e-9
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
    if not support.shape[1]:
        likely = joint.argmax(axis=1).astype(np.int64)
        p_wrong = np.clip(1 - joint[rows, labels], 0, 1)
        return ErrorPosterior(p_wrong, joint.astype(np.float32), noise, likely)
    likely = support[rows, joint.argmax(axis=1)]
    right = np.where(support == labels[:, None], joint, 0).sum(axis=1)
    shape = (len(labels), len(noise))
    ends = np.arange(0, support.size + 1, support.shape[1])
    p_true = csr_array((joint.astype(np.float32).ravel(), support.ravel(), ends), shape=shape)
    return ErrorPosterior(
        np.clip(1 - right, 0, 1), p_true if len(noise) > MANY else p_true.toarray(), noise, likely
    )  # fmt: skip
