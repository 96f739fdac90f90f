from __future__ import annotations

from itertools import combinations
from typing import Any

import polars as pl
import pytest

from curate.checks import Tables
from curate.checks.leakage import LEAKAGE, check
from curate.config import ChecksSpec
from curate.schema import PAIRS


def leaks(manifest_of: Any, splits: dict[str, str | None], **changed: dict[str, Any]) -> list[tuple[Any, ...]]:
    """(path, what it leaks into) of one group with these splits."""
    manifest = manifest_of([{"path": p, "split": split} | changed.get(p, {}) for p, split in splits.items()])
    rows = [(p, q, 1, 0.95, False, False) for p, q in combinations(splits, 2)]
    table = check(Tables(manifest=manifest, pairs=pl.DataFrame(rows, PAIRS.columns, orient="row")), ChecksSpec())
    assert set(table["check"]) <= {LEAKAGE}
    return table.select("path", "suggestion").rows()


@pytest.mark.parametrize(
    ("splits", "wanted"),
    [
        ({"a": None, "b": None}, []),
        ({"a": None, "b": "train"}, []),
        ({"a": "holdout", "b": "holdout"}, []),
        ({"a": None, "b": "holdout"}, [("a", "b")]),
        ({"a": "train", "b": "holdout", "c": "valid", "d": "holdout"}, [("a", "b"), ("c", "b")]),
        ({"a": "train", "b": "train", "c": "valid"}, [("a", "c"), ("b", "c")]),
        ({"a": None, "b": "test", "c": "train"}, [("a", "b"), ("c", "b")]),
        ({"a": "valid", "b": "test"}, [("a", "b")]),
    ],
)
def test_what_is_also_in_a_split_that_is_measured_on_is_told(
    splits: dict[str, str | None], wanted: list[tuple[str, str]], manifest_of: Any
) -> None:
    assert leaks(manifest_of, splits) == wanted
    assert leaks(manifest_of, dict(reversed(splits.items()))) == wanted


def test_what_cannot_be_read_leaks_nothing(manifest_of: Any) -> None:
    assert leaks(manifest_of, {"a": None, "b": "holdout"}, b={"status": "missing"}) == []
    assert leaks(manifest_of, {"a": None, "b": "holdout"}, a={"status": "unreadable"}) == []


def test_the_same_bytes_leak_and_what_is_two_pairs_away_does_not(manifest_of: Any) -> None:
    manifest = manifest_of([
        {"path": "a", "sha256": "1", "split": "holdout"}, {"path": "b", "sha256": "1"}, {"path": "c"}, {"path": "d"},
    ])  # fmt: skip
    pairs = pl.DataFrame([("b", "c", 1, 0.95, False, False), ("c", "d", 1, 0.95, False, False)], PAIRS.columns,
                         orient="row")  # fmt: skip
    found = check(Tables(manifest=manifest, pairs=pairs), ChecksSpec())
    assert found.select("path", "suggestion").rows() == [("b", "a"), ("c", "a")]
