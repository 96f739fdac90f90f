from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.decisions import LABEL, MEMBERSHIP, Decision, DecisionLog
from curate.resolve import WHY, CleanView, resolve


def log(*choices: tuple[str, str, Any], sha: str | None = None) -> DecisionLog:
    made = [
        Decision(path=path, sha256=sha or f"sha of {path}", aspect=aspect, value=value, by=f"{n}", decided_at="t")
        for n, (path, aspect, value) in enumerate(choices)
    ]
    return DecisionLog.from_lines([decision.to_line() for decision in made])


def why(view: CleanView) -> dict[str, str]:
    return dict(view.rows.select("path", "why").iter_rows())


def test_what_nobody_decided_on_is_in(manifest_of: Any) -> None:
    view = resolve(manifest_of([{"path": "b"}, {"path": "a"}]), log())
    assert view.images.select("path", "label", "given", "relabelled").rows() == [
        ("a", "a", "a", False), ("b", "a", "a", False),
    ]  # fmt: skip
    assert (view.counts, view.conflicts, view.orphans) == ({"in": 2}, [], ())


def test_each_image_that_is_out_has_its_reason(manifest_of: Any) -> None:
    manifest = manifest_of([
        {"path": "broken", "status": "unreadable"}, {"path": "gone", "status": "missing"},
        {"path": "nameless", "label": None}, {"path": "named", "label": None}, {"path": "dropped"}, {"path": "copy"},
        {"path": "kept"}, {"path": "argued"}, {"path": "disputed"}, {"path": "fine"},
        {"path": "twin 1", "sha256": "twin"}, {"path": "twin 2", "sha256": "twin"},
    ])  # fmt: skip
    view = resolve(manifest, log(
        ("broken", MEMBERSHIP, "in"), ("named", LABEL, "b"), ("dropped", MEMBERSHIP, "out"), ("dropped", LABEL, "b"),
        ("copy", MEMBERSHIP, {"in_favour_of": "kept"}), ("kept", MEMBERSHIP, "in"), ("argued", MEMBERSHIP, "in"),
        ("argued", MEMBERSHIP, "out"), ("disputed", LABEL, "b"), ("disputed", LABEL, "c"),
    ))  # fmt: skip
    assert why(view) == {
        "broken": "unreadable", "gone": "unreadable", "nameless": "unlabelled", "named": "in", "dropped": "dropped",
        "copy": "duplicate", "kept": "in", "argued": "conflict", "disputed": "conflict", "fine": "in", "twin 1": "in",
        "twin 2": "same_bytes",
    }  # fmt: skip
    assert set(why(view).values()) <= set(WHY)
    assert view.conflicts == ["argued", "disputed"]
    assert sum(view.counts.values()) == manifest.height
    assert view.rows.row(by_predicate=pl.col("path") == "named", named=True)["relabelled"]
    assert view.rows.row(by_predicate=pl.col("path") == "copy", named=True)["in_favour_of"] == "kept"


def test_the_same_bytes_stay_twice_where_label_or_split_differ(manifest_of: Any) -> None:
    rows = [
        {"path": "1", "label": "a"}, {"path": "2", "label": "b"}, {"path": "3", "label": "b", "split": "holdout"},
        {"path": "4", "label": "b"}, {"path": "5", "label": "a"},
    ]  # fmt: skip
    manifest = manifest_of([row | {"sha256": "same"} for row in rows])
    assert why(resolve(manifest, log())) == {"1": "in", "2": "in", "3": "in", "4": "same_bytes", "5": "same_bytes"}
    relabelled = resolve(manifest, log(("2", LABEL, "a"), ("1", MEMBERSHIP, "out"), sha="same"))
    assert why(relabelled) == {"1": "dropped", "2": "in", "3": "in", "4": "in", "5": "same_bytes"}


@pytest.mark.parametrize(
    ("choices", "orphan"),
    [
        ([], False),
        ([("keeper", MEMBERSHIP, "out")], True),
        ([("keeper", MEMBERSHIP, {"in_favour_of": "third"})], False),  # the chain ends in one that stands
        ([("keeper", MEMBERSHIP, {"in_favour_of": "third"}), ("third", MEMBERSHIP, "out")], True),
        ([("keeper", MEMBERSHIP, "out"), ("keeper", MEMBERSHIP, "in")], True),
        ([("keeper", LABEL, "b")], False),
    ],
)
def test_an_image_out_in_favour_of_one_that_is_out_itself_is_an_orphan(
    choices: list[Any], orphan: bool, manifest_of: Any
) -> None:
    manifest = manifest_of([{"path": p} for p in ("copy", "keeper", "third")])
    view = resolve(manifest, log(("copy", MEMBERSHIP, {"in_favour_of": "keeper"}), *choices))
    assert ("copy" in view.orphans) is orphan


def test_an_image_out_in_favour_of_one_that_cannot_be_read_or_is_not_there_is_an_orphan(manifest_of: Any) -> None:
    manifest = manifest_of([{"path": "copy 1"}, {"path": "copy 2"}, {"path": "broken", "status": "unreadable"}])
    view = resolve(manifest, log(
        ("copy 1", MEMBERSHIP, {"in_favour_of": "broken"}), ("copy 2", MEMBERSHIP, {"in_favour_of": "nowhere"}),
    ))  # fmt: skip
    assert view.orphans == ("copy 1", "copy 2")


def test_only_reviewed_keeps_what_a_person_kept(manifest_of: Any) -> None:
    manifest = manifest_of([{"path": p} for p in ("kept", "relabelled", "untouched", "dismissed", "dropped")])
    view = resolve(manifest, log(
        ("kept", MEMBERSHIP, "in"), ("relabelled", LABEL, "b"), ("dismissed", "finding:outlier", "dismissed"),
        ("dropped", MEMBERSHIP, "out"),
    ), only_reviewed=True)  # fmt: skip
    assert why(view) == {
        "kept": "in", "relabelled": "in", "untouched": "unreviewed", "dismissed": "unreviewed", "dropped": "dropped",
    }  # fmt: skip


def test_stale_decisions_are_told_and_not_applied(manifest_of: Any) -> None:
    view = resolve(manifest_of([{"path": "a"}]), log(("a", MEMBERSHIP, "out"), sha="as it was"))
    assert why(view) == {"a": "in"}
    assert [d.path for d in view.folded.stale] == ["a"]


def test_nothing_resolves_to_nothing(manifest_of: Any) -> None:
    view = resolve(manifest_of([]), log(("a", MEMBERSHIP, "out")))
    assert (view.rows.height, view.counts, view.orphans) == (0, {}, ())


choice = st.sampled_from([
    (MEMBERSHIP, "in"), (MEMBERSHIP, "out"), (MEMBERSHIP, {"in_favour_of": "b"}), (LABEL, "a"), (LABEL, "z"),
])  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), choice), max_size=6),
    st.lists(st.tuples(st.sampled_from("12"), st.sampled_from(["a", "z", None])), min_size=4, max_size=4),
    st.integers(0, 1000),
)
def test_the_clean_data_set_does_not_depend_on_the_order_of_anything(
    manifest_of: Any, choices: list[Any], facts: list[Any], seed: int
) -> None:
    rows = [{"path": p, "sha256": sha, "label": label} for p, (sha, label) in zip("abcd", facts, strict=True)]
    manifest = manifest_of(rows)
    sha = {row["path"]: row["sha256"] for row in rows}
    lines = [
        Decision(path=p, sha256=sha[p], aspect=aspect, value=value, by=str(n), decided_at="t").to_line()
        for n, (p, (aspect, value)) in enumerate(choices)
    ]
    view = resolve(manifest, DecisionLog.from_lines(lines))
    again = resolve(manifest.sample(fraction=1, shuffle=True, seed=seed), DecisionLog.from_lines(lines[::-1]))
    assert again.rows.equals(view.rows)
    assert again.orphans == view.orphans
    assert view.rows["path"].to_list() == list("abcd")
    assert view.rows.filter(pl.col("included") != (pl.col("why") == "in")).height == 0
    kept = view.images.select("sha256", "label")
    assert kept.is_unique().all()
    assert kept["label"].null_count() == 0
