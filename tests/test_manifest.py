from __future__ import annotations

import errno
import os
import shutil
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
            "mtime_ns": b.stat().st_ctime_ns,
        },
        {
            "path": "images/a.jpg", "sha256": file_digest(a), "bytes": a.stat().st_size, "format": "JPEG", "width": 39,
            "height": 20, "mode": "RGB", "label": None, "split": None, "origin": "imported",
            "source": "http://x/images/a.jpg", "status": "ok", "error": None, "obtained": 3,
            "mtime_ns": a.stat().st_ctime_ns,
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


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are read from now on."""
    found: list[str] = []
    plain = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: found.append(self.name) or plain(self))
    return found


def test_a_file_that_did_not_change_is_not_read_again_and_one_that_did_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [draw(workspace, f"images/{n}.png", n) for n in range(3)]
    append_log(workspace.sources, [line(f"images/{n}.png") for n in range(3)])
    first = scan(workspace)
    draw(workspace, "images/1.png", 77)
    read = reads(monkeypatch)
    second = scan(workspace, previous=first)
    assert sorted(read) == ["1.png", "sources.jsonl"]
    assert second.row(0) == first.row(0)
    assert second["width"].to_list() == [30, 107, 32]
    assert second["sha256"][1] == file_digest(files[1]) != first["sha256"][1]
    assert second.row(2) == first.row(2)


def test_other_bytes_of_the_same_size_and_time_are_noticed(workspace: Workspace, tmp_path: Path) -> None:
    """As `rsync --inplace -t`, `cp -p` and a rename leave them."""
    append_log(workspace.sources, [line("images/a.png"), line("images/b.png")])
    for name in "ab":
        file = draw(workspace, f"images/{name}.png")
        os.utime(file, (10**9, 10**9))
    first = scan(workspace)
    for name in "ab":
        file = workspace.image(f"images/{name}.png")
        copy = tmp_path / name
        copy.write_bytes(b"x" * file.stat().st_size)
        if name == "a":
            shutil.copyfile(copy, file)
        else:
            copy.replace(file)
        os.utime(file, (10**9, 10**9))
    assert scan(workspace, previous=first)["status"].to_list() == ["unreadable", "unreadable"]


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), PermissionError(errno.EACCES, "Permission denied"),
              OSError(errno.EMFILE, "Too many open files"), MemoryError()],
)  # fmt: skip
def test_what_could_not_be_read_for_a_while_is_tried_again(
    workspace: Workspace, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(workspace, "images/a.png")
    workspace.image("images/html.png").write_bytes(b"<html>")
    append_log(workspace.sources, [line("images/a.png"), line("images/html.png")])
    whole = scan(workspace)
    plain = Path.read_bytes

    def fail(self: Path) -> bytes:
        if self.name == "a.png":
            raise error
        return plain(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        assert scan(workspace)["status"].to_list() == ["unreadable", "unreadable"]
        for_a_while = scan(workspace)
    read = reads(monkeypatch)
    assert scan(workspace, previous=for_a_while).equals(whole)
    assert read == ["sources.jsonl", "a.png"]  # and what is no image is not looked at again


def test_a_scan_that_was_ended_goes_on_and_tells_how_far_it_is(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.manifest._BATCH", 2)
    for n in range(6):
        draw(workspace, f"images/{n}.png", n)
    workspace.image("images/3.png").write_bytes(b"<html>")
    append_log(workspace.sources, [line(f"images/{n}.png") for n in range(6)])
    whole = scan(workspace)
    log = tmp_path / "log.jsonl"

    def crash(done: int, total: int) -> None:
        assert total == 6
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(workspace, log=log, progress=crash)
    told: list[tuple[int, int]] = []
    read = reads(monkeypatch)
    assert scan(workspace, log=log, progress=lambda *step: told.append(step)).equals(whole)
    assert told == [(2, 2)]
    assert sorted(read) == ["4.png", "5.png", "log.jsonl", "sources.jsonl"]


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
