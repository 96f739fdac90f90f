from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest

from curate.checks import Tables
from curate.checks.outliers import OUTLIER, check, knn_distance
from curate.config import ChecksSpec
from curate.schema import GROUPS


def blobs(rng: np.random.Generator, n: int, k: int = 3, width: int = 32) -> Any:
    centres = 3 * rng.normal(size=(k, width))
    return centres[rng.integers(0, k, n)] + rng.normal(size=(n, width))


@pytest.fixture
def tables_of(manifest_of: Any, embeddings_of: Any) -> Any:
    def make(vectors: Any, **more: Any) -> Tables:
        paths = [f"{n:04}" for n in range(len(vectors))]
        return Tables(
            manifest=manifest_of([{"path": p} for p in paths]), embeddings=embeddings_of(paths, vectors), **more
        )

    return make


def brute(vectors: Any, k: int, group: Any = None) -> list[float]:
    x = vectors - vectors.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    ids = np.arange(len(x)) if group is None else group
    out = []
    for n in range(len(x)):
        far = np.sort([1 - float(x[n] @ x[m]) for m in range(len(x)) if ids[m] != ids[n]])
        out.append(float(far[:k].mean()))
    return out


@pytest.mark.parametrize("k", [1, 5, 30])
@pytest.mark.parametrize("grouped", [False, True])
def test_distances_are_those_of_brute_force(k: int, grouped: bool) -> None:
    rng = np.random.default_rng(k)
    vectors = blobs(rng, 80).astype(np.float32)
    group = rng.integers(0, 60, 80) if grouped else None
    assert knn_distance(vectors, k=k, group=group) == pytest.approx(brute(vectors, k, group), abs=1e-5)


def test_more_images_than_fit_in_one_block_give_the_same() -> None:
    vectors = blobs(np.random.default_rng(0), 1500, width=8).astype(np.float32)
    found = knn_distance(vectors, k=4)
    x = vectors - vectors.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for n in (0, 1023, 1024, 1499):
        far = np.sort(1 - np.delete(x @ x[n], n))[:4].mean()
        assert found[n] == pytest.approx(far, abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_images_have_few_neighbours(n: int) -> None:
    found = knn_distance(np.random.default_rng(0).normal(size=(n, 4)), k=30)
    assert found.shape == (n,)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("seed", range(5))
def test_planted_outliers_come_first(seed: int, tables_of: Any) -> None:
    rng = np.random.default_rng(seed)
    vectors = blobs(rng, 400)
    odd = rng.choice(400, 12, replace=False)
    vectors[odd] = 3 * rng.normal(size=(12, 32))
    found = check(tables_of(vectors), ChecksSpec(outlier=0.03))
    assert set(found["check"]) == {OUTLIER}
    assert found.height == 12
    hits = len({f"{n:04}" for n in odd} & set(found["path"]))
    assert hits >= 11, f"precision and recall {hits / 12:.2f}"
    assert found["score"].is_sorted()


def test_copies_of_an_odd_picture_do_not_hide_one_another(tables_of: Any) -> None:
    rng = np.random.default_rng(0)
    vectors = blobs(rng, 300)
    odd = 3 * rng.normal(size=32)
    vectors[:40] = odd + 0.001 * rng.normal(size=(40, 32))
    rows = [(f"{n:04}", 0, "near", "0000", 1, 0.99) for n in range(40)]
    copies = pl.DataFrame(rows, GROUPS.columns, orient="row")
    options = ChecksSpec(outlier=0.14, outlier_neighbours=10)
    wanted = {f"{n:04}" for n in range(40)}
    alone, told = tables_of(vectors), tables_of(vectors, groups=copies)
    assert wanted.isdisjoint(check(alone, options)["path"]), "the planted case shows nothing"
    assert wanted <= set(check(told, options)["path"])


def test_copies_of_a_usual_picture_in_a_small_set_are_not_odd(tables_of: Any) -> None:
    rng = np.random.default_rng(1)
    vectors = blobs(rng, 36, k=2)
    vectors[:12] = vectors[0] + 0.001 * rng.normal(size=(12, 32))
    copies = pl.DataFrame([(f"{n:04}", 0, "near", "0000", 1, 0.99) for n in range(12)], GROUPS.columns, orient="row")
    found = check(tables_of(vectors, groups=copies), ChecksSpec(outlier=0.03, outlier_neighbours=30))
    assert found.height == 2
    assert (found["path"] >= "0012").all()


def test_a_reason_is_never_that_a_picture_is_nearer_than_usual(tables_of: Any) -> None:
    rng = np.random.default_rng(0)
    for vectors in (np.ones((50, 8)), np.zeros((50, 8)), blobs(rng, 50)):
        found = check(tables_of(vectors), ChecksSpec(outlier=1.0))
        ratios = found["reason"].str.extract(r"([\d.]+) times as far").cast(pl.Float64)
        assert ratios.is_null().sum() == 0
        assert (ratios >= 1).all()
        assert found.height < 50
        assert (found["score"] <= 1).all()


def test_fewer_than_ten_images_are_too_few_to_tell(tables_of: Any) -> None:
    rng = np.random.default_rng(0)
    assert check(tables_of(rng.normal(size=(9, 8))), ChecksSpec(outlier=1.0)).height == 0
    assert check(tables_of(rng.normal(size=(10, 8))), ChecksSpec(outlier=1.0)).height > 0


def test_at_most_the_share_of_the_options_is_reported(tables_of: Any) -> None:
    tables = tables_of(blobs(np.random.default_rng(0), 200))
    heights = [check(tables, ChecksSpec(outlier=share)).height for share in (0.0, 0.01, 0.1)]
    assert heights == [0, 2, 20]
    few = dataclasses.replace(tables, embeddings=tables.embeddings.head(100))
    assert check(few, ChecksSpec(outlier=0.1)).height == 10
