from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.checks.posterior import UNLABELLED
from curate.errors import InputError
from curate.learn.out_of_fold import make_folds, out_of_fold, probe

NAMES = ["ant", "bee", "cat"]

# -- folds


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 15)), min_size=1, max_size=40),
    st.integers(2, 6),
    st.integers(0, 99),
)
def test_a_group_is_never_split_and_every_image_has_its_fold(rows: list[tuple[int, int]], k: int, seed: int) -> None:
    labels, group = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    try:
        folds = make_folds(labels, group, NAMES, k=k, seed=seed)
    except InputError:
        labelled = labels != UNLABELLED
        most = np.unique(labels, return_counts=True)[1].max()
        assert len(np.unique(labels[labelled])) < 2 or len(np.unique(group[labelled])) < 2 or most < 2
        return
    assert folds.fold.shape == labels.shape
    assert folds.fold.min() >= 0
    assert folds.fold.max() < k
    for number in np.unique(group):
        assert len(np.unique(folds.fold[group == number])) == 1
    again = make_folds(labels, group, NAMES, k=k, seed=seed)
    assert again.fold.tolist() == folds.fold.tolist()


def test_classes_and_folds_are_balanced() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 600, p=[0.6, 0.3, 0.1])
    folds = make_folds(labels, np.arange(600), NAMES, k=5, seed=0)
    for number in range(5):
        mine = labels[folds.fold == number]
        assert len(mine) == pytest.approx(120, abs=3)
        for c in range(3):
            assert (mine == c).sum() == pytest.approx((labels == c).sum() / 5, abs=2)
    assert folds.notes == ()
    assert make_folds(labels, np.arange(600), NAMES, k=5, seed=1).fold.tolist() != folds.fold.tolist()


def test_a_class_of_few_distinct_images_is_told() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2] * 3)
    group = np.array([*range(20), 20, 20, 20])
    (note,) = make_folds(labels, group, NAMES, k=5, seed=0).notes
    assert note.startswith("class cat has 1 distinct image for 5 folds: ")


@pytest.mark.parametrize("size", [2, 3, 4])
def test_classes_smaller_than_the_number_of_folds_are_still_judged(size: int) -> None:
    labels = np.repeat([0, 1], size)
    folds = make_folds(labels, np.arange(2 * size), NAMES, k=5, seed=0)
    assert 2 <= len(np.unique(folds.fold)) <= size
    assert len(folds.notes) == 2


@pytest.mark.parametrize(
    ("labels", "group", "told"),
    [
        ([0, 0, 0], [0, 1, 2], "only ant has labelled images: an audit needs at least two classes"),
        ([-1, -1], [0, 1], "only no class has labelled images"),
        ([0, 1], [0, 1], "too few different images"),
        ([0, 0, 1, 1], [5, 5, 5, 5], "too few different images"),
        ([0, 0, 1, -1, -1], [5, 5, 5, 6, 7], "too few different images"),
    ],
)
def test_too_little_to_tell_apart_is_an_input_error(labels: list[int], group: list[int], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_folds(np.array(labels), np.array(group), NAMES, k=5, seed=0)


# -- predictions


class Recorder:
    """Predicts the share of each class among what it was trained on, and remembers what that was."""

    def __init__(self, labels: Any, fail_at: int | None = None) -> None:
        self.labels, self.fail_at = labels, fail_at
        self.calls: list[tuple[Any, Any, int]] = []

    def __call__(self, train: Any, test: Any, fold: int) -> Any:
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append((train, test, fold))
        share = np.bincount(self.labels[train], minlength=3) / len(train)
        return np.tile(share, (len(test), 1)).astype(np.float32)


def some(seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 3, 60)
    return labels, make_folds(labels, rng.integers(0, 40, 60), NAMES, k=4, seed=0)


def test_nobody_is_judged_by_a_model_that_saw_it_or_a_copy_of_it(tmp_path: Path) -> None:
    labels, folds = some()
    recorder = Recorder(labels)
    seen = []
    probs = out_of_fold(labels, folds, 3, recorder, store=tmp_path, key="k", progress=lambda *at: seen.append(at))
    assert probs.shape == (60, 3)
    assert probs.dtype == np.float32
    assert probs.sum(axis=1) == pytest.approx(np.ones(60))
    assert sorted(np.concatenate([test for _, test, _ in recorder.calls]).tolist()) == list(range(60))
    for train, test, _ in recorder.calls:
        assert not set(folds.group[train]) & set(folds.group[test])
        assert (labels[train] != UNLABELLED).all()
        assert probs[test[0]] == pytest.approx(np.bincount(labels[train], minlength=3) / len(train))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_interrupted_run_goes_on_at_the_fold_it_was_at(tmp_path: Path) -> None:
    labels, folds = some()
    first = Recorder(labels, fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        out_of_fold(labels, folds, 3, first, store=tmp_path, key="k")
    second = Recorder(labels)
    probs = out_of_fold(labels, folds, 3, second, store=tmp_path, key="k")
    assert [fold for _, _, fold in first.calls + second.calls] == [0, 1, 2, 3]
    whole = out_of_fold(labels, folds, 3, Recorder(labels), store=tmp_path / "other", key="k")
    assert (probs == whole).all()
    third = Recorder(labels)
    assert (out_of_fold(labels, folds, 3, third, store=tmp_path, key="k") == whole).all()
    assert third.calls == []


def test_what_the_result_depends_on_makes_it_anew_and_the_old_goes(tmp_path: Path) -> None:
    labels, folds = some()
    out_of_fold(labels, folds, 3, Recorder(labels), store=tmp_path, key="k")
    other = labels.copy()
    other[0] = (labels[0] + 2) % 3
    for key, now in (("another", labels), ("k", other)):
        again = Recorder(now)
        out_of_fold(now, folds, 3, again, store=tmp_path, key=key)
        assert len(again.calls) == 4
        assert len(list(tmp_path.glob("fold-*.npy"))) == 4


# -- the probe


def test_the_probe_learns_what_can_be_learnt(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 240)
    vectors = (3 * np.eye(3)[labels] @ rng.normal(size=(3, 20)) + rng.normal(size=(240, 20))).astype(np.float32)
    folds = make_folds(labels, np.arange(240), NAMES, k=5, seed=0)
    probs = out_of_fold(labels, folds, 3, probe(vectors, labels, 3, regularisation=0.1), store=tmp_path, key="k")
    assert (probs.argmax(axis=1) == labels).mean() > 0.95
    assert probs.sum(axis=1) == pytest.approx(np.ones(240), abs=1e-5)
    shy = out_of_fold(labels, folds, 3, probe(vectors, labels, 3, regularisation=1e-4), store=tmp_path, key="shy")
    assert shy.max(axis=1).mean() < probs.max(axis=1).mean()


def test_where_labels_are_random_copies_would_be_known_by_heart_and_grouping_stops_that(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = np.repeat(np.arange(150), 2)
    labels = rng.integers(0, 3, 150)[pairs]
    vectors = (rng.normal(size=(150, 80))[pairs] + 0.01 * rng.normal(size=(300, 80))).astype(np.float32)

    def accuracy(group: Any, key: str) -> float:
        folds = make_folds(labels, group, NAMES, k=5, seed=0)
        fit = probe(vectors, labels, 3, regularisation=1.0)
        probs = out_of_fold(labels, folds, 3, fit, store=tmp_path, key=key)
        return float((probs.argmax(axis=1) == labels).mean())

    assert accuracy(np.arange(300), "leaky") > 0.7, "the planted case shows nothing"
    assert accuracy(pairs, "honest") < 0.45


def test_a_class_that_the_training_part_lacks_gets_no_probability() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    labels = np.array([0, 2] * 15)
    fit = probe(vectors, labels, 3, regularisation=0.1)
    found = fit(np.arange(20), np.arange(20, 30), 0)
    assert (found[:, 1] == 0).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(10), abs=1e-6)
    only = fit(np.arange(0, 20, 2), np.arange(20, 30), 0)
    assert only.tolist() == [[1, 0, 0]] * 10
    none = fit(np.arange(0), np.arange(20, 30), 0)
    assert none == pytest.approx(np.full((10, 3), 1 / 3))
