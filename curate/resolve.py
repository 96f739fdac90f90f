"""The clean data set, computed from manifest and decisions: a pure function."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from curate.decisions import LABEL, MEMBERSHIP, DecisionLog, Folded, fold

WHY = {
    "in": "in the clean data set",
    "dropped": "dropped by a decision",
    "duplicate": "dropped in favour of a duplicate",
    "same_bytes": "same bytes and label as another image",
    "unreadable": "unreadable or missing",
    "conflict": "decisions contradict one another",
    "unlabelled": "has no label",
    "unreviewed": "nobody has kept it (--only-reviewed)",
}
"""Why an image is in or out: the values of CleanView's column `why`."""

STANDING = ("in", "same_bytes", "unlabelled", "unreviewed")
"""Of these, an image can stay in place of another: it is there, and nobody took it out."""


@dataclass(frozen=True)
class CleanView:
    """What the decisions make of the manifest.

    Attributes:
        rows: one row an image of the manifest, sorted by path: `path, sha256, label (final), given, split, included,
            why, in_favour_of, relabelled`. `why` is a key of `WHY`.
        folded: the decisions in force, with those that are stale or whose image is missing.
        orphans: paths that are out in favour of an image that is itself out or unreadable.
    """

    rows: pl.DataFrame
    folded: Folded
    orphans: tuple[str, ...]

    @property
    def images(self) -> pl.DataFrame:
        """The rows that are in."""
        return self.rows.filter("included")

    @property
    def counts(self) -> dict[str, int]:
        """Images by `why`."""
        return {why: n for why, n in sorted(self.rows["why"].value_counts().iter_rows()) if n}

    @property
    def conflicts(self) -> list[str]:
        """Paths whose decisions contradict one another."""
        return self.rows.filter(pl.col("why") == "conflict")["path"].to_list()


def resolve(manifest: pl.DataFrame, log: DecisionLog, *, only_reviewed: bool = False) -> CleanView:
    """Compute the clean data set.

    A readable image is in unless it was decided out. Rows with the same bytes and the same final label (and split)
    become one: the first by path. An image with contradicting decisions is left out and listed. An image without a
    label stays out of the clean data set.

    Args:
        manifest: the images.
        log: the decisions.
        only_reviewed: restrict to images that a person decided to be in.
    """
    folded = fold(log, manifest)
    rows = []
    kept: set[tuple[str, str, str | None]] = set()
    columns = ("path", "sha256", "label", "split", "status")
    for path, sha, given, split, status in manifest.select(columns).sort("path").iter_rows():
        member = folded.get(path, MEMBERSHIP)
        relabel = folded.get(path, LABEL)
        label = str(relabel.value) if relabel else given
        in_favour_of = member.in_favour_of if member and member.is_out else None
        if status != "ok":
            why = "unreadable"
        elif folded.conflict(path, MEMBERSHIP) or folded.conflict(path, LABEL):
            why = "conflict"
        elif member and member.is_out:
            why = "duplicate" if in_favour_of else "dropped"
        elif label is None:
            why = "unlabelled"
        elif only_reviewed and not (member or relabel):
            why = "unreviewed"
        elif (sha, label, split) in kept:
            why = "same_bytes"
        else:
            why = "in"
            kept.add((sha, label, split))
        rows.append((path, sha, label, given, split, why == "in", why, in_favour_of, relabel is not None))
    schema = {
        "path": pl.String, "sha256": pl.String, "label": pl.String, "given": pl.String, "split": pl.String,
        "included": pl.Boolean, "why": pl.String, "in_favour_of": pl.String, "relabelled": pl.Boolean,
    }  # fmt: skip
    table = pl.DataFrame(rows, schema=schema, orient="row")
    standing = set(table.filter(pl.col("why").is_in(list(STANDING)))["path"].to_list())
    favoured = dict(table.filter(pl.col("why") == "duplicate").select("path", "in_favour_of").iter_rows())
    orphans = tuple(path for path in favoured if _last(path, favoured) not in standing)
    return CleanView(table, folded, orphans)


def _last(path: str, favoured: dict[str, str]) -> str:
    """Where the chain of images dropped in favour of one another ends."""
    seen = {path}
    while (path := favoured[path]) in favoured and path not in seen:
        seen.add(path)
    return path
