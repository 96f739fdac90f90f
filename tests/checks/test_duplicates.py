from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from curate.checks import Tables
from curate.checks.duplicates import CONFLICT, EXACT, NEAR, check
from curate.config import ChecksSpec
from curate.schema import GROUPS, PAIRS


def groups(*members: tuple[str, int, str, str, int, float]) -> pl.DataFrame:
    return pl.DataFrame(list(members), schema=GROUPS.columns, orient="row")


def pairs(*of: str) -> pl.DataFrame:
    return pl.DataFrame([(*pair, 2, 0.99, False, False) for pair in of], schema=PAIRS.columns, orient="row")


def found(manifest: pl.DataFrame, table: pl.DataFrame, near: pl.DataFrame | None = None) -> list[tuple[Any, ...]]:
    tables = Tables(manifest=manifest, groups=table, pairs=pairs() if near is None else near)
    return check(tables, ChecksSpec()).select("path", "check", "score", "group", "suggestion").rows()


def test_every_member_but_the_one_that_stays_is_suggested_to_go(manifest_of: Any) -> None:
    same = {"x/b.png": "same", "x/c.png": "same"}
    paths = ("x/a.png", "x/b.png", "x/c.png", "x/d.png")
    manifest = manifest_of([{"path": p, "sha256": same.get(p, p)} for p in paths])
    table = groups(
        ("x/a.png", 7, "near", "x/b.png", 3, 0.9375), ("x/b.png", 7, "near", "x/b.png", 0, 1.0),
        ("x/c.png", 7, "exact", "x/b.png", 0, 1.0),
    )  # fmt: skip
    assert found(manifest, table) == [
        ("x/c.png", EXACT, 0.0, 7, "x/b.png"), ("x/a.png", NEAR, 0.0625, 7, "x/b.png"),
    ]  # fmt: skip
    reasons = check(Tables(manifest=manifest, groups=table), ChecksSpec())["reason"].to_list()
    assert reasons == [
        "the same bytes as b.png, which stays",
        "nearly the same picture as b.png, which stays: 3 of 64 hash bits differ, 94% alike",
    ]


def test_one_picture_with_two_labels_is_a_conflict_and_nothing_of_its_group_is_to_go(manifest_of: Any) -> None:
    manifest = manifest_of([
        {"path": "a", "label": "ant"}, {"path": "b", "label": "bee"}, {"path": "c", "label": None},
        {"path": "d", "label": "ant"},
    ])  # fmt: skip
    table = groups(*((p, 1, "near", "a", 2, 0.99) for p in "abcd"))
    assert found(manifest, table, pairs("ab", "ac", "ad")) == [(p, CONFLICT, 0.0, 1, None) for p in "ab"]
    assert found(manifest, table, pairs("ab", "ac", "ad", "bc")) == [(p, CONFLICT, 0.0, 1, None) for p in "abc"]
    tables = Tables(manifest=manifest, groups=table, pairs=pairs("ab", "ac", "ad"), titles={"ant": "ant 蚂蚁"})
    assert check(tables, ChecksSpec())["reason"].to_list() == [
        "labelled ant 蚂蚁, but the same picture as b (bee), c (no label): it cannot be ant 蚂蚁 and bee at once",
        "labelled bee, but the same picture as a (ant 蚂蚁): it cannot be ant 蚂蚁 and bee at once",
    ]


def test_a_conflict_is_told_where_the_group_was_cut_and_of_many_others_three_are_named(manifest_of: Any) -> None:
    rows = [{"path": f"{n}", "label": "bee" if n else "ant", "sha256": "one"} for n in range(9)]
    reasons = check(Tables(manifest=manifest_of(rows)), ChecksSpec())["reason"].to_list()
    assert len(reasons) == 9
    assert reasons[0] == (
        "labelled ant, but the same bytes as 1 (bee), 2 (bee), 3 (bee) and 5 more: it cannot be ant and bee at once"
    )


def test_an_unlabelled_copy_of_a_labelled_image_is_a_duplicate_and_no_conflict(manifest_of: Any) -> None:
    manifest = manifest_of([{"path": "a", "label": "ant"}, {"path": "b", "label": None}])
    table = groups(("a", 1, "exact", "a", 0, 1.0), ("b", 1, "exact", "a", 0, 1.0))
    assert found(manifest, table) == [("b", EXACT, 0.0, 1, "a")]


@pytest.mark.parametrize("change", [{"status": "missing"}, {"status": "unreadable"}, {"split": "holdout"}])
def test_nothing_goes_in_favour_of_what_is_not_there_or_not_judged(change: dict[str, str], manifest_of: Any) -> None:
    manifest = manifest_of([{"path": "a", "label": "x"} | change, {"path": "b"}, {"path": "c"}])
    table = groups(*((p, 1, "exact", "a", 0, 1.0) for p in "abc"))
    assert found(manifest, table) == []


def test_a_label_that_only_an_unreadable_copy_carries_makes_no_conflict(manifest_of: Any) -> None:
    manifest = manifest_of([{"path": "a"}, {"path": "b"}, {"path": "c", "label": "x", "status": "unreadable"}])
    table = groups(*((p, 1, "exact", "a", 0, 1.0) for p in "abc"))
    assert found(manifest, table) == [("b", EXACT, 0.0, 1, "a")]


def test_an_image_dropped_in_favour_of_one_that_is_out_is_told(manifest_of: Any) -> None:
    tables = Tables(manifest=manifest_of([{"path": "a"}, {"path": "x/b.png"}]), orphans={"a": "x/b.png"})
    rows = check(tables, ChecksSpec()).select("path", "check", "reason").rows()
    assert rows == [
        ("a", "duplicates:orphan", "dropped in favour of b.png, which is itself out or unreadable: keep one of them")
    ]


def test_copies_in_another_container_are_called_what_they_are(manifest_of: Any) -> None:
    manifest = manifest_of([{"path": "a", "sha256": "1"}, {"path": "b", "sha256": "2"}])
    table = groups(("a", 1, "exact", "a", 0, 1.0), ("b", 1, "exact", "a", 0, 1.0))
    reasons = check(Tables(manifest=manifest, groups=table), ChecksSpec())["reason"].to_list()
    assert reasons == ["the same pixels as a, which stays"]
