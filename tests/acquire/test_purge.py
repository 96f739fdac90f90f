from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.acquire.importers import import_folder
from curate.cli import main
from curate.dataset import Dataset, open_dataset
from curate.errors import InputError
from curate.manifest import scan
from curate.workspace import read_log

TWO = '[[classes]]\nname = "a"\n[[classes]]\nname = "b"'


def opened(data: Any) -> Dataset:
    return open_dataset(str(data.workspace.root))


def test_bytes_that_are_purged_go_from_every_class_and_never_come_back(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    bad = make_picture(1)
    one, two, other = server.fixed("/img/1", bad), server.fixed("/img/2", bad), server.fixed("/img/3", make_picture(3))
    data = scraping(classes=TWO).lists("url,label", f"{one},a", f"{two},b", f"{other},a")
    data.run()
    path = data.attempts[0]["path"]
    data.workspace.cache.mkdir()
    (data.workspace.cache / "pixels").write_bytes(b"decoded")
    data.workspace.reports.mkdir(parents=True)
    (data.workspace.reports / "index.html").write_text("<img>")
    (data.workspace.reports / "report.json").write_text("{}")
    made = opened(data).purge(path, why="asked for by the artist")
    assert set(made.paths) == {line["path"] for line in data.attempts if line["sha256"] == made.sha256}
    assert len(made.paths) == 2
    assert len(data.files) == 1
    assert not data.workspace.cache.exists()
    assert [p.name for p in data.workspace.reports.iterdir()] == ["report.json"]
    (stone,) = [line for line in data.lines if line["kind"] == "tombstone"]
    assert (stone["sha256"], stone["why"], stone["paths"]) == (made.sha256, "asked for by the artist", list(made.paths))
    rows = scan(data.workspace).sort("status")
    assert rows["status"].to_list() == ["missing", "missing", "ok"]
    assert rows["error"][0] == "purged: asked for by the artist"
    before = server.images_asked()
    data.run()
    assert server.images_asked() == before  # its addresses are settled
    again = server.fixed("/img/4", bad)
    data.lists("url,label", f"{again},a", f"{again},b", f"{other},a")
    summary = data.run(refresh=True)
    assert [dict(y.rejected) for y in summary.yields] == [{"purged": 1}, {"purged": 1}]
    assert len(data.files) == 1


def test_an_import_does_not_bring_purged_bytes_back_and_leaves_files_of_others_alone(
    scraping: Any, folder: Callable[..., Path]
) -> None:
    data = scraping()
    source = folder({"a/1.jpg": 1, "a/2.jpg": 2})
    with data.workspace.stage_lock("import"):
        import_folder(data.workspace, source, name="mine")
    made = opened(data).purge("images/imported/mine/a/1.jpg", why="private")
    assert made.elsewhere == (str(source / "a/1.jpg"),)
    assert (source / "a/1.jpg").exists()
    for name, copy in (("mine", False), ("copied", True)):
        with data.workspace.stage_lock("import"):
            told = import_folder(data.workspace, source, name=name, copy=copy)
        assert told.purged == 1
        assert not data.workspace.image(f"images/imported/{name}/a/1.jpg").exists()
    rows = scan(data.workspace).sort("path")
    assert rows["status"].to_list() == ["missing", "ok", "missing", "ok"]


def test_a_crash_between_tombstone_and_removal_is_told_and_mended(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    data = scraping().lists(server.fixed("/img/1", make_picture(1)))
    data.run()
    path = data.attempts[0]["path"]
    body = data.workspace.image(path).read_bytes()
    opened(data).purge(path, why="x")
    data.workspace.image(path).write_bytes(body)  # as if it had never been removed
    row = scan(data.workspace).row(0, named=True)
    assert row["status"] == "missing"
    assert "run `curate purge` again" in row["error"]
    opened(data).purge(path, why="x")
    assert data.files == []


def test_exports_that_hold_the_bytes_are_told(server: Any, scraping: Any, make_picture: Any, tmp_path: Path) -> None:
    data = scraping().lists(*(server.fixed(f"/img/{n}", make_picture(n)) for n in range(2)))
    data.run()
    dataset = opened(data)
    with data.workspace.stage_lock("scan"):
        data.workspace.write_table("manifest", scan(data.workspace))
    dataset.export(format="imagefolder", to=tmp_path / "out")
    made = dataset.purge(data.attempts[0]["path"], why="x")
    assert made.elsewhere == (str(tmp_path / "out"),)
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 2


@pytest.mark.parametrize(("path", "why", "message"), [("images/none.jpg", "x", "no image"), ("", " ", "reason")])
def test_bad_input_is_told(server: Any, scraping: Any, make_picture: Any, path: str, why: str, message: str) -> None:
    data = scraping().lists(server.fixed("/img/1", make_picture(1)))
    data.run()
    with pytest.raises(InputError, match=message):
        opened(data).purge(path or data.attempts[0]["path"], why=why)
    assert len(data.files) == 1
    assert not [line for line in data.lines if line["kind"] == "tombstone"]


def test_the_verb(server: Any, scraping: Any, make_picture: Any, capsys: pytest.CaptureFixture[str]) -> None:
    data = scraping().lists(server.fixed("/img/1", make_picture(1)), server.fixed("/img/2", make_picture(2)))
    data.run()
    path = data.attempts[0]["path"]
    with pytest.raises(SystemExit) as left:
        main(["purge", str(data.workspace.root), "--image", path, "--why", "asked for", "--json"])
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["paths"] == [path]
    assert read_log(data.workspace.sources).records[-1]["why"] == "asked for"
    with pytest.raises(SystemExit):
        main(["log", str(data.workspace.root), "--image", path])
    shown = capsys.readouterr().out
    assert "obtained" in shown  # its chain can still be read
    assert "asked for" in shown


def test_an_address_that_gave_the_bytes_is_refused_whatever_it_gives_now(
    server: Any, scraping: Any, make_picture: Any
) -> None:
    target = server.fixed("/img/target", make_picture(1))
    server.routes["/img/moved"] = lambda handler: handler.reply(302, b"", "", Location=target)
    moved, other = server.base + "/img/moved", server.fixed("/img/2", make_picture(2))
    data = scraping(classes=TWO).lists("url,label", f"{moved},a", f"{other},a")
    data.run()
    opened(data).purge(data.attempts[0]["path"], why="x")
    (stone,) = [line for line in data.lines if line["kind"] == "tombstone"]
    assert stone["urls"] == [moved, target]
    server.fixed("/img/target", make_picture(9))  # the same picture, encoded again
    data.lists("url,label", f"{moved},a", f"{moved},b", f"{target},b", f"{other},a")
    before = server.images_asked()
    data.run(refresh=True)
    assert server.images_asked() - before == 1
    assert [planned.hit.url for planned in opened(data).preview(refresh=True).planned] == [other]
    assert len(data.files) == 1


def test_images_that_look_like_it_are_named(
    server: Any, scraping: Any, make_picture: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    near = (make_picture(1), make_picture(1, format="PNG"), make_picture(700))
    data = scraping().lists(*(server.fixed(f"/img/{n}", body) for n, body in enumerate(near)))
    data.run()
    dataset = opened(data)
    dataset.dedupe()
    first, second, _ = (line["path"] for line in data.attempts)
    with pytest.raises(SystemExit):
        main(["purge", str(data.workspace.root), "--image", first, "--why", "x"])
    assert f"looks like it, and is still there: {second}" in capsys.readouterr().out


def test_a_crash_in_the_middle_leaves_the_image_until_all_that_shows_it_is_gone(
    server: Any, scraping: Any, make_picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scraping().lists(server.fixed("/img/1", make_picture(1)))
    data.run()
    data.workspace.cache.mkdir()
    (data.workspace.cache / "pixels").write_bytes(b"decoded")
    twin = data.workspace.image(data.attempts[0]["path"]).with_suffix(".jpeg")
    twin.write_bytes(make_picture(1))  # of a scrape that was killed before its line
    remove = Path.unlink

    def killed(self: Path, missing_ok: bool = False) -> None:
        if self.parent.name == "a" and self.suffix == ".jpg":
            raise SystemExit("killed here")
        remove(self, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(SystemExit):
            opened(data).purge(data.attempts[0]["path"], why="x")
    assert not data.workspace.cache.exists()
    opened(data).purge(data.attempts[0]["path"], why="x")
    assert data.files == []
