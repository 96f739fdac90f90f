"""Leakage: images of the holdout that are also among those that are trained on."""

from __future__ import annotations

import polars as pl

from curate.checks.base import Tables, finding, table
from curate.config import ChecksSpec
from curate.schema import HOLDOUT

LEAKAGE = "leakage"


def _trust(split: str) -> tuple[int, str]:
    """Splits in the order in which they keep an image that several have."""
    return {HOLDOUT: 0, "test": 1, "train": 3}.get(split, 2), split


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings `leakage`: images in a group with an image of a split that is trusted more, the holdout before all."""
    readable = tables.manifest.filter(pl.col("status") == "ok")
    split = readable.select("path", pl.col("split").fill_null("train"))
    members = tables.groups.join(split, on="path").sort("group", "path")
    rows = []
    for (group,), part in members.group_by("group", maintain_order=True):
        if part["split"].n_unique() < 2:
            continue
        kept = min(part["split"].to_list(), key=_trust)
        held = part.filter(pl.col("split") == kept)["path"].to_list()
        for path, name in part.select("path", "split").iter_rows():
            if name != kept:
                reason = f"in {name}, but the same picture as {held[0]}: what is measured there would be too good"
                rows.append(finding(path, LEAKAGE, 0.0, reason, group=int(str(group)), suggestion=held[0]))
    return table(rows)
