from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from curate import pipeline
from curate.checks import Tables, base, run_checks
from curate.checks.base import finding, installed, table
from curate.config import ChecksSpec
from curate.errors import CurateError, TableError
from curate.schema import FINDINGS

OPTIONS = ChecksSpec()


def one(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    return table([finding("b", "mine", 0.5, "because"), finding("a", "mine", 0.5, "because", group=3)])


def other(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    return table([finding("a", "less", 0.9, "because"), finding("c", "mine", 0.1, "because", p_wrong=0.3)])


def broken(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    return pl.DataFrame({"path": ["a"]})


def forgetful(tables: Tables, options: ChecksSpec) -> Any:
    return None


@pytest.fixture
def tables(manifest_of: Any) -> Tables:
    return Tables(manifest=manifest_of([{"path": "a"}]))


@pytest.mark.parametrize(("given", "kept"), [(-0.5, 0.0), (0.25, 0.25), (7, 1.0), (float("inf"), 1.0)])
def test_scores_are_kept_between_0_and_1(given: float, kept: float) -> None:
    assert finding("a", "c", given, "r")["score"] == kept


def test_findings_come_by_check_the_worst_first_then_by_path(tables: Tables) -> None:
    found = run_checks([one, other], tables, OPTIONS)
    assert found.select("check", "path").rows() == [("less", "a"), ("mine", "c"), ("mine", "a"), ("mine", "b")]
    assert found.equals(run_checks([other, one], tables, OPTIONS))
    assert run_checks([], tables, OPTIONS).equals(FINDINGS.empty())


def test_a_finding_that_says_the_same_twice_counts_once(tables: Tables) -> None:
    assert run_checks([one, one], tables, OPTIONS).equals(run_checks([one], tables, OPTIONS))


@pytest.mark.parametrize("check", [broken, forgetful])
def test_a_check_that_returns_no_findings_table_is_named(check: Any, tables: Tables) -> None:
    with pytest.raises(CurateError, match=rf"^check .*\.{check.__name__}: ") as caught:
        run_checks([one, check], tables, OPTIONS)
    assert isinstance(caught.value, TableError)


def test_checks_of_installed_packages_are_loaded_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "curate.checks"
    points = [EntryPoint("z", "operator:add", group), EntryPoint("a", "operator:sub", group)]
    monkeypatch.setattr(base, "entry_points", lambda **wanted: points if wanted == {"group": group} else [])
    assert [check.__name__ for check in installed()] == ["sub", "add"]


def test_judged_are_readable_rows_outside_the_holdout(manifest_of: Any) -> None:
    manifest = manifest_of([
        {"path": "a"}, {"path": "b", "split": "holdout"}, {"path": "c", "split": "valid"},
        {"path": "d", "status": "unreadable"}, {"path": "e", "label": None},
    ])  # fmt: skip
    assert Tables(manifest=manifest).judged()["path"].to_list() == ["a", "c", "e"]


def test_titles_are_what_people_read(tables: Tables) -> None:
    named = Tables(manifest=tables.manifest, titles={"a": "a 甲", "b": ""})
    assert [named.title(label) for label in ("a", "b", "c", None)] == ["a 甲", "b", "c", "no label"]


def test_listing_the_checks_changes_no_default(manifest_of: Any, features_of: Any) -> None:
    tables = Tables(manifest=manifest_of([{"path": "a"}]), features=features_of([{"path": "a", "brightness": 0.01}]))
    before = (ChecksSpec().model_dump(), pipeline.CHECKS, run_checks(pipeline.CHECKS, tables, OPTIONS))
    listed = installed()
    listed.append(one)
    after = (ChecksSpec().model_dump(), pipeline.CHECKS, run_checks(pipeline.CHECKS, tables, OPTIONS))
    assert before[:2] == after[:2]
    assert before[2].equals(after[2])
    assert one not in installed()
    with pytest.raises(ValidationError, match="frozen"):
        OPTIONS.dark = 0.5
