"""What holds for every check: each runs over the same generated tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from curate.checks import Check, Tables, duplicates, labels, leakage, outliers, quality
from curate.config import ChecksSpec
from curate.schema import FINDINGS, HOLDOUT, validate

OPTIONS = ChecksSpec()
CHECKS: list[Check] = [duplicates.check, leakage.check, quality.check, labels.check, outliers.check]

pytestmark = [
    pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__module__.rpartition(".")[2]),
    pytest.mark.parametrize("seed", [0, 1, 2, 3]),
]
World = Callable[[int], Tables]


def shuffled(tables: Tables, seed: int) -> Tables:
    names = ("manifest", "features", "groups", "embeddings", "predictions")
    mixed = {
        name: getattr(tables, name).sample(fraction=1, shuffle=True, seed=seed + n) for n, name in enumerate(names)
    }
    return dataclasses.replace(tables, **mixed)


def test_findings_fit_their_schema_and_scores_lie_between_0_and_1(check: Check, seed: int, make_world: World) -> None:
    found = check(make_world(seed), OPTIONS)
    assert validate(found, FINDINGS).height > 0, "the tables hold faults of every kind"
    assert found["score"].is_between(0, 1).all()
    assert found["p_wrong"].drop_nulls().is_between(0, 1).all()
    assert found["reason"].str.len_chars().min() > 10
    assert not found["reason"].str.contains("nan|None|inf ").any()


def test_the_order_of_rows_changes_nothing(check: Check, seed: int, make_world: World) -> None:
    tables = make_world(seed)
    found = check(tables, OPTIONS)
    for turn in range(3):
        assert check(shuffled(tables, 10 * turn), OPTIONS).equals(found)


def test_the_same_tables_give_the_same_findings_and_stay_as_they_were(
    check: Check, seed: int, make_world: World
) -> None:
    tables = make_world(seed)
    first = check(tables, OPTIONS)
    assert check(tables, OPTIONS).equals(first)
    assert check(make_world(seed), OPTIONS).equals(first)
    untouched = make_world(seed)
    for name in ("manifest", "features", "groups", "embeddings", "predictions"):
        assert getattr(tables, name).equals(getattr(untouched, name))


def test_empty_tables_have_no_findings(check: Check, seed: int, make_world: World) -> None:
    tables = make_world(seed)
    nothing = Tables(manifest=tables.manifest.clear())
    assert validate(check(nothing, OPTIONS), FINDINGS).height == 0
    no_rows = {f.name: getattr(tables, f.name) for f in dataclasses.fields(tables)}
    no_rows = {name: value.clear() if isinstance(value, pl.DataFrame) else value for name, value in no_rows.items()}
    assert check(Tables(**no_rows), OPTIONS).height == 0


def test_stages_that_have_not_run_are_no_findings(check: Check, seed: int, make_world: World) -> None:
    tables = make_world(seed)
    only: Any = {"manifest": tables.manifest, "classes": tables.classes}
    for name in ("features", "pairs", "groups", "embeddings", "predictions"):
        found = check(Tables(**only, **{name: getattr(tables, name)}), OPTIONS)
        validate(found, FINDINGS)
    readable = only | {"manifest": tables.manifest.filter(pl.col("status") == "ok")}
    # The same bytes need no stage to be told: under two labels, or in two splits.
    assert set(check(Tables(**readable), OPTIONS)["check"]) <= {"duplicates:conflict", "leakage"}


def test_what_cannot_be_read_is_flagged_as_such_and_as_nothing_else(check: Check, seed: int, make_world: World) -> None:
    tables = make_world(seed)
    broken = tables.manifest.filter(pl.col("status") != "ok")
    assert broken.height > 5
    found = check(tables, OPTIONS)
    told = found.join(broken, on="path", how="semi")
    wanted = sorted(broken["path"]) if check is quality.check else []
    assert sorted(told["path"]) == wanted
    assert set(told["check"]) <= {"quality:unreadable"}
    for path in broken["path"]:
        assert not (found["suggestion"] == path).any()
        assert not found["reason"].str.contains(path.rpartition("/")[2], literal=True).any()


def test_nothing_of_the_trusted_holdout_is_judged(check: Check, seed: int, make_world: World) -> None:
    tables = make_world(seed)
    held = tables.manifest.filter((pl.col("split") == HOLDOUT) & (pl.col("status") == "ok"))
    assert held.height > 3
    assert check(tables, OPTIONS).join(held, on="path", how="semi").height == 0


def test_images_without_a_label_are_never_told_that_it_is_wrong(check: Check, seed: int, make_world: World) -> None:
    tables = make_world(seed)
    nameless = tables.manifest.filter(pl.col("label").is_null())
    assert nameless.height > 3
    assert check(tables, OPTIONS).join(nameless, on="path", how="semi")["p_wrong"].null_count() == len(
        check(tables, OPTIONS).join(nameless, on="path", how="semi")
    )


def test_rows_that_the_manifest_no_longer_has_are_not_flagged(check: Check, seed: int, make_world: World) -> None:
    tables = make_world(seed)
    fewer = dataclasses.replace(tables, manifest=tables.manifest.head(40))
    found = check(fewer, OPTIONS)
    assert set(found["path"]) <= set(fewer.manifest["path"])
    assert set(found["suggestion"].drop_nulls()) <= {*fewer.manifest["path"], *tables.classes}


def test_findings_do_not_change_when_images_are_renamed_in_the_same_order(
    check: Check, seed: int, make_world: World
) -> None:
    """No check may look into a path."""
    tables = make_world(seed)

    def renamed(table: pl.DataFrame) -> pl.DataFrame:
        columns = [name for name in ("path", "representative", "suggestion") if name in table.columns]
        return table.with_columns(pl.col(columns).str.replace("images/", "other/place/", literal=True))

    moved = {f.name: getattr(tables, f.name) for f in dataclasses.fields(tables)}
    moved = {name: renamed(value) if isinstance(value, pl.DataFrame) else value for name, value in moved.items()}
    found = check(Tables(**moved), OPTIONS)
    wanted = renamed(check(tables, OPTIONS)).with_columns(pl.col("reason").str.replace_all("images/", "other/place/"))
    assert found.equals(wanted)
