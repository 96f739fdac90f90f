"""Duplicates: what a group suggests to drop, and groups whose members carry different labels."""

from __future__ import annotations

from pathlib import PurePosixPath

import polars as pl

from curate.checks.base import Tables, finding, table
from curate.config import ChecksSpec

EXACT = "duplicates:exact"
NEAR = "duplicates:near"
CONFLICT = "duplicates:conflict"
ORPHAN = "duplicates:orphan"


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings on groups of duplicates.

    `duplicates:exact` and `duplicates:near`: every member but the representative; the suggestion is the path that
    stays. `duplicates:conflict`: all members of a group with more than one label; at least one label is wrong, or the
    image belongs to neither class. `duplicates:orphan`: images dropped in favour of one that is itself out or
    unreadable.
    """
    judged = tables.judged().select("path", "label")
    rows = []
    for path, keeper in sorted(tables.orphans.items()):
        name = PurePosixPath(keeper).name
        reason = f"dropped in favour of {name}, which is itself out or unreadable: keep one of them"
        rows.append(finding(path, ORPHAN, 0.0, reason))
    digest = dict(tables.manifest.select("path", "sha256").iter_rows())
    members = tables.groups.join(judged, on="path").sort("group", "path")
    for (group,), part in members.group_by("group", maintain_order=True):
        labels = sorted({label for label in part["label"].to_list() if label is not None})
        number = int(str(group))
        if len(labels) > 1:
            named = " and ".join(tables.title(label) for label in labels)
            exact = len({digest.get(path) for path in part["path"]}) == 1
            same = "the same bytes" if exact else "the same picture"
            for path, label in part.select("path", "label").iter_rows():
                others = ", ".join(f"{PurePosixPath(p).name} ({tables.title(o)})"
                                   for p, o in part.select("path", "label").iter_rows() if o != label)  # fmt: skip
                reason = f"labelled {tables.title(label)}, but {same} as {others}: it cannot be {named} at once"
                rows.append(finding(path, CONFLICT, 0.0, reason, group=number))
            continue
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
