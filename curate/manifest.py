"""The manifest: one row per image, computed from sources.jsonl and the files themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from curate.images import ImageFailure, read_header
from curate.schema import MANIFEST, validate
from curate.workspace import Workspace, file_digest, read_log

KEPT = frozenset({"kept", "known"})
"""Outcomes of sources.jsonl that tie an attempt to a file."""


def tombstones(records: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Takedowns told by lines of sources.jsonl: SHA-256 of the bytes to its line."""
    return {str(line["sha256"]): line for line in records if line.get("kind") == "tombstone" and line.get("sha256")}


def scan(workspace: Workspace, *, previous: pl.DataFrame | None = None) -> pl.DataFrame:
    """Compute the manifest.

    Args:
        workspace: the data set.
        previous: the manifest of last time; rows of files that did not change since are taken over.

    Returns:
        A table of schema `MANIFEST`, in the order in which images were first obtained. Unreadable and missing
        images are rows with their reason, never an absence; so are those that were purged.
    """
    known = {row["path"]: row for row in previous.iter_rows(named=True)} if previous is not None else {}
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    records = read_log(workspace.sources).records
    purged = tombstones(records)
    for number, line in enumerate(records):
        if line.get("kind") != "image" or not isinstance(line.get("path"), str):
            continue
        if line.get("outcome") in KEPT or (line.get("origin") == "imported" and line.get("outcome") == "failed"):
            earlier = first.get(line["path"])
            # An import that was repeated tells what the source says now; a scraped file keeps its first source.
            if earlier is None or line.get("origin") == "imported":
                first[line["path"]] = (earlier[0] if earlier else number, line)
    rows = [_row(workspace.image(path), path, n, line, known.get(path)) for path, (n, line) in first.items()]
    taken_down = {path: line for line in purged.values() for path in line.get("paths", ())}
    for row in rows:
        gone = row["status"] == "missing"
        if tombstone := purged.get(row["sha256"]) or (taken_down.get(row["path"]) if gone else None):
            still = "" if gone else "; the file is there again: run `curate purge` again"
            row |= {"status": "missing", "error": f"purged: {tombstone.get('why')}{still}"}
    return validate(pl.DataFrame(rows, schema=MANIFEST.columns, orient="row"), MANIFEST)


def _row(file: Path, path: str, number: int, line: dict[str, Any], known: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": path, "sha256": line.get("sha256") or "", "bytes": 0, "format": None, "width": None, "height": None,
        "mode": None, "label": line.get("label"), "split": line.get("split"), "origin": line["origin"],
        "source": line.get("url"), "status": "ok", "error": None, "obtained": number, "mtime_ns": 0,
    }  # fmt: skip
    try:
        stat = file.stat()
    except OSError as error:
        return row | {"status": "missing", "error": f"the file is not there ({error.strerror})"}
    row |= {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    if known and known["bytes"] == stat.st_size and known["mtime_ns"] == stat.st_mtime_ns:
        kept = ("sha256", "format", "width", "height", "mode", "status", "error")
        return row | {key: known[key] for key in kept}
    try:
        row["sha256"] = file_digest(file)
        header = read_header(file)
    except (ImageFailure, OSError) as failure:  # OSError: no permission, or a folder where the file was
        return row | {"status": "unreadable", "error": str(failure)}
    return row | {"format": header.format, "width": header.width, "height": header.height, "mode": header.mode}


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
