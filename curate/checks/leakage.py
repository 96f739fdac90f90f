"""Leakage: images of the holdout that are also among those that are trained on."""

from __future__ import annotations

import polars as pl

from curate.checks.base import Tables, finding, table
from curate.config import ChecksSpec
from curate.schema import HOLDOUT

LEAKAGE = "leakage"


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings `leakage`: training images in a group with an image of another split, the holdout before all."""
    split = tables.manifest.select("path", pl.col("split").fill_null("train"))
    members = tables.groups.join(split, on="path").sort("group", "path")
    rows = []
    for (group,), part in members.group_by("group", maintain_order=True):
        if part["split"].n_unique() < 2:
            continue
        held = part.filter(pl.col("split") == HOLDOUT)["path"].to_list() or part["path"].to_list()[:1]
        for path, name in part.select("path", "split").iter_rows():
            if path not in held:
                reason = f"in {name}, but the same picture as {held[0]}: what is measured there would be too good"
                rows.append(finding(path, LEAKAGE, 0.0, reason, group=int(str(group)), suggestion=held[0]))
    return table(rows)
