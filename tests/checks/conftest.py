from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from curate.checks import Tables
from curate.neighbours import Candidate, group_table
from curate.schema import PREDICTIONS

CLASSES = ("ant", "bee", "cat")


def embeddings(paths: list[str], vectors: NDArray[np.floating]) -> pl.DataFrame:
    width = vectors.shape[1]
    return pl.DataFrame(
        {"path": paths, "sha256": [f"sha of {p}" for p in paths], "vector": vectors.tolist(), "backbone": "test"},
        schema={
            "path": pl.String, "sha256": pl.String, "vector": pl.Array(pl.Float32, width), "backbone": pl.String,
        },
    )  # fmt: skip


def predictions(paths: list[str], probs: NDArray[np.floating], classes: tuple[str, ...]) -> pl.DataFrame:
    top = probs.argmax(axis=1)
    rows = [
        (path, n % 5, n, p.tolist(), classes[best], float(p[best]), "run")
        for n, (path, p, best) in enumerate(zip(paths, probs, top, strict=True))
    ]
    return pl.DataFrame(rows, schema=PREDICTIONS.columns, orient="row")


@pytest.fixture(scope="session")
def predictions_of() -> Callable[..., pl.DataFrame]:
    """A table of predictions from paths, (N, K) probabilities and class names."""
    return predictions


@pytest.fixture(scope="session")
def embeddings_of() -> Callable[..., pl.DataFrame]:
    """A table of embeddings from paths and (N, D) vectors."""
    return embeddings


@pytest.fixture(scope="session")
def make_world(manifest_of: Any, features_of: Any) -> Callable[[int], Tables]:
    """Tables with faults of every kind, among them rows that other tables know and that cannot be read (any more)."""

    def make(seed: int) -> Tables:
        rng = np.random.default_rng(seed)
        n = 90
        paths = [f"images/{int(k):05}.png" for k in rng.choice(99_999, n, replace=False)]
        true = rng.integers(0, 3, n)
        given = np.where(rng.random(n) < 0.2, (true + 1) % 3, true)
        status = rng.choice(["ok", "ok", "ok", "ok", "ok", "unreadable", "missing"], n)
        split = rng.choice(np.array([None, None, None, "train", "valid", "holdout"], dtype=object), n)
        labels = [None if rng.random() < 0.1 else CLASSES[c] for c in given]
        # Every third image is a copy of the one before it, by bytes or nearly so.
        sha = [f"sha of {path}" for path in paths]
        candidates = []
        for k in range(2, n, 3):
            if rng.random() < 0.5:
                sha[k] = sha[k - 1]
            else:
                a, b = sorted((paths[k - 1], paths[k]))
                candidates.append(Candidate(first=a, second=b, distance=4, similarity=float(rng.uniform(0.9, 1))))
        manifest = manifest_of([
            {"path": path, "sha256": sha[k], "status": str(status[k]), "split": split[k], "label": labels[k],
             "error": None if status[k] == "ok" else "truncated: half of it"}
            for k, path in enumerate(paths)
        ])  # fmt: skip
        dark = rng.random(n) < 0.1
        features = features_of([
            {"path": path, "sha256": sha[k], "brightness": 0.01 if dark[k] else float(rng.uniform(0.2, 0.8)),
             "sharpness": float(rng.choice([0.0001, 0.02, 0.03])), "entropy": float(rng.uniform(0, 8)),
             "width": int(rng.integers(10, 400)), "height": int(rng.integers(10, 400))}
            for k, path in enumerate(paths)
        ])  # fmt: skip
        # As if all files had still been there when they were grouped.
        groups = group_table(manifest.with_columns(status=pl.lit("ok")), features, candidates, min_similarity=0.9)
        vectors = np.eye(3)[true].repeat(5, axis=1) + 0.3 * rng.normal(size=(n, 15))
        vectors[rng.choice(n, 4, replace=False)] = 5 * rng.normal(size=(4, 15))
        logits = 3 * np.eye(3)[true] + rng.normal(size=(n, 3))
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return Tables(
            manifest=manifest, features=features, groups=groups, embeddings=embeddings(paths, vectors),
            predictions=predictions(paths, probs, CLASSES), classes=CLASSES, titles={"ant": "ant 蚂蚁"},
        )  # fmt: skip

    return make
