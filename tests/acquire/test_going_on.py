"""What one run leaves for the next: nothing fetched is lost, what may change is asked again, damage is mended."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curate import images
from curate.acquire import crawl, ledger
from curate.acquire.download import PixelRoom, examine
from curate.acquire.engines import baidu
from curate.acquire.fetch import Fetched
from curate.config import ScrapeSpec
from curate.dataset import open_dataset
from curate.manifest import scan


def outcomes(data: Any) -> list[tuple[str, str | None]]:
    return [(line["outcome"], line["reason"]) for line in data.attempts]


# -- one slow address


@pytest.fixture
def held(server: Any, make_picture: Any) -> Any:
    """An address that answers only when it is let go."""
    event = threading.Event()

    def route(handler: Any) -> None:
        event.wait(20)
        handler.reply(200, make_picture(99))

    server.routes["/img/held"] = route
    yield event
    event.set()


def test_a_slow_address_does_not_cost_what_was_fetched_behind_it(
    server: Any, scraping: Any, make_picture: Any, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crawl, "GRACE", 0.2)
    good = [server.fixed(f"/img/{n}", make_picture(n)) for n in range(20)]
    whole = scraping("whole").lists(*good, server.base + "/img/last")
    server.fixed("/img/last", make_picture(99))
    whole.run()
    before = server.images_asked()
    data = scraping(more="threads = 3\nmax_minutes = 0.02").lists(server.base + "/img/held", *good)
    summary = data.run()
    assert "max_minutes" in summary.stopped
    assert [line["url"] for line in data.attempts] == good  # in their order, without the one that is under way
    assert len(data.files) == 20
    held.set()
    data.change("max_minutes = 0.02", "")
    data.run()
    assert server.images_asked() - before == 22
    assert data.files == whole.files


def test_what_waits_too_long_for_its_turn_is_recorded_out_of_turn(
    server: Any, scraping: Any, make_picture: Any, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "OVERDUE", 0.2)
    good = [server.fixed(f"/img/{n}", make_picture(n)) for n in range(12)]
    data = scraping(more="threads = 3").lists(server.base + "/img/held", *good)
    seen: list[dict[str, Any]] = []

    def progress(event: dict[str, Any]) -> None:
        seen.append(event)
        if len(seen) == 12:  # all but the first: a SIGKILL now would lose nothing of them
            held.set()

    summary = data.run(limit=13, progress=progress)
    assert [line["url"] for line in data.attempts] == [*good, server.base + "/img/held"]
    assert summary.kept == {"a": 13} == {"a": len(data.files)}


# -- a network that dies


def test_a_network_that_dies_in_the_middle_is_gone_on_from(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.socket.connect

    def dead(self: socket.socket, address: Any) -> None:
        if server.images_asked() >= 10:
            raise OSError(101, "Network is unreachable")
        connect(self, address)

    def route(n: int) -> Callable[[Any], None]:
        def answer(handler: Any) -> None:
            handler.close_connection = True
            handler.reply(200, make_picture(n), Connection="close")

        return answer

    for n in range(30):
        server.routes[f"/img/{n}"] = route(n)
    data = scraping().lists(*(f"{server.base}/img/{n}" for n in range(30)))
    data.change("retries = 1", "retries = 0")
    dataset = open_dataset(str(data.workspace.root))
    monkeypatch.setattr(socket.socket, "connect", dead)
    dataset.scrape(force=False)
    kept = len(data.files)
    assert 10 <= kept < 20
    assert {reason for _, reason in outcomes(data)} == {None, "unreachable", "host_unreachable"}
    monkeypatch.setattr(socket.socket, "connect", connect)
    record, _ = dataset.scrape(force=False)  # as `curate run` does
    assert not record.skipped
    assert len(data.files) == 30
    assert server.images_asked() == 30
    assert dataset.scrape(force=False)[0].skipped


# -- what is settled


def test_a_body_that_the_network_cut_is_asked_for_once_more(server: Any, scraping: Any, make_picture: Any) -> None:
    body = make_picture(3, size=(300, 300))

    def cut(handler: Any) -> None:
        times = server.asked[handler.path]
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2] if handler.path == "/img/never" or times == 1 else body)
        handler.close_connection = True

    server.routes |= {"/img/once": cut, "/img/never": cut}
    data = scraping().lists(server.base + "/img/once", server.base + "/img/never")
    for _ in range(4):
        data.run()
    assert outcomes(data) == [("rejected", "truncated"), ("rejected", "truncated"), ("kept", None),
                              ("rejected", "truncated")]  # fmt: skip


def test_a_refresh_that_fails_unsettles_nothing(server: Any, scraping: Any, make_picture: Any) -> None:
    data = scraping().lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(3)))
    data.run()
    for n in range(3):
        server.fixed(f"/img/{n}", b"", 500)
    data.change("retries = 1", "retries = 0")
    data.run(refresh=True)
    before = server.images_asked()
    data.run()
    assert server.images_asked() == before


def test_the_limit_means_kept_images_also_when_a_refresh_finds_other_bytes(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    data = scraping().lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(5)))
    data.run(limit=3)
    for n in range(5):
        server.fixed(f"/img/{n}", make_picture(100 + n))
    summary = data.run(limit=3, refresh=True)
    assert summary.kept == {"a": 3}
    assert len(data.files) == 3
    assert outcomes(data)[3:] == [("rejected", "over_limit")] * 3
    assert server.asked["/img/3"] == 0
    planned = open_dataset(str(data.workspace.root)).preview(limit=3, refresh=True).planned
    assert [p.hit.url.rpartition("/")[2] for p in planned] == ["0", "1", "2"]
    data.run(limit=4, refresh=True)
    assert len(data.files) == 4


@pytest.mark.parametrize("damage", [b"", b"some other bytes", None])
def test_a_damaged_file_is_mended(server: Any, scraping: Any, make_picture: Any, damage: bytes | None) -> None:
    body = make_picture(1)
    data = scraping().lists(server.fixed("/img/1", body), server.fixed("/img/2", make_picture(2)))
    data.run()
    file = data.workspace.image(data.attempts[0]["path"])
    same_size = body[:-10] + bytes(10)
    file.write_bytes(same_size if damage is None else damage)
    data.run(refresh=damage is None)  # damage of the same size shows only when it is looked into
    assert file.read_bytes() == body
    assert len(data.files) == 2
    assert scan(data.workspace)["status"].to_list() == ["ok", "ok"]


def test_files_that_a_kill_left_without_a_line_are_set_aside_and_told(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scraping().lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(3)))
    write = ledger.append_log

    def killed(path: Path, lines: list[dict[str, Any]]) -> None:
        if any(line["kind"] == "image" for line in lines):
            raise SystemExit("killed here")
        write(path, lines)

    monkeypatch.setattr(ledger, "append_log", killed)
    with pytest.raises(SystemExit):
        data.run()
    monkeypatch.setattr(ledger, "append_log", write)
    left = len(data.files)
    assert left
    mine = data.workspace.root / "images/scraped/a/mine.jpg"  # put there by hand: not ours to move
    mine.write_bytes(make_picture(8))
    data.lists(server.fixed("/img/9", make_picture(9)))
    summary = data.run()
    assert any(f"{left} files" in text and "cache/unlisted" in text for text in summary.advice)
    assert len(data.files) == 2
    assert mine.exists()
    assert len(list((data.workspace.cache / "unlisted").iterdir())) == left


# -- who else offers an image


def test_an_address_that_two_queries_offer_has_a_line_for_each_and_one_request(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    def page(handler: Any) -> None:
        urls = [f"{server.base}/img/{n}" for n in ((0, 1, 2) if "word=one" in handler.path else (3, 1, 0))]
        found = [{"objURL": baidu.encode_url(url), "fromPageTitle": handler.path[-3:]} for url in urls]
        handler.reply(200, json.dumps({"data": [*found * ("pn=0" in handler.path), {}]}).encode())

    for n in (0, 2, 3):
        server.fixed(f"/img/{n}", make_picture(n))
    server.routes["/b"] = page
    data = scraping(classes='[[classes]]\nname = "a"\nqueries = ["one", "two"]')
    data.change('engines = ["urls"]', 'engines = ["baidu"]')
    data.change('urls = "list.txt"', f'baidu = "{server.base}/b"')
    first, second = data.run().yields
    assert (first.asked, first.fetched, first.kept, first.known) == (3, 2, 2, 0)
    assert (second.asked, second.fetched, second.kept, second.known) == (2, 1, 1, 1)
    line = data.attempts[-1]
    assert (line["query"], line["url"], line["rank"], line["outcome"]) == ("two", f"{server.base}/img/0", 2, "known")
    assert line["path"] == data.attempts[0]["path"]
    assert line["http_status"] is None
    assert server.images_asked() == 4
    lines = len(data.attempts)
    data.run()
    assert len(data.attempts) == lines
    data.change('queries = ["one", "two"]', 'queries = ["one", "two", "three"]')
    data.run()
    assert [(x["query"], x["outcome"]) for x in data.attempts[lines:]] == [("three", "known")] * 2
    assert server.images_asked() == 4


# -- pixels


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def test_pictures_beyond_the_limit_of_pixels_are_not_decoded(server: Any, scraping: Any) -> None:
    large = encoded(Image.new("P", (300, 200)), "PNG")
    data = scraping(more="max_pixels = 59_999").lists(server.fixed("/img/1", large))
    data.run()
    data.run()
    assert outcomes(data) == [("rejected", "too_large")]
    assert (data.attempts[0]["width"], data.attempts[0]["height"]) == (300, 200)
    data.change("max_pixels = 59_999", "max_pixels = 60_000")
    data.run()
    assert outcomes(data)[1:] == [("kept", None)]


def test_only_so_many_pixels_are_decoded_at_once() -> None:
    room = PixelRoom(100)
    inside, entered, leave = [], threading.Semaphore(0), threading.Event()

    def hold(pixels: int) -> None:
        with room.of(pixels):
            inside.append(pixels)
            entered.release()
            leave.wait(10)

    threads = [threading.Thread(target=hold, args=(pixels,)) for pixels in (60, 40)]
    for thread in threads:
        thread.start()
        entered.acquire(timeout=10)
    more = [threading.Thread(target=hold, args=(pixels,)) for pixels in (1, 1000)]
    for thread in more:
        thread.start()
    assert not entered.acquire(timeout=0.05)
    leave.set()
    for thread in threads + more:
        thread.join(10)
    assert sorted(inside) == [1, 40, 60, 1000]  # one that is larger than the room goes alone


def test_a_decoder_without_memory_says_nothing_about_the_picture(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    data = scraping().lists(server.fixed("/img/1", make_picture(1)))
    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "load", full)
        patched.setattr("PIL.ImageFile.ImageFile.load", full)
        data.run()
    data.run()
    assert outcomes(data) == [("failed", "out_of_memory"), ("kept", None)]


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_is_decoded_to_its_last_frame(make_picture: Any, has_avif: bool, format: str) -> None:
    if format == "AVIF" and not has_avif:
        pytest.skip("this Pillow has no AVIF")
    frames = [Image.open(io.BytesIO(make_picture(n, format="PNG", size=(200, 200)))) for n in range(1, 7)]
    whole = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    torn = whole[: len(whole) * 3 // 4]

    def judged(body: bytes) -> tuple[str, str | None]:
        made = examine(Fetched(body=body, final_url="", status=200, content_type=""), ScrapeSpec(), PixelRoom(10**6))
        return made.outcome, made.reason

    assert judged(whole) == ("obtained", None)
    assert judged(torn) in {("rejected", "truncated"), ("rejected", "corrupt")}  # both are tried once more


def test_a_long_animation_is_decoded_as_far_as_it_is_reasonable(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("L", (10, 10), n) for n in range(20)]
    body = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    asked: list[int] = []
    seek = Image.Image.seek
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.seek", lambda _, n: asked.append(n))
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.n_frames", 20)
    monkeypatch.setattr(images, "FRAME_PIXELS", 500)
    images.check(body)
    assert asked == [1, 2, 3, 4, 5]
    assert seek is Image.Image.seek
