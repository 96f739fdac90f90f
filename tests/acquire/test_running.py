"""Scraping as people run it: budgets, dry runs, what is shown, and two runs at once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from filelock import FileLock

from curate.acquire.allowance import Allowance
from curate.acquire.engines import baidu, filters_of
from curate.cli import main
from curate.config import ScrapeSpec, parse_spec
from curate.dataset import open_dataset
from curate.scraping_view import Figures, yield_lines


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return int(left.value.code or 0)


def test_the_budget_of_bytes_ends_a_run_and_the_next_goes_on(server: Any, scraping: Any, make_picture: Any) -> None:
    body = make_picture(1)
    listed = [server.fixed(f"/img/{n}", make_picture(n)) for n in range(40)]
    data = scraping(more=f"threads = 1\nmax_total_bytes = {5 * len(body)}").lists(*listed)
    summary = data.run()
    assert "max_total_bytes" in summary.stopped
    assert any("max_total_bytes" in text for text in summary.advice)
    assert 4 <= len(data.files) <= 7
    data.change("max_total_bytes", "max_minutes = 10 #")
    assert data.run().stopped == ""
    assert len(data.files) == 40
    assert server.images_asked() == 40


def test_the_budget_of_time_ends_a_run_although_a_site_is_slow(server: Any, scraping: Any, make_picture: Any) -> None:
    server.routes["/img/slow"] = lambda handler: (time.sleep(1), handler.reply(200, make_picture(1)))
    data = scraping(more="threads = 1\nmax_minutes = 0.005")
    data.lists(*(f"{server.base}/img/slow?{n}" for n in range(50)))
    summary = data.run()
    assert "max_minutes" in summary.stopped
    assert len(data.attempts) <= 2


def test_an_allowance_without_bounds_is_never_used_up() -> None:
    allowance = Allowance(ScrapeSpec())
    allowance.spend(10**15)
    assert allowance.used_up == ""


@pytest.fixture
def searching(server: Any, scraping: Any, make_picture: Any) -> Any:
    """Two engines and two queries; Google is blocked, Baidu has four images, one of them gone."""
    data = scraping(classes='[[classes]]\nname = "a"\nqueries = ["one", "两"]')
    data.change('engines = ["urls"]', 'engines = ["google", "baidu"]')
    data.change('urls = "list.txt"', f'google = "{server.base}/g"\nbaidu = "{server.base}/b"')
    server.fixed("/g", b'<form id="captcha-form">', 200, "text/html")
    urls = [server.fixed(f"/img/{n}", make_picture(n)) for n in range(3)] + [server.base + "/img/gone"]
    page = json.dumps({"data": [*({"objURL": baidu.encode_url(u)} for u in urls), {}]}).encode()
    server.routes["/b"] = lambda h: h.reply(200, page if "pn=0" in h.path else b'{"data":[{}]}', "application/json")
    return data


def test_a_dry_run_lists_what_would_be_fetched_and_writes_nothing(
    server: Any, searching: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = searching.workspace.root
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    assert run("scrape", root, "--dry-run", "--limit", "2") == 0
    out = capsys.readouterr().out
    assert [line.split("\t") for line in out.splitlines()[:2]] == [
        ["a", "baidu", "one", f"{server.base}/img/0"], ["a", "baidu", "one", f"{server.base}/img/1"],
    ]  # fmt: skip
    assert "2 addresses" in out
    assert "Google refuses" in out
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    assert server.images_asked() == 0
    searching.run()
    assert run("scrape", root, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["planned"] == []  # all is settled


def test_the_summary_and_the_status_tell_engine_query_and_class(
    searching: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    root = searching.workspace.root
    assert run("scrape", root) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split() == [
        "engine", "query", "class", "asked", "fetched", "kept", "known", "rejected", "failed", "answers",
    ]  # fmt: skip
    assert lines[1].split()[:3] == ["google", "one", "a"]
    assert lines[2].split() == ["baidu", "one", "a", "4", "3", "3", "0", "-", "1", "http_404", "2:", "1",
                                "no_results,", "1", "results"]  # fmt: skip
    assert "Google refuses automatic queries" in shown.out
    assert "scrape: a: found 4, asked 4, fetched 3, kept 3 of 300, rejected 0, failed 1" in shown.err
    assert run("status", root, "--json") == 0
    told = json.loads(capsys.readouterr().out)["scraped"]
    assert [(y["engine"], y["query"], y["kept"], y["fetched"]) for y in told] == [
        ("google", "one", 0, 0), ("baidu", "one", 3, 3), ("google", "两", 0, 0), ("baidu", "两", 0, 0),
    ]  # fmt: skip
    assert run("status", root) == 0
    assert "1 blocked" in capsys.readouterr().out


def test_a_second_run_at_once_is_told_who_holds_the_lock(searching: Any, capsys: pytest.CaptureFixture[str]) -> None:
    root: Path = searching.workspace.root
    with FileLock(root / ".stage.lock"):
        (root / ".stage.owner").write_text(f"scrape, process {os.getpid()} on here, since now")
        assert run("scrape", root) == 2
    assert f"process {os.getpid()}" in capsys.readouterr().err


def test_one_dead_page_does_not_stop_the_next(server: Any, searching: Any, make_picture: Any) -> None:
    searching.change("retries = 1", "retries = 0")

    def page(handler: Any) -> None:
        number = int(parse_qs(handler.path)["pn"][0]) // 30
        if number in {0, 2}:
            url = server.fixed(f"/img/p{number}", make_picture(50 + number))
            handler.reply(200, json.dumps({"data": [{"objURL": baidu.encode_url(url)}, {}]}).encode())
        else:
            handler.reply(500, b"")

    server.routes["/b"] = page
    summary = searching.run(engines=["baidu"])
    assert len(searching.files) == 2
    assert dict(summary.yields[0].answers) == {"results": 2, "unreachable": 3}  # pages 1, then 3 and 4


def test_pages_that_come_slowly_do_not_make_the_downloaders_quit(
    server: Any, searching: Any, make_picture: Any
) -> None:
    def page(handler: Any) -> None:
        number = int(parse_qs(handler.path)["pn"][0]) // 30
        if number:
            time.sleep(5.5)  # icrawler's own give up after 5
        found = [{"objURL": baidu.encode_url(server.fixed(f"/img/s{number}", make_picture(60 + number)))}]
        handler.reply(200, json.dumps({"data": [*found * (number < 2), {}]}).encode(), "application/json")

    server.routes["/b"] = page
    searching.change("timeout = 5", "timeout = 20")
    searching.run(engines=["baidu"], limit=2)
    assert len(searching.files) == 2


def test_tables_are_aligned_by_what_is_seen() -> None:
    counts = {"asked": 12, "fetched": 10, "kept": 9, "known": 1, "failed": {}, "answers": {"results": 1}}
    rows = [
        {"engine": "baidu", "query": "楷书", "label": "a", "rejected": {"html": 1, "too_small": 2}, **counts},
        {"engine": "urls", "query": "", "label": "b", "rejected": {}, **counts},
    ]
    assert yield_lines(rows) == [
        "engine  query  class  asked  fetched  kept  known  rejected                failed  answers",
        "baidu   楷书   a         12       10     9      1  3: 2 too_small, 1 html  -       1 results",
        "urls    -      b         12       10     9      1  -                       -       1 results",
    ]


def test_figures_say_how_fast() -> None:
    times = iter([0.0, 4.0])
    figures = Figures(clock=lambda: next(times))
    event = {"label": "a", "found": 9, "fetched": 5, "kept": 3, "limit": 5, "rejected": 1, "failed": 0}
    figures.take(event | {"asked": 1})
    figures.take(event | {"asked": 8})
    assert figures.line("a") == "scrape: a: found 9, asked 8, fetched 5, kept 3 of 5, rejected 1, failed 0, 2/s"


def test_the_spec_that_the_readme_shows_is_one() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (shown,) = [block for block in re.findall(r"```toml\n(.*?)```", readme, re.DOTALL) if "[scrape]" in block]
    spec = parse_spec(shown).scrape
    for name in spec.engines:
        filters_of(name, spec.filters)


# -- `curate run`


def test_a_list_that_grew_is_scraped_again_and_one_that_did_not_is_not(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    listed = [server.fixed(f"/img/{n}", make_picture(n)) for n in range(4)]
    data = scraping().lists(*listed[:2])
    dataset = open_dataset(str(data.workspace.root))
    assert not dataset.scrape(force=False)[0].skipped
    assert dataset.scrape(force=False)[0].skipped
    data.lists(*listed)
    record, _ = dataset.scrape(force=False)
    assert (record.skipped, record.facts["kept"]) == (False, {"a": 4})


@pytest.mark.parametrize(("status", "again"), [(500, True), (404, False)])
def test_what_may_pass_is_tried_again_until_the_limit_is_reached(
    server: Any, scraping: Any, make_picture: Any, status: int, again: bool
) -> None:
    good = server.fixed("/img/1", make_picture(1))
    bad = server.fixed("/img/2", b"", status)
    data = scraping().lists(good, bad)
    data.change("retries = 1", "retries = 0")
    dataset = open_dataset(str(data.workspace.root))
    assert dataset.scrape(force=False)[0].facts["unfinished"] is again
    assert dataset.scrape(force=False)[0].skipped is not again
    data.change("retries = 0", "retries = 0\nlimit = 1")
    dataset.scrape(force=False)
    assert dataset.scrape(force=False)[0].skipped


def test_an_engine_that_refused_is_asked_again(searching: Any) -> None:
    dataset = open_dataset(str(searching.workspace.root))
    assert dataset.scrape(force=False)[0].facts["unfinished"]
    assert not dataset.scrape(force=False)[0].skipped


def test_a_data_set_of_a_list_alone_is_scraped_by_run(server: Any, scraping: Any, make_picture: Any) -> None:
    data = scraping().lists(server.fixed("/img/1", make_picture(1)))
    done: list[str] = []

    def first(record: Any) -> None:
        done.append(record.stage)
        raise StopIteration

    with pytest.raises(StopIteration):
        open_dataset(str(data.workspace.root)).run(done=first)
    assert done == ["scrape"]
    assert len(data.files) == 1


# -- what others wrote, on a terminal


def test_control_characters_of_others_are_shown_and_not_done(
    server: Any, searching: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "http://x/\x1b]0;title\x07\x1b[2J\n/\x9b31m.jpg"
    page = json.dumps({"data": [{"objURL": baidu.encode_url(evil)}, {}]}).encode()
    server.routes["/b"] = lambda h: h.reply(200, page if "pn=0" in h.path else b'{"data":[{}]}', "application/json")
    root = searching.workspace.root
    assert run("scrape", root, "--dry-run", "--engine", "baidu") == 0
    assert run("scrape", root, "--dry-run", "--engine", "baidu", "--json") == 0
    told = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b"} & set(told)
    assert json.loads(told.splitlines()[-1])["planned"][0]["hit"]["url"] == evil
    assert r"\x1b]0;title\x07\x1b[2J\x0a/\x9b31m.jpg" in told
    summary = searching.run(engines=["baidu"])
    assert dict(summary.yields[0].rejected) == {"bad_url": 1}


def test_a_dry_run_keeps_to_the_budgets(server: Any, searching: Any) -> None:
    searching.change("retries = 1", "retries = 1\nmax_total_bytes = 1")
    made = open_dataset(str(searching.workspace.root)).preview(engines=["baidu"])
    assert [answer[1] for answer in made.answers] == ["one"]
    assert any("max_total_bytes" in text for text in made.advice)


# -- advice


@pytest.mark.parametrize(("code", "told"), [(100, True), (96, True), (99, True), (3, False)])
def test_a_key_that_flickr_does_not_take_is_told_as_that(
    server: Any, scraping: Any, monkeypatch: pytest.MonkeyPatch, code: int, told: bool
) -> None:
    monkeypatch.setenv("FLICKR_API_KEY", "wrong")
    server.fixed("/f", json.dumps({"stat": "fail", "code": code, "message": "no"}).encode())
    data = scraping(classes='[[classes]]\nname = "a"\nqueries = ["x"]')
    data.change('urls = "list.txt"', f'flickr = "{server.base}/f"')
    (advice,) = data.run(engines=["flickr"]).advice
    assert ("FLICKR_API_KEY" in advice) is told
    assert open_dataset(str(data.workspace.root)).preview(engines=["flickr"]).advice == (advice,)


def test_a_page_that_nobody_foresaw_is_one_page_s_trouble(server: Any, searching: Any) -> None:
    server.fixed("/b", b"[" * 200_000, 200, "application/json")
    assert [dict(y.answers) for y in searching.run(engines=["baidu"]).yields] == [{"changed": 1}] * 2


def test_a_first_page_that_does_not_come_does_not_end_its_query(server: Any, searching: Any, make_picture: Any) -> None:
    searching.change("retries = 1", "retries = 0")
    found = [{"objURL": baidu.encode_url(server.fixed("/img/70", make_picture(70)))}]

    def page(handler: Any) -> None:
        number = int(parse_qs(handler.path)["pn"][0]) // 30
        handler.reply(500 if number == 0 else 200, json.dumps({"data": [*found * (number < 2), {}]}).encode())

    server.routes["/b"] = page
    summary = searching.run(engines=["baidu"])
    assert dict(summary.yields[0].answers) == {"no_results": 1, "results": 1, "unreachable": 1}
    assert len(searching.files) == 1


SHOWN = """
import sys, time
from curate.scraping_view import live
with live(quiet=False) as watch:
    for label in ("the regular script of the Tang", "b"):
        event = {"label": label, "found": 30, "limit": 300, "rejected": 3, "failed": 0}
        watch(event | {"asked": 1, "fetched": 1, "kept": 1})
        watch(event | {"asked": 20, "fetched": 19, "kept": 17})
    time.sleep(0.6)
"""


@pytest.mark.parametrize(("columns", "named"), [(80, "found"), (40, "kept")])
def test_figures_are_whole_on_a_terminal_however_narrow(columns: int, named: str) -> None:
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    child = subprocess.Popen([sys.executable, "-c", SHOWN], stdin=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # that is how a terminal says that nobody is there any more
        while piece := os.read(terminal, 65536):
            shown += piece
    assert child.wait() == 0
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert named in text
    assert text.count("17/300") >= 2
    assert "…" not in text
    assert "Traceback" not in text
