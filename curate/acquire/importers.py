"""Importers: images that are there already, linked (or copied) into a data set with their labels.

Nothing is moved or changed. An import can be repeated: only what is new or changed adds lines to sources.jsonl.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from curate import images
from curate.acquire.history import Line
from curate.acquire.listing import IMAGE_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS, column, read_table, safe_path
from curate.acquire.store import link, sync_folders
from curate.config import CLASS_NAME
from curate.errors import InputError
from curate.manifest import tombstones
from curate.workspace import Workspace, append_log, now, read_log, write_bytes

SPLITS = {
    "train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test",
    "holdout": "holdout",
}  # fmt: skip
"""Names of splits as people write them, and as the manifest has them."""
_SUFFIXES = frozenset({*images.EXTENSIONS.values(), ".jpeg", ".jpe", ".jfif", ".tiff", ".heic", ".svg"})
_BATCH = 200


@dataclass(frozen=True, kw_only=True)
class ImportSummary:
    """What an import did.

    Attributes:
        added: files that are new, or whose bytes, label or split changed.
        unchanged: files that were imported before just so.
        unreadable: of those, files that no image could be read from; they are rows of the manifest with the reason.
        missing: files that were named and are not there.
        purged: files whose bytes were taken down: they are not taken in.
        skipped: files beside the images that are none.
        labels: class to the number of its files; unlabelled ones are not counted.
    """

    added: int
    unchanged: int
    unreadable: int
    missing: int
    skipped: int
    labels: Mapping[str, int]
    purged: int = 0


@dataclass(frozen=True, kw_only=True)
class _Item:
    relative: str
    file: Path
    label: str | None
    split: str | None


def import_folder(
    workspace: Workspace, source: Path, *, name: str, split: str | None = None, copy: bool = False
) -> ImportSummary:
    """Import a folder of images. The caller holds the stage lock.

    A sub-folder is a class; files that lie directly in `source` have no label. Where the top folders are called train,
    valid (val, validation), test or holdout and have sub-folders, they are splits and the next level are the classes.

    Args:
        workspace: the data set.
        source: the folder.
        name: what this source is called in the data set, and the folder of its links.
        split: the split of all of its images, instead of what the folders say.
        copy: copy the bytes instead of linking to the files.

    Raises:
        InputError: `source` is no folder or holds no image, or `name` is no folder name.
    """
    if not source.is_dir():
        msg = f"{source} is no folder. Give the folder that holds the images, or a CSV file that lists them."
        raise InputError(msg)
    root = source.resolve()
    mine = (workspace.root / "images").resolve()
    if root.is_relative_to(mine) or mine.is_relative_to(root):
        msg = f"{source} and the images of data set {workspace.name!r} lie inside one another. Import another folder."
        raise InputError(msg)
    found = [(file, file.relative_to(root)) for file in _walk(root)]
    wanted = [(file, relative) for file, relative in found if _is_utf8(str(file)) and _is_image(file)]
    if not wanted:
        msg = f"{source} holds no image (of {len(found)} files). Give a folder with one sub-folder per class."
        raise InputError(msg)
    splits = {f.name for f in root.iterdir() if f.name.lower() in SPLITS and f.is_dir() and _has_folders(f)}
    items = []
    for file, relative in wanted:
        *folders, _ = relative.parts
        named = SPLITS[folders.pop(0).lower()] if folders and folders[0] in splits else None
        label = folders[0] if folders else None
        items.append(_Item(relative=relative.as_posix(), file=file, label=label, split=split or named))
    return _take_in(workspace, items, name=name, copy=copy, skipped=len(found) - len(wanted))


def import_csv(
    workspace: Workspace, table: Path, *, name: str, image_column: str | None = None, label_column: str | None = None,
    split_column: str | None = None, root: Path | None = None, split: str | None = None, copy: bool = False,
) -> ImportSummary:  # fmt: skip
    """Import the images that a CSV file lists. The caller holds the stage lock.

    Args:
        workspace: the data set.
        table: the CSV (or TSV) file, UTF-8, with a header.
        name: what this source is called in the data set, and the folder of its links.
        image_column: column with the path of the image; None: the first of image, path, file, filename, image_path.
        label_column: column with the class; None: the first of label, class, target, where there is one.
        split_column: column with the split; None: split or subset, where there is one.
        root: folder that the paths are relative to; None: the folder of `table`.
        split: the split of all images, instead of a column.
        copy: copy the bytes instead of linking to the files.

    Raises:
        InputError: the table or a column is not there, a path leaves `root`, or an image is listed twice with
            different labels. Nothing is imported then.
    """
    rows, columns = read_table(table)
    image_at = column(table, columns, image_column, IMAGE_COLUMNS, "image", needed=True)
    label_at = column(table, columns, label_column, LABEL_COLUMNS, "label")
    split_at = None if split else column(table, columns, split_column, SPLIT_COLUMNS, "split")
    base = (root or table.parent).resolve()
    if not base.is_dir():
        msg = f"{root} is no folder. Give the folder that the paths in {table} are relative to (`--root`)."
        raise InputError(msg)
    items: dict[str, tuple[int, _Item]] = {}
    for number, row in enumerate(rows, start=2):
        relative = safe_path(row.get(str(image_at)) or "", f"{table}, row {number}")
        given = split or (row.get(split_at) or "" if split_at else "").strip()
        item = _Item(
            relative=relative,
            file=base / relative,
            label=((row.get(label_at) or "").strip() or None) if label_at else None,
            split=SPLITS.get(given.lower(), given) or None,
        )
        first, earlier = items.setdefault(relative, (number, item))
        if earlier != item:
            ways = f"row {first} as {earlier.label!r} ({earlier.split}), row {number} as {item.label!r} ({item.split})"
            msg = f"{table}: {relative} is listed twice: {ways}. Keep one of the rows."
            raise InputError(msg)
    if not items:
        msg = f"{table} has a header and no rows. Give a table with one row per image."
        raise InputError(msg)
    return _take_in(workspace, [item for _, item in items.values()], name=name, copy=copy, skipped=0)


def _take_in(workspace: Workspace, items: list[_Item], *, name: str, copy: bool, skipped: int) -> ImportSummary:
    if not CLASS_NAME.fullmatch(name):
        msg = f"{name!r} cannot name a source: use letters, digits, space, . _ + -"
        raise InputError(msg)
    records = read_log(workspace.sources).records
    last = {line["path"]: line for line in records if line.get("origin") == "imported"}
    purged = tombstones(records)
    counts = dict.fromkeys(("added", "unchanged", "unreadable", "missing", "purged"), 0)
    labels: dict[str, int] = {}
    for start in range(0, len(items), _BATCH):
        new: list[Line] = []
        for item in items[start : start + _BATCH]:
            path = f"images/imported/{name}/{item.relative}"
            line = _obtain(workspace, item, path=path, name=name, copy=copy, purged=purged)
            same = {**last.get(path, {}), "at": line["at"]} == line
            if line["reason"] in {"missing", "purged"}:
                counts[line["reason"]] += 1
            else:
                counts["unchanged" if same else "added"] += 1
                counts["unreadable"] += line["reason"] is not None
            if item.label is not None:
                labels[item.label] = labels.get(item.label, 0) + 1
            if not same:
                new.append(line)
        sync_folders(f for line in new if (f := workspace.image(line["path"]).parent).is_dir())
        append_log(workspace.sources, new)
    return ImportSummary(**counts, skipped=skipped, labels=labels)


def _obtain(
    workspace: Workspace, item: _Item, *, path: str, name: str, copy: bool, purged: Container[str]
) -> Line:  # fmt: skip
    line: Line = {
        "v": 1, "kind": "image", "at": now(), "origin": "imported", "source": name, "url": item.relative,
        "label": item.label, "split": item.split, "sha256": None, "bytes": None, "path": path, "outcome": "failed",
        "reason": "missing", "detail": None,
    }  # fmt: skip
    try:
        body = item.file.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        return line | {"detail": f"{item.file}: {error.strerror}"}
    except OSError as error:
        return line | {"reason": "unreadable_file", "detail": f"{item.file}: {error.strerror}"}
    sha256 = hashlib.sha256(body).hexdigest()
    target = workspace.image(path)
    if sha256 in purged:
        target.unlink(missing_ok=True)
        told = "these bytes were taken down: see their tombstone in sources.jsonl"
        return line | {"sha256": sha256, "bytes": len(body), "reason": "purged", "detail": told}
    if copy:
        if target.is_symlink() or not target.is_file() or hashlib.sha256(target.read_bytes()).hexdigest() != sha256:
            write_bytes(target, body)
    elif not (target.is_symlink() and target.readlink() == item.file):
        link(item.file, target)
    line |= {"sha256": sha256, "bytes": len(body), "outcome": "kept", "reason": None}
    try:
        images.read_header(body)
    except images.ImageFailure as failure:
        line |= {"reason": failure.reason, "detail": failure.detail}
    return line


def _walk(root: Path) -> Iterator[Path]:
    """Every file below `root` in a fixed order, through linked folders too, without hidden ones."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(folder) / n for n in sorted(names) if not n.startswith("."))


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_image(file: Path) -> bool:
    """By its suffix, so that a broken image is a row with its reason; else by its content."""
    if file.suffix.lower() in _SUFFIXES:
        return True
    try:
        images.read_header(file)
    except images.ImageFailure:
        return False
    return True


def _has_folders(folder: Path) -> bool:
    return any(child.is_dir() for child in folder.iterdir())
