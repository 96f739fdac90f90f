from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from curate.checks.labels import self_confidence
from curate.checks.posterior import UNLABELLED, confident_noise, error_posterior, rescale, validate_probs
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


def sure(rng: np.random.Generator, n: int, k: int) -> tuple[Any, Any]:
    """Labels, a fifth of them wrong, and the predictions of a model that is equally sure of every image."""
    true = rng.integers(0, k, n)
    given = np.where(rng.random(n) < 0.2, (true + 1) % k, true)
    probs = np.full((n, k), 0.01 / (k - 1))
    probs[np.arange(n), true] = 0.99
    return given, probs


@pytest.mark.parametrize("k", [3, 70])
def test_the_order_of_rows_changes_nothing_even_where_a_model_is_equally_sure_of_all(k: int) -> None:
    rng = np.random.default_rng(0)
    given, probs = sure(rng, 30 * k, k)
    found = {}
    for name, order in (
        ("as they come", np.arange(len(given))), ("by label", np.argsort(given, kind="stable")),
        ("by label, backwards", np.argsort(-given, kind="stable")), ("mixed", rng.permutation(len(given))),
    ):  # fmt: skip
        posterior = error_posterior(given[order], probs[order])
        p_wrong = np.empty(len(given))
        p_wrong[order] = posterior.p_wrong
        found[name] = (p_wrong, posterior.noise)
    for p_wrong, noise in found.values():
        assert p_wrong == pytest.approx(found["as they come"][0], abs=1e-6)
        assert noise == pytest.approx(found["as they come"][1], abs=1e-6)


def test_labels_of_a_model_that_is_sure_of_all_have_the_noise_that_was_planted() -> None:
    given, probs = sure(np.random.default_rng(0), 6000, 3)
    by_folder = np.argsort(given, kind="stable")
    noise = error_posterior(given[by_folder], probs[by_folder]).noise
    wanted = 0.8 * np.eye(3) + 0.2 * np.roll(np.eye(3), 1, axis=1)
    assert np.abs(noise - wanted).max() < 0.04


def test_of_many_classes_those_that_do_not_occur_change_little() -> None:
    given, probs, wrong = simulate(np.random.default_rng(0), 2000, structured_noise(0.3))
    wide = np.hstack([probs * (1 - 1e-4), np.full((2000, 80), 1e-4 / 80)])
    few, many = error_posterior(given, probs), error_posterior(given, wide)
    assert many.p_true.shape == (2000, K + 80)
    assert many.p_true.sum(axis=1) == pytest.approx(np.ones(2000), abs=1e-4)
    assert many.p_wrong == pytest.approx(1 - many.p_true[np.arange(2000), given], abs=1e-5)
    difference = average_precision_score(wrong, few.p_wrong) - average_precision_score(wrong, many.p_wrong)
    assert abs(difference) < 0.03


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


# -- probabilities that mean what they say


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_probabilities_that_were_too_sure_or_too_shy_are_scaled_back(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(5000, 3))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (honest.cumsum(axis=1) > rng.random((5000, 1))).argmax(axis=1)
    bent = honest ** (1 / temperature)
    bent /= bent.sum(axis=1, keepdims=True)
    labels[::4] = UNLABELLED
    scaled, found = rescale(labels, bent.astype(np.float32))
    assert found == pytest.approx(1 / temperature, rel=0.1)
    assert np.abs(scaled - honest).max() < 0.05
    assert (scaled.argmax(axis=1) == bent.argmax(axis=1)).all()
    assert scaled.sum(axis=1) == pytest.approx(np.ones(5000), abs=1e-5)


def test_scaling_does_not_depend_on_order_and_takes_certain_predictions() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, 60)
    probs = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 60)]
    scaled, temperature = rescale(labels, probs)
    assert np.isfinite(scaled).all()
    assert temperature > 2, "a model that is sure and wrong was too sure"
    order = rng.permutation(60)
    again, same = rescale(labels[order], probs[order])
    assert same == pytest.approx(temperature, rel=1e-3)
    assert again == pytest.approx(scaled[order], abs=1e-3)
