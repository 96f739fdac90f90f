"""Leakage: images of the holdout that are also among those that are trained on."""

from __future__ import annotations

import polars as pl

from curate.checks.base import Tables, finding, table
from curate.config import ChecksSpec
from curate.neighbours import touching
from curate.schema import HOLDOUT

LEAKAGE = "leakage"


def _trust(split: str) -> tuple[int, str]:
    """Splits in the order in which they keep an image that several have."""
    return {HOLDOUT: 0, "test": 1, "train": 3}.get(split, 2), split


def check(tables: Tables, options: ChecksSpec) -> pl.DataFrame:
    """Findings `leakage`: images with the same bytes as one of a split that is trusted more, or in a verified pair with
    it, the holdout before all. Groups are of no use here: they are cut.
    """
    readable = tables.manifest.filter(pl.col("status") == "ok")
    split = dict(readable.select("path", pl.col("split").fill_null("train")).iter_rows())
    group = dict(tables.groups.select("path", "group").iter_rows())
    rows = []
    for path, others in touching(readable, tables.pairs)[0].items():
        held = min(others, key=lambda other: (_trust(split[other]), other))
        if _trust(split[held]) < _trust(split[path]):
            together = group.get(path) if group.get(path) == group.get(held) else None
            reason = f"in {split[path]}, but the same picture as {held}: what is measured there would be too good"
            rows.append(finding(path, LEAKAGE, 0.0, reason, group=together, suggestion=held))
    return table(rows)
