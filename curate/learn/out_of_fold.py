"""Out-of-fold predictions: each image is predicted by a model that saw neither it nor a duplicate of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.checks.posterior import UNLABELLED
from curate.errors import InputError
from curate.workspace import digest, replacing

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
    fold = np.zeros(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes smaller than the number of folds: told in `notes`
        for number, (_, test) in enumerate(splitter.split(labels, labels, group)):
            fold[test] = number
    return Folds(fold=fold, group=group, notes=notes)


def out_of_fold(
    labels: NDArray[np.int64], folds: Folds, k_classes: int, fit_predict: FitPredict, *, store: Path, key: str,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Predict each fold by a model trained on the others; finished folds are kept in `store` and not done again.

    Args:
        labels: (N,) class indices, `UNLABELLED` rows are predicted and never trained on.
        folds: from `make_folds`.
        k_classes: K.
        fit_predict: trains and predicts.
        store: folder for finished folds.
        key: names everything that the result depends on.
        progress: called with (done, all).

    Returns:
        (N, K) float32 probabilities, rows sum to one.
    """
    probs = np.zeros((len(labels), k_classes), dtype=np.float32)
    numbers = np.unique(folds.fold).tolist()
    key = digest(key, labels.tolist(), folds.fold.tolist())[:16]
    for done, number in enumerate(numbers):
        test = np.flatnonzero(folds.fold == number)
        saved = store / f"fold-{key}-{number}.npy"
        if saved.is_file():
            probs[test] = np.load(saved)
        else:
            train = np.flatnonzero((folds.fold != number) & (labels != UNLABELLED))
            part = fit_predict(train, test, number)
            with replacing(saved) as temporary, temporary.open("wb") as stream:
                np.save(stream, part)
            probs[test] = part
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
    do not outweigh the rest, and standardised.

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
        model = LogisticRegression(C=regularisation, max_iter=400, tol=1e-3)
        model.fit(scaler.transform(rooted[train]), labels[train])
        out[:, model.classes_] = model.predict_proba(scaler.transform(rooted[test]))
        return out

    return fit_predict
