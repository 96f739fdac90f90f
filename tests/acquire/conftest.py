"""A server on loopback that answers as it is told, and ways to make a data set that scrapes from it."""

from __future__ import annotations

import io
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from curate.acquire.scrape import ScrapeSummary, scrape
from curate.workspace import Workspace, read_log


def picture(seed: int = 0, *, size: tuple[int, int] = (64, 48), format: str = "JPEG", mode: str = "RGB") -> bytes:
    """A picture whose bytes depend on `seed`."""
    image = Image.new("RGB", size, (230, 220, 200))
    for bit in range(10):
        left, top = bit % 5 * 12 + 2, bit // 5 * 20 + 2
        image.paste((20, 30, 40) if seed >> bit & 1 else (200, 80, 60), (left, top, left + 8, top + 16))
    stream = io.BytesIO()
    image.convert(mode).save(stream, format)
    return stream.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30
    server: FaultServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        self.server.agents.add(self.headers["User-Agent"])
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            self.reply(404, b"gone")
        else:
            route(self)

    def reply(self, status: int, body: bytes, kind: str = "image/jpeg", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


Route = Callable[[_Handler], None]


class FaultServer(ThreadingHTTPServer):
    """Routes are functions of the handler; `asked` counts the requests of each path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, Route] = {}
        self.asked: Counter[str] = Counter()
        self.agents: set[str | None] = set()
        self.base = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass

    def fixed(self, path: str, body: bytes, status: int = 200, kind: str = "image/jpeg", **headers: str) -> str:
        """Answer `path` with `body`, always; returns its URL."""
        self.routes[path] = lambda handler: handler.reply(status, body, kind, **headers)
        return self.base + path

    def images_asked(self) -> int:
        return sum(n for path, n in self.asked.items() if path.startswith("/img"))


@pytest.fixture
def server() -> Iterator[FaultServer]:
    server = FaultServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


SPEC = """
{classes}
[scrape]
engines = ["urls"]
allow_private_hosts = true
per_host_interval = 0
timeout = 5
retries = 1
{more}
[scrape.endpoints]
urls = "list.txt"
"""


class Scraping:
    """A data set that is scraped from a list of URLs (or other engines)."""

    def __init__(self, name: str = "test", more: str = "", classes: str = '[[classes]]\nname = "a"') -> None:
        self.workspace = Workspace.create(name, SPEC.format(more=more, classes=classes))

    def lists(self, *urls: str) -> Scraping:
        (self.workspace.root / "list.txt").write_text("\n".join(urls))
        return self

    def change(self, old: str, new: str) -> None:
        text = self.workspace.spec_path.read_text()
        assert old in text
        self.workspace.spec_path.write_text(text.replace(old, new))

    def run(self, **options: Any) -> ScrapeSummary:
        with self.workspace.stage_lock("scrape"):
            return scrape(self.workspace, self.workspace.spec(), **options)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return read_log(self.workspace.sources).records

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == "image"]

    @property
    def files(self) -> list[str]:
        folder = self.workspace.root / "images"
        return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def scraping() -> type[Scraping]:
    return Scraping


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., bytes]:
    return picture


@pytest.fixture(scope="session")
def has_avif() -> bool:
    return bool(features.check("avif"))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of pictures: relative path to seed, or to bytes."""

    def make(files: dict[str, int | bytes], name: str = "source") -> Path:
        for path, content in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else picture(content))
        return tmp_path / name

    return make
