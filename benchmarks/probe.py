"""Out-of-fold predictions of a probe on stored embeddings: seconds for all folds, beside a limit of 20 s.

    python benchmarks/probe.py [--dataset PATH] [--images 6000] [--features 1280] [--classes 10] [--folds 5]

With --dataset the embeddings and labels are those of a data set that was audited; without, they are drawn around class
centres, as heavily overlapping as those of hard pictures. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.config import AuditSpec
from curate.dataset import open_dataset
from curate.learn.out_of_fold import make_folds, out_of_fold, probe

LIMIT = 20.0
"""Seconds for 5 folds over 6,000 x 1,280 on two cores."""


def stored(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    """Embeddings, label indices and class names of an audited data set."""
    data = open_dataset(folder)
    rows = data.embeddings.join(data.manifest.select("path", "label"), on="path").drop_nulls("label").sort("path")
    names = sorted(rows["label"].unique().to_list())
    return rows["vector"].to_numpy(), np.array([names.index(label) for label in rows["label"]]), names


def drawn(n: int, features: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64], list[str]]:
    """Noisy points around class centres, one label in ten wrong."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, classes, n)
    centres = rng.standard_normal((classes, features)).astype(np.float32)
    x = 0.08 * centres[true] + rng.standard_normal((n, features)).astype(np.float32)
    labels = np.where(rng.random(n) < 0.1, rng.integers(0, classes, n), true)
    return np.maximum(x, 0), labels, [str(k) for k in range(classes)]


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--dataset", type=Path, help="folder of a data set that was audited")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    given = stored(options.dataset) if options.dataset else None
    x, labels, names = given or drawn(options.images, options.features, options.classes)
    folds = make_folds(labels, np.arange(len(labels)), names, k=options.folds, seed=0)
    predict = probe(x, labels, len(names), regularisation=AuditSpec().regularisation)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as store:
        probs = out_of_fold(labels, folds, len(names), predict, store=Path(store), key="benchmark")
    seconds = time.perf_counter() - start
    agree = float((probs.argmax(axis=1) == labels).mean())
    print(f"{x.shape[0]} x {x.shape[1]}, {len(names)} classes, {options.folds} folds: {agree:.1%} as labelled")
    print(json.dumps({"seconds": round(seconds, 2), "limit_seconds": LIMIT, "images": len(x), "folds": options.folds}))


if __name__ == "__main__":
    main()
