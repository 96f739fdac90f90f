from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.queue import build
from curate.schema import FINDINGS, GROUPS, QUEUE, validate

CONFLICT = "duplicates:conflict"
BULK = {"duplicates:exact", "duplicates:near", "leakage"}


def findings(*rows: dict[str, Any]) -> pl.DataFrame:
    usual = {"check": "label_error", "score": 0.5, "p_wrong": None, "group": None, "suggestion": None}
    whole = [usual | {"reason": f"{row.get('check', 'label_error')} of {row['path']}"} | row for row in rows]
    return pl.DataFrame(whole, schema=FINDINGS.columns)


def groups(**members: int) -> pl.DataFrame:
    rows = [(path, number, "near", path, 0, 1.0) for path, number in members.items()]
    return pl.DataFrame(rows, schema=GROUPS.columns, orient="row")


def paths(table: pl.DataFrame) -> list[str]:
    return table["path"].to_list()


def test_the_likeliest_errors_come_first_then_what_nobody_flagged() -> None:
    p_wrong = {"a": 0.6, "b": 0.9, "c": 0.2, "d": 0.4, "e": 0.7}
    table = build(findings({"path": "a"}, {"path": "b"}, {"path": "e"}), p_wrong, groups(), probes=0)
    assert paths(table) == ["b", "e", "a", "d", "c"]
    assert table["rank"].to_list() == [1, 2, 3, 4, 5]
    assert table["worth"].to_list() == pytest.approx([0.9, 0.7, 0.6, 0.4, 0.2])
    assert table["p_wrong"].to_list() == [0.9, 0.7, 0.6, 0.4, 0.2]
    assert not table["probe"].any()
    assert table["reason"].to_list()[2:] == ["label_error of a", "nothing was found", "nothing was found"]


def test_a_label_that_several_checks_doubt_is_counted_once_and_other_faults_add() -> None:
    table = build(
        findings(
            {"path": "a", "check": "label_error"}, {"path": "a", "check": "cleanlab"}, {"path": "b"},
            {"path": "c"}, {"path": "c", "check": "quality:dark", "score": 0.0}, {"path": "d", "check": "outlier"},
        ),
        {"a": 0.6, "b": 0.6, "c": 0.6}, groups(), probes=0,
    )  # fmt: skip
    worth = dict(table.select("path", "worth").iter_rows())
    assert worth["a"] == worth["b"] == pytest.approx(0.6)
    assert worth["c"] == pytest.approx(1 - 0.4 * 0.5)
    assert worth["d"] == pytest.approx(0.8 * 0.5)
    row = table.row(by_predicate=pl.col("path") == "a", named=True)
    assert (row["checks"], row["reason"]) == (["cleanlab", "label_error"], "cleanlab of a; label_error of a")


def test_an_image_of_a_group_that_was_placed_waits_until_all_that_was_flagged_is_done() -> None:
    table = build(
        findings(*({"path": p} for p in "abcd")),
        {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6},
        groups(a=1, b=1, d=2),
        probes=0,
    )
    assert paths(table) == ["a", "c", "d", "b"]


def test_members_of_a_conflict_stay_together_where_the_worst_of_them_stands() -> None:
    conflict = [{"path": p, "check": CONFLICT, "score": 0.0, "group": g} for p, g in (("a", 1), ("z", 1), ("b", 2))]
    table = build(
        findings(*conflict, {"path": "c", "check": CONFLICT, "score": 0.0, "group": 2}, {"path": "m"}),
        {"m": 0.985, "a": 0.1, "z": 0.9, "b": 0.0, "c": 0.0}, groups(a=1, z=1, b=2, c=2), probes=0,
    )  # fmt: skip
    assert paths(table) == ["a", "z", "m", "b", "c"]


def test_a_random_image_never_comes_between_members_of_a_conflict() -> None:
    rows = [{"path": f"{n:02}", "check": CONFLICT, "score": 0.0, "group": n // 4} for n in range(40)]
    grouped = groups(**{row["path"]: row["group"] for row in rows})
    table = build(findings(*rows), {f"x{n:03}": 0.01 for n in range(60)}, grouped, probes=0.4)
    assert table["probe"].sum() == round(40 * 0.4 / 0.6)
    numbers = [None if path.startswith("x") else int(path) // 4 for path in paths(table)]
    for group in range(10):
        places = [n for n, number in enumerate(numbers) if number == group]
        assert places == list(range(places[0], places[0] + 4))


def test_duplicates_as_such_are_no_cause_to_look() -> None:
    table = build(
        findings(
            {"path": "a", "check": "duplicates:exact", "score": 0.0, "suggestion": "b"},
            {"path": "c", "check": "leakage", "score": 0.0}, {"path": "d", "score": 0.9},
        ),
        {"a": 0.3, "b": 0.2, "c": 0.1, "d": 0.05}, groups(a=1, b=1), probes=0,
    )  # fmt: skip
    assert paths(table) == ["d", "a", "b", "c"]
    assert table.row(1, named=True)["suggestion"] == "b"


def test_that_a_duplicate_goes_is_suggested_before_another_label() -> None:
    table = build(
        findings(
            {"path": "a", "suggestion": "dog", "score": 0.0},
            {"path": "a", "check": "duplicates:near", "score": 0.9, "suggestion": "b"},
            {"path": "c", "suggestion": "cat", "score": 0.4},
            {"path": "c", "check": "x", "suggestion": "dog", "score": 0.1}, {"path": "d", "suggestion": None},
        ),
        {}, groups(), probes=0,
    )  # fmt: skip
    assert dict(table.select("path", "suggestion").iter_rows()) == {"a": "b", "c": "dog", "d": None}


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5, 0.9])
def test_probes_have_their_share_all_the_way(share: float) -> None:
    flagged = {f"f{n:03}": 0.99 - n / 1000 for n in range(200)}
    rest = {f"r{n:05}": 0.001 for n in range(3000)}
    table = build(findings(*({"path": p} for p in flagged)), flagged | rest, groups(), probes=share)
    probe = table["probe"].to_list()
    last = max(n for n, path in enumerate(paths(table)) if path in flagged)
    for k in range(1, last + 1):
        assert abs(sum(probe[:k]) - share * k) <= 1 / (1 - share) + 1, f"among the first {k}"
    assert sum(probe) == round(200 * share / (1 - share))
    assert not any(path in flagged for path, is_probe in zip(paths(table), probe, strict=True) if is_probe)
    told = table.filter("probe")["reason"].unique().to_list()
    assert told == ["a random image, to learn how many errors were not found"]


def test_probes_are_drawn_at_random_by_seed_from_all_that_was_not_flagged() -> None:
    p_wrong = {f"{n:03}": n / 1000 for n in range(300)}
    flagged = findings(*({"path": f"{n:03}"} for n in range(250, 300)))
    drawn = [set(paths(build(flagged, p_wrong, groups(), probes=0.2, seed=s).filter("probe"))) for s in range(30)]
    assert drawn[0] == set(paths(build(flagged, p_wrong, groups(), probes=0.2, seed=0).filter("probe")))
    assert drawn[0] != drawn[1]
    hits = [sum(int(path) < 125 for path in each) for each in drawn]
    assert all(len(each) == 12 for each in drawn)
    assert 140 < sum(hits) < 220, "about half of 360 come from the lower half"


def test_some_probes_are_there_even_where_nothing_was_flagged() -> None:
    table = build(findings(), {f"{n:03}": 0.001 for n in range(300)}, groups(), probes=0.2)
    assert table["probe"].to_list() == [True] * 20 + [False] * 280
    assert not build(findings(), {f"{n:03}": 0.001 for n in range(300)}, groups(), probes=0.0)["probe"].any()


def test_nothing_is_an_empty_queue() -> None:
    assert validate(build(findings(), {}, groups(), probes=0.1), QUEUE).height == 0


letters = st.sampled_from("abcdefghij")
rows = st.fixed_dictionaries({
    "path": letters, "check": st.sampled_from([CONFLICT, *BULK, "label_error", "outlier", "quality:dark", "of others"]),
    "score": st.sampled_from([0.0, 0.5, 1.0]), "group": st.sampled_from([None, 1, 2, 3]),
    "suggestion": st.sampled_from([None, "x", "y"]), "reason": st.sampled_from(["this", "that"]),
})  # fmt: skip


@given(
    st.lists(rows, max_size=12, unique_by=lambda row: (row["path"], row["check"], row["group"])),
    st.dictionaries(st.sampled_from("abcdefghijklmnop"), st.sampled_from([0.0, 0.2, 0.9, 1.0])),
    st.dictionaries(letters, st.sampled_from([1, 2, 3])),
    st.sampled_from([0.0, 0.1, 0.5, 0.8]),
    st.integers(0, 3),
)
def test_every_image_stands_once_whatever_the_order_of_rows(
    told: list[dict[str, Any]], p_wrong: dict[str, float], grouped: dict[str, int], probes: float, seed: int
) -> None:
    table = build(findings(*told), p_wrong, groups(**grouped), probes=probes, seed=seed)
    assert sorted(paths(table)) == sorted({*p_wrong, *(row["path"] for row in told)})
    assert table["rank"].to_list() == list(range(1, table.height + 1))
    turned = random.Random(seed)
    for _ in range(2):
        again = build(
            findings(*turned.sample(told, len(told))), dict(turned.sample(list(p_wrong.items()), len(p_wrong))),
            groups(**dict(turned.sample(list(grouped.items()), len(grouped)))), probes=probes, seed=seed,
        )  # fmt: skip
        assert again.equals(table)
    flagged = {row["path"] for row in told if row["check"] not in BULK}
    kinds = ["probe" if row["probe"] else row["path"] in flagged for row in table.iter_rows(named=True)]
    assert not any(row["probe"] and row["path"] in flagged for row in table.iter_rows(named=True))
    plain = [kind for kind in kinds if kind != "probe"]
    assert plain == sorted(plain, reverse=True), "what was flagged comes before what was not"
    assert "probe" not in kinds[kinds.index(False) :] if False in kinds else True
    unflagged = table.filter(~pl.col("probe") & ~pl.col("path").is_in(list(flagged)))
    assert unflagged["worth"].is_sorted(descending=True)
    per_path: dict[str, set[int]] = {}
    for row in told:
        if row["check"] == CONFLICT and row["group"] is not None:
            per_path.setdefault(row["path"], set()).add(row["group"])
    if all(len(numbers) == 1 for numbers in per_path.values()):
        in_conflict = [next(iter(per_path.get(path, {None}))) for path in paths(table)]
        runs = [a for a, b in pairwise([*in_conflict, "end"]) if a != b and a is not None]
        assert len(runs) == len(set(runs)), "members of one conflict stand together"


def test_more_findings_on_an_image_never_make_it_worth_less() -> None:
    few = build(findings({"path": "a"}, {"path": "b", "score": 0.1}), {"a": 0.5, "b": 0.5}, groups(), probes=0)
    more = build(
        findings({"path": "a"}, {"path": "b", "score": 0.1}, {"path": "a", "check": "outlier", "score": 0.9}),
        {"a": 0.5, "b": 0.5}, groups(), probes=0,
    )  # fmt: skip
    assert few["worth"].to_list() == [0.5, 0.5]
    assert paths(more) == ["a", "b"]
    assert more["worth"][0] > 0.5
