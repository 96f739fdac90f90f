"""Takedown: the one verb that removes bytes. A tombstone stays and keeps every later scrape and import from them.

The tombstone is a line of sources.jsonl, `{"kind": "tombstone", "sha256", "why", "by", "at", "paths", "urls"}`, written
before a byte is removed: a crash in between leaves files that the manifest already calls purged, and another `purge`
removes them. What was derived from the image goes first, so that nothing of it is left when the image itself is gone.
Its addresses are not asked again, whatever they would give now. The rows stay in the manifest as `missing` with the
reason, so that the chain of the image can still be read.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from curate.acquire.store import NAME_LENGTHS, sync_folders
from curate.decisions import author
from curate.errors import InputError
from curate.workspace import Workspace, append_log, file_digest, now, read_log

_SEAL = "curate-export.json"


@dataclass(frozen=True, kw_only=True)
class Purged:
    """What a takedown did.

    Attributes:
        sha256: of the bytes.
        paths: every image of the data set that had them, in whatever class.
        removed: files and folders that are gone: images, decoded caches, and pages that showed pictures.
        elsewhere: what still holds the bytes and was not touched: files that imports link to, and exports.
        near: other images of the data set that look like it, as far as duplicates were searched for.
    """

    sha256: str
    paths: tuple[str, ...]
    removed: tuple[str, ...]
    elsewhere: tuple[str, ...]
    near: tuple[str, ...] = ()


def purge(workspace: Workspace, manifest: pl.DataFrame, path: str, *, why: str) -> Purged:
    """Remove the bytes of an image from the data set for good. The caller holds the stage lock.

    Args:
        workspace: the data set.
        manifest: schema `MANIFEST`, up to date with the files.
        path: one image that has the bytes.
        why: the reason, for the tombstone.

    Raises:
        InputError: there is no such image, nobody knows its bytes, or no reason is given.
    """
    rows = manifest.filter(pl.col("path") == path)
    if not why.strip():
        msg = "a takedown needs a reason (`--why`): it is what the tombstone tells."
        raise InputError(msg)
    if not rows.height:
        msg = f"no image {path!r} in data set {workspace.name!r}. `curate findings` lists paths as they are known."
        raise InputError(msg)
    sha256 = str(rows["sha256"][0])
    if not sha256:
        msg = f"{path} was never read, so its bytes are not known: there is nothing to remove."
        raise InputError(msg)
    paths = manifest.filter(pl.col("sha256") == sha256)["path"].to_list()
    line = {
        "v": 1, "kind": "tombstone", "at": now(), "sha256": sha256, "why": why.strip(), "by": author(), "paths": paths,
        "urls": _urls_of(workspace, sha256),
    }  # fmt: skip
    append_log(workspace.sources, [line])
    elsewhere = _exports_with(workspace, sha256)
    derived = _derived(workspace)
    for place in derived:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    named = [file for p in paths if (file := workspace.image(p)).is_symlink() or file.exists()]
    elsewhere = [*(str(f.resolve()) for f in named if f.is_symlink() and f.exists()), *elsewhere]
    files = list(dict.fromkeys([*named, *_unlisted(workspace, sha256)]))
    for file in files:
        file.unlink()
    sync_folders(file.parent for file in files)
    return Purged(
        sha256=sha256, paths=tuple(paths), removed=tuple(map(str, [*derived, *files])), elsewhere=tuple(elsewhere),
        near=_near(workspace, paths),
    )  # fmt: skip


def _urls_of(workspace: Workspace, sha256: str) -> list[str]:
    """Every address that gave the bytes, before and after redirects."""
    lines = [
        line for line in read_log(workspace.sources).records
        if line.get("kind") == "image" and line.get("origin") == "scraped" and line.get("sha256") == sha256
    ]  # fmt: skip
    return list(dict.fromkeys(str(url) for line in lines for url in (line.get("url"), line.get("final_url")) if url))


def _unlisted(workspace: Workspace, sha256: str) -> list[Path]:
    """Scraped files with the bytes that no line may tell of, after a crash."""
    found = (workspace.root / "images" / "scraped").glob(f"*/{sha256[: NAME_LENGTHS[0]]}*")
    return [file for file in found if file.is_file() and file_digest(file) == sha256]


def _near(workspace: Workspace, paths: list[str]) -> tuple[str, ...]:
    if not workspace.has_table("groups"):
        return ()
    groups = workspace.read_table("groups")
    mine = groups.filter(pl.col("path").is_in(paths))["group"].unique().to_list()
    like = groups.filter(pl.col("group").is_in(mine) & ~pl.col("path").is_in(paths))
    return tuple(like["path"].unique().sort().to_list())


def _derived(workspace: Workspace) -> list[Path]:
    """What may hold the picture in another form, and is made anew when it is needed: decoded caches, pages."""
    pages = workspace.reports.glob("*.html") if workspace.reports.is_dir() else ()
    return [place for place in (workspace.cache, *sorted(pages)) if place.exists()]


def _exports_with(workspace: Workspace, sha256: str) -> list[str]:
    """Exports that hold the bytes, by their own account."""
    found = []
    for to in dict.fromkeys(str(line.get("to")) for line in read_log(workspace.exports).records):
        try:
            seal = json.loads((Path(to) / _SEAL).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # moved or removed since
            continue
        files = seal.get("files") if isinstance(seal, dict) else None
        if isinstance(files, dict) and sha256 in files.values():
            found.append(to)
    return found
