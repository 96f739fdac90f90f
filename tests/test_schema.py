from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from curate.errors import TableError
from curate.schema import FINDINGS, GROUPS, MANIFEST, TABLES, TableSchema, validate


def groups(**changed: Any) -> pl.DataFrame:
    columns: dict[str, Any] = {
        "path": ["a", "b"], "group": [0, 0], "kind": ["near", "near"], "representative": ["a", "a"],
        "distance": [0, 3], "similarity": [1.0, 0.95],
    }  # fmt: skip
    return pl.DataFrame(columns, schema=GROUPS.columns).with_columns(**changed)


@pytest.mark.parametrize("schema", TABLES.values(), ids=TABLES.keys())
def test_an_empty_table_is_valid(schema: TableSchema) -> None:
    assert validate(schema.empty(), schema).columns == list(schema.columns)


def test_columns_come_back_in_the_order_of_the_schema() -> None:
    turned = groups().select(list(reversed(GROUPS.columns)))
    assert validate(turned, GROUPS).equals(groups())


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (groups().drop("kind"), r"missing columns \['kind'\]"),
        (groups(extra=pl.lit(1)), r"unknown columns \['extra'\]"),
        (groups(group=pl.lit("0")), "column group is String, not Int64"),
        (groups(distance=pl.col("distance").cast(pl.Int64)), "column distance is Int64, not Int16"),
        (groups(kind=pl.Series(["near", None])), "column kind has 1 missing values"),
        (groups(path=pl.lit("a")), r"1 rows repeat the key \('path',\)"),
    ],
)
def test_what_does_not_fit_is_named(table: pl.DataFrame, told: str) -> None:
    with pytest.raises(TableError, match=rf"^table groups: .*{told}"):
        validate(table, GROUPS)


def test_a_label_may_be_missing_and_a_status_may_not(manifest_of: Any) -> None:
    table = manifest_of([{"path": "a", "label": None}])
    assert validate(table, MANIFEST)["label"].to_list() == [None]
    with pytest.raises(TableError, match="column status has 1 missing"):
        validate(table.with_columns(status=pl.lit(None, dtype=pl.String)), MANIFEST)


def test_findings_without_a_group_repeat_when_path_and_check_do() -> None:
    row = {"path": "a", "check": "c", "score": 0.0, "p_wrong": None, "group": None, "suggestion": None, "reason": "r"}
    one = pl.DataFrame([row], schema=FINDINGS.columns)
    assert validate(pl.concat([one, one.with_columns(group=pl.lit(1, dtype=pl.Int64))]), FINDINGS).height == 2
    with pytest.raises(TableError, match="1 rows repeat the key"):
        validate(pl.concat([one, one.with_columns(reason=pl.lit("another"))]), FINDINGS)
