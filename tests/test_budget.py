from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.budget import UNDECIDED, expect
from curate.errors import InputError


def logit(p: Any) -> Any:
    return np.log(p / (1 - p))


def queue(rng: np.random.Generator, n: int) -> Any:
    """Probabilities of a queue in which a tenth is likely wrong, the worst first."""
    p = np.where(rng.random(n) < 0.15, rng.beta(4, 1.5, n), rng.beta(0.6, 12, n))
    return np.sort(np.clip(p, 1e-4, 1 - 1e-4))[::-1]


def review(rng: np.random.Generator, wrong: Any, head: int, probes: int) -> Any:
    """Decisions on the first of the queue and on some spread over all of the rest."""
    decided = np.full(len(wrong), UNDECIDED)
    decided[:head] = wrong[:head]
    for part in np.array_split(np.arange(head, len(wrong)), probes) if probes else []:
        place = rng.choice(part)
        decided[place] = wrong[place]
    return decided


def inside(value: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= value <= interval[1]


SIMULATIONS = 120


@pytest.mark.parametrize(
    ("shift", "slope"),
    [(0.0, 1.0), (-0.7, 1.0), (0.7, 1.0), (0.0, 0.6), (-0.4, 1.5)],
    ids=["calibrated", "too high", "too low", "too sure", "too timid"],
)
def test_intervals_hold_the_truth_as_often_as_they_say(shift: float, slope: float) -> None:
    held: dict[str, int] = {"first": 0, "beyond": 0}
    errors: dict[str, list[float]] = {"corrected": [], "as it came": []}
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng(seed)
        p = queue(rng, 300)
        wrong = (rng.random(300) < 1 / (1 + np.exp(-(shift + slope * logit(p))))).astype(int)
        decided = review(rng, wrong, 25, 30)
        found = expect(p, decided, k=60)
        held["first"] += inside(wrong[:60].sum(), found.first_interval)
        held["beyond"] += inside(wrong[60:].sum(), found.beyond_interval)
        errors["corrected"].append(abs(found.first + found.beyond - wrong.sum()))
        open_sum = p[decided == UNDECIDED].sum() + (decided == 1).sum()
        errors["as it came"].append(abs(open_sum - wrong.sum()))
    for place, count in held.items():
        assert count / SIMULATIONS >= 0.82, f"90% intervals of what comes {place}"
    # Where p_wrong was far off, correcting it pays at once; where it was nearly right, it must not cost much.
    limit = {-0.7: 1.2, 0.7: 1.0}.get(shift, 3.0)
    assert np.mean(errors["corrected"]) < limit * np.mean(errors["as it came"])


def test_before_a_review_intervals_are_honest_about_what_nobody_knows() -> None:
    held = 0
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng(seed)
        p = queue(rng, 300)
        shift, slope = rng.normal(0, 0.7), np.exp(rng.normal(0, 0.3))
        wrong = rng.random(300) < 1 / (1 + np.exp(-(shift + slope * logit(p))))
        held += inside(wrong[60:].sum(), expect(p, k=60).beyond_interval)
    assert held / SIMULATIONS >= 0.85


def test_reviewing_more_narrows_what_remains() -> None:
    widths = []
    for probes in (0, 10, 40, 120):
        spans = []
        for seed in range(8):
            rng = np.random.default_rng(seed)
            p = queue(rng, 400)
            wrong = (rng.random(400) < p).astype(int)
            low, high = expect(p, review(rng, wrong, 20, probes), k=60).beyond_interval
            spans.append(high - low)
        widths.append(np.mean(spans))
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 3


def test_probes_correct_the_tail_and_the_head_alone_cannot() -> None:
    rng = np.random.default_rng(0)
    p = queue(rng, 600)
    wrong = (rng.random(600) < np.where(np.arange(600) < 80, p, np.minimum(1, 4 * p))).astype(int)
    truth = wrong[80:].sum()
    head_only = expect(p, review(rng, wrong, 80, 0), k=80)
    with_probes = expect(p, review(rng, wrong, 80, 80), k=80)
    assert abs(with_probes.beyond - truth) < abs(head_only.beyond - truth)


def test_what_is_decided_counts_as_it_was_decided() -> None:
    p = np.linspace(0.9, 0.1, 20)
    wrong = (np.arange(20) % 3 == 0).astype(int)
    done = expect(p, wrong, k=8)
    assert (done.first, done.first_interval) == (3, (3, 3))
    assert (done.beyond, done.beyond_interval) == (4, (4, 4))
    assert done.p_wrong.tolist() == wrong.tolist()
    half = np.where(np.arange(20) < 8, wrong, UNDECIDED)
    found = expect(p, half, k=8)
    assert (found.first, found.first_interval) == (3, (3, 3))
    assert found.beyond > 0


def test_decisions_that_find_more_errors_raise_the_expectation() -> None:
    p = np.full(200, 0.2)
    told = np.full(200, UNDECIDED)
    neutral = expect(p, told, k=0).beyond
    more, fewer = told.copy(), told.copy()
    more[:20], fewer[:20] = 1, 0
    assert expect(p, more, k=20).beyond > 1.5 * neutral * 0.9
    assert expect(p, fewer, k=20).beyond < 0.5 * neutral


def test_strata_are_corrected_each_by_their_own_decisions() -> None:
    p = np.full(200, 0.3)
    strata = np.repeat([0, 1], 100)
    decided = np.full(200, UNDECIDED)
    decided[:30] = 1  # of the first stratum alone
    together, apart = expect(p, decided, k=100), expect(p, decided, k=100, strata=strata)
    alone = expect(p[100:], k=0)
    assert together.beyond > 60
    assert apart.beyond == pytest.approx(alone.beyond, rel=0.1)
    assert apart.first > 80
    named = expect(p, decided, k=100, strata=np.where(strata == 0, 7, 3))
    assert named.first == pytest.approx(apart.first, rel=0.05)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 60), st.data())
def test_expectations_add_up_and_lie_in_their_intervals(seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    p = rng.random(n) ** 3
    p[rng.random(n) < 0.1] = rng.integers(0, 2)
    decided = rng.choice([UNDECIDED, 0, 1], n, p=[0.6, 0.2, 0.2])
    strata = rng.integers(0, 3, n)
    k = data.draw(st.integers(0, n))
    found = expect(p, decided, k=k, strata=strata)
    assert found.k == k
    assert ((found.p_wrong >= 0) & (found.p_wrong <= 1)).all()
    assert found.p_wrong[:k].sum() == pytest.approx(found.first, abs=0.003 * n + 1e-6)
    assert found.p_wrong[k:].sum() == pytest.approx(found.beyond, abs=0.003 * n + 1e-6)
    for part, mean, (low, high) in (
        (slice(0, k), found.first, found.first_interval), (slice(k, n), found.beyond, found.beyond_interval),
    ):  # fmt: skip
        assert (decided[part] == 1).sum() <= low <= high <= (decided[part] != 0).sum()
        assert low - 0.5 <= mean <= high + 0.5
    again = expect(p, decided, k=k, strata=strata)
    assert (again.first_interval, again.beyond_interval) == (found.first_interval, found.beyond_interval)


def test_many_images_cost_no_more_than_a_sample_of_their_values_and_give_the_same() -> None:
    rng = np.random.default_rng(0)
    p = queue(rng, 20_000)
    found = expect(p, k=2000)
    assert found.first + found.beyond == pytest.approx(found.p_wrong.sum(), rel=0.01)


@pytest.mark.parametrize(
    ("p", "decided", "k", "told"),
    [
        ([0.5, 1.2], None, 1, r"must lie in \[0, 1\]"),
        ([0.5, np.nan], None, 1, r"must lie in \[0, 1\]"),
        ([0.5, 0.5], [1], 1, r"not \(2,\), \(1,\)"),
        ([[0.5, 0.5]], None, 1, r"p_wrong \(N,\)"),
        ([0.5, 0.5], [1, 2], 1, "decided must be 1, 0 or -1, not 2"),
        ([0.5, 0.5], None, 3, "a review of 3 images does not fit a queue of 2"),
        ([0.5, 0.5], None, -1, "a review of -1 images"),
    ],
)
def test_what_does_not_fit_is_refused(p: Any, decided: Any, k: int, told: str) -> None:
    with pytest.raises(InputError, match=told):
        expect(np.array(p), None if decided is None else np.array(decided), k=k)
    with pytest.raises(InputError, match="strata"):
        expect(np.array([0.5, 0.5]), k=1, strata=np.array([1]))
