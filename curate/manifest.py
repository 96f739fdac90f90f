"""The manifest: one row per image, computed from sources.jsonl and the files themselves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from curate.images import ImageFailure, is_passing, read_content, read_header
from curate.schema import MANIFEST, validate
from curate.workspace import Workspace, append_log, file_digest, read_log

KEPT = frozenset({"kept", "known"})
"""Outcomes of sources.jsonl that tie an attempt to a file."""

_AT_ONCE = 2**26
"""Bytes up to which a file is read whole, for its digest and its header."""

_BATCH = 64
"""Files between two notes in the log of a scan."""


def tombstones(records: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Takedowns told by lines of sources.jsonl: SHA-256 of the bytes to its line."""
    return {str(line["sha256"]): line for line in records if line.get("kind") == "tombstone" and line.get("sha256")}


def scan(
    workspace: Workspace, *, previous: pl.DataFrame | None = None, log: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:  # fmt: skip
    """Compute the manifest.

    Args:
        workspace: the data set.
        previous: the manifest of last time; what was read of files that did not change since is taken over, but for
            failures that lay in the machine.
        log: what is read of files is kept in this file along the way, and what a scan that was ended left there is
            taken over; the caller removes it when the manifest is written.
        progress: called with (done, all) while files are read.

    Returns:
        A table of schema `MANIFEST`, in the order in which images were first obtained. Unreadable and missing
        images are rows with their reason, never an absence; so are those that were purged.
    """
    records = read_log(workspace.sources).records
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, line in enumerate(records):
        if line.get("kind") != "image" or not isinstance(path := line.get("path"), str):
            continue
        if line.get("outcome") in KEPT or (line.get("origin") == "imported" and line.get("outcome") == "failed"):
            earlier = first.get(path)
            # An import that was repeated tells what the source says now; a scraped file keeps its first source.
            if earlier is None or line.get("origin") == "imported":
                first[path] = (earlier[0] if earlier else number, line)
    seen = _look(workspace, first, _known(previous, log), log, progress)
    purged = tombstones(records)
    taken_down = {path: line for line in purged.values() for path in line.get("paths", ())}
    rows = []
    for path, (number, line) in first.items():
        size, changed, read = seen[path]
        if purged and (tombstone := purged.get(read.sha256) or (taken_down.get(path) if not changed else None)):
            still = "; the file is there again: run `curate purge` again" if changed else ""
            read = read._replace(status="missing", error=f"purged: {tombstone.get('why')}{still}")
        rows.append((
            path, read.sha256, size, read.format, read.width, read.height, read.mode, line.get("label"),
            line.get("split"), line["origin"], line.get("url"), read.status, read.error, number, changed,
        ))  # fmt: skip
    return validate(pl.DataFrame(rows, schema=MANIFEST.columns, orient="row"), MANIFEST)


class _Read(NamedTuple):
    """What reading a file told."""

    sha256: str
    format: str | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    status: str = "ok"
    error: str | None = None


_Seen = tuple[int, int, _Read]
"""Bytes of a file, when it changed, and what reading it told."""


def _known(previous: pl.DataFrame | None, log: Path | None) -> dict[str, _Seen]:
    known = {}
    if previous is not None:
        for path, size, changed, *read in previous.select("path", "bytes", "mtime_ns", *_Read._fields).iter_rows():
            known[path] = (size, changed, _Read._make(read))
    if log:
        for line in read_log(log).records:
            known[line["path"]] = (line["bytes"], line["mtime_ns"], _Read._make(line["read"]))
    return known


def _look(
    workspace: Workspace, first: Mapping[str, tuple[int, Mapping[str, Any]]], known: Mapping[str, _Seen],
    log: Path | None, progress: Callable[[int, int], None] | None,
) -> dict[str, _Seen]:  # fmt: skip
    """What is known of each file, and of those that are new or changed what reading them tells."""
    seen: dict[str, _Seen] = {}
    todo = []
    root = str(workspace.root)
    for path, (_, line) in first.items():
        try:
            stat = os.stat(f"{root}/{path}")  # noqa: PTH116 - a pathlib path for each image takes longer than the call
        except OSError as error:
            gone = _Read(line.get("sha256") or "", status="missing", error=f"the file is not there ({error.strerror})")
            seen[path] = (0, 0, gone)
            continue
        # Copies that keep the time of the original, as rsync and cp -p make them, cannot keep that of the last change.
        changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
        earlier = known.get(path)
        if earlier and earlier[:2] == (stat.st_size, changed) and not is_passing(earlier[2].error):
            seen[path] = earlier
        else:
            seen[path] = (stat.st_size, changed, _Read(line.get("sha256") or ""))
            todo.append(path)
    for start in range(0, len(todo), _BATCH):
        part = todo[start : start + _BATCH]
        for path in part:
            size, changed, told = seen[path]
            seen[path] = (size, changed, _read(workspace.image(path), size, told.sha256))
        if log:
            lines = [{"path": path, "bytes": seen[path][0], "mtime_ns": seen[path][1], "read": seen[path][2]}
                     for path in part]  # fmt: skip
            append_log(log, lines, sync=False)
        if progress:
            progress(start + len(part), len(todo))
    return seen


def _read(file: Path, size: int, told: str) -> _Read:
    """Digest and header, from one reading where it fits into memory; `told` is the digest where there is none."""
    sha = told
    try:
        if size <= _AT_ONCE:
            content = read_content(file)
            sha = hashlib.sha256(content).hexdigest()
            header = read_header(content)
        else:
            sha = file_digest(file)
            header = read_header(file)
    except ImageFailure as failure:
        return _Read(sha, status="unreadable", error=str(failure))
    except OSError as error:
        return _Read(sha, status="unreadable", error=f"unreadable_file: {error.strerror or error}")
    return _Read(sha, header.format, header.width, header.height, header.mode)


@dataclass(frozen=True, kw_only=True)
class ManifestDiff:
    """What changed between two manifests, as sorted paths."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    relabelled: tuple[str, ...]


def diff(before: pl.DataFrame, after: pl.DataFrame) -> ManifestDiff:
    """Compare two manifests by path: new, gone, other bytes, other given label."""
    columns = ("path", "sha256", "label")
    old = {path: (sha, label) for path, sha, label in before.select(columns).iter_rows()}
    new = {path: (sha, label) for path, sha, label in after.select(columns).iter_rows()}
    both = sorted(old.keys() & new.keys())
    return ManifestDiff(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(p for p in both if old[p][0] != new[p][0]),
        relabelled=tuple(p for p in both if old[p][1] != new[p][1]),
    )
