from __future__ import annotations

import csv
import io
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import urllib3
from PIL import Image

from curate.acquire.engines import baidu, google
from curate.acquire.scrape import ScrapeSummary, scrape
from curate.demo import server as demo
from curate.errors import EnvironmentMissing, InputError
from curate.workspace import Workspace, read_log

CLASSES = {"regular": "楷书", "running": "行书", "cursive": "草书"}


def free_ports(count: int = demo.PORTS) -> int:
    """The first of `count` ports in a row that nothing listens on."""
    for first in range(20000, 32000, 7):
        sockets = []
        try:
            for port in range(first, first + count):
                sockets.append(socket.socket())
                sockets[-1].bind((demo.HOST, port))
        except OSError:
            continue
        else:
            return first
        finally:
            for sock in sockets:
                sock.close()
    raise AssertionError("no free ports")


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """45 pictures of each class, some of which are broken or answered with errors."""
    folder = tmp_path / "gallery"
    (folder / "images").mkdir(parents=True)
    rows = []
    answers = {3: "404", 5: "503_once", 8: "500", 12: "refused"}
    for c, label in enumerate(CLASSES):
        for rank in range(45):
            kind = ("JPEG", "PNG", "WEBP")[rank % 3]
            stream = io.BytesIO()
            Image.new("RGB", (40, 30 + rank), (c * 80, rank * 5, 200)).save(stream, kind)
            file = f"{label}{rank}.{kind.lower()}"
            body = b"<html>gone</html>" if rank == 20 else b"" if rank == 21 else stream.getvalue()
            (folder / "images" / file).write_bytes(body)
            rows.append({
                "class": label, "rank": rank, "host": rank % 3 + 1, "path": f"/i/{label}%20{rank}.jpg?w=640&h={rank}",
                "file": file, "answer": answers.get(rank, "ok"), "title": f"{CLASSES[label]} & more {rank}",
                "width": 40, "height": 30 + rank,
            })  # fmt: skip
    with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as stream_out:
        writer = csv.DictWriter(stream_out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder


def spec(limit: int = 1000) -> str:
    classes = "".join(f'[[classes]]\nname = "{name}"\nqueries = ["{word} 书法"]\n' for name, word in CLASSES.items())
    return f"{classes}[scrape]\nallow_private_hosts = true\nper_host_interval = 0\nlimit = {limit}\n"


def run(workspace: Workspace, served: demo.Served) -> ScrapeSummary:
    with workspace.stage_lock("scrape"):
        return scrape(workspace, workspace.spec(), endpoints=served.endpoints)


def images_of(workspace: Workspace) -> list[dict[str, Any]]:
    return [line for line in read_log(workspace.sources).records if line["kind"] == "image"]


def test_it_answers_in_the_formats_of_the_engines(gallery: Path) -> None:
    with demo.serve(free_ports(), gallery=gallery) as served, urllib3.PoolManager() as pool:
        page = pool.request("GET", google.page_url("行书 字帖", 0, endpoint=served.endpoints["google"], filters={}))
        answer = google.parse(page.data)
        assert [hit.rank for hit in answer.hits] == list(range(23))
        assert answer.hits[1].title == "行书 & more 2"
        assert answer.hits[1].url == f"http://127.0.0.1:{served.port + 3}/i/running%202.jpg?w=640&h=2"
        assert answer.hits[1].page_url
        assert answer.hits[1].thumbnail
        page = pool.request("GET", baidu.page_url("行书 字帖", 0, endpoint=served.endpoints["baidu"], filters={}))
        answer = baidu.parse(page.data)
        assert [hit.url.partition("h=")[2] for hit in answer.hits][:4] == ["0", "1", "3", "5"]
        assert answer.hits[1].title == "行书 & more 1"
        for engine, module in (("google", google), ("baidu", baidu)):
            for query, number in (("行书", 5), ("cats", 0)):
                page = pool.request(
                    "GET", module.page_url(query, number, endpoint=served.endpoints[engine], filters={})
                )
                assert module.parse(page.data, page=number).kind == "no_results"
        assert pool.request("GET", f"http://127.0.0.1:{served.port}/else").status == 404
        assert b"Allow: /" in pool.request("GET", f"http://127.0.0.1:{served.port + 2}/robots.txt").data


def test_a_scrape_of_it_is_complete_and_a_second_one_asks_for_no_image(home: Path, gallery: Path) -> None:
    workspace = Workspace.create("c", spec())
    with demo.serve(free_ports(), gallery=gallery) as served:
        summary = run(workspace, served)
        asked = [line for line in images_of(workspace) if line["outcome"] != "known"]
        outcomes = Counter((line["outcome"], line["reason"]) for line in asked)
        assert outcomes == {
            ("kept", None): 3 * 40, ("failed", "http_404"): 3, ("failed", "http_500"): 3,
            ("failed", "connection_refused"): 1, ("failed", "host_unreachable"): 2, ("rejected", "html"): 3,
            ("rejected", "empty"): 3,
        }  # fmt: skip
        assert summary.kept == dict.fromkeys(CLASSES, 40)
        assert Counter(served.images).most_common(1)[0][1] == 2  # the one that answered 503 first
        offered = Counter(line["url"] for line in asked)
        assert set(offered.values()) == {1}  # what both engines offer is asked for once
        assert {line["engine"] for line in images_of(workspace)} == {"google", "baidu"}
        run(workspace, served)  # asks once more for what may have been torn on its way
        before = len(served.images)
        run(workspace, served)
        assert {path for _, path in served.images[before:]} == {f"/i/{label}%208.jpg?w=640&h=8" for label in CLASSES}


def test_when_every_class_has_its_limit_nothing_at_all_is_asked(home: Path, gallery: Path) -> None:
    workspace = Workspace.create("c", spec(limit=10))
    with demo.serve(free_ports(), gallery=gallery) as served:
        assert run(workspace, served).kept == dict.fromkeys(CLASSES, 10)
        before = len(served.images), len(served.pages)
        assert run(workspace, served).asked == 0
        assert (len(served.images), len(served.pages)) == before


def test_the_limit_of_the_server_cuts_each_class(gallery: Path) -> None:
    entries = demo.read_catalog(gallery, 1000, limit_per_class=7)
    assert Counter(entry.label for entry in entries) == dict.fromkeys(CLASSES, 7)


def test_a_port_in_use_is_named_with_the_remedy(gallery: Path) -> None:
    port = free_ports()
    with (
        demo.serve(port, gallery=gallery),
        pytest.raises(EnvironmentMissing, match=f"{port} .*CURATE_DEMO_PORT"),
        demo.serve(port, gallery=gallery),
    ):
        pass
    with demo.serve(port, gallery=gallery):  # and it is free again
        pass


def test_the_port_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CURATE_DEMO_PORT", raising=False)
    assert demo.default_port() == 8600
    monkeypatch.setenv("CURATE_DEMO_PORT", "9100")
    assert demo.default_port() == 9100
    monkeypatch.setenv("CURATE_DEMO_PORT", "http")
    with pytest.raises(InputError, match="CURATE_DEMO_PORT"):
        demo.default_port()


def test_a_gallery_without_a_catalog_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="catalog"), demo.serve(free_ports(), gallery=tmp_path):
        pass


def test_what_is_planted_in_the_bundled_gallery_is_told_apart(home: Path) -> None:
    gallery = demo.bundled_gallery()
    with (gallery / "planted.csv").open(encoding="utf-8", newline="") as stream:
        planted = list(csv.DictReader(stream))
    workspace = Workspace.create("c", spec())
    with demo.serve(free_ports()) as served:
        run(workspace, served)
        paths = {entry.url: entry.path for entry in served.entries}
    by_path = {paths[line["url"]]: line for line in reversed(images_of(workspace))}  # as it was offered first
    assert len(by_path) == len(served.entries)
    broken = {p["path"]: p["detail"] for p in planted if p["fault"] == "broken"}
    reasons = {"truncated_jpeg": "truncated", "one_pixel": "too_small", "empty": "empty", "html": "html"}
    rejected = {path: line["reason"] for path, line in by_path.items() if line["outcome"] == "rejected"}
    assert {path: next(r for d, r in reasons.items() if d in detail) for path, detail in broken.items()} == rejected
    copies = {(p["path"], p["of"]) for p in planted if p["fault"] == "exact_duplicate"}
    assert copies
    assert all(by_path[a]["path"] == by_path[b]["path"] != "" for a, b in copies)
    told = {path for path, line in by_path.items() if line["outcome"] == "known"}
    assert len(told) == len(copies)
    assert told <= {path for pair in copies for path in pair}
