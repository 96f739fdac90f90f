"""Finding labels that people got wrong, through the command line: import, audit, findings.

    python benchmarks/human_labels.py --tar FILE --labels aggregate|random1|worst [--mode auto|probe|finetune]

The archive holds the images and `labels.csv` (columns `file, clean, aggregate, random1, worst`). Ends with one JSON
line: average precision of p_wrong over all images against the clean labels, beside cleanlab's self-confidence and
FiftyOne's mistakenness on the same probabilities, and beside self-confidence of a probe (C = .001, as the field would
do it); seconds of the whole way; and the 95% bootstrap interval of the gain over the best of these.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from curate import pipeline
from curate.checks.labels import posterior_of, self_confidence
from curate.dataset import Dataset, open_dataset

SPEC = """title = "CIFAR-10N"
{classes}
[dedupe]
max_distance = 4
[augment]
flip = true
[audit]
{audit}
"""


def curate(home: Path, *arguments: str) -> None:
    """One verb of the command line, as a process."""
    code = "from curate.cli import main; main()"
    environment = os.environ | {"CURATE_HOME": str(home)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], env=environment, check=True)


def mistakenness(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """FiftyOne Brain's for classifications."""
    entropy = -(probs * np.log(np.maximum(probs, 1e-12))).sum(axis=1)
    return (1 + np.where(probs.argmax(axis=1) == labels, -1, 1) * np.exp(-entropy)) / 2


def plain_probe(dataset: Dataset, paths: list[str], labels: np.ndarray, k: int) -> np.ndarray:
    """Self-confidence of a plain probe on the same embeddings and folds."""
    embeddings = dict(dataset.embeddings.select("path", "vector").iter_rows())
    fold = dict(dataset.predictions.select("path", "fold").iter_rows())
    x = np.array([embeddings[p] for p in paths], dtype=np.float32)
    folds = np.array([fold[p] for p in paths])
    probs = np.zeros((len(paths), k))
    for number in np.unique(folds):
        train, test = folds != number, folds == number
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(C=0.001, max_iter=400, tol=1e-3).fit(scaler.transform(x[train]), labels[train])
        probs[np.ix_(test, model.classes_)] = model.predict_proba(scaler.transform(x[test]))
    return 1 - self_confidence(labels, probs)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tar", type=Path, required=True)
    parser.add_argument("--labels", choices=["aggregate", "random1", "worst"], default="aggregate")
    parser.add_argument("--mode", choices=["auto", "probe", "finetune"], default="auto")
    parser.add_argument("--audit", default="", help="lines of the spec's [audit] section")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.keep or Path(scratch)
        source, home = work / "source", work / "home"
        if not source.is_dir():
            with tarfile.open(options.tar) as archive:
                archive.extractall(source, filter="data")
        with (source / "labels.csv").open(encoding="utf-8", newline="") as stream:
            clean = {row["file"]: row["clean"] for row in csv.DictReader(stream)}
        classes = "\n".join(f'[[classes]]\nname = "{name}"' for name in sorted(set(clean.values())))
        spec = SPEC.format(classes=classes, audit=options.audit)
        folder = home / "datasets" / f"cifar10n-{options.labels}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "curate.toml").write_text(spec, encoding="utf-8")
        start = time.perf_counter()
        table = str(source / "labels.csv")
        curate(home, "import", folder.name, table, "--image-column", "file", "--label-column", options.labels)
        curate(home, "audit", folder.name, "--mode", options.mode)
        seconds = time.perf_counter() - start
        dataset = open_dataset(folder)
        known = posterior_of(pipeline.tables_of(dataset.workspace, dataset.spec))
        assert known is not None, "an audit was run"
        rows, labels, probs, posterior = known
        paths = rows["path"].to_list()
        names = pipeline.classes_of(dataset.spec, dataset.manifest)
        truth = np.array([names.index(clean["/".join(Path(p).parts[3:])]) for p in paths])
        wrong = truth != labels
        scores = {
            "average_precision": posterior.p_wrong,
            "self_confidence": 1 - self_confidence(labels, probs),
            "mistakenness": mistakenness(labels, probs),
            "probe_self_confidence": plain_probe(dataset, paths, labels, len(names)),
        }
        result = {name: round(float(average_precision_score(wrong, score)), 4) for name, score in scores.items()}
        best = max((name for name in scores if name != "average_precision"), key=lambda name: result[name])
        rng = np.random.default_rng(0)
        gains = []
        for _ in range(1000):
            at = rng.integers(0, len(wrong), len(wrong))
            mine, theirs = scores["average_precision"][at], scores[best][at]
            gains.append(average_precision_score(wrong[at], mine) - average_precision_score(wrong[at], theirs))
        low, high = np.quantile(gains, [0.025, 0.975])
        mode = dataset.records["audit"].facts["mode"]
        told = {"best_peer": best, "gain_ci95": [round(float(low), 4), round(float(high), 4)], "images": len(wrong)}
        print(json.dumps(result | {"seconds": round(seconds, 1), "mode": mode, "labels": options.labels} | told))


if __name__ == "__main__":
    main()
