from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import InputError
from curate.proof import compare


def models(rng: np.random.Generator, seeds: int, images: int, gain: float) -> tuple[Any, Any]:
    """Right or wrong, per seed and image, of two ways of training that differ by `gain` in truth."""
    hard = rng.normal(0, 0.25, images)
    luck = rng.normal(0, 0.02, (2, seeds, 1))
    chance = np.clip(0.6 + hard + luck + np.array([-gain / 2, gain / 2])[:, None, None], 0, 1)
    right = rng.random((2, seeds, images)) < chance
    return right[0], right[1]


@pytest.mark.parametrize("gain", [0.0, 0.08, -0.15])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(gain: float) -> None:
    rng = np.random.default_rng(7)
    # What another holdout and other seeds would give on average, by simulation: clipping at 0 and 1 takes a little.
    truth = float(np.mean([b.mean() - a.mean() for a, b in (models(rng, 5, 2000, gain) for _ in range(40))]))
    assert truth == pytest.approx(gain, abs=0.03)
    runs = 150
    held = 0
    for seed in range(runs):
        before, after = models(np.random.default_rng(seed), 5, 300, gain)
        found = compare(before, after, resamples=600, seed=seed)
        held += found.ci95[0] <= truth <= found.ci95[1]
    assert held / runs >= 0.89


def test_models_that_do_the_same_differ_by_nothing() -> None:
    right = np.random.default_rng(0).random((3, 200)) < 0.7
    found = compare(right, right)
    assert (found.difference, found.ci95) == (0.0, (0.0, 0.0))
    assert found.before == found.after == pytest.approx(right.mean())


def test_a_known_difference_is_found() -> None:
    before = np.zeros((2, 100), dtype=bool)
    after = before.copy()
    after[:, :30] = True
    found = compare(before, after)
    assert (found.before, found.after, found.difference) == (0.0, 0.3, 0.3)
    low, high = found.ci95
    assert low == pytest.approx(0.3 - 1.96 * np.sqrt(0.3 * 0.7 / 100), abs=0.02)
    assert high == pytest.approx(0.3 + 1.96 * np.sqrt(0.3 * 0.7 / 100), abs=0.02)


def test_a_difference_in_every_image_is_certain() -> None:
    found = compare(np.zeros((1, 50), dtype=bool), np.ones((1, 50), dtype=bool))
    assert (found.difference, found.ci95) == (1.0, (1.0, 1.0))


def test_pairing_images_narrows_the_interval() -> None:
    rng = np.random.default_rng(0)
    before = np.tile(rng.random(400) < 0.6, (3, 1))
    after = before | (rng.random(400) < 0.15)
    paired = compare(before, after).ci95
    unpaired = compare(before, after[:, rng.permutation(400)]).ci95  # as if other images had been drawn
    assert paired[1] - paired[0] < (unpaired[1] - unpaired[0]) / 2
    assert paired[0] > 0


def test_seeds_that_disagree_widen_the_interval() -> None:
    before = np.zeros((4, 400), dtype=bool)
    steady, shaky = before.copy(), before.copy()
    steady[:, :100] = True
    shaky[:2, :200] = True
    assert steady.mean() == shaky.mean()
    a, b = compare(before, steady).ci95, compare(before, shaky).ci95
    assert b[1] - b[0] > 2 * (a[1] - a[0])


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 2**32))
def test_results_are_shares_and_the_difference_theirs(seeds: int, images: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, after = rng.random((2, seeds, images)) < 0.5
    found = compare(before, after, resamples=200, seed=1)
    assert found.before == pytest.approx(before.mean())
    assert found.after == pytest.approx(after.mean())
    assert found.difference == pytest.approx(found.after - found.before)
    assert -1 <= found.ci95[0] <= found.ci95[1] <= 1
    assert compare(before, after, resamples=200, seed=1) == found
    swapped = compare(after, before, resamples=200, seed=1)
    assert swapped.difference == pytest.approx(-found.difference)
    assert swapped.ci95 == pytest.approx((-found.ci95[1], -found.ci95[0]))


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 10), (2, 11)), ((2, 10), (3, 10)), ((10,), (10,)), ((0, 10),) * 2, ((2, 0),) * 2, ((1, 2, 3),) * 2],
)
def test_shapes_that_do_not_fit_are_refused(before: Any, after: Any) -> None:
    with pytest.raises(InputError, match=r"must be \(seeds, images\) of one shape"):
        compare(np.ones(before, dtype=bool), np.ones(after, dtype=bool))
