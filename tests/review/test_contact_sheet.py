"""The page for review without a database."""

from __future__ import annotations

import csv
import re

import polars as pl
import pytest

from curate import decisions
from curate.review import actions
from curate.review.actions import Shown
from curate.review.contact_sheet import write_contact_sheet

C, S = "images/scraped/circle", "images/scraped/square"


def sheet(shapes, **options):
    tables = {"manifest": shapes.manifest, "findings": shapes.findings, "predictions": shapes.predictions}
    log = decisions.read(shapes.workspace.decisions)
    return write_contact_sheet(shapes.workspace, decisions_log=log, **(tables | options))


def test_one_section_a_check_with_picture_reason_and_command(shapes):
    out = sheet(shapes)
    assert out == shapes.workspace.reports / "contact-sheet.html"
    page = out.read_text()
    assert re.findall(r'<h2 id="\d+">(.*)</h2>', page) == [
        "ambiguous", "confident mistake", "duplicates: exact", "label error",
    ]  # fmt: skip
    assert page.count("data:image/jpeg;base64,") == 4
    assert "predicted square at 0.98, labelled circle" in page
    assert f"curate decide shapes --image {C}/03.png --relabel square" in page
    assert f"curate decide shapes --image {S}/05.png --drop" in page
    assert f"curate decide shapes --image {C}/05.png --keep" in page


def test_it_asks_nothing_of_any_network(shapes):
    assert not re.search(r'(src|href)="(?!data:|#)', sheet(shapes).read_text())


def test_decisions_show(shapes):
    actions.relabel(shapes.workspace, [Shown(path=f"{C}/03.png")], "square")
    assert '<span class="chip done">relabelled to square</span>' in sheet(shapes).read_text()


def test_one_check_and_the_worst_alone(shapes, tmp_path):
    many = pl.concat([shapes.findings.filter(pl.col("check") == "ambiguous")] * 3).with_columns(
        path=pl.Series([f"{C}/0{n}.png" for n in range(3)]), score=pl.Series([0.3, 0.1, 0.2])
    )
    page = sheet(shapes, findings=many, check="ambiguous", top=2, out=tmp_path / "a.html").read_text()
    assert re.findall(r'data-path="(.*)"', page) == [f"{C}/01.png", f"{C}/02.png"]
    assert "worst 2 of\n3" in page


@pytest.mark.parametrize("findings", ["none", "empty"])
def test_nothing_found_is_said(shapes, findings):
    page = sheet(shapes, findings=None if findings == "none" else shapes.findings.clear()).read_text()
    assert "Nothing was found" in page


def test_an_image_that_cannot_be_read_says_why(shapes):
    shapes.workspace.image(f"{C}/05.png").write_bytes(b"<html>")
    assert "html" in re.findall(r'<div class="none">(.*)</div>', sheet(shapes).read_text())[0]


def test_names_from_outside_cannot_break_the_page(shapes):
    nasty = '<script>alert("x")</script> $(rm -rf ~)'
    findings = shapes.findings.head(1).with_columns(reason=pl.lit(nasty), suggestion=pl.lit(nasty))
    page = sheet(shapes, findings=findings).read_text()
    assert "<script>alert" not in page
    assert "--relabel &#39;&lt;script&gt;" in page


@pytest.mark.browser
def test_choices_become_a_file_of_decisions(shapes, chromium, tmp_path):
    from playwright.sync_api import sync_playwright

    out = sheet(shapes)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(out.as_uri())
        assert page.locator("#save").is_disabled()
        first = page.locator(f'.card[data-path="{C}/03.png"]').first
        first.get_by_label("drop").check()
        first.get_by_label("relabel to").first.check()
        page.locator(f'.card[data-path="{S}/05.png"]').get_by_label("drop").check()
        assert page.locator("#count").inner_text() == "2 decided"
        with page.expect_download() as download:
            page.locator("#save").click()
        download.value.save_as(tmp_path / "decisions.csv")
        page.screenshot(path=tmp_path / "sheet.png")
        browser.close()
    with (tmp_path / "decisions.csv").open() as stream:
        assert list(csv.DictReader(stream)) == [
            {"path": f"{C}/03.png", "decision": "relabel", "label": "square"},
            {"path": f"{S}/05.png", "decision": "drop", "label": ""},
        ]
