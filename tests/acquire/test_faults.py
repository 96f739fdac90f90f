"""What the web can answer: each kind, its expected outcome, and what lies on disk afterwards."""

from __future__ import annotations

import gzip
import io
import socket
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

Kind = tuple[str, str, str | None, str | None]
"""URL, outcome, reason, extension of the file that is kept."""


def _closed(handler: Any) -> None:
    handler.close_connection = True


def _reset(handler: Any) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def _short(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "5000")
    handler.end_headers()
    handler.wfile.write(b"\xff\xd8\xff" + b"x" * 100)
    handler.close_connection = True


def _chunked(body: bytes, *, whole: bool = True) -> Callable[[Any], None]:
    def route(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(body), 1000):
            piece = body[start : start + 1000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        if whole:
            handler.wfile.write(b"0\r\n\r\n")
        else:
            handler.close_connection = True

    return route


def _without_length(body: bytes) -> Callable[[Any], None]:
    def route(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return route


def _endless(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def _no_http(handler: Any) -> None:
    handler.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")
    handler.close_connection = True


def _once(status: int, body: bytes) -> Callable[[Any], None]:
    def route(handler: Any) -> None:
        if handler.server.asked[handler.path] == 1:
            handler.reply(status, b"later", "text/plain", Retry_After="0")
        else:
            handler.reply(200, body)

    return route


def _to(place: str) -> Callable[[Any], None]:
    return lambda handler: handler.reply(302, b"", "", Location=place)


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _pixel_bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in some dozen bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _pictures(picture: Callable[..., bytes]) -> dict[str, tuple[bytes, str]]:
    """Odd pictures that are good ones: body, and the extension that their content gets."""
    base = Image.open(io.BytesIO(picture(40, format="PNG")))
    palette = base.convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.open(io.BytesIO(picture(n, format="PNG"))).convert("P") for n in (41, 42)]
    return {
        "webp": (picture(5, format="WEBP"), ".webp"),
        "gif": (picture(6, format="GIF"), ".gif"),
        "animated gif": (_saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), ".gif"),
        "cmyk": (picture(7, mode="CMYK"), ".jpg"),
        "16 bits": (_saved(Image.new("I;16", (40, 30), 40_000), "PNG"), ".png"),
        "palette with transparency": (_saved(palette, "PNG", transparency=0), ".png"),
        "turned by exif": (_saved(base.convert("RGB"), "JPEG", exif=exif), ".jpg"),
        "bmp": (picture(43, format="BMP"), ".bmp"),
        "tiff": (picture(44, format="TIFF"), ".tif"),
        "picture with a script behind it": (picture(45) + b"<script>alert(1)</script>", ".jpg"),
    }  # fmt: skip


def faults(server: Any, picture: Callable[..., bytes], closed_port: int, *, has_avif: bool) -> dict[str, Kind]:
    """Kind to what it is and what is expected of it."""
    jpeg, png = picture(1, size=(200, 160)), picture(2, format="PNG")
    fixed, routes, base = server.fixed, server.routes, server.base
    routes |= {
        "/img/closed": _closed, "/img/reset": _reset, "/img/short": _short, "/img/endless": _endless,
        "/img/503once": _once(503, picture(20)), "/img/429once": _once(429, picture(21)),
        "/img/chunked": _chunked(picture(22, size=(300, 300))), "/img/nohttp": _no_http,
        "/img/torn": _chunked(picture(24, size=(300, 300)), whole=False), "/img/nolength": _without_length(picture(25)),
        "/img/loop": _to("/img/loop2"), "/img/loop2": _to("/img/loop"), "/img/moved": _to(base + "/img/moved2"),
        "/img/moved2": _to("/img/target"), "/img/file": _to("file:///etc/hostname"),
        "/img/bad": _to("http://[broken/"), "/img/self": _to("/img/self"),
    }  # fmt: skip
    for n in range(12):
        routes[f"/img/far{n}"] = _to(f"/img/far{n + 1}")
    fixed("/img/target", picture(23))
    bomb = gzip.compress(b"\0" * 5_000_000)
    secure = base.replace("http:", "https:")
    odd = {
        kind: (fixed(f"/img/odd{n}", body), "kept", None, extension)
        for n, (kind, (body, extension)) in enumerate(_pictures(picture).items())
    }
    if has_avif:
        odd["avif"] = (fixed("/img/avif", picture(46, format="AVIF"), kind="image/avif"), "kept", None, ".avif")
    named = 'attachment; filename="../../../../evil.sh"'
    return odd | {
        "jpeg": (fixed("/img/jpeg", jpeg), "kept", None, ".jpg"),
        "same bytes": (fixed("/img/jpeg2", jpeg) + "?x=1&y=楷 书", "known", None, None),
        "png said to be jpeg": (fixed("/img/png.jpg", png), "kept", None, ".png"),
        "no content type": (fixed("/img/notype", picture(3), kind=""), "kept", None, ".jpg"),
        "text as type": (fixed("/img/text", picture(4), kind="text/html"), "kept", None, ".jpg"),
        "gzip": (fixed("/img/gzip", gzip.compress(picture(8)), Content_Encoding="gzip"), "kept", None, ".jpg"),
        "chunked": (base + "/img/chunked", "kept", None, ".jpg"),
        "no length": (base + "/img/nolength", "kept", None, ".jpg"),
        "redirect chain": (base + "/img/moved", "kept", None, ".jpg"),
        "503 then 200": (base + "/img/503once", "kept", None, ".jpg"),
        "429 then 200": (base + "/img/429once", "kept", None, ".jpg"),
        "path tricks in the address": (fixed("/img/..%2F..%2F..%2Fevil.sh", picture(26)), "kept", None, ".jpg"),
        "path tricks in a header": (fixed("/img/n", picture(27), Content_Disposition=named), "kept", None, ".jpg"),
        "404": (base + "/img/404", "failed", "http_404", None),
        "410": (fixed("/img/410", b"", 410), "failed", "http_410", None),
        "403": (fixed("/img/403", b"no", 403), "failed", "http_403", None),
        "451": (fixed("/img/451", b"no", 451), "failed", "http_451", None),
        "500": (fixed("/img/500", b"no", 500), "failed", "http_500", None),
        "503": (fixed("/img/503", b"no", 503, Retry_After="0"), "failed", "http_503", None),
        "429, long pause": (
            fixed("/img/429", b"no", 429, Retry_After="86400").replace("127.0.0.1", "localhost"), "failed", "http_429",
            None,
        ),  # by its other name, since it closes its host
        "204": (fixed("/img/204", b"", 204), "failed", "http_204", None),
        "301 to nowhere": (fixed("/img/301", b"", 301), "failed", "http_301", None),
        "refused": (f"http://127.0.0.1:{closed_port}/img/x.jpg", "failed", "connection_refused", None),
        "no such host": ("http://no-such-host.invalid/x.jpg", "failed", "dns", None),
        "closed": (base + "/img/closed", "failed", "connection_reset", None),
        "reset": (base + "/img/reset", "failed", "connection_reset", None),
        "wrong length": (base + "/img/short", "failed", "incomplete", None),
        "torn chunks": (base + "/img/torn", "failed", "incomplete", None),
        "no http": (base + "/img/nohttp", "failed", "bad_response", None),
        "redirect loop": (base + "/img/loop", "failed", "redirect_loop", None),
        "redirect to itself": (base + "/img/self", "failed", "redirect_loop", None),
        "too many redirects": (base + "/img/far0", "failed", "redirect_loop", None),
        "no tls": (secure + "/img/tls", "failed", "tls", None),
        "not gzip": (fixed("/img/notgzip", png, Content_Encoding="gzip"), "failed", "bad_encoding", None),
        "truncated jpeg": (fixed("/img/trunc.jpg", jpeg[: len(jpeg) // 2]), "rejected", "truncated", None),
        "truncated png": (
            fixed("/img/trunc.png", picture(9, size=(400, 400), format="PNG")[:-100]), "rejected", "truncated", None,
        ),
        "html": (fixed("/img/page.jpg", b"<!doctype html><html><script>1</script>"), "rejected", "html", None),
        "svg": (fixed("/img/x.svg", b"<svg xmlns='x'><script/></svg>", kind="image/svg+xml"), "rejected", "svg", None),
        "svg as jpeg": (fixed("/img/x.jpg", b"<?xml version='1.0'?><svg onload='x'/>"), "rejected", "svg", None),
        "empty": (fixed("/img/empty.jpg", b""), "rejected", "empty", None),
        "noise": (fixed("/img/noise.jpg", b"\x01\x02\x03" * 50), "rejected", "not_an_image", None),
        "a program": (fixed("/img/a.png", b"\x7fELF" + b"\0" * 200), "rejected", "not_an_image", None),
        "one pixel": (fixed("/img/1.png", picture(10, size=(1, 1), format="PNG")), "rejected", "too_small", None),
        "large": (fixed("/img/large", b"x" * 1_100_000), "rejected", "too_many_bytes", None),
        "endless": (base + "/img/endless", "rejected", "too_many_bytes", None),
        "gzip bomb": (fixed("/img/bomb", bomb, Content_Encoding="gzip"), "rejected", "too_many_bytes", None),
        "pixel bomb": (fixed("/img/pixels.png", _pixel_bomb()), "rejected", "too_large", None),
        "opt-out": (fixed("/img/noai", picture(11), X_Robots_Tag="noai, nofollow"), "rejected", "opt_out", None),
        "opt-out of images": (
            fixed("/img/noimg", picture(28), X_Robots_Tag="curate: NoImageAI"), "rejected", "opt_out", None,
        ),
        "rights reserved": (fixed("/img/tdm", picture(29), TDM_Reservation="1"), "rejected", "opt_out", None),
        "robots": (fixed("/private/img", picture(12)), "rejected", "robots", None),
        "ftp": ("ftp://127.0.0.1/x.jpg", "rejected", "scheme", None),
        "data": ("data:image/png;base64,iVBORw0KGgo=", "rejected", "scheme", None),
        "redirect to a file": (base + "/img/file", "rejected", "scheme", None),
        "redirect to nonsense": (base + "/img/bad", "rejected", "bad_url", None),
        "control characters": ("http://127.0.0.1/\x1b[2J.jpg", "rejected", "bad_url", None),
        "no host": ("http:///x.jpg", "rejected", "bad_url", None),
        "nonsense": ("http://[::1", "rejected", "bad_url", None),
    }  # fmt: skip


def test_every_fault_has_its_outcome_and_only_good_pictures_are_on_disk(
    server: Any, scraping: Any, make_picture: Any, closed_port: int, has_avif: bool
) -> None:
    server.fixed("/robots.txt", b"User-agent: curate\nDisallow: /private/\n", kind="text/plain")
    table = faults(server, make_picture, closed_port, has_avif=has_avif)
    assert len(table) >= 30
    rows = ["url,label", *(f'"{url}",a' for url, *_ in table.values())]
    data = scraping(more="max_bytes = 1000000").lists(*rows)
    outside = {p for p in data.workspace.root.parent.parent.rglob("*") if data.workspace.root not in p.parents}
    summary = data.run()
    by_url = {line["url"]: line for line in data.attempts}
    said = {}
    for kind, (url, *_) in table.items():
        line = by_url[url]
        extension = data.workspace.image(line["path"]).suffix if line["outcome"] == "kept" else None
        said[kind] = (url, line["outcome"], line["reason"], extension)
    assert said == table
    kept = [line for line in data.attempts if line["outcome"] == "kept"]
    assert data.files == sorted(line["path"].removeprefix("images/") for line in kept)
    assert len(data.files) == summary.kept["a"] == sum(outcome == "kept" for _, outcome, *_ in table.values())
    assert {p for p in data.workspace.root.parent.parent.rglob("*") if data.workspace.root not in p.parents} == outside
    for file in data.files:
        assert data.workspace.image("images/" + file).stat().st_mode & 0o111 == 0
    for line in data.attempts:
        assert bool(line["path"]) == (line["outcome"] in {"kept", "known"})
        if line["reason"] in {"html", "truncated", "too_many_bytes", "too_large", "not_an_image", "incomplete"}:
            assert 0 < len(line["head"]) <= 32
            assert line["bytes"]
            assert line["http_status"] == 200
    assert by_url[table["same bytes"][0]]["path"] == by_url[table["jpeg"][0]]["path"]
    assert by_url[table["redirect chain"][0]]["final_url"] == server.base + "/img/target"
    assert server.asked["/img/503"] == 2  # once more, then left for the next run
    assert server.asked["/private/img"] == 0
    (row,) = summary.yields
    assert row.asked == len(table) == row.kept + row.known + sum(row.rejected.values()) + sum(row.failed.values())


def _late(handler: Any) -> None:
    time.sleep(3)
    handler.reply(404, b"")


def _drip(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.wfile.write(b"\xff\xd8\xff")
    while True:
        time.sleep(0.05)
        handler.wfile.write(b"x")
        handler.wfile.flush()


def _dripping_headers(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while True:
        time.sleep(0.05)
        handler.wfile.write(b"x")


def _dripping_chunk(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        time.sleep(0.05)
        handler.wfile.write(b"0")


def _stalled(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"\xff\xd8\xff")
    time.sleep(3)


SLOW = {
    "headers": (_late, ""), "dripping headers": (_dripping_headers, ""), "drip": (_drip, "ffd8ff78"),
    "stall": (_stalled, "ffd8ff"), "dripping chunk": (_dripping_chunk, ""),
}  # fmt: skip
"""Kind to what the server does, and the first bytes that are told of it."""


@pytest.mark.parametrize("kind", SLOW)
def test_slow_answers_end_in_a_timeout(server: Any, scraping: Any, kind: str) -> None:
    server.routes["/img/slow"], head = SLOW[kind]
    data = scraping().lists(server.base + "/img/slow")
    data.change("timeout = 5\nretries = 1", "timeout = 0.3\nretries = 0")
    data.run()
    (line,) = data.attempts
    assert (line["outcome"], line["reason"]) == ("failed", "timeout")
    assert line.get("head", "").startswith(head)
    assert data.files == []


def test_licence_evidence_is_the_filter_the_statement_and_the_headers(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    link = '<https://creativecommons.org/licenses/by/4.0/>; rel="license", </next>; rel="next"'
    url = server.fixed("/img/1", make_picture(1), Link=link, X_Robots_Tag="noindex")
    data = scraping().lists("URL,license", f"{url},CC BY 4.0")
    data.run()
    assert data.attempts[0]["license"] == {
        "stated": "CC BY 4.0",
        "headers": {"X-Robots-Tag": "noindex", "Link": '<https://creativecommons.org/licenses/by/4.0/>; rel="license"'},
    }
