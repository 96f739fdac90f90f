from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from curate.checks import Tables
from curate.checks.labels import (
    AMBIGUOUS,
    CLEANLAB,
    CONFIDENT,
    LABEL_ERROR,
    ambiguous,
    check,
    confident_mistakes,
    posterior_of,
    self_confidence,
)  # fmt: skip
from curate.config import ChecksSpec

# -- the rules of thumb


def test_confident_mistakes_are_other_classes_at_the_threshold_or_above() -> None:
    probs = np.array([[0.1, 0.9], [0.1, 0.9], [0.11, 0.89], [0.95, 0.05]])
    found = confident_mistakes(np.array([0, 1, 0, 1]), probs, threshold=0.9)
    assert found.tolist() == [True, False, False, True]


def test_ambiguous_is_a_top_probability_within_the_band() -> None:
    probs = np.array([[0.5, 0.5, 0], [0.6, 0.2, 0.2], [0.61, 0.2, 0.19], [0.4, 0.3, 0.3], [0, 0.45, 0.55]])
    assert ambiguous(probs, band=(0.5, 0.6)).tolist() == [True, True, False, False, True]


def test_self_confidence_is_the_probability_of_the_given_label() -> None:
    assert self_confidence(np.array([1, 0]), np.array([[0.3, 0.7], [0.2, 0.8]])).tolist() == [0.7, 0.2]


# -- findings

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def planted(manifest_of: Any, predictions_of: Any, embeddings_of: Any) -> tuple[Tables, set[str]]:
    """300 images of three classes, 30 of them mislabelled, and a model that mostly knows better."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 300)
    wrong = rng.random(300) < 0.1
    given = np.where(wrong, (true + 1) % 3, true)
    logits = 4 * np.eye(3)[true] + rng.normal(size=(300, 3))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    paths = [f"{n:03}" for n in range(300)]
    tables = Tables(
        manifest=manifest_of([{"path": p, "label": CLASSES[c]} for p, c in zip(paths, given, strict=True)]),
        predictions=predictions_of(paths, probs, CLASSES), classes=CLASSES, titles={"bee": "bee 蜂"},
        embeddings=embeddings_of(paths, np.eye(3)[true] + 0.1 * rng.normal(size=(300, 3))),
    )  # fmt: skip
    return tables, {p for p, bad in zip(paths, wrong, strict=True) if bad}


def test_planted_label_errors_are_found_with_the_right_suggestion(planted: tuple[Tables, set[str]]) -> None:
    tables, wrong = planted
    found = check(tables, ChecksSpec()).filter(check=LABEL_ERROR)
    hits = wrong & set(found["path"])
    assert len(hits) / found.height >= 0.9, "precision"
    assert len(hits) / len(wrong) >= 0.85, "recall"
    given = dict(tables.manifest.select("path", "label").iter_rows())
    for path, suggestion in found.filter(found["path"].is_in(list(wrong))).select("path", "suggestion").iter_rows():
        assert suggestion == CLASSES[(CLASSES.index(given[path]) - 1) % 3]
    assert found["score"].to_list() == pytest.approx([1 - p for p in found["p_wrong"]])


def test_confident_mistakes_are_precise_and_ambiguous_ones_are_not_mistakes(planted: tuple[Tables, set[str]]) -> None:
    tables, wrong = planted
    found = check(tables, ChecksSpec())
    confident = set(found.filter(check=CONFIDENT)["path"])
    assert len(confident & wrong) / len(confident) >= 0.95
    unsure = found.filter(check=AMBIGUOUS)
    assert 0 < unsure.height < 30
    assert unsure["suggestion"].null_count() == unsure.height
    assert unsure["score"].is_between(0.5, 0.6).all()
    assert set(found["check"]) == {LABEL_ERROR, CONFIDENT, AMBIGUOUS, CLEANLAB}


def test_a_reason_says_what_was_given_predicted_and_lies_near(planted: tuple[Tables, set[str]]) -> None:
    tables, _ = planted
    for reason in check(tables, ChecksSpec()).filter(check=CONFIDENT)["reason"]:
        assert re.search(r" by a model that never saw it; 1[0-5] of its 15 nearest images are ", reason)
        assert reason.startswith("labelled ")
        assert ", predicted " in reason
        assert "bee" not in reason.replace("bee 蜂", "")


def test_images_without_label_or_prediction_or_of_an_unknown_class_are_not_judged(
    planted: tuple[Tables, set[str]], manifest_of: Any
) -> None:
    tables, _ = planted
    rows = tables.manifest.to_dicts()
    rows[0]["label"], rows[1]["label"], rows[2]["split"], rows[3]["status"] = None, "dog", "holdout", "missing"
    fewer = dataclasses.replace(tables, manifest=manifest_of(rows), predictions=tables.predictions.slice(0, 200))
    known = posterior_of(fewer)
    assert known is not None
    assert known[0]["path"].to_list() == [f"{n:03}" for n in range(4, 200)]
    assert len(known[1]) == len(known[2]) == len(known[3].p_wrong) == 196


def test_one_class_cannot_be_judged(planted: tuple[Tables, set[str]]) -> None:
    tables, _ = planted
    assert posterior_of(dataclasses.replace(tables, classes=("ant",))) is None
    assert check(dataclasses.replace(tables, classes=("ant",)), ChecksSpec()).height == 0


def test_a_class_of_the_spec_without_an_image_stops_nothing(planted: tuple[Tables, set[str]]) -> None:
    tables, wrong = planted
    import polars as pl

    wider = tables.predictions.with_columns(probs=pl.col("probs").list.concat(pl.lit([0.0], dtype=pl.List(pl.Float32))))
    found = check(dataclasses.replace(tables, classes=(*CLASSES, "dog"), predictions=wider), ChecksSpec())
    hits = wrong & set(found.filter(check=LABEL_ERROR)["path"])
    assert len(hits) / len(wrong) >= 0.8


def test_limits_are_options(planted: tuple[Tables, set[str]]) -> None:
    tables, _ = planted
    heights = [check(tables, ChecksSpec(label_error=x)).filter(check=LABEL_ERROR).height for x in (0.2, 0.5, 0.9)]
    assert heights[0] >= heights[1] >= heights[2] > 0
    assert check(tables, ChecksSpec(confident_mistake=1.0)).filter(check=CONFIDENT).height == 0
    assert check(tables, ChecksSpec(ambiguous=(0.0, 0.0))).filter(check=AMBIGUOUS).height == 0
