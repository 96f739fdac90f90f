"""A loopback image-search server: the bundled gallery, served the way Google Images and Baidu do.

Result pages come from one port in the engines' own formats; the pictures lie on further ports, some of which answer
with errors, as the catalog says:

    port            result pages: /google/search, /baidu/acjson
    port+1 .. +3    the image hosts
    port+4          nothing listens here: connections are refused
"""

from __future__ import annotations

import csv
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from curate.acquire.engines.baidu import encode_url
from curate.errors import EnvironmentMissing, InputError

HOST = "127.0.0.1"
DEFAULT_PORT = 8600
PORTS = 5
QUERIES = {"楷书": "regular", "行书": "running", "草书": "cursive"}
"""A query that contains the word is answered with the pictures of that class."""
OVERLAP = 20
"""Google has the even ranks and Baidu the odd ones; every OVERLAP-th rank is offered by both."""

_TYPES = {
    ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".gif": "image/gif",
    ".avif": "image/avif",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One picture of the catalog, as it is found on the web of this server."""

    label: str
    rank: int
    url: str
    host: int
    path: str
    file: str
    answer: str
    title: str
    width: int
    height: int


@dataclass(kw_only=True)
class Served:
    """What the servers share: the gallery, and what was asked.

    Attributes:
        port: the first port.
        endpoints: engine to the address of its search, for `[scrape.endpoints]`.
        images: requests for pictures, as (host, path), in their order.
        pages: requests for result pages, likewise.
    """

    port: int
    gallery: Path
    entries: list[Entry]
    images: list[tuple[int, str]] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    asked: Counter[tuple[int, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.by_address = {(entry.host, entry.path): entry for entry in self.entries}

    @property
    def endpoints(self) -> dict[str, str]:
        """Engine to the address of its search."""
        base = f"http://{HOST}:{self.port}"
        return {"google": f"{base}/google/search", "baidu": f"{base}/baidu/acjson"}

    def found(self, query: str, engine: str) -> list[Entry]:
        """The pictures that an engine offers for a query, best first."""
        label = next((label for word, label in QUERIES.items() if word in query), None)
        part = 0 if engine == "google" else 1
        return [e for e in self.entries if e.label == label and (e.rank % 2 == part or e.rank % OVERLAP == 0)]


def default_port() -> int:
    """The port that `CURATE_DEMO_PORT` names, else 8600.

    Raises:
        InputError: it names none.
    """
    text = os.environ.get("CURATE_DEMO_PORT") or str(DEFAULT_PORT)
    if not text.isdecimal() or not 0 < int(text) <= 65535 - PORTS:
        msg = f"CURATE_DEMO_PORT is {text!r}: give a port number from 1 to {65535 - PORTS}."
        raise InputError(msg)
    return int(text)


def bundled_gallery() -> Path:
    """The folder of the gallery that comes with the package."""
    return Path(str(files("curate.demo") / "gallery"))


@contextmanager
def serve(
    port: int | None = None, *, limit_per_class: int | None = None, gallery: Path | None = None
) -> Iterator[Served]:
    """Run the server while the context lasts.

    Args:
        port: first of five ports on the loopback address; None: `CURATE_DEMO_PORT`, else 8600.
        limit_per_class: offer only the best-ranked pictures of each class.
        gallery: folder with `catalog.csv` and `images/`; None: the bundled one.

    Raises:
        EnvironmentMissing: a port is in use.
        InputError: the gallery has no catalog.
    """
    port = default_port() if port is None else port
    gallery = bundled_gallery() if gallery is None else gallery
    served = Served(port=port, gallery=gallery, entries=read_catalog(gallery, port, limit_per_class))
    with ExitStack() as running:
        for place in range(PORTS - 1):
            server = _listen(port, place, served)
            running.callback(server.server_close)
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            running.callback(thread.join)
            running.callback(server.shutdown)
        yield served


def read_catalog(gallery: Path, port: int, limit_per_class: int | None = None) -> list[Entry]:
    """The entries of a gallery's catalog, ordered by class and rank."""
    try:
        with (gallery / "catalog.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        msg = f"{gallery} has no catalog.csv ({error.strerror}). Give the folder of a gallery, or install curate again."
        raise InputError(msg) from error
    entries = []
    for row in rows:
        rank = int(row["rank"])
        host = PORTS - 1 if row["answer"] == "refused" else int(row["host"])
        entry = Entry(
            label=row["class"], rank=rank, host=host, path=row["path"], file=row["file"], answer=row["answer"],
            title=row["title"], width=int(row["width"]), height=int(row["height"]),
            url=f"http://{HOST}:{port + host}{row['path']}",
        )  # fmt: skip
        if limit_per_class is None or rank < limit_per_class:
            entries.append(entry)
    return sorted(entries, key=lambda e: (e.label, e.rank))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = os.name == "posix"
    request_queue_size = 64

    def __init__(self, port: int, place: int, served: Served) -> None:
        self.place, self.served = place, served
        super().__init__((HOST, port + place), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is no error here."""


def _listen(port: int, place: int, served: Served) -> _Server:
    try:
        return _Server(port, place, served)
    except OSError as error:
        msg = (
            f"port {port + place} on {HOST} cannot be used ({error.strerror}): the demo needs the "
            f"ports {port} to {port + PORTS - 1}. Free them, or set CURATE_DEMO_PORT to another first port."
        )
        raise EnvironmentMissing(msg) from error


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Answer one request."""
        served, place = self.server.served, self.server.place
        if self.path == "/robots.txt":
            self._send(200, b"User-agent: *\nAllow: /\n", "text/plain")
        elif place == 0:
            with served.lock:
                served.pages.append(self.path)
            self._search(urlsplit(self.path).path, parse_qs(urlsplit(self.path).query))
        else:
            address = (place, self.path)
            with served.lock:
                served.images.append(address)
                served.asked[address] += 1
                first = served.asked[address] == 1
            self._picture(served.by_address.get(address), first=first)

    def _search(self, path: str, question: dict[str, list[str]]) -> None:
        def number(name: str, otherwise: int) -> int:
            text = question.get(name, [""])[0]
            return int(text) if text.isdecimal() else otherwise

        if path == "/google/search":
            found = self.server.served.found(question.get("q", [""])[0], "google")
            start = number("start", 100 * number("ijn", 0))
            self._send(200, google_page(found[start : start + 100]), "text/html; charset=utf-8")
        elif path == "/baidu/acjson":
            query = question.get("word", [""])[0]
            found = self.server.served.found(query, "baidu")
            start = number("pn", 0)
            body = baidu_page(query, found[start : start + number("rn", 30)], total=len(found), start=start)
            self._send(200, body, "application/json; charset=utf-8")
        else:
            self._send(404, b"<html>no such page</html>", "text/html")

    def _picture(self, entry: Entry | None, *, first: bool) -> None:
        page = "text/html"
        if entry is None or entry.answer == "404":
            self._send(404, b"<html><title>404</title>Not Found</html>", page)
        elif entry.answer == "500":
            self._send(500, b"<html><title>500</title>Internal Server Error</html>", page)
        elif entry.answer == "503_once" and first:
            self._send(503, b"<html><title>503</title>Service Unavailable</html>", page, {"Retry-After": "0"})
        else:
            body = (self.server.served.gallery / "images" / entry.file).read_bytes()
            suffix = Path(urlsplit(entry.path).path).suffix.lower()
            self._send(200, body, _TYPES.get(suffix) or _TYPES.get(Path(entry.file).suffix) or "image/jpeg")

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def google_page(found: list[Entry]) -> bytes:
    """A result page in Google's format: the records in the JSON of a script."""
    records = [_google_record(e) for e in found]
    if not records:
        return b"<!doctype html><html><body>Your search did not match any image results.</body></html>"
    text = json.dumps([None, [[["b-GRID_STATE0", None, [records]]]]], ensure_ascii=False, separators=(",", ":"))
    for sign in "=&<>":  # as in the page of Google
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    scripts = (
        f"<script nonce=\"x\">AF_initDataCallback({{key: 'ds:{n}', hash: '{n}', data:{data}, sideChannel: {{}}}});"
        "</script>"
        for n, data in enumerate(("[null,[]]", text))
    )
    head = "<!doctype html><html><head><title>Google Images</title></head><body>"
    return f"{head}{''.join(scripts)}</body></html>".encode()


def _google_record(e: Entry) -> list[Any]:
    thumbnail = f"https://encrypted-tbn0.gstatic.com/images?q=tbn:{e.label}{e.rank}"
    tables = {"2001": [None, None, None, 0], "2003": [None, f"p{e.rank}", _page_of(e), e.title, None, None]}
    image = [e.url, e.height, e.width]
    return [1, [0, f"id{e.label}{e.rank}", [thumbnail, 180, 180], image, None, 0, "rgb(9,9,9)", None, False, tables]]


def baidu_page(query: str, found: list[Entry], *, total: int, start: int) -> bytes:
    """A page of Baidu's acjson; the last entry is empty, as it is there."""
    data: list[dict[str, Any]] = [
        {
            "objURL": encode_url(e.url), "fromURL": encode_url(_page_of(e)), "thumbURL": e.url, "middleURL": e.url,
            "width": e.width, "height": e.height, "type": Path(urlsplit(e.path).path).suffix.lstrip("."),
            "fromPageTitle": _marked(e.title), "fromPageTitleEnc": e.title, "pageNum": start + n,
        }
        for n, e in enumerate(found)
    ]  # fmt: skip
    page = {"queryExt": query, "displayNum": total, "listNum": total, "bdFmtDispNum": f"约{total}"}
    return json.dumps({**page, "data": [*data, {}]}, ensure_ascii=False).encode()


def _page_of(entry: Entry) -> str:
    return f"http://{HOST}:{urlsplit(entry.url).port}/page/{entry.label}/{entry.rank}.html"


def _marked(title: str) -> str:
    text = escape(title, quote=False)
    for word in QUERIES:
        text = text.replace(word, f"<strong>{word}</strong>")
    return text
