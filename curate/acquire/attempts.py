"""One attempt to obtain an image: the task that it was, what came of it, and its line in sources.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from curate.acquire.answers import Hit
from curate.acquire.history import Line
from curate.workspace import now


@dataclass(frozen=True, kw_only=True)
class Task:
    """An image to ask for, with its place in the order; `license_filter` is what the engine was asked for."""

    number: int
    engine: str
    query: str
    hit: Hit
    license_filter: str = ""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What came of a task. Of `obtained` bytes, `staged` is the file; None where the class has them already.

    `headers` are those of the answer that say something about its licence, `head` the first bytes in hex.
    """

    outcome: Literal["obtained", "rejected", "failed"]
    reason: str | None = None
    detail: str | None = None
    final_url: str | None = None
    http_status: int | None = None
    content_type: str | None = None
    size: int | None = None
    sha256: str | None = None
    head: str | None = None
    width: int | None = None
    height: int | None = None
    extension: str = ""
    staged: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def image_line(task: Task, attempt: Attempt, *, label: str, outcome: str, path: str | None) -> Line:
    """The line of sources.jsonl about one attempt."""
    line: Mapping[str, Any] = {
        "v": 1, "kind": "image", "at": now(), "origin": "scraped", "engine": task.engine, "query": task.query,
        "label": label, "page_url": task.hit.page_url, "rank": task.hit.rank, "title": task.hit.title,
        "thumbnail": task.hit.thumbnail, "url": task.hit.url, "final_url": attempt.final_url,
        "http_status": attempt.http_status, "content_type": attempt.content_type, "bytes": attempt.size,
        "sha256": attempt.sha256, "path": path, "outcome": outcome, "reason": attempt.reason,
        "detail": attempt.detail, "width": attempt.width, "height": attempt.height,
        "license": _license(task, attempt),
    }  # fmt: skip
    cleaned = {key: clean(value) if isinstance(value, str) else value for key, value in line.items()}
    return cleaned | ({"head": attempt.head} if attempt.head and outcome in {"rejected", "failed"} else {})


def repeated_line(task: Task, earlier: Line) -> Line:
    """The line about an address that a second query or engine offers, and whose image is here: not asked again."""
    attempt = Attempt(
        outcome="obtained", size=earlier.get("bytes"), sha256=earlier.get("sha256"), width=earlier.get("width"),
        height=earlier.get("height"), detail="offered again; it is here, so it was not asked for",
    )  # fmt: skip
    return image_line(task, attempt, label=str(earlier["label"]), outcome="known", path=earlier["path"])


def _license(task: Task, attempt: Attempt) -> dict[str, Any] | None:
    """What is known of the licence: the filter asked for, the engine's own statement, the headers of the answer."""
    headers = {clean(name): clean(value)[:500] for name, value in attempt.headers.items()}
    told = {"filter": task.license_filter, "stated": task.hit.license, "headers": headers}
    return {name: value for name, value in told.items() if value} or None


def clean(text: str) -> str:
    """Text that UTF-8 can hold: a page may contain halves of characters."""
    return text.encode("utf-8", "replace").decode()
