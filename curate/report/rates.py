"""Where wrong labels come from: by class, by pair of classes, by engine and query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from curate.report.worth import calibrated
from curate.resolve import CleanView
from curate.workspace import Workspace, read_log

OVERLAP = 0.5
"""Two classes are said to overlap where the shares taken for one another add up to this."""


def rate(p: Iterable[float]) -> dict[str, Any]:
    """Expected share of errors among images of these probabilities, with a 90% interval of chance."""
    values = np.fromiter(p, dtype=np.float64)
    n = len(values)
    if not n:
        return {"images": 0, "rate": 0.0, "interval": (0.0, 0.0)}
    spread = 1.645 * float(np.sqrt((values * (1 - values)).sum())) / n
    mean = float(values.mean())
    return {"images": n, "rate": mean, "interval": (max(0.0, mean - spread), min(1.0, mean + spread))}


def by_class(workspace: Workspace, view: CleanView) -> dict[str, dict[str, Any]]:
    """Given label to its expected share of errors; what was decided counts as decided."""
    p = _of_paths(workspace, view)
    given = view.rows.filter(pl.col("path").is_in(list(p))).select("given", "path").sort("given", "path")
    out: dict[str, list[float]] = {}
    for label, path in given.iter_rows():
        out.setdefault(label, []).append(p[path])
    return {label: rate(values) for label, values in out.items()}


def by_source(workspace: Workspace, view: CleanView) -> list[dict[str, Any]]:
    """Expected share of errors of each engine and query, worst first: which query to drop."""
    p = _of_paths(workspace, view)
    first: dict[str, tuple[str, str, str]] = {}
    for line in read_log(workspace.sources).records:
        if line.get("kind") == "image" and line.get("origin") == "scraped" and line.get("path"):
            first.setdefault(line["path"], (str(line["label"]), str(line.get("engine")), str(line.get("query"))))
    out: dict[tuple[str, str, str], list[float]] = {}
    for path, source in first.items():
        if path in p:
            out.setdefault(source, []).append(p[path])
    rows = [{"label": k[0], "engine": k[1], "query": k[2], **rate(v)} for k, v in out.items()]
    return sorted(rows, key=lambda row: (-row["rate"], row["label"], row["engine"], row["query"]))


def overlaps(classes: list[str], noise: list[list[float]]) -> list[tuple[str, str, float]]:
    """Pairs of classes that are taken for one another so often that they may be one."""
    out = []
    for i, first in enumerate(classes):
        for j in range(i):
            share = noise[i][j] + noise[j][i]
            if share >= OVERLAP:
                out.append((classes[j], first, share))
    return sorted(out, key=lambda pair: -pair[2])


def _of_paths(workspace: Workspace, view: CleanView) -> Mapping[str, float]:
    return calibrated(workspace.read_table("queue"), view) if workspace.has_table("queue") else {}
