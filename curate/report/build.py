"""The figures of report.json, and the page around them."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import polars as pl

from curate.errors import DataCorrupt, StageNotReady
from curate.report.page import render
from curate.report.worth import expectations
from curate.resolve import CleanView
from curate.schema import HOLDOUT
from curate.workspace import Workspace, now, read_log, write_bytes, write_json

PACKAGES = (
    "curate", "fastai", "torch", "torchvision", "cleanlab", "fiftyone", "icrawler", "imagehash", "pillow", "polars",
    "numpy", "scikit-learn",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where the report lies, what report.json holds, and whether it was written just now."""

    page: Path
    json: Path
    data: dict[str, Any]
    written: bool = True


def write_report(
    workspace: Workspace, view: CleanView, records: Mapping[str, Any], *, extra: Mapping[str, Any]
) -> Report:
    """Write index.html and report.json of a data set from what there is; stages that have not run are left out.

    Args:
        workspace: the data set.
        view: its clean view.
        records: stage records (`.seconds`, `.facts`) by stage.
        extra: more keys for report.json: `planted` (of the sample), `simulated` (a sentence on who reviewed).
    """
    data = build(workspace, view, records) | dict(extra)
    folder = workspace.reports
    page = render(workspace, view, records, data)
    write_bytes(folder / "index.html", page.encode())
    write_json(folder / "report.json", data)
    return Report(page=folder / "index.html", json=folder / "report.json", data=data)


def read_report(workspace: Workspace) -> Report:
    """The report that was written last.

    Raises:
        StageNotReady: there is none.
        DataCorrupt: report.json is none.
    """
    folder = workspace.reports
    if not (folder / "report.json").is_file():
        msg = f"there is no report on {workspace.name!r} yet: run `curate report {workspace.name}` first."
        raise StageNotReady(msg)
    try:
        data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{folder / 'report.json'} cannot be read ({error}). Delete it and run `curate report` again."
        raise DataCorrupt(msg) from error
    return Report(page=folder / "index.html", json=folder / "report.json", data=data)


def build(workspace: Workspace, view: CleanView, records: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that report.json holds, as JSON values."""
    retrain = records["retrain"].facts if "retrain" in records else None
    accuracy = None
    if retrain:
        accuracy = {key: retrain[key] for key in ("raw", "curated", "difference", "ci95", "holdout", "seeds")}
    return {
        "dataset": workspace.name,
        "created_at": now(),
        "counts": counts(workspace, view),
        "planted": {},
        "accuracy": accuracy,
        "budget": budget(workspace, view),
        "seconds": {name: record.seconds for name, record in records.items()},
        "versions": versions(),
        "device": (retrain or (records["audit"].facts if "audit" in records else {})).get("device"),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def counts(workspace: Workspace, view: CleanView) -> dict[str, Any]:
    """Images in and out, and why. All but `holdout` are about images outside the holdout.

    `obtained`: images on disk; those that are gone or were taken down are in `gone`. `rejected`, `failed`: addresses
    whose last answer was no usable image, or none at all.
    `exact_duplicates`: addresses and rows beyond the first with the same bytes. `exported`: images of the clean view.
    """
    manifest = workspace.read_table("manifest")
    all_mine = manifest.filter(pl.col("split").ne_missing(HOLDOUT))
    mine = all_mine.filter(pl.col("status") != "missing")
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for line in read_log(workspace.sources).records:
        if line.get("kind") == "image":
            last[str(line.get("url")), str(line.get("label"))] = line
    outcomes = Counter(str(line.get("outcome")) for line in last.values())
    reasons = Counter(str(line.get("reason")) for line in last.values() if line.get("outcome") == "rejected")
    per_file = Counter(str(line["path"]) for line in last.values() if line.get("path"))
    repeated_rows = mine.filter(pl.col("status") == "ok")
    exact = sum(n - 1 for n in per_file.values()) + repeated_rows.height - repeated_rows["sha256"].n_unique()
    groups = workspace.read_table("groups") if workspace.has_table("groups") else None
    near = groups.filter(pl.col("kind") == "near")["group"].n_unique() if groups is not None else 0
    found = workspace.read_table("findings") if workspace.has_table("findings") else None
    told = Counter(aspect for _, aspect in view.folded.heads)
    clean = view.rows.join(mine.select("path"), on="path", how="semi")
    return {
        "obtained": mine.height,
        "gone": all_mine.height - mine.height,
        "rejected": outcomes["rejected"],
        "rejected_why": dict(sorted(reasons.items())),
        "failed": outcomes["failed"],
        "exact_duplicates": exact,
        "near_duplicate_groups": near,
        "findings": dict(sorted(found["check"].value_counts().iter_rows())) if found is not None else {},
        "decisions": dict(sorted(told.items())),
        "relabelled": clean.filter(pl.col("relabelled") & pl.col("included")).height,
        "out_why": {why: n for why, n in sorted(clean["why"].value_counts().iter_rows()) if why != "in"},
        "exported": clean.filter("included").height,
        "holdout": manifest.height - all_mine.height,
    }


def budget(workspace: Workspace, view: CleanView) -> dict[str, Any] | None:
    """Of the review so far: its length, the errors expected of it and found by it, and those that remain."""
    if not workspace.has_table("queue"):
        return None
    told = expectations(workspace.read_table("queue"), view)
    if told is None:
        return None
    before, after, reviewed = told
    return {
        "reviewed": reviewed,
        "expected_errors": round(before.first, 1),
        "actual_errors": int(after.first) if reviewed else None,
        "expected_remaining": round(after.beyond, 1),
        "expected_remaining_interval": [round(v, 1) for v in after.beyond_interval],
    }
