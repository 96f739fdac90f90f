from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from curate.checks import Tables
from curate.checks.labels import (
    AMBIGUOUS,
    CLEANLAB,
    CONFIDENT,
    LABEL_ERROR,
    ambiguous,
    check,
    confident_mistakes,
    error_posterior,
    posterior_of,
    self_confidence,
)
from curate.checks.posterior import confident_noise, validate_probs
from curate.config import ChecksSpec
from curate.errors import InputError

K = 6


def structured_noise(rate: float) -> Any:
    """Half of the classes are taken for one other class with `rate`, as people confuse what looks alike."""
    noise = np.eye(K)
    for j in range(0, K, 2):
        noise[j, j], noise[j, (j + 3) % K] = 1 - rate, rate
    return noise


def simulate(rng: np.random.Generator, n: int, noise: Any, hard: float = 1.2) -> tuple[Any, Any, Any]:
    """(given labels, out-of-fold probabilities of them, which are wrong) of a model that learnt P(given | image)."""
    true = rng.integers(0, K, n)
    logits = 3.0 * np.eye(K)[true] + hard * rng.normal(size=(n, K))
    clean = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (clean.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    given = (noise[true].cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    probs = clean @ noise
    probs = probs * np.exp(0.15 * rng.normal(size=(n, K)))
    return given, probs / probs.sum(axis=1, keepdims=True), given != true


# -- the posterior


@pytest.mark.parametrize("rate", [0.2, 0.35, 0.45])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_posterior_finds_structured_errors_better_than_self_confidence(rate: float, seed: int) -> None:
    given, probs, wrong = simulate(np.random.default_rng(seed), 4000, structured_noise(rate))
    assert 0.05 < wrong.mean() < 0.3
    ours = average_precision_score(wrong, error_posterior(given, probs).p_wrong)
    theirs = average_precision_score(wrong, 1 - self_confidence(given, probs))
    assert ours > theirs + 0.02


def test_the_posterior_is_right_as_often_as_it_says_where_the_noise_is_known() -> None:
    noise = structured_noise(0.3)
    rng = np.random.default_rng(0)
    true = rng.integers(0, K, 20_000)
    logits = 2.0 * np.eye(K)[true] + rng.normal(size=(20_000, K))
    clean = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (clean.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    given = (noise[true].cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    found = error_posterior(given, clean @ noise, noise=noise, steps=200)
    for low in np.arange(0, 1, 0.2):
        part = (found.p_wrong >= low) & (found.p_wrong < low + 0.2)
        if part.sum() > 200:
            assert (given != true)[part].mean() == pytest.approx(found.p_wrong[part].mean(), abs=0.05)
    likely = found.p_true.argmax(axis=1)
    assert (likely == true).mean() > (given == true).mean()


def test_bayes_rule_by_hand() -> None:
    noise = np.array([[0.8, 0.2], [0.4, 0.6]])
    clean = np.array([[0.7, 0.3]])
    found = error_posterior(np.array([1]), clean @ noise, noise=noise, steps=3000)
    assert found.p_wrong[0] == pytest.approx(0.7 * 0.2 / (0.7 * 0.2 + 0.3 * 0.6), abs=1e-3)
    assert found.p_true.sum() == pytest.approx(1)


def test_the_more_labels_are_wrong_the_sooner_a_doubtful_one_is_held_to_be() -> None:
    labels, probs = np.array([0, 0]), np.array([[0.9, 0.05, 0.05], [0.2, 0.75, 0.05]])
    sure, doubtful = [], []
    for rate in (0.001, 0.01, 0.05, 0.1):
        noise = np.eye(3) * (1 - 1.5 * rate) + 0.5 * rate
        found = error_posterior(labels, probs, noise=noise)
        sure.append(found.p_wrong[0])
        doubtful.append(found.p_wrong[1])
        assert found.p_true[1].argmax() == (1 if doubtful[-1] > 0.5 else 0)
    assert doubtful == sorted(doubtful)
    assert doubtful[0] < 0.01
    assert doubtful[-1] > 0.2
    assert max(sure) < 0.01


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(1, 40))
def test_posteriors_are_probabilities_whatever_the_input(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(k, 0.1), n)
    probs[rng.random(n) < 0.3] = np.eye(k)[rng.integers(0, k)]  # a model that is sure, perhaps of what is not given
    labels = rng.integers(0, k, n)
    found = error_posterior(labels, probs)
    assert found.p_true.shape == (n, k)
    assert np.isfinite(found.p_true).all()
    assert found.p_true.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-6)
    assert ((found.p_wrong >= 0) & (found.p_wrong <= 1)).all()
    assert found.p_wrong == pytest.approx(1 - found.p_true[np.arange(n), labels], abs=1e-6)
    assert (found.noise > 0).all()
    assert found.noise.sum(axis=1) == pytest.approx(np.ones(k))
    order = rng.permutation(n)
    assert error_posterior(labels[order], probs[order]).p_wrong == pytest.approx(found.p_wrong[order], abs=1e-6)


def test_more_images_than_fit_in_one_block_are_judged_one_by_one() -> None:
    noise = structured_noise(0.3)
    given, probs, _ = simulate(np.random.default_rng(0), 9000, noise)
    whole = error_posterior(given, probs, noise=noise).p_wrong
    assert error_posterior(given[8000:], probs[8000:], noise=noise).p_wrong == pytest.approx(whole[8000:], abs=1e-9)


def test_the_noise_that_was_planted_is_estimated() -> None:
    rng = np.random.default_rng(0)
    noise = structured_noise(0.3)
    true = rng.integers(0, K, 20_000)
    given = (noise[true].cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    probs = (0.97 * np.eye(K)[true] + 0.03 / K) @ noise
    assert np.abs(confident_noise(given, probs) - noise).max() < 0.03


def test_a_class_without_images_keeps_its_label() -> None:
    labels, probs = np.array([0, 0, 2, 2]), np.array([[0.8, 0.1, 0.1]] * 2 + [[0.1, 0.1, 0.8]] * 2)
    found = confident_noise(labels, probs)
    assert found[1].argmax() == 1
    assert found.sum(axis=1) == pytest.approx(np.ones(3))


GOOD = np.array([[0.5, 0.5], [0.1, 0.9]])


@pytest.mark.parametrize(
    ("labels", "probs", "told"),
    [
        ([0, 1], [[0.5, 0.5], [0.2, 0.9]], r"row 1 is no distribution .*: 1 such rows"),
        ([0, 1], [[0.5, 0.5], [np.nan, 0.9]], "row 1 is no distribution"),
        ([0, 1], [[-0.1, 1.1], [0.1, 0.9]], "row 0 is no distribution"),
        ([0, 2], GOOD, "labels must be 0 to 1, not 0 to 2"),
        ([-1, 0], GOOD, "labels must be 0 to 1, not -1 to 0"),
        ([0], GOOD, r"not \(2, 2\) and \(1,\)"),
        ([0, 0], [[1.0], [1.0]], r"K >= 2"),
        ([0, 0], [1.0, 1.0], r"\(N, K\)"),
    ],
)
def test_what_is_no_set_of_probabilities_is_refused(labels: Any, probs: Any, told: str) -> None:
    for function in (validate_probs, error_posterior):
        with pytest.raises(InputError, match=told):
            function(np.array(labels), np.array(probs, dtype=float))


def test_half_precision_probabilities_are_taken() -> None:
    given, probs, _ = simulate(np.random.default_rng(0), 500, structured_noise(0.3))
    noise = structured_noise(0.3)
    halves = error_posterior(given, probs.astype(np.float16), noise=noise).p_wrong
    assert np.abs(halves - error_posterior(given, probs, noise=noise).p_wrong).max() < 0.05


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
