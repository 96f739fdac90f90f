"""Out-of-fold predictions: each image is predicted by a model that saw neither it nor a duplicate of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.checks.posterior import MANY, UNLABELLED
from curate.errors import InputError
from curate.workspace import digest, replacing

_ROWS = 4096

FitPredict = Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.float32]]
"""(training rows, rows to predict, fold) -> probabilities (rows, K)."""


@dataclass(frozen=True, kw_only=True)
class Folds:
    """Folds grouped by duplicates.

    Attributes:
        fold: (N,) the fold that predicts each image.
        group: (N,) images of one group share a fold.
        notes: what a person should know, in words (classes with fewer groups than folds).
    """

    fold: NDArray[np.int64]
    group: NDArray[np.int64]
    notes: tuple[str, ...]


def make_folds(labels: NDArray[np.int64], group: NDArray[np.int64], classes: list[str], *, k: int, seed: int) -> Folds:
    """Stratified folds in which images of one group stay together.

    Args:
        labels: (N,) class indices, `UNLABELLED` where there is none.
        group: (N,) group ids.
        classes: names, for messages.
        k: number of folds; fewer where there are fewer groups.
        seed: of the shuffle.

    Raises:
        InputError: fewer than two classes have images, so that there is nothing to tell apart, or there are too few
            images to judge one by the others.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    present = np.unique(labels[labels != UNLABELLED])
    if len(present) < 2:
        have = classes[present[0]] if len(present) else "no class"
        msg = f"only {have} has labelled images: an audit needs at least two classes to tell apart"
        raise InputError(msg)
    sizes = {int(c): len(np.unique(group[labels == c])) for c in present}
    notes = tuple(
        f"class {classes[c]} has {n} distinct image{'s' if n > 1 else ''} for {k} folds: "
        "its members are sometimes judged by a model that never saw the class"
        for c, n in sizes.items()
        if n < k
    )
    k = min(k, len(np.unique(group)), int(np.unique_counts(labels).counts.max()))
    if k < 2 or len(np.unique(group[labels != UNLABELLED])) < 2:
        msg = "too few different images to judge one by the others: an audit needs at least two of one class"
        raise InputError(msg)
    if len(classes) > MANY:
        return Folds(fold=_dealt(labels, group, k, seed), group=group, notes=notes)
    fold = np.zeros(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes smaller than the number of folds: told in `notes`
        for number, (_, test) in enumerate(splitter.split(labels, labels, group)):
            fold[test] = number
    return Folds(fold=fold, group=group, notes=notes)


def _dealt(labels: NDArray[np.int64], group: NDArray[np.int64], k: int, seed: int) -> NDArray[np.int64]:
    """Folds for many classes: the groups of each class are shuffled and dealt out, going on where the last class ended.

    scikit-learn's splitter would hold a table of groups by classes.
    """
    rng = np.random.default_rng(seed)
    _, first, number = np.unique(group, return_index=True, return_inverse=True)
    order = rng.permutation(len(first))
    order = order[np.argsort(labels[first][order], kind="stable")]
    of_group = np.empty(len(first), dtype=np.int64)
    of_group[order] = np.arange(len(first)) % k
    return of_group[number]


def out_of_fold(
    labels: NDArray[np.int64], folds: Folds, k_classes: int, fit_predict: FitPredict, *, store: Path, key: str,
    progress: Callable[[int, int], None] | None = None, into: NDArray[np.floating] | None = None,
) -> NDArray[np.floating]:  # fmt: skip
    """Predict each fold by a model trained on the others; finished folds are kept in `store` and not done again.

    Args:
        labels: (N,) class indices, `UNLABELLED` rows are predicted and never trained on.
        folds: from `make_folds`.
        k_classes: K.
        fit_predict: trains and predicts.
        store: folder for finished folds.
        key: names everything that the result depends on.
        progress: called with (done, all).
        into: (N, K) that the probabilities are added to, as of a file; left out, a new array.

    Returns:
        (N, K) probabilities, rows sum to one; `into` where it was given.
    """
    probs = np.zeros((len(labels), k_classes), dtype=np.float32) if into is None else into
    numbers = np.unique(folds.fold).tolist()
    key = digest(key, labels.tolist(), folds.fold.tolist())[:16]
    for done, number in enumerate(numbers):
        test = np.flatnonzero(folds.fold == number)
        saved = store / f"fold-{key}-{number}.npy"
        if saved.is_file():
            part = np.load(saved)
        else:
            train = np.flatnonzero((folds.fold != number) & (labels != UNLABELLED))
            part = fit_predict(train, test, number)
            with replacing(saved) as temporary, temporary.open("wb") as stream:
                np.save(stream, part)
        for start in range(0, len(test), _ROWS):
            probs[test[start : start + _ROWS]] += part[start : start + _ROWS]
        if progress:
            progress(done + 1, len(numbers))
    for stale in store.glob("fold-*.npy"):
        if not stale.name.startswith(f"fold-{key}-"):
            stale.unlink()
    return probs


def probe(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], k_classes: int, *, regularisation: float
) -> FitPredict:
    """Regularised multinomial regression on frozen embeddings.

    Their signed square roots are taken (power normalisation, Perronnin et al. 2010), so that a few strong activations
    do not outweigh the rest, and standardised. With more than `MANY` classes it is linear discriminant analysis with
    shrunken covariance (Ledoit and Wolf 2004): one pass over the images, where the regression would take hours.

    Args:
        vectors: (N, D) embeddings.
        labels: (N,) class indices.
        k_classes: K.
        regularisation: C of scikit-learn's LogisticRegression.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rooted = np.sign(vectors) * np.sqrt(np.abs(vectors))

    def fit_predict(train: NDArray[np.int64], test: NDArray[np.int64], fold: int) -> NDArray[np.float32]:
        out = np.zeros((len(test), k_classes), dtype=np.float32)
        seen = np.unique(labels[train])
        if len(seen) < 2:  # nothing to tell apart
            out[:, seen] = 1
            return out if len(seen) else np.full_like(out, 1 / k_classes)
        scaler = StandardScaler().fit(rooted[train])
        if k_classes > MANY:
            _discriminate(scaler.transform(rooted[train]), labels[train], scaler.transform(rooted[test]), out)
            return out
        model = LogisticRegression(C=regularisation, max_iter=400, tol=1e-3)
        model.fit(scaler.transform(rooted[train]), labels[train])
        out[:, model.classes_] = model.predict_proba(scaler.transform(rooted[test]))
        return out

    return fit_predict


def _discriminate(
    x: NDArray[np.float32], labels: NDArray[np.int64], test: NDArray[np.float32], out: NDArray[np.float32]
) -> None:
    """Fill `out` (M, K) with the probabilities of linear discriminant analysis."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.special import softmax
    from sklearn.covariance import ledoit_wolf_shrinkage

    seen, number = np.unique(labels, return_inverse=True)
    count = np.bincount(number).astype(np.float32)
    means = np.zeros((len(seen), x.shape[1]), dtype=np.float32)
    np.add.at(means, number, x)
    means /= count[:, None]
    within = x - means[number]
    shrinkage = float(ledoit_wolf_shrinkage(within[:: max(1, len(within) // 20_000)], assume_centered=True))
    covariance = (1 - shrinkage) * (within.T @ within) / len(x)
    covariance[np.diag_indices(len(covariance))] += shrinkage * np.trace(within.T @ within) / x.size
    weights = cho_solve(cho_factor(covariance.astype(np.float64)), means.T.astype(np.float64)).astype(np.float32)
    offset = np.log(count / count.sum()) - 0.5 * np.einsum("kd,dk->k", means, weights)
    for start in range(0, len(test), _ROWS):
        scores = test[start : start + _ROWS] @ weights + offset
        out[start : start + _ROWS, seen] = softmax(scores, axis=1)
