"""Ranking wrong labels from out-of-fold probabilities: ours beside the field's, and how far the budget can be trusted.

    python benchmarks/label_errors.py --arrays FILE.npz [--seeds 200]

The file holds, for each set, `<set>__given` and `<set>__true` (N,) class indices and `<set>__pred_probs` (N, K). Ends
with one JSON line: per set, per method average precision, AUROC, precision at 100 and at the number of true errors;
and the calibration: |expected - actual| / actual at budgets of 5, 10 and 20% before any decision and after 50 decisions
on images drawn by `curate.budget.calibration_sample` (median over seeds, and how often the 90% interval holds).
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from curate.budget import UNDECIDED, calibration_sample, expect
from curate.checks.labels import ambiguous, confident_mistakes, error_posterior, self_confidence
from curate.checks.posterior import validate_probs

BUDGETS = (0.05, 0.10, 0.20)
DECISIONS = 50


def mistakenness(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """FiftyOne Brain's for classifications: (1 +- exp(-entropy)) / 2, plus where the prediction differs."""
    entropy = -(probs * np.log(np.maximum(probs, 1e-12))).sum(axis=1)
    sign = np.where(probs.argmax(axis=1) == labels, -1, 1)
    return (1 + sign * np.exp(-entropy)) / 2


def cleanlab_filter(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """The default of cleanlab: what find_label_issues flags comes first, each part by self-confidence."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flagged = find_label_issues(labels, probs, n_jobs=1)
    return flagged + (1 - self_confidence(labels, probs)) * 0.999


def margin(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Normalised margin as cleanlab has it: the best other class against the given one."""
    others = probs.copy()
    own = others[np.arange(len(labels)), labels].copy()
    others[np.arange(len(labels)), labels] = -1
    return (1 + others.max(axis=1) - own) / 2


def scores(labels: np.ndarray, probs: np.ndarray) -> tuple[dict[str, np.ndarray], float]:
    """Per method a score, higher is worse; and the seconds that ours took."""
    start = time.perf_counter()
    ours = error_posterior(labels, probs).p_wrong
    seconds = time.perf_counter() - start
    return {
        "curate": ours,
        "self_confidence": 1 - self_confidence(labels, probs),
        "normalised_margin": margin(labels, probs),
        "cleanlab_filter": cleanlab_filter(labels, probs),
        "mistakenness": mistakenness(labels, probs),
        "confident_mistake": confident_mistakes(labels, probs, threshold=0.9).astype(float),
        "ambiguous": ambiguous(probs, band=(0.5, 0.6)).astype(float),
    }, seconds


def worth(score: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """How well a score ranks wrong labels."""
    order = np.argsort(-score, kind="stable")
    return {
        "average_precision": float(average_precision_score(wrong, score)),
        "auroc": float(roc_auc_score(wrong, score)),
        "precision_at_100": float(wrong[order[:100]].mean()),
        "precision_at_errors": float(wrong[order[: int(wrong.sum())]].mean()),
    }


def calibration(p_wrong: np.ndarray, wrong: np.ndarray, seeds: int) -> dict[str, Any]:
    """Relative errors of the expected number of errors within each budget, before and after decisions."""
    order = np.argsort(-p_wrong, kind="stable")
    p, truth = p_wrong[order], wrong[order]
    out: dict[str, Any] = {}
    for share in BUDGETS:
        k = round(share * len(p))
        actual = int(truth[:k].sum())
        after, held = [], []
        for seed in range(seeds):
            places = calibration_sample(p, DECISIONS, seed=seed)
            decided = np.full(len(p), UNDECIDED)
            decided[places] = truth[places]
            told = expect(p, decided, k=k)
            after.append(abs(told.first - actual) / actual)
            held.append(told.first_interval[0] <= actual <= told.first_interval[1])
        out[f"{share:.0%}"] = {
            "before": abs(float(p[:k].sum()) - actual) / actual,
            "after_median": float(np.median(after)), "interval_holds": float(np.mean(held)),
        }  # fmt: skip
    return out


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrays", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=200)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    with np.load(options.arrays) as arrays:
        for name in sorted({key.rpartition("__")[0] for key in arrays.files}):
            labels = arrays[f"{name}__given"].astype(np.int64)
            probs = validate_probs(labels, arrays[f"{name}__pred_probs"])
            wrong = labels != arrays[f"{name}__true"]
            found, seconds = scores(labels, probs)
            result[name] = {method: worth(score, wrong) for method, score in found.items()}
            result[name]["calibration"] = calibration(found["curate"], wrong, options.seeds)
            result[name]["seconds"] = round(seconds, 2)
            print(f"\n{name}: {len(labels)} images, {wrong.mean():.1%} wrong; ours took {seconds:.1f} s")
            for method in found:
                print(f"  {method:<18} " + "  ".join(f"{k} {v:.3f}" for k, v in result[name][method].items()))
            for share, row in result[name]["calibration"].items():
                print(f"  first {share}: " + "  ".join(f"{k} {v:.3f}" for k, v in row.items()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
