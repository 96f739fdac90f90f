"""index.html: what report.json says, with pictures; no script, no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, StrictUndefined

from curate.images import ImageFailure, load
from curate.report import figures, rates
from curate.report.worth import verdicts
from curate.resolve import WHY, CleanView
from curate.schema import HOLDOUT
from curate.wording import ABOUT, check_title, decision_text
from curate.workspace import Workspace

SIDE = 112
"""Pixels of the longer side of a thumbnail."""
PER_CHECK = 12
TARGETS = {
    "exact_duplicate": {"recall": 1.0, "precision": 1.0}, "cross_class": {"recall": 1.0, "precision": 1.0},
    "near_duplicate": {"recall": 0.9, "precision": 0.98}, "wrong_label": {"average_precision": 0.8},
    "off_topic": {"recall": 0.7}, "broken": {"recall": 1.0, "precision": 1.0},
}  # fmt: skip
"""What the sample's planted faults should be found with."""


def render(workspace: Workspace, view: CleanView, records: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The page as HTML."""
    spec = workspace.spec()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": _percent, "number": _number, "points": _points}
    source = (files("curate.report") / "page.html").read_text(encoding="utf-8")
    retrain = records["retrain"].facts if "retrain" in records else None
    titles = spec.class_titles
    return environment.from_string(source).render(
        title=spec.title or workspace.name,
        description=spec.description,
        data=data,
        targets=TARGETS,
        why={key: WHY[key] for key in data["counts"]["out_why"]},
        checks=_checks(workspace, view, titles),
        classes=_classes(workspace, view, titles),
        noise=_noise(records, titles),
        rates=_rates(workspace, view, titles),
        overlaps=_overlaps(records, titles),
        sources=_sources(workspace),
        accuracy_figure=_accuracy_figure(retrain),
        budget_figure=_budget_figure(workspace, view),
        retrain=retrain,
        audit=records["audit"].facts if "audit" in records else None,
        conflicts=view.conflicts,
        orphans=view.orphans,
        stale=len(view.folded.stale),
        titles=titles,
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _thumbnail(workspace: Workspace, path: str) -> str | None:
    """A data address of a small JPEG, or None where the image cannot be read."""
    try:
        image = load(workspace.image(path), draft=SIDE)
    except ImageFailure:
        return None
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _checks(workspace: Workspace, view: CleanView, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each check with its worst findings; those on labels first, then by number."""
    if not workspace.has_table("findings"):
        return []
    found = workspace.read_table("findings")
    labels = dict(view.rows.select("path", "given").iter_rows())
    said: dict[str, tuple[str, float]] = {}
    if workspace.has_table("predictions"):
        columns = workspace.read_table("predictions").select("path", "predicted", "confidence")
        said = {path: (titles.get(name, name), confidence) for path, name, confidence in columns.iter_rows()}
    first = {"label_error": 0, "duplicates:conflict": 1, "outlier": 2, "confident_mistake": 3, "ambiguous": 4}
    out = []
    for (name,), part in found.sort("check").group_by("check", maintain_order=True):
        check = str(name)
        decided = sum(1 for path in part["path"].unique().to_list() if view.folded.aspects(path))
        worst = part.sort("score", "path").unique("path", keep="first", maintain_order=True).head(PER_CHECK)
        cards = [
            {
                "thumbnail": _thumbnail(workspace, row["path"]), "path": row["path"], "reason": row["reason"],
                "label": titles.get(labels[row["path"]] or "", labels[row["path"]]),
                "predicted": said.get(row["path"]), "decision": decision_text(view.folded, row["path"]),
            }
            for row in worst.iter_rows(named=True)
        ]  # fmt: skip
        out.append(
            {"check": check, "title": check_title(check), "about": ABOUT.get(check, ""), "findings": part.height,
             "images": part["path"].n_unique(), "decided": decided, "cards": cards}
        )  # fmt: skip
    return sorted(out, key=lambda c: (first.get(str(c["check"]), 9), -int(c["findings"]), c["check"]))


def _classes(workspace: Workspace, view: CleanView, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Per class: images as given, how many left it or came to it by relabelling, how many are out, how many remain."""
    rows = view.rows.filter(pl.col("split").ne_missing(HOLDOUT) & (pl.col("why") != "unreadable"))
    wrong = rates.by_class(workspace, view)
    names = sorted({*rows["given"].drop_nulls().to_list(), *rows["label"].drop_nulls().to_list()})
    out = []
    for name in names:
        given, final = rows.filter(pl.col("given") == name), rows.filter(pl.col("label") == name)
        out.append({
            "name": titles.get(name, name), "given": given.height,
            "left": given.filter(pl.col("label") != name).height, "came": final.filter(pl.col("given") != name).height,
            "out": final.filter(~pl.col("included")).height, "clean": final.filter("included").height,
            "wrong": wrong.get(name),
        })  # fmt: skip
    return out


def _rates(workspace: Workspace, view: CleanView, titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Engines and queries by their share of wrong labels."""
    rows = rates.by_source(workspace, view)
    return [row | {"label": titles.get(row["label"], row["label"])} for row in rows][:30]


def _overlaps(records: Mapping[str, Any], titles: Mapping[str, str]) -> list[tuple[str, str, float]]:
    if "check" not in records or "audit" not in records or not records["check"].facts["noise"]:
        return []
    names = [titles.get(name, name) for name in records["audit"].facts["classes"]]
    return rates.overlaps(names, records["check"].facts["noise"])


def _noise(records: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, Any] | None:
    """Which class was taken for which, as estimated by the audit."""
    if "check" not in records or "audit" not in records or not records["check"].facts["noise"]:
        return None
    names = [titles.get(name, name) for name in records["audit"].facts["classes"]]
    if len(names) > 20:  # a larger table helps nobody
        return None
    return {"names": names, "rows": list(zip(names, records["check"].facts["noise"], strict=True))}


def _sources(workspace: Workspace) -> list[dict[str, Any]]:
    """Where images came from."""
    manifest = workspace.read_table("manifest")
    rows = manifest.group_by("origin", pl.col("split").fill_null("")).agg(
        pl.len().alias("images"), pl.col("label").n_unique().alias("classes")
    )
    return rows.sort("origin", "split").to_dicts()


def _accuracy_figure(retrain: Mapping[str, Any] | None) -> str | None:
    if not retrain:
        return None
    return figures.accuracy(retrain["by_seed"], retrain["ci95"], retrain["difference"])


def _budget_figure(workspace: Workspace, view: CleanView) -> str | None:
    if not workspace.has_table("queue"):
        return None
    queue = workspace.read_table("queue").sort("rank").filter(pl.col("p_wrong").is_not_null())
    if not queue.height:
        return None
    known = verdicts(queue, view)
    reviewed = int((known >= 0).sum())
    # The curve of what was found is drawn only as far as the queue was followed without a gap worth speaking of.
    head = int(np.flatnonzero(known >= 0)[-1]) + 1 if reviewed else 0
    followed = reviewed >= 0.9 * head
    found = np.cumsum(known[:head] == 1).tolist() if reviewed and followed else None
    return figures.yield_curve(np.cumsum(queue["worth"].to_numpy()).tolist(), found, head if followed else reviewed)
