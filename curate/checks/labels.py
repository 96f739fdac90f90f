"""Label issues: the posterior that a label is wrong, the two rules of thumb that people know, and cleanlab's own.

`error_posterior` (see posterior.py) and the rules work on plain arrays; `check` turns them into findings with a reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.checks.base import Tables, finding, table
from curate.checks.posterior import MANY, ErrorPosterior, Floats, error_posterior, validate_probs
from curate.config import ChecksSpec

__all__ = ["ErrorPosterior", "ambiguous", "check", "confident_mistakes", "error_posterior", "self_confidence"]

LABEL_ERROR = "label_error"
CONFIDENT = "confident_mistake"
AMBIGUOUS = "ambiguous"
CLEANLAB = "cleanlab"


def self_confidence(labels: NDArray[np.integer], pred_probs: Floats) -> NDArray[np.float64]:
    """Probability of the given label, (N,), 0 to 1, lower is worse (cleanlab's default score)."""
    confidence: NDArray[np.float64] = np.asarray(pred_probs)[np.arange(len(labels)), labels].astype(np.float64)
    return confidence


def confident_mistakes(labels: NDArray[np.integer], pred_probs: Floats, *, threshold: float) -> NDArray[np.bool_]:
    """(N,) whether another class than the given one has at least `threshold`.

    Example:
        >>> confident_mistakes(np.array([0, 0]), np.array([[0.05, 0.95], [0.3, 0.7]]), threshold=0.9).tolist()
        [True, False]
    """
    probs = np.asarray(pred_probs)
    flagged: NDArray[np.bool_] = (probs.argmax(axis=1) != labels) & (probs.max(axis=1) >= threshold)
    return flagged


def ambiguous(pred_probs: Floats, *, band: tuple[float, float]) -> NDArray[np.bool_]:
    """(N,) whether the top probability lies within the band, ends included.

    Example:
        >>> ambiguous(np.array([[0.55, 0.45], [0.9, 0.1]]), band=(0.5, 0.6)).tolist()
        [True, False]
    """
    top = np.asarray(pred_probs).max(axis=1)
    within: NDArray[np.bool_] = (top >= band[0]) & (top <= band[1])
    return within


def posterior_of(tables: Tables) -> tuple[pl.DataFrame, NDArray[np.int64], Floats, ErrorPosterior] | None:
    """Labelled, predicted rows sorted by path; their label indices, probabilities and posterior; None where none.

    Probabilities of many classes stay mapped from disk where all predicted rows are labelled.
    """
    if not tables.predictions.height or len(tables.classes) < 2:
        return None
    index = {name: place for place, name in enumerate(tables.classes)}
    rows = (
        tables.judged().select("path", "label").join(tables.predictions.with_row_index("row"), on="path")
        .filter(pl.col("label").is_in(list(index))).sort("path")
    )  # fmt: skip
    if not rows.height:
        return None
    labels = np.array([index[label] for label in rows["label"]], dtype=np.int64)
    if tables.probs is None:
        probs: Floats = validate_probs(labels, np.array(rows["probs"].to_list(), dtype=np.float64))
    else:
        at = rows["row"].to_numpy()
        probs = tables.probs if np.array_equal(at, np.arange(len(tables.probs))) else tables.probs[at]
    return rows, labels, probs, error_posterior(labels, probs)


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings `label_error` (posterior), `confident_mistake`, `ambiguous` and `cleanlab`."""
    known = posterior_of(tables)
    if known is None:
        return table([])
    rows, labels, probs, posterior = known
    flags: dict[str, NDArray[np.bool_]] = {
        LABEL_ERROR: posterior.p_wrong >= options.label_error,
        CONFIDENT: confident_mistakes(labels, probs, threshold=options.confident_mistake),
        AMBIGUOUS: ambiguous(probs, band=options.ambiguous),
        CLEANLAB: _cleanlab(labels, probs),
    }
    confidence = self_confidence(labels, probs)
    flagged = np.flatnonzero(np.any(list(flags.values()), axis=0))
    neighbours = _neighbour_votes(tables, rows, rows["path"].gather(flagged).to_list())
    out = []
    for n in flagged.tolist():
        path, label = rows["path"][n], rows["label"][n]
        top = int(probs[n].argmax())
        likely = int(posterior.likely[n])
        p_wrong = float(posterior.p_wrong[n])
        seen = (
            f"labelled {tables.title(label)}, predicted {tables.title(tables.classes[top])} with {probs[n, top]:.2f} "
            "by a model that never saw it"
        )
        if votes := neighbours.get(path):
            count, of, name = votes
            seen += f"; {count} of its {of} nearest images are {tables.title(name)}"
        suggestion = tables.classes[likely] if tables.classes[likely] != label else None
        for name, score, reason, better in (
            (LABEL_ERROR, 1 - p_wrong, f"{seen}; the label is wrong with {_share(p_wrong)}", suggestion),
            (CONFIDENT, float(confidence[n]), seen, None),
            (AMBIGUOUS, float(probs[n, top]), f"{_second(tables, probs[n])}: hard, or both on one picture", None),
            (CLEANLAB, float(confidence[n]), f"{seen} (cleanlab's find_label_issues)", suggestion),
        ):
            if flags[name][n]:
                out.append(finding(path, name, score, reason, p_wrong=p_wrong, suggestion=better))
    return table(out)


def _share(p: float) -> str:
    """A probability in words; no model is sure."""
    return "more than 99%" if p > 0.99 else "less than 1%" if p < 0.01 else f"{p:.0%}"


def _second(tables: Tables, probs: Floats) -> str:
    first, second = np.argsort(-probs)[:2]
    return (
        f"{tables.title(tables.classes[first])} with {probs[first]:.2f} or "
        f"{tables.title(tables.classes[second])} with {probs[second]:.2f}"
    )


def _cleanlab(labels: NDArray[np.int64], probs: Floats) -> NDArray[np.bool_]:
    from cleanlab.filter import find_label_issues

    if len(np.unique(labels)) < probs.shape[1] or probs.shape[1] > MANY:
        return np.zeros(len(labels), dtype=bool)  # cleanlab wants every class to occur, and room for copies of all
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(find_label_issues(labels, probs, n_jobs=1), dtype=bool)


def _neighbour_votes(
    tables: Tables, rows: pl.DataFrame, wanted: Sequence[str], k: int = 15
) -> dict[str, tuple[int, int, str]]:
    """Of the wanted paths: how many of the k nearest other images (cosine) carry the commonest label, k, that label."""
    labelled = tables.embeddings.join(rows.select("path", "label"), on="path").sort("path")
    k = min(k, labelled.height - 1)
    if k < 1:
        return {}
    vectors = np.array(labelled["vector"].to_numpy(), dtype=np.float32)
    vectors -= vectors.mean(axis=0)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    names = np.array(labelled["label"].to_list())
    paths = labelled["path"].to_list()
    asked = np.flatnonzero(labelled["path"].is_in(list(wanted)).to_numpy())
    out = {}
    for start in range(0, len(asked), 1024):
        part = asked[start : start + 1024]
        similar = vectors[part] @ vectors.T
        similar[np.arange(len(part)), part] = -2
        near = np.argpartition(-similar, k - 1, axis=1)[:, :k]
        for row, neighbours in zip(part.tolist(), near, strict=True):
            values, counts = np.unique(names[neighbours], return_counts=True)
            out[paths[row]] = (int(counts.max()), k, str(values[counts.argmax()]))
    return out
