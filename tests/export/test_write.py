from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate.decisions import LABEL, MEMBERSHIP, decide, read
from curate.errors import DataCorrupt, InputError
from curate.export import write
from curate.export.write import SEAL, export, read_seal, verify
from curate.resolve import CleanView, resolve
from curate.workspace import read_log


def view_of(shapes: Any) -> CleanView:
    return resolve(shapes.manifest, read(shapes.workspace.decisions))


def made(shapes: Any, to: Path, **options: Any) -> write.ExportResult:
    options = {"format": "imagefolder"} | options
    return export(shapes.workspace, view_of(shapes), shapes.manifest, to=to, **options)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_data_set_gives_the_same_bytes_wherever_it_is_written(shapes: Any, tmp_path: Path) -> None:
    first, second = made(shapes, tmp_path / "a"), made(shapes, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert (first.content, first.view) == (second.content, second.view)
    assert [line["content"] for line in read_log(shapes.workspace.exports).records] == [first.content] * 2


def test_order_of_the_manifest_does_not_matter(shapes: Any, tmp_path: Path) -> None:
    made(shapes, tmp_path / "a")
    turned = shapes.manifest.reverse()
    log = read(shapes.workspace.decisions)
    export(shapes.workspace, resolve(turned, log), turned, to=tmp_path / "b", format="imagefolder")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_decisions_show_in_the_export(shapes: Any, tmp_path: Path) -> None:
    choices = [("images/scraped/circle/03.png", LABEL, "square"), ("images/scraped/circle/05.png", MEMBERSHIP, "out")]
    decide(shapes.workspace.decisions, shapes.manifest, choices)
    made(shapes, tmp_path / "out")
    table = pl.read_csv(tmp_path / "out/labels.csv")
    by_path = {row["path"]: row for row in table.iter_rows(named=True)}
    assert "images/scraped/circle/05.png" not in by_path
    moved = by_path["images/scraped/circle/03.png"]
    assert (moved["label"], moved["given"]) == ("square", "circle")
    assert moved["file"].startswith("train/square/")
    original = shapes.workspace.image("images/scraped/circle/03.png").read_bytes()
    assert (tmp_path / "out" / moved["file"]).read_bytes() == original


def test_export_over_a_former_one_leaves_only_what_is_in_now(shapes: Any, tmp_path: Path) -> None:
    to = tmp_path / "out"
    before = made(shapes, to)
    assert made(shapes, to).unchanged
    decide(shapes.workspace.decisions, shapes.manifest, [("images/scraped/circle/00.png", MEMBERSHIP, "out")])
    after = made(shapes, to)
    assert after.images == before.images - 1
    assert len(list(to.rglob("*.png"))) == after.images
    assert verify(to).problems == ()


def test_folder_with_other_things_is_refused_and_untouched(shapes: Any, tmp_path: Path) -> None:
    mine = tmp_path / "thesis.txt"
    mine.write_text("years of work")
    with pytest.raises(InputError, match="holds other things"):
        made(shapes, tmp_path)
    made(shapes, tmp_path / "out")
    (tmp_path / "out/train/notes.txt").write_text("mine")
    decide(shapes.workspace.decisions, shapes.manifest, [("images/scraped/circle/00.png", MEMBERSHIP, "out")])
    with pytest.raises(InputError, match=r"notes\.txt"):
        made(shapes, tmp_path / "out")
    assert mine.read_text() == "years of work"
    assert (tmp_path / "out/train/notes.txt").read_text() == "mine"


def test_interrupted_export_is_no_export_and_can_be_made_again(
    shapes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, copies = tmp_path / "out", []

    def stop_at_the_fifth(*arguments: Any) -> None:
        copies.append(arguments)
        if len(copies) == 5:
            raise KeyboardInterrupt
        copy(*arguments)

    copy = write._copy
    monkeypatch.setattr(write, "_copy", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        made(shapes, to)
    monkeypatch.undo()
    with pytest.raises(InputError, match="no finished export"):
        verify(to)
    assert made(shapes, to).images == view_of(shapes).images.height
    assert verify(to).problems == ()
    assert sorted(p.name for p in to.iterdir()) == [SEAL, "labels.csv", "train"]


def _edit(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda to: next(to.rglob("*.png")).unlink(), "is missing"),
        (lambda to: _edit(next(to.rglob("*.png"))), "other bytes"),
        (lambda to: (to / "train/more.png").write_bytes(b""), "was not exported"),
        (
            lambda to: (to / SEAL).write_text((to / SEAL).read_text().replace("circle/", "cirkle/", 1)),
            "contradicts itself",
        ),
    ],
)
def test_verify_sees_every_change(shapes: Any, tmp_path: Path, harm: Callable[[Path], None], problem: str) -> None:
    to = tmp_path / "out"
    made(shapes, to)
    harm(to)
    assert any(problem in told for told in verify(to).problems)


def test_image_whose_bytes_changed_stops_the_export(shapes: Any, tmp_path: Path) -> None:
    _edit(shapes.workspace.image("images/scraped/circle/00.png"))
    with pytest.raises(DataCorrupt, match=r"circle/00\.png has other bytes"):
        made(shapes, tmp_path / "out")
    assert read_seal(tmp_path / "out") is None


def test_csv_names_every_image_with_its_source(shapes: Any, tmp_path: Path) -> None:
    result = made(shapes, tmp_path / "out", format="csv")
    table = pl.read_csv(tmp_path / "out/data.csv")
    assert table.height == result.images
    assert set(table["source"].to_list()) <= set(shapes.manifest["source"].to_list())
    assert not list((tmp_path / "out").rglob("*.png"))


def test_label_that_is_no_folder_name_cannot_leave_the_folder(shapes: Any, tmp_path: Path) -> None:
    decide(shapes.workspace.decisions, shapes.manifest, [("images/scraped/circle/00.png", LABEL, "../../evil")])
    with pytest.raises(InputError, match="evil"):
        made(shapes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_empty_data_set_is_not_exported(shapes: Any, tmp_path: Path) -> None:
    shutil.rmtree(shapes.workspace.root / "images")
    gone = shapes.manifest.with_columns(status=pl.lit("missing"))
    with pytest.raises(InputError, match="empty"):
        export(
            shapes.workspace, resolve(gone, read(shapes.workspace.decisions)), gone, to=tmp_path / "out", format="csv"
        )
