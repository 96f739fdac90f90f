from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.acquire.importers import import_csv, import_folder
from curate.errors import InputError
from curate.workspace import Workspace, read_log

Make = Callable[..., Path]


@pytest.fixture
def workspace(home: Path) -> Workspace:
    return Workspace.create("photos", "")


def lines(workspace: Workspace) -> list[dict[str, Any]]:
    return read_log(workspace.sources).records


def placed(workspace: Workspace) -> dict[str, tuple[str | None, str | None]]:
    return {line["url"]: (line["label"], line["split"]) for line in lines(workspace)}


# -- folders


def test_sub_folders_are_classes_and_files_are_linked(workspace: Workspace, folder: Make) -> None:
    source = folder({"cat/1.png": 1, "cat/deep/er/2.jpg": 2, "dog/1.png": 3, "loose.jpg": 4})
    summary = import_folder(workspace, source, name="mine")
    assert placed(workspace) == {
        "cat/1.png": ("cat", None), "cat/deep/er/2.jpg": ("cat", None), "dog/1.png": ("dog", None),
        "loose.jpg": (None, None),
    }  # fmt: skip
    link = workspace.image("images/imported/mine/cat/deep/er/2.jpg")
    assert link.readlink() == source / "cat/deep/er/2.jpg"
    line = next(line for line in lines(workspace) if line["url"] == "cat/1.png")
    body = (source / "cat/1.png").read_bytes()
    assert line.pop("at")
    assert line == {
        "v": 1, "kind": "image", "origin": "imported", "source": "mine", "url": "cat/1.png", "label": "cat",
        "split": None, "sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body),
        "path": "images/imported/mine/cat/1.png", "outcome": "kept", "reason": None, "detail": None,
    }  # fmt: skip
    assert (summary.added, summary.unchanged, summary.labels) == (4, 0, {"cat": 2, "dog": 1})


def test_top_folders_named_like_splits_are_splits_when_folders_follow(workspace: Workspace, folder: Make) -> None:
    source = folder(
        {"train/cat/1.jpg": 1, "Val/cat/2.jpg": 2, "holdout/dog/3.jpg": 3, "train/4.jpg": 4, "test/5.jpg": 5}
    )
    import_folder(workspace, source, name="s")
    assert placed(workspace) == {
        "train/cat/1.jpg": ("cat", "train"), "Val/cat/2.jpg": ("cat", "valid"), "holdout/dog/3.jpg": ("dog", "holdout"),
        "train/4.jpg": (None, "train"), "test/5.jpg": ("test", None),
    }  # fmt: skip


def test_a_split_that_is_given_holds_for_all(workspace: Workspace, folder: Make) -> None:
    import_folder(workspace, folder({"train/cat/1.jpg": 1, "cat/2.jpg": 2}), name="s", split="holdout")
    assert set(placed(workspace).values()) == {("cat", "holdout")}


def test_an_import_that_is_repeated_adds_only_what_changed(workspace: Workspace, folder: Make) -> None:
    source = folder({"cat/1.jpg": 1, "cat/2.jpg": 2})
    import_folder(workspace, source, name="s")
    before = workspace.sources.read_bytes()
    summary = import_folder(workspace, source, name="s")
    assert (summary.added, summary.unchanged) == (0, 2)
    assert workspace.sources.read_bytes() == before
    folder({"cat/2.jpg": 7, "dog/3.jpg": 3})
    summary = import_folder(workspace, source, name="s")
    assert (summary.added, summary.unchanged) == (2, 1)
    assert [line["url"] for line in lines(workspace)] == ["cat/1.jpg", "cat/2.jpg", "cat/2.jpg", "dog/3.jpg"]


def test_copies_stand_alone_and_heal(workspace: Workspace, folder: Make) -> None:
    source = folder({"cat/1.jpg": 1})
    import_folder(workspace, source, name="s", copy=True)
    copy = workspace.image("images/imported/s/cat/1.jpg")
    body = (source / "cat/1.jpg").read_bytes()
    assert not copy.is_symlink()
    assert copy.read_bytes() == body
    copy.write_bytes(b"spoilt")
    assert import_folder(workspace, source, name="s", copy=True).unchanged == 1
    assert copy.read_bytes() == body
    import_folder(workspace, source, name="s")
    assert copy.is_symlink()
    assert (source / "cat/1.jpg").read_bytes() == body


def test_broken_images_are_lines_with_their_reason_and_other_files_are_skipped(
    workspace: Workspace, folder: Make
) -> None:
    source = folder({
        "cat/1.jpg": 1, "cat/empty.jpg": b"", "cat/page.jpg": b"<html>", "cat/notes.txt": b"x", "labels.csv": b"a,b",
        ".hidden/2.jpg": 2, "cat/.3.jpg": 3, "cat/no_suffix": 4,
    })  # fmt: skip
    (source / "cat/gone.jpg").symlink_to(source / "nowhere.jpg")
    summary = import_folder(workspace, source, name="s")
    assert {line["url"]: (line["outcome"], line["reason"]) for line in lines(workspace)} == {
        "cat/1.jpg": ("kept", None), "cat/empty.jpg": ("kept", "empty"), "cat/gone.jpg": ("failed", "missing"),
        "cat/no_suffix": ("kept", None), "cat/page.jpg": ("kept", "html"),
    }  # fmt: skip
    assert (summary.added, summary.unreadable, summary.missing, summary.skipped) == (4, 2, 1, 2)


def test_linked_folders_are_followed_but_not_in_circles(workspace: Workspace, folder: Make, tmp_path: Path) -> None:
    source = folder({"cat/1.jpg": 1})
    folder({"2.jpg": 2}, name="elsewhere")
    (source / "dog").symlink_to(tmp_path / "elsewhere")
    (source / "cat/back").symlink_to(source)
    import_folder(workspace, source, name="s")
    assert placed(workspace) == {"cat/1.jpg": ("cat", None), "dog/2.jpg": ("dog", None)}


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        ({"notes.txt": b"x"}, "s", "holds no image"),
        ({"cat/1.jpg": 1}, "../s", "cannot name a source"),
        ({"cat/1.jpg": 1}, "a/b", "cannot name a source"),
    ],
)
def test_bad_folders_are_told(
    workspace: Workspace, folder: Make, files: dict[str, int | bytes], name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        import_folder(workspace, folder(files), name=name)
    assert not workspace.sources.exists()


def test_the_data_set_does_not_import_itself(workspace: Workspace, folder: Make) -> None:
    import_folder(workspace, folder({"cat/1.jpg": 1}), name="s")
    for place in (workspace.root / "images", workspace.root / "images/imported/s", workspace.root):
        with pytest.raises(InputError, match="inside one another"):
            import_folder(workspace, place, name="again")
    with pytest.raises(InputError, match="no folder"):
        import_folder(workspace, workspace.root / "nowhere", name="s")


# -- tables


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("image,label,split", {}),
        ("File,Class,Subset", {}),
        ("id_of_file,target,part", {"image_column": "id_of_file", "split_column": "part"}),
        ("path,animal,split", {"label_column": "animal"}),
    ],
)
def test_columns_are_found_or_named(workspace: Workspace, folder: Make, header: str, options: dict[str, str]) -> None:
    table = folder({"a/1.jpg": 1, "2.jpg": 2}) / "t.csv"
    table.write_text(f"\ufeff{header}\na/1.jpg, cat ,train\n./2.jpg,,validation\n", encoding="utf-8")
    summary = import_csv(workspace, table, name="t", **options)
    assert placed(workspace) == {"a/1.jpg": ("cat", "train"), "2.jpg": (None, "valid")}
    assert workspace.image("images/imported/t/a/1.jpg").is_file()
    assert summary.labels == {"cat": 1}
    assert import_csv(workspace, table, name="t", **options).unchanged == 2
    assert len(lines(workspace)) == 2


def test_a_file_that_is_not_there_is_a_line_that_names_its_path(workspace: Workspace, folder: Make) -> None:
    root = folder({"1.jpg": 1})
    table = root.parent / "t.tsv"
    table.write_text("image\tlabel\n1.jpg\tcat\ngone/2.jpg\tdog\n")
    summary = import_csv(workspace, table, name="t", root=root, split="holdout")
    line = lines(workspace)[1]
    assert (line["outcome"], line["reason"], line["label"], line["split"]) == ("failed", "missing", "dog", "holdout")
    assert (line["path"], line["sha256"]) == ("images/imported/t/gone/2.jpg", None)
    assert (summary.added, summary.missing) == (1, 1)
    import_csv(workspace, table, name="t", root=root, split="holdout")
    assert len(lines(workspace)) == 2
    folder({"gone/2.jpg": 2})
    import_csv(workspace, table, name="t", root=root, split="holdout")
    assert [line["outcome"] for line in lines(workspace)] == ["kept", "failed", "kept"]


@pytest.mark.parametrize(
    "path",
    ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "C:\\x.jpg", "\\\\host\\x.jpg", "a\\..\\..\\x.jpg", "", " "],
)
def test_paths_that_lead_elsewhere_are_refused(workspace: Workspace, folder: Make, path: str) -> None:
    table = folder({"1.jpg": 1}) / "t.csv"
    table.write_text(f'image,label\n1.jpg,cat\n"{path}",dog\n')
    with pytest.raises(InputError, match="row 3"):
        import_csv(workspace, table, name="t")
    assert not workspace.sources.exists()
    assert not (workspace.root / "images").exists()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("picture,label\n1.jpg,cat\n", {}, "no image column.*picture, label.*--image-column"),
        ("image,label\n1.jpg,cat\n", {"label_column": "kind"}, "no column 'kind'.*image, label"),
        ("image,label\n", {}, "no rows"),
        ("", {}, "no image column"),
        ("image,label\n1.jpg,cat\n1.jpg,dog\n", {}, "listed twice.*row 2.*cat.*row 3.*dog"),
        ("image,label\n1.jpg,cat\n", {"root": Path("/nowhere/at/all")}, "no folder.*--root"),
    ],
)
def test_bad_tables_are_told(
    workspace: Workspace, folder: Make, text: str, options: dict[str, Any], message: str
) -> None:
    table = folder({"1.jpg": 1}) / "t.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=message):
        import_csv(workspace, table, name="t", **options)
    assert not workspace.sources.exists()


def test_a_table_that_is_none_is_told(workspace: Workspace, folder: Make) -> None:
    root = folder({"1.jpg": 1})
    for place in (root / "nothing.csv", root / "1.jpg"):
        with pytest.raises(InputError, match="cannot be read as CSV"):
            import_csv(workspace, place, name="t")
