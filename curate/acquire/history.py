"""What sources.jsonl says was obtained before, and what a run adds to it."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curate.config import ScrapeSpec
from curate.manifest import KEPT, tombstones
from curate.workspace import Workspace, read_log

Line = dict[str, Any]

_DOUBTFUL = frozenset({"truncated", "corrupt", "html", "empty"})
"""What a network that is torn, or that asks for a login first, makes of a good picture: tried once more, later."""


def is_final(reason: str) -> bool:
    """Whether a failure will be the same next time, so that the address is not asked again.

    Example:
        >>> is_final("http_404"), is_final("http_503"), is_final("timeout")
        (True, False, False)
    """
    if reason.startswith("http_"):
        return reason[5] == "4" and reason not in {"http_408", "http_423", "http_425", "http_429"}
    return reason == "redirect_loop"


@dataclass(frozen=True, kw_only=True)
class History:
    """Earlier attempts for one class.

    Attributes:
        last: URL to the last line about it.
        held: URL to the last line by which it gave a file that is there.
        offers: URL to the pairs of engine and query that have offered it.
        doubtful: URL to the number of bodies that may have been torn by the network, or belong to a portal before it.
        paths: SHA-256 to the file that holds these bytes, whether it is still there or not.
        present: those of the files that are there, and as large as they were.
        purged: SHA-256 of all bytes that were taken down, in whatever class.
        purged_urls: the addresses that gave them.
    """

    last: Mapping[str, Line] = field(default_factory=dict)
    held: Mapping[str, Line] = field(default_factory=dict)
    offers: Mapping[str, Container[tuple[str, str]]] = field(default_factory=dict)
    doubtful: Mapping[str, int] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    purged: frozenset[str] = frozenset()
    purged_urls: frozenset[str] = frozenset()

    def is_settled(self, url: str, spec: ScrapeSpec) -> bool:
        """Whether asking for `url` again could not give anything new under this spec."""
        line = self.last.get(url)
        if url in self.purged_urls or url in self.held:
            return True
        if line is None:
            return False
        reason, width, height = str(line.get("reason")), line.get("width") or 0, line.get("height") or 0
        if line.get("sha256") in self.purged:
            return True
        if line["outcome"] in KEPT:
            return False  # the file is gone
        if line["outcome"] == "failed":
            return is_final(reason)
        if reason in _DOUBTFUL:
            return self.doubtful.get(url, 0) > 1
        may_change = {
            "private_address": spec.allow_private_hosts or not _is_number(line.get("final_url") or url),
            "robots": not spec.respect_robots,
            "opt_out": not spec.respect_robots,
            "too_small": min(width, height) >= spec.min_side,
            "too_large": 0 < width * height <= spec.max_pixels,
            "too_many_bytes": (line.get("bytes") or 0) <= spec.max_bytes,
            "over_limit": True,
        }
        return not may_change.get(reason, False)


def _is_number(url: str) -> bool:
    """Whether the host of a URL is an IP address: what a name stands for can be another one tomorrow."""
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True


def read_histories(
    workspace: Workspace, labels: Iterable[str], records: Iterable[Line] | None = None
) -> dict[str, History]:  # fmt: skip
    """The history of each of the classes, by its name; `records` are those of sources.jsonl, where they are at hand."""
    records = read_log(workspace.sources).records if records is None else list(records)
    stones = tombstones(records)
    urls = frozenset(str(url) for stone in stones.values() for url in stone.get("urls", ()))
    lines: dict[str, list[Line]] = {}
    for line in records:
        label, url, outcome = (line.get(key) for key in ("label", "url", "outcome"))
        if line.get("kind") == "image" and line.get("origin") == "scraped" and label and url and outcome:
            lines.setdefault(label, []).append(line)
    return {label: _history(workspace, lines.get(label, []), frozenset(stones), urls) for label in labels}


def _history(workspace: Workspace, lines: list[Line], purged: frozenset[str], purged_urls: frozenset[str]) -> History:
    files = [line for line in lines if line["outcome"] in KEPT and line.get("sha256") and line.get("path")]
    sizes = {line["path"]: line.get("bytes") for line in files}
    present = frozenset(path for path, size in sizes.items() if _is_whole(workspace.image(path), size))
    offers: dict[str, set[tuple[str, str]]] = {}
    for line in lines:
        offers.setdefault(line["url"], set()).add((str(line.get("engine")), str(line.get("query"))))
    return History(
        last={line["url"]: line for line in lines},
        held={line["url"]: line for line in files if line["path"] in present},
        offers=offers,
        doubtful=Counter(line["url"] for line in lines if line.get("reason") in _DOUBTFUL),
        paths={line["sha256"]: line["path"] for line in files},
        present=present, purged=purged, purged_urls=purged_urls,
    )  # fmt: skip


def _is_whole(file: Path, size: int | None) -> bool:
    return file.is_file() and size in {None, file.stat().st_size}


@dataclass(frozen=True, kw_only=True)
class Yield:
    """What one engine gave for one query of one class.

    Attributes:
        asked: image addresses that were asked for, or that were here already when this query offered them.
        fetched: of those, addresses that gave a whole body.
        kept: new files. known: bytes that the class has already. rejected, failed: by reason. `asked` is their sum.
        answers: kinds of answers of the engine's result pages, with their number.
    """

    engine: str
    query: str
    label: str
    asked: int = 0
    fetched: int = 0
    kept: int = 0
    known: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)


def yields(lines: Iterable[Line], units: Iterable[tuple[str, str, str]] = ()) -> tuple[Yield, ...]:
    """Sum lines of sources.jsonl up per engine, query and class.

    Args:
        lines: records of sources.jsonl; imported ones are passed over.
        units: (engine, query, label) to show even where there is no line of them, and in this order.
    """
    counts: dict[tuple[str, str, str], Counter[tuple[str, str]]] = {unit: Counter() for unit in units}
    fetched: Counter[tuple[str, str, str]] = Counter()
    for line in lines:
        if line.get("kind") not in {"image", "query"} or line.get("origin", "scraped") != "scraped":
            continue
        if not all(isinstance(line.get(key), str) for key in ("engine", "query", "label", "outcome")):
            continue
        unit = (line["engine"], line["query"], line["label"])
        reason = line["outcome"] if line["kind"] == "query" else line.get("reason") or ""
        key = ("answer" if line["kind"] == "query" else line["outcome"], reason)
        counts.setdefault(unit, Counter())[key] += 1
        if line["kind"] == "image" and line.get("sha256") and line.get("http_status"):
            fetched[unit] += 1
    return tuple(
        Yield(
            engine=engine, query=query, label=label,
            asked=sum(n for (kind, _), n in count.items() if kind != "answer"),
            fetched=fetched[engine, query, label], kept=count["kept", ""], known=count["known", ""],
            **{
                name: {reason: n for (kind, reason), n in sorted(count.items()) if kind == name.rstrip("s")}
                for name in ("rejected", "failed", "answers")
            },
        )
        for (engine, query, label), count in counts.items()
    )  # fmt: skip
