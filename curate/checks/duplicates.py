"""Duplicates: what a group suggests to drop, and groups whose members carry different labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import polars as pl

from curate.checks.base import Tables, finding, table
from curate.config import ChecksSpec
from curate.neighbours import touching

EXACT = "duplicates:exact"
NEAR = "duplicates:near"
CONFLICT = "duplicates:conflict"
ORPHAN = "duplicates:orphan"

_NAMED = 3
"""So many others a reason names."""


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings on groups of duplicates.

    `duplicates:exact` and `duplicates:near`: every member but the representative; the suggestion is the path that
    stays. `duplicates:conflict`: images that show the same picture as one with another label; at least one label is
    wrong, or the image belongs to neither class. `duplicates:orphan`: images dropped in favour of one that is itself
    out or unreadable.
    """
    judged = tables.judged().select("path", "label")
    rows = []
    for path, keeper in sorted(tables.orphans.items()):
        name = PurePosixPath(keeper).name
        reason = f"dropped in favour of {name}, which is itself out or unreadable: keep one of them"
        rows.append(finding(path, ORPHAN, 0.0, reason))
    digest = dict(tables.manifest.select("path", "sha256").iter_rows())
    rows += _conflicts(tables, judged, digest)
    members = tables.groups.join(judged, on="path", maintain_order="left")
    for (group,), part in members.group_by("group", maintain_order=True):
        number = int(str(group))
        if part["label"].drop_nulls().n_unique() > 1:
            continue  # which of them is right comes first
        standing = set(part["path"].to_list())
        for path, kind, keeper, distance, similarity in part.select(
            "path", "kind", "representative", "distance", "similarity"
        ).iter_rows():
            if path == keeper or keeper not in standing:
                continue
            name = PurePosixPath(keeper).name
            if kind == "exact":
                same = "bytes" if digest.get(path) == digest.get(keeper) else "pixels"
                reason = f"the same {same} as {name}, which stays"
                rows.append(finding(path, EXACT, 0.0, reason, group=number, suggestion=keeper))
            else:
                alike = f"{distance} of 64 hash bits differ, {similarity:.0%} alike"
                reason = f"nearly the same picture as {name}, which stays: {alike}"
                rows.append(finding(path, NEAR, 1 - similarity, reason, group=number, suggestion=keeper))
    return table(rows)


def _conflicts(tables: Tables, judged: pl.DataFrame, digest: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Images that show the same picture as one with another label; pairs tell, because groups are cut."""
    label: dict[str, str | None] = dict(judged.iter_rows())
    group = dict(tables.groups.select("path", "group").iter_rows())
    rows = judged.join(tables.manifest.select("path", "sha256"), on="path")
    for path, others in sorted(touching(rows, tables.pairs)[0].items()):
        labels = sorted({name for name in (label[path], *(label[other] for other in others)) if name is not None})
        if len(labels) < 2:
            continue
        contrary = [other for other in others if label[other] != label[path]]
        named = [f"{PurePosixPath(other).name} ({tables.title(label[other])})" for other in contrary[:_NAMED]]
        more = f" and {len(contrary) - _NAMED} more" if len(contrary) > _NAMED else ""
        same = "the same bytes" if all(digest[other] == digest[path] for other in contrary) else "the same picture"
        classes = " and ".join(tables.title(name) for name in labels)
        reason = f"labelled {tables.title(label[path])}, but {same} as {', '.join(named)}{more}: "
        yield finding(path, CONFLICT, 0.0, f"{reason}it cannot be {classes} at once", group=group.get(path))
