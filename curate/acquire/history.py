"""What sources.jsonl says was obtained before, and what a run adds to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.config import ScrapeSpec
from curate.manifest import tombstones
from curate.workspace import Workspace, read_log

Line = dict[str, Any]


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
        paths: SHA-256 to the file that holds these bytes, whether it is still there or not.
        present: those of the files that are there.
        purged: SHA-256 of all bytes that were taken down, in whatever class.
    """

    last: Mapping[str, Line] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    purged: frozenset[str] = frozenset()

    def is_settled(self, url: str, spec: ScrapeSpec) -> bool:
        """Whether asking for `url` again could not give anything new under this spec."""
        line = self.last.get(url)
        if line is None:
            return False
        reason = str(line.get("reason"))
        if line.get("sha256") in self.purged:
            return True
        if line["outcome"] in {"kept", "known"}:
            return line.get("path") in self.present
        if line["outcome"] == "failed":
            return is_final(reason)
        allowed_now = {
            "private_address": spec.allow_private_hosts,
            "robots": not spec.respect_robots,
            "opt_out": not spec.respect_robots,
            "too_small": min(line.get("width") or 0, line.get("height") or 0) >= spec.min_side,
            "too_many_bytes": (line.get("bytes") or 0) <= spec.max_bytes,
        }
        return not allowed_now.get(reason, False)


def read_histories(workspace: Workspace, labels: Iterable[str]) -> dict[str, History]:
    """The history of each of the classes, by its name."""
    last: dict[str, dict[str, Line]] = {}
    paths: dict[str, dict[str, str]] = {}
    records = read_log(workspace.sources).records
    purged = frozenset(tombstones(records))
    for line in records:
        label, url, outcome = (line.get(key) for key in ("label", "url", "outcome"))
        if line.get("kind") != "image" or line.get("origin") != "scraped" or not (label and url and outcome):
            continue
        last.setdefault(label, {})[url] = line
        if outcome in {"kept", "known"} and line.get("sha256") and line.get("path"):
            paths.setdefault(label, {})[line["sha256"]] = line["path"]
    return {
        label: History(
            last=last.get(label, {}),
            paths=paths.get(label, {}),
            purged=purged,
            present=frozenset(p for p in set(paths.get(label, {}).values()) if workspace.image(p).is_file()),
        )
        for label in labels
    }


@dataclass(frozen=True, kw_only=True)
class Yield:
    """What one engine gave for one query of one class.

    Attributes:
        asked: image addresses that were asked for; the sum of the four that follow.
        fetched: of those, addresses that gave a whole body.
        kept: new files. known: bytes that the class has already. rejected, failed: by reason.
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
        if line["kind"] == "image" and line.get("sha256"):
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
