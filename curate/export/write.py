"""Writing an export, and verifying one.

An export holds, besides its images or rows, `curate-export.json`: name and version of the data set, the format, the
digest of the view, and the SHA-256 of every file. It is written last, so a folder that has it is complete.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import polars as pl

from curate.errors import DataCorrupt, InputError
from curate.images import EXTENSIONS
from curate.resolve import CleanView
from curate.workspace import (
    Workspace,
    append_log,
    digest,
    file_digest,
    now,
    read_log,
    replacing,
    write_bytes,
    write_json,
)

Format = Literal["imagefolder", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)
SEAL = "curate-export.json"
_MARK = ".curate-export-under-way"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was exported.

    Attributes:
        to: the folder.
        format: its format.
        images: number of images.
        view: digest of the clean view: paths, bytes, labels and splits.
        content: digest over the names and digests of all files.
        unchanged: the folder held exactly this before.
    """

    to: Path
    format: Format
    images: int
    view: str
    content: str
    unchanged: bool


def export(
    workspace: Workspace, view: CleanView, manifest: pl.DataFrame, *, to: Path, format: Format,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> ExportResult:  # fmt: skip
    """Write the clean data set into a folder.

    `imagefolder`: `<split>/<label>/<name>` (split `train` where none is set) with `labels.csv` beside; bytes are
    copied as they are. `csv`: `data.csv` alone, with path, label, split, digest and source of every image.

    Args:
        workspace: the data set.
        view: what is in, see `curate.resolve`.
        manifest: schema `MANIFEST`.
        to: an empty folder, a new one, or one that an export was written to before.
        format: see above.
        progress: called with (done, all).

    Raises:
        InputError: the folder holds other things, or there is nothing to export.
        DataCorrupt: an image is no longer what the manifest says.
    """
    if format not in FORMATS:
        msg = f"there is no export format {format!r}: choose from {', '.join(FORMATS)}"
        raise InputError(msg)
    rows = rows_of(view, manifest)
    if not rows.height:
        msg = f"the clean data set of {workspace.name!r} is empty: there is nothing to export. See `curate status`."
        raise InputError(msg)
    key = digest(rows.select("path", "sha256", "label", "split").rows())
    if (seal := read_seal(to)) and seal["view"] == key and seal["format"] == format and not verify(to).problems:
        return ExportResult(to=to, format=format, images=rows.height, view=key, content=seal["content"], unchanged=True)
    _claim(to)
    files: dict[str, str] = {}
    if format == "imagefolder":
        for done, row in enumerate(rows.iter_rows(named=True), start=1):
            _copy(workspace.image(row["path"]), to / row["file"], row)
            files[row["file"]] = row["sha256"]
            progress(done, rows.height)
    name = "labels.csv" if format == "imagefolder" else "data.csv"
    table = _csv(rows if format == "imagefolder" else rows.drop("file"))
    write_bytes(to / name, table)
    files[name] = file_digest(to / name)
    content = digest(files)
    seal = {
        "dataset": workspace.name, "format": format, "images": rows.height, "view": key, "content": content,
        "classes": rows["label"].unique().sort().to_list(), "files": files,
    }  # fmt: skip
    write_json(to / SEAL, seal)
    (to / _MARK).unlink()
    line = {"at": now(), "to": str(to), "format": format, "images": rows.height, "view": key, "content": content}
    append_log(workspace.exports, [line])
    return ExportResult(to=to, format=format, images=rows.height, view=key, content=content, unchanged=False)


def rows_of(view: CleanView, manifest: pl.DataFrame) -> pl.DataFrame:
    """The exported rows: `file, path, label, given, split, sha256, width, height, origin, source`, sorted by file."""
    facts = manifest.select("path", "format", "width", "height", "origin", "source")
    rows = view.images.join(facts, on="path", how="inner").with_columns(split=pl.col("split").fill_null("train"))
    for part in {*rows["split"].to_list(), *rows["label"].to_list()}:
        if part in {".", ".."} or set(part) & set("/\\\0"):
            msg = f"{part!r} cannot be the name of a folder: give the images another label or split and export again."
            raise InputError(msg)
    names = [
        f"{split}/{label}/{PurePosixPath(path).stem[:80]}-{sha[:8]}{EXTENSIONS.get(kind or '', '.img')}"
        for path, label, split, sha, kind in rows.select("path", "label", "split", "sha256", "format").iter_rows()
    ]
    columns = ["file", "path", "label", "given", "split", "sha256", "width", "height", "origin", "source"]
    named = rows.with_columns(file=pl.Series(names, dtype=pl.String)).select(columns).sort("file", "path")
    # Two images of one name and the same first digits: their order is fixed, so their numbers are.
    place = pl.int_range(pl.len()).over("file")
    stem, ending = pl.col("file").str.replace(r"\.\w+$", ""), pl.col("file").str.extract(r"(\.\w+)$")
    return named.with_columns(
        file=pl.when(place > 0).then(stem + "-" + place.cast(pl.String) + ending).otherwise("file")
    )


def _csv(rows: pl.DataFrame) -> bytes:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(rows.columns)
    out.writerows(rows.iter_rows())
    return text.getvalue().encode()


def _claim(to: Path) -> None:
    """Make the folder ours: new or empty, or a former export, whose files are removed."""
    if to.exists() and not to.is_dir():
        msg = f"{to} is a file: choose a folder for the export."
        raise InputError(msg)
    if to.is_dir() and any(to.iterdir()):
        seal = read_seal(to)
        if seal is None and not (to / _MARK).exists():
            msg = f"{to} holds other things: an export goes into a new or an empty folder, or over a former export."
            raise InputError(msg)
        strange = sorted(set(_files(to)) - set(seal["files"] if seal else _files(to)) - {SEAL, _MARK})
        if strange:
            msg = f"{to} holds {strange[0]!r}, which no export wrote ({len(strange)} such): move it or choose another."
            raise InputError(msg)
        write_bytes(to / _MARK, b"")  # from here on the folder is known to be ours, whatever happens
        (to / SEAL).unlink(missing_ok=True)
        for entry in to.iterdir():
            if entry.name != _MARK:
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    write_bytes(to / _MARK, b"")


def _copy(source: Path, target: Path, row: dict[str, Any]) -> None:
    with replacing(target) as temporary:
        try:
            shutil.copyfile(source, temporary)
        except FileNotFoundError as error:
            msg = f"{row['path']} is no longer there. Run `curate measure` again, and export anew."
            raise DataCorrupt(msg) from error
        if file_digest(temporary) != row["sha256"]:
            msg = (
                f"{row['path']} has other bytes than when it was scanned. Run `curate measure` again, and export anew."
            )
            raise DataCorrupt(msg)


def _files(folder: Path) -> list[str]:
    return sorted(str(PurePosixPath(p.relative_to(folder))) for p in folder.rglob("*") if not p.is_dir())


def read_seal(folder: Path) -> dict[str, Any] | None:
    """What `curate-export.json` says, or None where the folder is no finished export."""
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wanted = {"view": str, "format": str, "content": str, "files": dict}
    good = isinstance(seal, dict) and all(isinstance(seal.get(k), t) for k, t in wanted.items())
    return seal if good else None


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found: the number of files, and one sentence for each that is not as it was exported."""

    files: int
    problems: tuple[str, ...]


def verify(folder: Path) -> Verification:
    """Compare an export with what was written.

    Raises:
        InputError: the folder is no finished export.
    """
    seal = read_seal(folder)
    if seal is None:
        msg = f"{folder} is no finished export: it has no {SEAL}."
        raise InputError(msg)
    problems = []
    for name, sha in sorted(seal["files"].items()):
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file_digest(file) != sha:
            problems.append(f"{name} has other bytes than were exported")
    problems += [f"{n} was not exported" for n in sorted(set(_files(folder)) - set(seal["files"]) - {SEAL})]
    if digest(seal["files"]) != seal["content"]:
        problems.append(f"{SEAL} contradicts itself: it was edited")
    return Verification(files=len(seal["files"]), problems=tuple(problems))


def former(workspace: Workspace) -> list[dict[str, Any]]:
    """The log of exports, oldest first."""
    return read_log(workspace.exports).records
