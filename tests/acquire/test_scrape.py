from __future__ import annotations

import _thread
import hashlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from curate.acquire import addresses, store
from curate.acquire.engines import baidu
from curate.acquire.fetch import Fetched, Fetcher
from curate.errors import InputError
from curate.manifest import scan

# The types of the fixtures live in conftest.py, which cannot be imported: Any stands for FaultServer and Scraping.


def without_time(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "at"} for line in lines]


# -- one address


def test_a_kept_image_is_named_by_its_content_and_told_in_full(server: Any, scraping: Any, make_picture: Any) -> None:
    body = make_picture(1, format="PNG")
    url = server.fixed("/img/1.jpg", body, kind="image/jpeg")
    data = scraping().lists(url)
    summary = data.run()
    sha = hashlib.sha256(body).hexdigest()
    path = f"images/scraped/a/{sha[:16]}.png"
    assert data.workspace.image(path).read_bytes() == body
    (line,) = data.attempts
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "v": 1, "kind": "image", "origin": "scraped", "engine": "urls", "query": "", "label": "a", "page_url": "",
        "rank": 0, "title": "", "thumbnail": "", "url": url, "final_url": url, "http_status": 200,
        "content_type": "image/jpeg", "bytes": len(body), "sha256": sha, "path": path, "outcome": "kept",
        "reason": None, "detail": None, "width": 64, "height": 48, "license": None,
    }  # fmt: skip
    assert (summary.asked, summary.new, summary.kept) == (1, 1, {"a": 1})


def test_the_user_agent_names_the_tool_and_the_operator(server: Any, scraping: Any, make_picture: Any) -> None:
    data = scraping(more='operator = "mail@example.org"').lists(server.fixed("/img/1", make_picture()))
    data.run()
    (agent,) = server.agents
    assert agent.startswith("curate/")
    assert "mail@example.org" in agent


def _to(place: str) -> Callable[[Any], None]:
    return lambda handler: handler.reply(302, b"", "", Location=place)


# -- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "100.100.100.200", "168.63.129.16", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0",
        "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::1",
        "64:ff9b::a00:1", "2001:db8::1", "192.88.99.1", "198.18.0.1", "203.0.113.9", "192.0.2.1",
        # IPv6 in all the forms that carry, or lead to, an IPv4 address; and blocks that nobody routes
        "64:ff9b:1::a00:1", "64:ff9b:1::808:808", "::ffff:0:10.0.0.1", "::ffff:0:8.8.8.8", "::10.0.0.1", "::8.8.8.8",
        "::ffff:8.8.8.8", "fec0::1", "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:8.8.8.8", "3fff::1", "5f00::1",
        "2002:808:808::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:10::1", "100::1", "4000::1",
    ],
)  # fmt: skip
def test_what_is_not_public(address: str) -> None:
    assert addresses.why_not_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "2a00:1450::1", "64:ff9b::808:808"])
def test_what_is_public(address: str) -> None:
    assert addresses.why_not_public(address) is None


def test_private_addresses_are_refused_until_they_are_allowed(server: Any, scraping: Any, make_picture: Any) -> None:
    url = server.fixed("/img/1", make_picture())
    data = scraping().lists(url, url.replace("127.0.0.1", "localhost"))
    data.change("allow_private_hosts = true", "allow_private_hosts = false")
    data.run()
    assert [(line["outcome"], line["reason"]) for line in data.attempts] == [("rejected", "private_address")] * 2
    assert "loopback" in data.attempts[0]["detail"]
    data.run()
    assert len(data.attempts) == 3  # what a name stands for can change, a number cannot
    assert not server.asked
    data.change("allow_private_hosts = false", "allow_private_hosts = true")
    data.run()
    assert [line["outcome"] for line in data.attempts[3:]] == ["kept", "known"]


def test_a_redirect_to_a_private_address_is_refused(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "why_not_public", lambda a: None if a == "127.0.0.1" else "private")
    server.fixed("/img/secret", make_picture())
    server.routes["/img/moved"] = _to(f"http://127.0.0.2:{server.server_port}/img/secret")
    data = scraping().lists(server.base + "/img/moved")
    data.change("allow_private_hosts = true", "allow_private_hosts = false")
    data.run()
    (line,) = data.attempts
    assert (line["outcome"], line["reason"]) == ("rejected", "private_address")
    assert "127.0.0.2" in line["final_url"]
    assert not server.asked["/img/secret"]


# -- robots.txt


def test_robots_is_asked_once_per_host_and_may_be_switched_off(server: Any, scraping: Any, make_picture: Any) -> None:
    server.fixed("/robots.txt", b"User-agent: *\nDisallow: /img/no\n", kind="text/plain")
    listed = [server.fixed(f"/img/{name}", make_picture(n)) for n, name in enumerate(["yes", "no", "yes2"])]
    data = scraping().lists(*listed)
    data.run()
    assert [line["reason"] for line in data.attempts] == [None, "robots", None]
    assert server.asked["/robots.txt"] == 1
    data.change("retries = 1", "retries = 1\nrespect_robots = false")
    data.run()
    assert [line["outcome"] for line in data.attempts] == ["kept", "rejected", "kept", "kept"]
    assert server.asked["/robots.txt"] == 1


def test_a_host_that_cannot_say_its_rules_is_left_for_later(server: Any, scraping: Any, make_picture: Any) -> None:
    server.fixed("/robots.txt", b"", 500)
    data = scraping(more="").lists(server.fixed("/img/1", make_picture()))
    data.change("retries = 1", "retries = 0")
    data.run()
    server.routes.pop("/robots.txt")
    data.run()
    assert [(line["outcome"], line["reason"]) for line in data.attempts] == [
        ("failed", "robots_unavailable"), ("kept", None),
    ]  # fmt: skip


def test_pauses_are_kept(server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(Fetcher, "_wait", lambda _, seconds: pauses.append(max(0.0, seconds)))
    server.fixed("/robots.txt", b"User-agent: *\nCrawl-delay: 100\n", kind="text/plain")
    listed = [server.fixed(f"/img/{n}", make_picture(n)) for n in range(2)]
    server.routes["/img/later"] = lambda h: h.reply(503, b"", Retry_After="20")
    data = scraping(more="threads = 1").lists(*listed, server.base + "/img/later")
    data.run()
    # robots.txt and the first image at once; then 30 s apart, which is as long as any pause gets, which
    # is longer than the Retry-After.
    assert [round(p, -1) for p in pauses] == [0, 0, 30, 60, 90]


def test_robots_txt_of_another_tool_is_not_ours(server: Any, scraping: Any, make_picture: Any) -> None:
    server.fixed("/robots.txt", b"User-agent: Googlebot\nDisallow: /\n", kind="text/plain")
    data = scraping().lists(server.fixed("/img/1", make_picture()))
    data.run()
    assert data.attempts[0]["outcome"] == "kept"


# -- going on


def test_lines_that_are_not_understood_do_no_harm(server: Any, scraping: Any, make_picture: Any) -> None:
    data = scraping().lists(server.fixed("/img/1", make_picture()))
    data.workspace.sources.write_text(
        '{"v":1,"kind":"image","origin":"scraped"}\n{"v":1,"kind":"note"}\n[]\n{"v":1,"kind":"image","orig'
    )
    data.run()
    assert data.lines[-1]["outcome"] == "kept"


def test_a_second_run_asks_only_for_what_may_have_changed(server: Any, scraping: Any, make_picture: Any) -> None:
    kept = server.fixed("/img/1", make_picture(1))
    server.fixed("/img/fails", b"", 500)
    data = scraping().lists(
        kept, server.base + "/img/404", server.base + "/img/fails", server.fixed("/img/text", b"some text")
    )
    data.run()
    before = dict(server.asked)
    server.fixed("/img/fails", make_picture(2))
    data.run()
    asked = {path: n - before.get(path, 0) for path, n in server.asked.items() if path.startswith("/img")}
    assert asked == {"/img/1": 0, "/img/404": 0, "/img/text": 0, "/img/fails": 1}
    assert len(data.files) == 2
    before = dict(server.asked)
    lines = len(data.attempts)
    summary = data.run()
    assert dict(server.asked) == before
    assert (len(data.attempts), summary.asked, summary.kept) == (lines, 0, {"a": 2})


def test_refresh_asks_again_and_changes_nothing_that_is_the_same(server: Any, scraping: Any, make_picture: Any) -> None:
    data = scraping().lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(3)))
    data.run()
    files = {f: data.workspace.image("images/" + f).stat().st_ino for f in data.files}
    server.fixed("/img/1", make_picture(9))
    summary = data.run(refresh=True)
    assert server.images_asked() == 6
    assert [line["outcome"] for line in data.attempts] == ["kept"] * 3 + ["known", "kept", "known"]
    assert {f: data.workspace.image("images/" + f).stat().st_ino for f in data.files}.items() > files.items()
    assert summary.kept == {"a": 4}


def test_a_file_that_was_lost_is_obtained_again(server: Any, scraping: Any, make_picture: Any) -> None:
    data = scraping().lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(2)))
    data.run()
    before = data.files
    data.workspace.image("images/" + before[0]).unlink()
    data.run()
    assert data.files == before
    assert server.images_asked() == 3


@pytest.mark.parametrize("threads", [1, 8])
def test_the_limit_means_kept_images_and_nothing_is_asked_beyond_it(
    server: Any, scraping: Any, make_picture: Any, threads: int
) -> None:
    listed = []
    for n in range(40):
        good = n % 4 != 1
        listed.append(server.fixed(f"/img/{n}", make_picture(n if n % 4 != 2 else n - 2) if good else b"no picture"))
    data = scraping(more=f"threads = {threads}").lists(*listed)
    summary = data.run(limit=7)
    assert len(data.files) == 7 == summary.kept["a"]
    assert server.images_asked() == len(data.attempts) == 13  # 0 0 x 3, 4 4 x 7, 8 8 x 11, 12
    data.run(limit=7)
    assert server.images_asked() == 13
    data.run(limit=8)
    assert len(data.files) == 8
    assert server.images_asked() == 16


def test_the_record_does_not_depend_on_which_thread_is_faster(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [server.fixed(f"/img/{n}", make_picture(n % 17) if n % 5 else b"<html>") for n in range(60)]
    slow = random.Random(3)
    original = Fetcher.image

    def delayed(self: Fetcher, url: str) -> Fetched:
        time.sleep(slow.random() / 50)
        return original(self, url)

    monkeypatch.setattr(Fetcher, "image", delayed)
    records = []
    for name, threads in (("one", 1), ("many", 8), ("again", 8)):
        data = scraping(name, more=f"threads = {threads}").lists(*listed)
        data.run(limit=15)
        records.append(without_time(data.lines))
        assert not [f for f in data.files if ".tmp" in f]
    assert records[0] == records[1] == records[2]
    assert sum(line["outcome"] == "kept" for line in records[0]) == 15


def test_names_grow_where_two_digests_begin_alike(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "NAME_LENGTHS", (1, 64))
    data = scraping().lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(40)))
    data.run()
    assert len(data.files) == 40 == len(set(data.files))
    for line in data.attempts:
        body = data.workspace.image(line["path"]).read_bytes()
        assert hashlib.sha256(body).hexdigest() == line["sha256"]
    data.run(refresh=True)
    assert len(data.files) == 40


def test_the_same_bytes_are_kept_once_for_each_class(server: Any, scraping: Any, make_picture: Any) -> None:
    one, two = server.fixed("/img/1", make_picture(1)), server.fixed("/img/2", make_picture(1))
    data = scraping(classes='[[classes]]\nname = "a"\n[[classes]]\nname = "b"')
    data.lists("url,label", f"{one},a", f"{two},b", f"{two},a", f"{two},b")
    data.run()
    assert [(line["label"], line["outcome"]) for line in data.attempts] == [
        ("a", "kept"),
        ("a", "known"),
        ("b", "kept"),
    ]
    assert len(data.files) == 2
    assert scan(data.workspace)["source"].to_list() == [one, two]


# -- interruptions


def test_ctrl_c_records_what_is_done_and_the_next_run_goes_on(server: Any, scraping: Any, make_picture: Any) -> None:
    def later(n: int) -> str:
        body = make_picture(n)
        server.routes[f"/img/{n}"] = lambda handler: (time.sleep(0.03), handler.reply(200, body))
        return f"{server.base}/img/{n}"

    listed = [later(n) for n in range(80)]
    whole = scraping("whole").lists(*listed)
    whole.run()
    data = scraping("torn").lists(*listed)
    events: list[dict[str, Any]] = []

    def stop_at_ten(event: dict[str, Any]) -> None:
        events.append(event)
        if len(events) == 10:
            _thread.interrupt_main()

    # Started in the background, a process ignores SIGINT; this test is about one that does not.
    before_handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            data.run(progress=stop_at_ten)
    finally:
        signal.signal(signal.SIGINT, before_handler)
    done = len(data.attempts)
    assert not [f for f in data.files if ".tmp" in f]
    assert 10 <= done == len(data.files) == len(events) < 80
    assert without_time(data.attempts) == without_time(whole.attempts)[:done]
    before = server.images_asked()
    data.run()
    assert server.images_asked() - before == 80 - done
    assert without_time(data.attempts) == without_time(whole.attempts)


def test_a_full_disk_ends_the_run_with_its_reason(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curate.acquire import download

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    data = scraping().lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(9)))
    monkeypatch.setattr(download, "stage", full)
    with pytest.raises(OSError, match="No space"):
        data.run()
    assert data.attempts == []
    monkeypatch.undo()
    monkeypatch.setenv("CURATE_HOME", str(data.workspace.root.parent.parent))
    data.run()
    assert len(data.files) == 9


# -- engines


ENGINES = """
[[classes]]
name = "a"
queries = ["one", "two"]
"""


@pytest.fixture
def searching(server: Any, scraping: Any) -> Any:
    """A data set that asks two engines of the fault server."""
    data = scraping(classes=ENGINES)
    data.change('engines = ["urls"]', 'engines = ["google", "baidu"]')
    data.change('urls = "list.txt"', f'google = "{server.base}/g"\nbaidu = "{server.base}/b"')
    return data


def acjson(*urls: str) -> bytes:
    import json

    return json.dumps({"data": [*({"objURL": baidu.encode_url(u)} for u in urls), {}]}).encode()


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b'<form id="captcha-form">unusual traffic</form>', 200, "blocked"),
        (b"slow down", 429, "blocked"),
        (b"<html>nothing known</html>", 200, "changed"),
        (b"did not match any image results", 200, "no_results"),
        (b"", 500, "unreachable"),
    ],
)
def test_a_dead_engine_is_told_and_does_not_stop_the_others(
    server: Any, searching: Any, make_picture: Any, body: bytes, status: int, kind: str
) -> None:
    server.fixed("/g", body, status, "text/html", Retry_After="0")
    url = server.fixed("/img/1", make_picture())
    server.routes["/b"] = lambda h: h.reply(200, acjson(url) if "pn=0" in h.path else acjson(), "application/json")
    summary = searching.run()
    pages = 2 if kind == "unreachable" else 1
    assert [(y.engine, y.query, dict(y.answers)) for y in summary.yields] == [
        ("google", "one", {kind: pages}), ("baidu", "one", {"no_results": 1, "results": 1}),
        ("google", "two", {kind: pages}), ("baidu", "two", {"no_results": 1, "results": 1}),
    ]  # fmt: skip
    assert len(searching.files) == 1
    assert len(summary.advice) == 1
    assert summary.advice[0].startswith("Google")
    queries = [line for line in searching.lines if line["kind"] == "query"]
    assert queries[0].keys() == {
        "v", "kind", "at", "engine", "query", "label", "url", "page", "outcome", "hits", "detail",
    }  # fmt: skip
    assert [line["outcome"] for line in queries if line["engine"] == "google"] == [kind] * 2 * pages


def test_an_engine_that_nobody_answers_for_is_unreachable(searching: Any, server: Any, closed_port: int) -> None:
    searching.change(f"{server.base}/g", f"http://127.0.0.1:{closed_port}/g")
    server.fixed("/b", b'{"antiFlag":1,"message":"Forbid spider access"}')
    summary = searching.run()
    answers = {(y.engine, kind) for y in summary.yields for kind in y.answers}
    assert answers == {("google", "unreachable"), ("baidu", "blocked")}
    details = {line["engine"]: line["detail"] for line in searching.lines}
    assert "connection_refused" in details["google"]
    assert "antiFlag" in details["baidu"]
    assert {text.split()[0] for text in summary.advice} == {"Google", "Baidu"}


def test_an_engine_on_a_private_address_needs_leave(searching: Any, server: Any) -> None:
    searching.change("allow_private_hosts = true", "allow_private_hosts = false")
    searching.run()
    assert all("private_address" in line["detail"] for line in searching.lines)
    assert not server.asked


def test_an_engine_that_repeats_itself_is_not_asked_for_ever(server: Any, searching: Any, make_picture: Any) -> None:
    server.fixed("/b", acjson(server.fixed("/img/1", make_picture())))
    searching.run(engines=["baidu"])
    asked = Counter(line["query"] for line in searching.lines if line["kind"] == "query")
    assert asked == {"one": 2, "two": 2}
    assert server.images_asked() == 1


def test_pages_are_asked_only_as_far_as_they_are_needed(server: Any, searching: Any, make_picture: Any) -> None:
    listed = [server.fixed(f"/img/{n}", make_picture(n)) for n in range(90)]

    def page(handler: Any) -> None:
        start = int(parse_qs(handler.path)["pn"][0])
        handler.reply(200, acjson(*listed[start : start + 30]), "application/json")

    server.routes["/b"] = page
    searching.run(engines=["baidu"], limit=35)
    assert sum(n for path, n in server.asked.items() if path.startswith("/b")) == 2
    assert server.images_asked() == 35
    before = dict(server.asked)
    searching.run(engines=["baidu"], limit=35)
    assert dict(server.asked) == before


def test_text_that_is_no_text_does_no_harm(server: Any, searching: Any, make_picture: Any) -> None:
    url = server.fixed("/img/1", make_picture())
    page = '{"data":[{"objURL":"@@","fromPageTitle":"half \\ud800"},{"objURL":"http://\\udc00/"},{}]}'
    server.fixed("/b", page.replace("@@", url).encode())
    searching.run(engines=["baidu"])
    assert searching.attempts[0]["outcome"] == "kept"
    assert [line["outcome"] for line in searching.attempts] == ["kept", "rejected", "known"]  # it answers both queries
    searching.run(engines=["baidu"])
    assert server.images_asked() == 1


# -- input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engines": ["altavista"]}, "altavista"),
        ({"limit": 0}, "limit"),
        ({"engines": ["google"]}, "no class with queries"),
        ({"engines": ["urls"], "endpoints": {}}, "no list"),
    ],
)
def test_bad_input_is_told_before_anything_is_asked(scraping: Any, options: dict[str, Any], message: str) -> None:
    data = scraping()
    with pytest.raises(InputError, match=message):
        data.run(**options)
    assert data.lines == []


def test_the_spec_is_checked_before_anything_is_asked(scraping: Any, searching: Any) -> None:
    searching.change("retries = 1", 'retries = 1\nfilters = { shape = "round" }')
    with pytest.raises(InputError, match="shape"):
        searching.run()
    two = scraping("two", classes='[[classes]]\nname = "a"\n[[classes]]\nname = "b"').lists("http://a/1")
    with pytest.raises(InputError, match="url,label"):
        two.run()
    demo = scraping("demo", more='endpoints = "demo"')
    text = demo.workspace.spec_path.read_text().partition("[scrape.endpoints]")[0]
    demo.workspace.spec_path.write_text(text)
    with pytest.raises(InputError, match="loopback server"):
        demo.run()


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, curate.acquire, curate.acquire.scrape, curate.acquire.importers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"icrawler", "requests", "urllib3", "bs4", "torch"} & set(done.stdout.split())


def test_a_crawl_leaves_logging_and_threads_as_they_were(server: Any, scraping: Any, make_picture: Any) -> None:
    import logging

    handlers = list(logging.getLogger().handlers)
    scraping().lists(server.fixed("/img/1", make_picture())).run()
    assert logging.getLogger().handlers == handlers
    for thread in threading.enumerate():
        if thread.name.startswith(("feeder", "parser", "downloader")):
            thread.join(10)
            assert not thread.is_alive()
