from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curate.manifest import diff, scan
from curate.schema import MANIFEST, validate
from curate.workspace import Workspace, append_log, file_digest


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return Workspace.create("a", "")


def draw(workspace: Workspace, path: str, colour: int = 0, kind: str = "PNG") -> Path:
    file = workspace.image(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30 + colour, 20), (colour, 0, 0)).save(file, kind)
    return file


def line(path: str, **more: Any) -> dict[str, Any]:
    usual = {"kind": "image", "outcome": "kept", "origin": "scraped", "url": f"http://x/{path}", "label": "a"}
    return usual | {"path": path, "sha256": "told"} | more


def test_every_obtained_image_is_a_row_in_the_order_it_came(workspace: Workspace) -> None:
    b = draw(workspace, "images/b.png", 5)
    a = draw(workspace, "images/a.jpg", 9, "JPEG")
    append_log(workspace.sources, [
        {"kind": "query", "query": "birds"},
        line("images/b.png", label="bird", split="train"),
        line("images/gone.png", outcome="failed"),
        line("images/a.jpg", origin="imported", source="mine", label=None),
        {"kind": "image", "outcome": "failed", "path": None, "reason": "html"},
    ])  # fmt: skip
    table = scan(workspace)
    assert table.rows(named=True) == [
        {
            "path": "images/b.png", "sha256": file_digest(b), "bytes": b.stat().st_size, "format": "PNG", "width": 35,
            "height": 20, "mode": "RGB", "label": "bird", "split": "train", "origin": "scraped",
            "source": "http://x/images/b.png", "status": "ok", "error": None, "obtained": 1,
            "mtime_ns": b.stat().st_mtime_ns,
        },
        {
            "path": "images/a.jpg", "sha256": file_digest(a), "bytes": a.stat().st_size, "format": "JPEG", "width": 39,
            "height": 20, "mode": "RGB", "label": None, "split": None, "origin": "imported",
            "source": "http://x/images/a.jpg", "status": "ok", "error": None, "obtained": 3,
            "mtime_ns": a.stat().st_mtime_ns,
        },
    ]  # fmt: skip


def test_an_empty_data_set_is_an_empty_table(workspace: Workspace) -> None:
    assert validate(scan(workspace), MANIFEST).height == 0


def test_the_same_bytes_scraped_twice_are_one_row_with_the_first_source(workspace: Workspace) -> None:
    draw(workspace, "images/a.png")
    append_log(workspace.sources, [line("images/a.png", url="u1"), line("images/a.png", url="u2", outcome="known")])
    assert scan(workspace).select("source", "obtained").rows() == [("u1", 0)]


def test_an_import_that_is_repeated_tells_what_the_source_says_now(workspace: Workspace) -> None:
    draw(workspace, "images/a.png")
    one = line("images/a.png", origin="imported")
    append_log(workspace.sources, [one, line("images/b.png", outcome="failed"), one | {"label": "b", "split": "test"}])
    assert scan(workspace).select("label", "split", "obtained").rows() == [("b", "test", 0)]


def test_what_cannot_be_read_is_a_row_with_its_reason_and_stops_nothing(workspace: Workspace) -> None:
    paths = ["images/ok.png", "images/html.jpg", "images/empty.png", "images/gone.png", "images/link.png",
             "images/folder.png", "images/failed.csv"]  # fmt: skip
    draw(workspace, paths[0])
    workspace.image(paths[1]).write_bytes(b"<html>no</html>")
    workspace.image(paths[2]).write_bytes(b"")
    workspace.image(paths[4]).symlink_to("nowhere")
    workspace.image(paths[5]).mkdir()
    append_log(workspace.sources, [line(p) for p in paths[:6]])
    append_log(workspace.sources, [line(paths[6], origin="imported", outcome="failed", sha256=None)])
    table = scan(workspace)
    assert table["status"].to_list() == [
        "ok",
        "unreadable",
        "unreadable",
        "missing",
        "missing",
        "unreadable",
        "missing",
    ]
    errors = table["error"].to_list()
    assert errors[0] is None
    for error, told in zip(
        errors[1:], ["html:", "empty:", "not there", "not there", "directory", "not there"], strict=True
    ):
        assert told in error.lower()
    assert table["sha256"].to_list()[3] == "told"
    assert table["width"].drop_nulls().to_list() == [30]


def test_a_file_that_did_not_change_is_not_read_again_and_one_that_did_is(workspace: Workspace) -> None:
    files = [draw(workspace, f"images/{n}.png", n) for n in range(3)]
    append_log(workspace.sources, [line(f"images/{n}.png") for n in range(3)])
    first = scan(workspace)
    stat = files[0].stat()
    files[0].write_bytes(b"x" * stat.st_size)  # same size and time: known by these, so it is not opened
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    draw(workspace, "images/1.png", 77)
    second = scan(workspace, previous=first)
    assert second.row(0) == first.row(0)
    assert second["width"].to_list() == [30, 107, 32]
    assert second["sha256"][1] == file_digest(files[1]) != first["sha256"][1]
    assert second.row(2) == first.row(2)
    assert scan(workspace)["status"].to_list() == ["unreadable", "ok", "ok"]


def test_a_file_that_comes_back_is_readable_again(workspace: Workspace) -> None:
    file = draw(workspace, "images/a.png")
    body = file.read_bytes()
    append_log(workspace.sources, [line("images/a.png")])
    whole = scan(workspace)
    file.unlink()
    gone = scan(workspace, previous=whole)
    assert gone["status"].to_list() == ["missing"]
    file.write_bytes(body)
    assert scan(workspace, previous=gone).drop("mtime_ns").equals(whole.drop("mtime_ns"))


def test_a_line_that_a_crash_tore_does_not_stop_a_scan(workspace: Workspace) -> None:
    draw(workspace, "images/a.png")
    append_log(workspace.sources, [line("images/a.png")])
    with workspace.sources.open("ab") as stream:
        stream.write(b'{"kind": "image", "path": "images/b')
    assert scan(workspace)["path"].to_list() == ["images/a.png"]


rows = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.sampled_from("12"), st.sampled_from(["x", "y", None])))


@given(rows, rows)
def test_a_difference_tells_each_path_in_its_place(manifest_of: Any, old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = (
        manifest_of([{"path": p, "sha256": sha, "label": label} for p, (sha, label) in side.items()])
        for side in (old, new)
    )
    found = diff(before, after)
    assert found.added == tuple(p for p in "abcdef" if p in new and p not in old)
    assert found.removed == tuple(p for p in "abcdef" if p in old and p not in new)
    assert found.changed == tuple(p for p in "abcdef" if p in old and p in new and old[p][0] != new[p][0])
    assert found.relabelled == tuple(p for p in "abcdef" if p in old and p in new and old[p][1] != new[p][1])
