"""How well the planted faults of the sample were found."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import polars as pl

from curate.demo.server import bundled_gallery
from curate.workspace import Workspace, read_log

BROKEN = {
    "truncated_jpeg": {"truncated", "corrupt"}, "html": {"html"}, "empty": {"empty"}, "one_pixel": {"too_small"},
}  # fmt: skip
"""What a broken file is rejected for, by what it is."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One line of planted.csv. `true` is empty where no label would be right."""

    url: str
    fault: str
    given: str
    true: str
    of: str
    detail: str


def read_planted(gallery: Path | None = None) -> list[Fault]:
    """The planted faults of the bundled gallery, or of another one."""
    with ((gallery or bundled_gallery()) / "planted.csv").open(encoding="utf-8", newline="") as stream:
        return [
            Fault(url=r["path"], fault=r["fault"], given=r["given"], true=r["true"], of=r["of"], detail=r["detail"])
            for r in csv.DictReader(stream)
        ]


def address(url: str) -> str:
    """The part of a URL that planted.csv names: path and query."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True)
class Obtained:
    """What became of the sample's addresses: (address, label) to manifest path, or to the reason of a rejection."""

    paths: Mapping[tuple[str, str], str]
    rejected: Mapping[tuple[str, str], str]


def obtained(workspace: Workspace) -> Obtained:
    """Read it from sources.jsonl."""
    paths: dict[tuple[str, str], str] = {}
    rejected: dict[tuple[str, str], str] = {}
    for line in read_log(workspace.sources).records:
        if line.get("kind") != "image" or line.get("origin") != "scraped":
            continue
        key = address(str(line["url"])), str(line["label"])
        if line["outcome"] in {"kept", "known"}:
            paths[key] = line["path"]
        elif line["outcome"] == "rejected":
            rejected[key] = str(line["reason"])
    return Obtained(paths, rejected)


def truth(workspace: Workspace, faults: Iterable[Fault]) -> dict[str, dict[str, Fault]]:
    """Manifest path to its planted faults, by name."""
    at = obtained(workspace).paths
    out: dict[str, dict[str, Fault]] = defaultdict(dict)
    for fault in faults:
        if path := at.get((fault.url, fault.given)):
            out[path][fault.fault] = fault
    return dict(out)


def evaluate(workspace: Workspace, p_wrong: Mapping[str, float], faults: list[Fault]) -> dict[str, dict[str, Any]]:
    """Per planted fault: planted, found, precision, recall, and average precision where an order is judged.

    Only faults whose address, and that of the image they were made from, the scrape was offered count as planted.
    A label is wrong where it is not the true one of planted.csv, which includes the wrong half of a `cross_class`
    pair; `average_precision_strict` counts the planted `wrong_label` alone as right answers.
    """
    at = obtained(workspace)
    reached = {url for url, _ in (*at.paths, *at.rejected)}
    offered = [
        f for f in faults if ((f.url, f.given) in at.paths or (f.url, f.given) in at.rejected)
        and (not f.of or f.of in reached)
    ]  # fmt: skip
    by_kind: dict[str, list[Fault]] = defaultdict(list)
    for fault in offered:
        by_kind[fault.fault].append(fault)
    planted = truth(workspace, faults)
    groups = workspace.read_table("groups")
    findings = workspace.read_table("findings")
    out = {
        "exact_duplicate": _exact(by_kind["exact_duplicate"], at),
        "cross_class": _cross_class(by_kind["cross_class"], at, findings, groups),
    }
    related = _related(offered, at)
    for kind in ("near_duplicate", "near_crop"):
        out[kind] = _near(by_kind[kind], at, groups, related)
    out["wrong_label"] = _wrong_label(by_kind["wrong_label"], planted, p_wrong)
    out["two_styles"] = _two_styles(planted, p_wrong, findings)
    out["off_topic"] = _off_topic(planted, findings)
    out["broken"] = _broken(by_kind["broken"], at)
    return out


def _row(planted: int, found: int, right: int | None, told: int | None) -> dict[str, Any]:
    """`found` of `planted`; of `told` answers `right` were right (None: no precision can be named)."""
    return {
        "planted": planted, "found": found,
        "precision": round(right / told, 4) if told and right is not None else None,
        "recall": round(found / planted, 4) if planted else None,
    }  # fmt: skip


def _exact(faults: list[Fault], at: Obtained) -> dict[str, Any]:
    found = [f for f in faults if at.paths.get((f.url, f.given), 1) == at.paths.get((f.of, f.given), 2)]
    per_file = Counter(at.paths.values())
    return _row(len(faults), len(found), len(found), sum(n - 1 for n in per_file.values()))


def _cross_class(faults: list[Fault], at: Obtained, findings: pl.DataFrame, groups: pl.DataFrame) -> dict[str, Any]:
    """A pair counts where both halves are in one conflict group of the same bytes."""
    exact = groups.filter(pl.col("kind") == "exact")
    conflicts = findings.filter(pl.col("check") == "duplicates:conflict").join(exact, on="path", how="semi")
    group_of = dict(conflicts.select("path", "group").iter_rows())
    hit = set()
    found = 0
    for fault in faults:
        first = at.paths.get((fault.url, fault.given))
        others = [path for (url, label), path in at.paths.items() if url == fault.of and label != fault.given]
        number = group_of.get(first or "")
        if number is not None and any(group_of.get(other) == number for other in others):
            found += 1
            hit.add(number)
    return _row(len(faults), found, len(hit), len(set(group_of.values())))


def _related(faults: list[Fault], at: Obtained) -> dict[str, str]:
    """Manifest path to the name of its family: images made from one another."""
    parent: dict[str, str] = {}

    def root(path: str) -> str:
        while parent.setdefault(path, path) != path:
            path = parent[path]
        return path

    by_url: dict[str, list[str]] = defaultdict(list)
    for (url, _), path in at.paths.items():
        by_url[url].append(path)
    for fault in faults:
        if fault.of:
            for path in by_url[fault.url]:
                for other in by_url[fault.of]:
                    parent[root(path)] = root(other)
    return {path: root(path) for paths in by_url.values() for path in paths}


def _near(faults: list[Fault], at: Obtained, groups: pl.DataFrame, related: Mapping[str, str]) -> dict[str, Any]:
    """Pairs in one group; precision over all pairs of different bytes within groups."""
    group_of = dict(groups.select("path", "group").iter_rows())
    found = 0
    for fault in faults:
        path = at.paths.get((fault.url, fault.given))
        others = [other for (url, _), other in at.paths.items() if url == fault.of]
        found += path in group_of and any(group_of.get(other) == group_of[str(path)] for other in others)
    right = told = 0
    known = groups.filter(pl.col("path").is_in(list(related)))
    for _, part in known.group_by("group"):
        paths, kinds = part["path"].to_list(), part["kind"].to_list()
        for i, first in enumerate(paths):
            for j in range(i):
                if "near" in (kinds[i], kinds[j]):
                    told += 1
                    right += related[first] == related[paths[j]]
    return _row(len(faults), found, right if found else None, told)


def average_precision(
    wrong: np.ndarray[Any, np.dtype[np.bool_]], score: np.ndarray[Any, np.dtype[np.float64]]
) -> float:
    """Mean precision at the rank of each wrong label, highest score first; ties share their expected place."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(wrong, score)) if wrong.any() else 0.0


def _wrong_label(
    faults: list[Fault], planted: Mapping[str, Mapping[str, Fault]], p_wrong: Mapping[str, float]
) -> dict[str, Any]:
    paths = sorted(p_wrong)
    score = np.array([p_wrong[path] for path in paths], dtype=np.float64)
    strict = np.array(["wrong_label" in planted.get(path, {}) for path in paths])
    wrong = np.array([_is_wrong(planted.get(path, {})) for path in paths])
    told = score >= 0.5
    row = _row(len(faults), int((strict & told).sum()), int((wrong & told).sum()), int(told.sum()))
    return row | {
        "average_precision": round(average_precision(wrong, score), 4),
        "average_precision_strict": round(average_precision(strict, score), 4),
    }


def _is_wrong(faults: Mapping[str, Fault]) -> bool:
    """Whether the given label is not the true one; of a pair under two classes, only the half that is wrong."""
    return any(f.true and f.true != f.given for f in faults.values())


def _two_styles(
    planted: Mapping[str, Mapping[str, Fault]], p_wrong: Mapping[str, float], findings: pl.DataFrame
) -> dict[str, Any]:
    """In the first tenth of the order by p_wrong, or among the first tenth's worth of ambiguous findings."""
    count = max(1, len(p_wrong) // 10)
    first = set(sorted(p_wrong, key=lambda p: (-p_wrong[p], p))[:count])
    first |= set(findings.filter(pl.col("check") == "ambiguous").sort("score", "path")["path"].to_list()[:count])
    mine = {path for path, faults in planted.items() if "two_styles" in faults}
    return _row(len(mine), len(mine & first), len(mine & first), len(first))


def _off_topic(planted: Mapping[str, Mapping[str, Fault]], findings: pl.DataFrame) -> dict[str, Any]:
    told = set(findings.filter(pl.col("check") == "outlier")["path"].to_list())
    mine = {path for path, faults in planted.items() if "off_topic" in faults}
    return _row(len(mine), len(mine & told), len(mine & told), len(told))


def _broken(faults: list[Fault], at: Obtained) -> dict[str, Any]:
    found = [f for f in faults if at.rejected.get((f.url, f.given)) in BROKEN[f.detail]]
    return _row(len(faults), len(found), len(found), len(at.rejected))
