"""Review without a database: one web page with the findings, their pictures in it, and a form for decisions.

The page needs no server and no network. Its form makes `decisions.csv` (columns `path, decision, label`), which
`curate decide NAME --from decisions.csv` reads.
"""

from __future__ import annotations

import base64
import io
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment

from curate.decisions import DecisionLog, Folded, fold
from curate.images import ImageFailure, load
from curate.review.actions import classes
from curate.wording import ABOUT, check_title, decision_text, label_in_force
from curate.workspace import Workspace, now, write_bytes

SIDE = 240
"""Pixels of the longer side of a thumbnail."""


def _thumbnail(file: Path) -> tuple[str | None, str]:
    """A data address of a small JPEG, or None and why there is none."""
    try:
        image = load(file.read_bytes(), draft=SIDE)
    except (ImageFailure, OSError) as failure:
        return None, str(failure)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode(), ""


def _command(workspace: Workspace, finding: dict[str, Any], known: set[str]) -> str:
    """The line that does what is suggested: relabel, else drop; where nothing is suggested, to keep."""
    suggestion = finding["suggestion"]
    if suggestion is None:
        action = ["--keep"]
    elif suggestion in known:
        action = ["--drop"]
    else:
        action = ["--relabel", suggestion]
    return shlex.join(["curate", "decide", workspace.name, "--image", finding["path"], *action])


def _card(
    workspace: Workspace, finding: dict[str, Any], given: dict[str, str | None], said: dict[str, tuple[str, float]],
    folded: Folded, thumbnails: dict[str, tuple[str | None, str]],
) -> dict[str, Any]:  # fmt: skip
    path = finding["path"]
    if path not in thumbnails:
        thumbnails[path] = _thumbnail(workspace.image(path))
    thumbnail, failure = thumbnails[path]
    predicted, confidence = said.get(path, (None, 0.0))
    suggestion = finding["suggestion"]
    return {
        "path": path, "thumbnail": thumbnail, "failure": failure, "reason": finding["reason"],
        "label": label_in_force(folded, path, given.get(path)), "predicted": predicted,
        "confidence": f"{confidence:.2f}", "decision": decision_text(folded, path),
        "command": _command(workspace, finding, set(given)), "other": predicted if suggestion in given else suggestion,
    }  # fmt: skip


def write_contact_sheet(
    workspace: Workspace, *, manifest: pl.DataFrame, findings: pl.DataFrame | None, predictions: pl.DataFrame | None,
    decisions_log: DecisionLog, check: str | None = None, top: int = 100, out: Path | None = None,
) -> Path:  # fmt: skip
    """Write the page of findings, worst first within each check.

    Args:
        workspace: the data set.
        manifest: its images.
        findings: table of findings; None before `curate audit`.
        predictions: table of predictions; None before `curate audit`.
        decisions_log: the decisions so far, shown on the pictures.
        check: one check alone; None: all of them.
        top: images for each check at most.
        out: the file; default `contact-sheet.html` among the data set's reports.

    Returns:
        The file that was written.
    """
    given = dict(manifest.select("path", "label").iter_rows())
    said = {} if predictions is None else {
        row[0]: row[1:] for row in predictions.select("path", "predicted", "confidence").iter_rows()
    }  # fmt: skip
    folded = fold(decisions_log, manifest)
    wanted = pl.DataFrame({"check": []}, schema={"check": pl.String}) if findings is None else findings
    if check is not None:
        wanted = wanted.filter(pl.col("check") == check)
    thumbnails: dict[str, tuple[str | None, str]] = {}
    sections = []
    for name in wanted["check"].unique().sort().to_list():
        part = wanted.filter(pl.col("check") == name).sort("score", "path")
        sections.append(
            {
                "check": name, "title": check_title(name), "about": f"{ABOUT.get(name, '').capitalize()}.".lstrip("."),
                "found": part.height,
                "cards": [_card(workspace, row, given, said, folded, thumbnails)
                          for row in part.head(top).iter_rows(named=True)],
            }
        )  # fmt: skip
    template = Environment(autoescape=True).from_string(
        files("curate.review").joinpath("contact_sheet.html").read_text(encoding="utf-8")
    )
    page = template.render(
        name=workspace.name, quoted=shlex.quote(workspace.name), made_at=now()[:16].replace("T", " ") + " UTC",
        images=manifest.height, found=wanted.height, sections=sections, one_check=check is not None,
        classes=list(classes(workspace, manifest).items()),
    )  # fmt: skip
    out = out or workspace.reports / "contact-sheet.html"
    write_bytes(out, page.encode())
    return out
