"""Manners towards hosts: pauses that are asked for, requests at once, hosts that do not answer, robots.txt."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

import pytest

from curate.acquire import addresses
from curate.acquire.failures import FetchFailure
from curate.acquire.fetch import Fetcher, _retry_after
from curate.acquire.hosts import Hosts, Place, place_of
from curate.config import ScrapeSpec

HERE = Place(scheme="http", host="a", port=80)


def outcomes(data: Any) -> list[tuple[str, str | None]]:
    return [(line["outcome"], line["reason"]) for line in data.attempts]


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999", "Fri, 31 Dec 9999 23:59:59 -0000", "Mon", "", "²",
        "Mon, 01 Jan 0100 00:00:00 -0000", "Mon, 01 Jan 2024 00:00:99999999999999999999 GMT", "nan", "-5",
    ],
)  # fmt: skip
def test_a_pause_that_is_nonsense_ends_no_run(server: Any, scraping: Any, make_picture: Any, value: str) -> None:
    made = _retry_after(value)
    assert made is None or made >= 0
    server.fixed("/img/bad", b"", 503, Retry_After=value)
    data = scraping().lists(server.base + "/img/bad", server.fixed("/img/1", make_picture(1)))
    data.change("retries = 1", "retries = 0")
    data.run()
    assert outcomes(data)[0] == ("failed", "http_503")
    assert len(data.attempts) == 2


def test_an_error_that_nobody_foresaw_is_one_address_s_and_not_the_run_s(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Fetcher.image

    def broken(self: Fetcher, url: str) -> Any:
        if url.endswith("/1"):
            raise ZeroDivisionError("nobody thought of it")
        return original(self, url)

    monkeypatch.setattr(Fetcher, "image", broken)
    data = scraping().lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(3)))
    data.run()
    assert outcomes(data) == [("kept", None), ("failed", "internal_error"), ("kept", None)]
    assert data.attempts[1]["detail"] == "ZeroDivisionError: nobody thought of it"
    monkeypatch.undo()
    monkeypatch.setenv("CURATE_HOME", str(data.workspace.root.parent.parent))
    data.run()
    assert len(data.files) == 3  # it is asked again


# -- pauses


def test_a_pause_that_is_asked_for_is_one_for_every_thread(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = Hosts(4)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:  # while this thread waits, another one is told to leave the host alone
            hosts.pause(HERE, 20, "http_429")

    with hosts.turn(HERE, 0.0, wait):
        pass
    assert [round(seconds) for seconds in waited] == [0, 20]
    with hosts.turn(HERE, 0.0, wait):
        pass
    assert round(waited[-1]) == 20
    assert hosts.seconds_until_free(HERE) > 19
    assert hosts.seconds_until_free(place_of("http://b/")) == 0


def test_a_host_that_asks_for_a_long_pause_is_left_alone_until_the_next_run(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    server.fixed("/img/0", b"slow down", 429, Retry_After="3600")
    data = scraping(more="threads = 1")
    data.lists(server.base + "/img/0", *(server.fixed(f"/img/{n}", make_picture(n)) for n in range(1, 9)))
    data.run()
    assert server.images_asked() == 1
    assert outcomes(data) == [("failed", "http_429")] + [("failed", "host_paused")] * 8
    assert data.attempts[0]["bytes"] == 9
    assert bytes.fromhex(data.attempts[0]["head"]) == b"slow down"
    server.fixed("/img/0", make_picture(0))
    data.run()
    assert len(data.files) == 9


def test_an_engine_that_asks_for_a_long_pause_is_blocked_for_all_its_queries(server: Any, scraping: Any) -> None:
    data = scraping(classes='[[classes]]\nname = "a"\nqueries = ["one", "two"]')
    data.change('engines = ["urls"]', 'engines = ["bing"]')
    data.change('urls = "list.txt"', f'bing = "{server.base}/bing"')
    server.fixed("/bing", b"", 429, Retry_After="3600")
    summary = data.run()
    assert [dict(y.answers) for y in summary.yields] == [{"blocked": 1}] * 2
    assert sum(n for path, n in server.asked.items() if path.startswith("/bing")) == 1


# -- requests at once


def test_one_host_gets_few_requests_at_once_and_the_others_do_not_wait_for_it(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    now, most, lock = 0, 0, threading.Lock()
    others_done = threading.Event()

    def slow(handler: Any) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        others_done.wait(10)
        with lock:
            now -= 1
        handler.reply(200, make_picture(int(handler.path.rpartition("?")[2])))

    def quick(handler: Any) -> None:
        handler.reply(200, make_picture(int(handler.path.rpartition("?")[2])))
        if handler.path.endswith("?19"):
            others_done.set()

    server.routes |= {"/img/slow": slow, "/img/quick": quick}
    other = server.base.replace("127.0.0.1", "localhost")
    data = scraping(more="threads = 5\nper_host_connections = 2\nrespect_robots = false")
    data.lists(*(f"{server.base}/img/slow?{n}" for n in range(8)), *(f"{other}/img/quick?{n}" for n in range(8, 20)))
    data.run()
    assert others_done.is_set()  # eight of the slow host came first, and five threads had work all the same
    assert most == 2
    assert [line["outcome"] for line in data.attempts] == ["kept"] * 20


def test_a_limit_that_tasks_put_aside_have_reserved_does_not_stop_the_run(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    data = scraping(more="threads = 6\nper_host_connections = 1")
    data.lists(*(server.fixed(f"/img/{n}", make_picture(n) if n % 3 else b"no picture") for n in range(30)))
    data.run(limit=4)
    assert len(data.files) == 4
    assert server.images_asked() == 6


# -- one host, however it is written


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://EXAMPLE.org/x", "http://example.org"), ("https://example.org.:443", "https://example.org"),
        ("http://me:pw@example.org:8080/", "http://example.org:8080"), ("HTTP://[::1]:80/", "http://[::1]"),
    ],
)  # fmt: skip
def test_places_have_one_spelling(url: str, origin: str) -> None:
    assert place_of(url).origin == origin


def test_robots_is_asked_once_and_the_pace_kept_for_all_spellings_of_a_host(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(Fetcher, "_wait", lambda _, seconds: pauses.append(seconds))
    for n in range(3):
        server.fixed(f"/img/{n}", make_picture(n))
    base = server.base.replace("127.0.0.1", "localhost")
    data = scraping(more="threads = 1")
    data.change("per_host_interval = 0", "per_host_interval = 9")
    data.lists(*(f"{b}/img/{n}" for n, b in enumerate([base, base.replace("l", "L"), base.replace("//", "//me@")])))
    data.run()
    assert outcomes(data) == [("kept", None)] * 3
    assert server.asked["/robots.txt"] == 1
    assert [round(p) for p in pauses] == [0, 9, 18, 27]


# -- hosts that do not answer


def test_a_host_that_does_not_answer_is_given_up_for_the_run(
    server: Any, scraping: Any, make_picture: Any, closed_port: int
) -> None:
    dead = [f"http://127.0.0.1:{closed_port}/{n}" for n in range(6)]
    data = scraping().lists(*dead, server.fixed("/img/1", make_picture(1)))
    data.run()
    reasons = [line["reason"] for line in data.attempts]
    assert sorted(reasons[:6]) == ["connection_refused"] + ["host_unreachable"] * 5  # robots.txt told so
    assert reasons[6] is None
    data.change("retries = 1", "retries = 1\nrespect_robots = false\nthreads = 1")
    data.run()
    assert [line["reason"] for line in data.attempts[7:]] == ["connection_refused"] * 3 + ["host_unreachable"] * 3


def test_a_robots_txt_that_hangs_is_waited_for_once(server: Any, scraping: Any, make_picture: Any) -> None:
    hanging = threading.Event()
    server.routes["/robots.txt"] = lambda handler: hanging.wait(5)
    data = scraping(more="threads = 8").lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(8)))
    data.change("timeout = 5\nretries = 1", "timeout = 0.2\nretries = 0")
    data.run()
    hanging.set()
    assert server.asked["/robots.txt"] == 1
    assert sorted(str(line["reason"]) for line in data.attempts) == ["host_unreachable"] * 7 + ["timeout"]
    server.routes.pop("/robots.txt")
    data.run()
    assert len(data.files) == 8


@pytest.mark.parametrize("place", ["ftp://x/", "http://10.0.0.1/", "http://[broken/"])
def test_what_happens_to_robots_txt_is_not_held_against_the_image(
    server: Any, scraping: Any, make_picture: Any, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "why_not_public", lambda a: None if a == "127.0.0.1" else "private")
    server.routes["/robots.txt"] = lambda handler: handler.reply(302, b"", "", Location=place)
    data = scraping().lists(server.fixed("/img/1", make_picture(1)))
    data.change("allow_private_hosts = true", "allow_private_hosts = false")
    data.run()
    server.routes.pop("/robots.txt")
    data.run()
    assert outcomes(data) == [("failed", "robots_unavailable"), ("kept", None)]


@pytest.mark.parametrize("status", [200, 204])
def test_an_empty_robots_txt_allows_all(server: Any, scraping: Any, make_picture: Any, status: int) -> None:
    server.fixed("/robots.txt", b"", status)
    data = scraping().lists(server.fixed("/img/1", make_picture(1)))
    data.run()
    assert outcomes(data) == [("kept", None)]


def test_an_opt_out_on_a_redirect_counts(server: Any, scraping: Any, make_picture: Any) -> None:
    target = server.fixed("/img/target", make_picture(1))
    server.routes["/img/1"] = lambda h: h.reply(302, b"", "", Location=target, X_Robots_Tag="noai")
    data = scraping().lists(server.base + "/img/1")
    data.run()
    assert outcomes(data) == [("rejected", "opt_out")]
    assert server.asked["/img/target"] == 0


# -- time


def test_an_address_has_so_much_time_over_all_its_redirects_and_tries(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    def slow(handler: Any) -> None:
        time.sleep(0.05)
        handler.reply(302, b"", "", Location=f"/img/{server.asked.total()}")

    for n in range(100):
        server.routes[f"/img/{n}"] = slow
    with Fetcher(ScrapeSpec(allow_private_hosts=True, per_host_interval=0, retries=9, timeout=5)) as fetcher:
        fetcher._patience = 0.12
        with pytest.raises(FetchFailure, match="timeout"):
            fetcher.image(server.base + "/img/0")
    assert server.images_asked() <= 4


@pytest.mark.parametrize("allowed", ["true", "false"])
def test_a_handshake_that_drips_is_ended(scraping: Any, monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    monkeypatch.setattr(addresses, "why_not_public", lambda _: None)
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 kB follows, it says
            while not over.wait(0.05):
                client.sendall(b"x")

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=drip, args=listening.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        data = scraping(more="respect_robots = false").lists(f"https://127.0.0.1:{listening.getsockname()[1]}/1")
        data.change("timeout = 5\nretries = 1", "timeout = 0.2\nretries = 0")
        data.change("allow_private_hosts = true", f"allow_private_hosts = {allowed}")
        data.run()
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
    assert outcomes(data) == [("failed", "timeout")]


def test_the_next_address_of_a_name_is_tried_when_the_first_is_dead(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.fixed("/img/1", make_picture(1)).replace("127.0.0.1", "dual.test")
    resolve, connect = socket.getaddrinfo, addresses.connection.create_connection

    def resolved(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host != "dual.test":
            return resolve(host, port, *args, **options)
        return [(socket.AF_INET, 1, 6, "", (ip, port)) for ip in ("8.8.8.8", "127.0.0.1")]

    def connected(address: tuple[str, int], *args: Any, **options: Any) -> Any:
        if address[0] == "8.8.8.8":
            raise TimeoutError("timed out")
        return connect(address, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(addresses.connection, "create_connection", connected)
    monkeypatch.setattr(addresses, "why_not_public", lambda _: None)
    data = scraping().lists(url)
    data.change("allow_private_hosts = true", "allow_private_hosts = false")
    data.run()
    assert outcomes(data) == [("kept", None)]


# -- result pages


def test_a_result_page_that_is_torn_is_unreachable_and_not_an_empty_answer(server: Any, scraping: Any) -> None:
    def torn(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "50000")
        handler.end_headers()
        handler.wfile.write(b"<html>" + b"x" * 100)
        handler.close_connection = True

    server.routes["/torn"] = torn
    server.fixed("/empty", b" \n", 200, "text/html")
    for engine, path in (("bing", "/torn"), ("google", "/torn"), ("baidu", "/empty"), ("bing", "/empty")):
        data = scraping(f"{engine} {path[1:]}", classes='[[classes]]\nname = "a"\nqueries = ["one"]')
        data.change('engines = ["urls"]', f'engines = ["{engine}"]')
        data.change('urls = "list.txt"', f'{engine} = "{server.base}{path}"')
        data.change("retries = 1", "retries = 0")
        assert [dict(y.answers) for y in data.run().yields] == [{"unreachable": 2}]
