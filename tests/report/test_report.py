from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import polars as pl
import pytest

from curate import decisions
from curate.budget import UNDECIDED
from curate.dataset import Dataset
from curate.decisions import LABEL, MEMBERSHIP, decide
from curate.errors import StageNotReady
from curate.report.build import counts, read_report, write_report
from curate.report.worth import expectations, verdicts
from curate.resolve import resolve


def written(shapes: Any, **extra: Any) -> tuple[str, dict[str, Any]]:
    view = Dataset(shapes.workspace).clean
    report = write_report(shapes.workspace, view, {}, extra=extra)
    return report.page.read_text(encoding="utf-8"), json.loads(report.json.read_text(encoding="utf-8"))


class _Parser(HTMLParser):
    """Notes every address that the page would ask for, and every script."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.addresses += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href"}]


def test_page_asks_for_nothing_and_runs_nothing(shapes: Any) -> None:
    page, _ = written(shapes)
    parser = _Parser()
    parser.feed(page)
    assert parser.scripts == 0
    assert any(address.startswith("data:image/jpeg;base64,") for address in parser.addresses)
    assert [a for a in parser.addresses if not a.startswith(("data:", "#"))] == []
    assert "@import" not in page
    assert not re.search(r"url\(\s*['\"]?http", page)


def test_what_others_wrote_is_shown_as_text(shapes: Any) -> None:
    evil = "<img src=x onerror=alert(1)>"
    findings = shapes.findings.with_columns(reason=pl.lit(evil))
    shapes.workspace.write_table("findings", findings)
    page, _ = written(shapes)
    assert evil not in page
    assert "&lt;img src=x" in page


def test_images_add_up_and_decisions_show(shapes: Any) -> None:
    decide(shapes.workspace.decisions, shapes.manifest, [
        ("images/scraped/circle/03.png", LABEL, "square"),
        ("images/scraped/circle/05.png", MEMBERSHIP, "out"),
        ("images/scraped/square/05.png", MEMBERSHIP, {"in_favour_of": "images/scraped/square/04.png"}),
    ])  # fmt: skip
    page, data = written(shapes)
    told = data["counts"]
    assert (told["obtained"], told["exported"], told["relabelled"]) == (12, 9, 1)
    # The relabelled circle has the bytes of square/03.png: they are one image now, the first by path.
    assert told["out_why"] == {"dropped": 1, "duplicate": 1, "same_bytes": 1}
    assert told["decisions"] == {"label": 1, "membership": 2}
    assert "relabelled to square" in page


def test_images_that_are_gone_are_not_counted_as_obtained(shapes: Any) -> None:
    manifest = shapes.manifest.with_columns(
        status=pl.when(pl.col("path") == "images/scraped/circle/03.png").then(pl.lit("missing")).otherwise("status")
    )
    shapes.workspace.write_table("manifest", manifest)
    view = resolve(manifest, decisions.read(shapes.workspace.decisions))
    told = counts(shapes.workspace, view)
    assert (told["obtained"], told["gone"]) == (11, 1)
    assert told["obtained"] == told["exported"] + sum(told["out_why"].values())


def test_verdict_on_an_image_is_whether_an_error_was_found(shapes: Any) -> None:
    decide(shapes.workspace.decisions, shapes.manifest, [
        ("images/scraped/circle/03.png", LABEL, "square"),
        ("images/scraped/circle/05.png", MEMBERSHIP, "in"),
        ("images/scraped/square/00.png", "finding:label_error", "dismissed"),
        ("images/scraped/square/05.png", MEMBERSHIP, {"in_favour_of": "images/scraped/square/04.png"}),
    ])  # fmt: skip
    view = Dataset(shapes.workspace).clean
    told = dict(zip(shapes.queue["path"].to_list(), verdicts(shapes.queue, view).tolist(), strict=True))
    assert told["images/scraped/circle/03.png"] == 1
    assert told["images/scraped/circle/05.png"] == 0
    assert told["images/scraped/square/00.png"] == 0
    assert told["images/scraped/square/05.png"] == UNDECIDED  # a duplicate is no error of its label


def test_expected_errors_count_what_was_found_as_found(shapes: Any) -> None:
    decide(shapes.workspace.decisions, shapes.manifest, [("images/scraped/circle/03.png", LABEL, "square")])
    queue = shapes.queue.with_columns(p_wrong=pl.lit(0.3), worth=pl.lit(0.3))
    told = expectations(queue, Dataset(shapes.workspace).clean)
    assert told is not None
    _, after, reviewed = told
    assert (reviewed, after.first) == (1, 1.0)
    assert 0 < after.beyond < queue.height - 1
    assert np.all((after.p_wrong >= 0) & (after.p_wrong <= 1))


def test_report_of_a_data_set_without_an_audit_says_what_there_is(shapes: Any) -> None:
    for table in ("findings", "queue", "predictions"):
        shapes.workspace.table_path(table).unlink(missing_ok=True)
    page, data = written(shapes)
    assert data["accuracy"] is None
    assert data["budget"] is None
    assert "Did it get better?" not in page
    assert "Where the images went" in page


def test_no_report_yet_is_told(shapes: Any) -> None:
    with pytest.raises(StageNotReady, match="curate report"):
        read_report(shapes.workspace)
