"""Decisions: an append-only log, folded into what is in force.

A decision sets one *aspect* of one image. It names the decisions it supersedes (the heads its writer saw), so folding
needs no clock and does not depend on the order of lines: two heads that differ are a conflict, shown and settled by a
decision that supersedes both. Undo is a `retract` line; what the retracted decision superseded is in force again.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl

from curate.errors import InputError
from curate.workspace import append_log, digest, now, read_log

MEMBERSHIP = "membership"
LABEL = "label"
SPLIT = "split"
PAIR = "pair:"

Scope = Literal["row", "bytes"]
Value = str | dict[str, str]


def author() -> str:
    """Who decides: $CURATE_USER, else the name of the account."""
    try:
        return os.environ.get("CURATE_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One aspect of one image, decided by somebody.

    Attributes:
        path: manifest path of the image.
        sha256: digest of the bytes that were looked at; where they change, the decision is stale.
        aspect: `membership`, `label`, `split`, `finding:<check>` or `pair:<other path>`.
        value: `in`, `out` or `{"in_favour_of": path}` (out, and what stays instead); a class name; a split;
            `dismissed`; `{"distinct": sha256}`, the other image's bytes, or plain `distinct`.
        scope: `row`: this path alone; `bytes`: every row with these bytes.
        supersedes: the heads of the same aspect that the writer saw.
        check: the check that led here. batch: the bulk action this belongs to.
    """

    path: str
    sha256: str
    aspect: str
    value: Value
    scope: Scope = "row"
    by: str = field(default_factory=author)
    decided_at: str = field(default_factory=now)
    check: str | None = None
    batch: str | None = None
    why: str | None = None
    supersedes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        instead = self.value.get("in_favour_of") if isinstance(self.value, dict) else None
        ok = {
            MEMBERSHIP: self.value in ("in", "out") or isinstance(instead, str),
            LABEL: isinstance(self.value, str) and bool(self.value),
            SPLIT: isinstance(self.value, str) and bool(self.value),
        }
        if self.aspect.startswith("finding:"):
            valid = self.value == "dismissed"
        elif self.aspect.startswith(PAIR):
            other = self.value.get("distinct") if isinstance(self.value, dict) else None
            valid = self.value == "distinct" or isinstance(other, str)
        else:
            valid = ok.get(self.aspect, False)
        if not valid:
            msg = f"decision on {self.path}: {self.aspect} cannot be {self.value!r}"
            raise InputError(msg)

    @property
    def decision_id(self) -> str:
        """Digest of the content: a repeated line is the same decision."""
        return digest(self._content())[:16]

    @property
    def is_out(self) -> bool:
        """Whether this takes the image out of the data set."""
        return self.aspect == MEMBERSHIP and self.value != "in"

    @property
    def in_favour_of(self) -> str | None:
        """The path that stays in place of this one."""
        return self.value.get("in_favour_of") if isinstance(self.value, dict) else None

    @property
    def pair(self) -> tuple[str, str | None] | None:
        """The path of the image that this one was told apart from, and the bytes that it had."""
        if not self.aspect.startswith(PAIR):
            return None
        return self.aspect.removeprefix(PAIR), self.value.get("distinct") if isinstance(self.value, dict) else None

    def _content(self) -> dict[str, Any]:
        content = {
            "kind": "decision", "path": self.path, "sha256": self.sha256, "aspect": self.aspect, "value": self.value,
            "scope": self.scope, "by": self.by, "decided_at": self.decided_at, "check": self.check,
            "batch": self.batch, "why": self.why, "supersedes": sorted(self.supersedes),
        }  # fmt: skip
        return {key: value for key, value in content.items() if value is not None}

    def to_line(self) -> dict[str, Any]:
        """The line of the log."""
        return self._content() | {"decision_id": self.decision_id}

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Self:
        """Read a line of the log; raises KeyError, TypeError or InputError where it is none."""
        if not isinstance(line.get("supersedes", []), (list, tuple)):
            msg = "supersedes is a list of ids"
            raise TypeError(msg)
        optional = {key: line.get(key) for key in ("check", "batch", "why")}
        return cls(
            path=str(line["path"]), sha256=str(line["sha256"]), aspect=str(line["aspect"]), value=line["value"],
            scope="bytes" if line.get("scope") == "bytes" else "row", by=str(line["by"]),
            decided_at=str(line["decided_at"]), supersedes=tuple(map(str, line.get("supersedes", ()))), **optional,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Retraction:
    """Takes back decisions, or other retractions (undoing an undo)."""

    ids: tuple[str, ...]
    by: str = field(default_factory=author)
    decided_at: str = field(default_factory=now)
    batch: str | None = None
    why: str | None = None

    @property
    def decision_id(self) -> str:
        """Digest of the content."""
        return digest(self._content())[:16]

    def _content(self) -> dict[str, Any]:
        content = {
            "kind": "retract", "ids": sorted(self.ids), "by": self.by, "decided_at": self.decided_at,
            "batch": self.batch, "why": self.why,
        }  # fmt: skip
        return {key: value for key, value in content.items() if value is not None}

    def to_line(self) -> dict[str, Any]:
        """The line of the log."""
        return self._content() | {"decision_id": self.decision_id}


@dataclass(frozen=True)
class DecisionLog:
    """The lines of `decisions.jsonl`, in no particular order; equal lines once.

    Attributes:
        decisions: by id. retractions: by id. rejected: lines that are neither, as text.
    """

    decisions: dict[str, Decision]
    retractions: dict[str, Retraction]
    rejected: tuple[str, ...] = ()

    @classmethod
    def from_lines(cls, lines: Iterable[Mapping[str, Any]], *, torn: Sequence[str] = ()) -> DecisionLog:
        """Sort lines into decisions and retractions; what is neither is told in `rejected`."""
        decisions: dict[str, Decision] = {}
        retractions: dict[str, Retraction] = {}
        rejected = list(torn)
        for line in lines:
            try:
                if line.get("kind") == "retract":
                    retraction = Retraction(
                        ids=tuple(map(str, line["ids"])), by=str(line["by"]), decided_at=str(line["decided_at"]),
                        batch=line.get("batch"), why=line.get("why"),
                    )  # fmt: skip
                    retractions[retraction.decision_id] = retraction
                else:
                    decision = Decision.from_line(line)
                    decisions[decision.decision_id] = decision
            except (KeyError, TypeError, ValueError, InputError):  # ValueError: text or numbers that JSON cannot hold
                rejected.append(str(dict(line)))
        return cls(decisions, retractions, tuple(rejected))

    def alive(self) -> set[str]:
        """Ids of decisions and retractions that no living retraction takes back."""
        by_target: dict[str, list[str]] = {}
        for ident, retraction in self.retractions.items():
            for target in retraction.ids:
                by_target.setdefault(target, []).append(ident)
        state: dict[str, bool] = {}
        for start in [*self.retractions, *self.decisions]:
            stack = [start]
            while stack:
                ident = stack[-1]
                waiting = [r for r in by_target.get(ident, ()) if r not in state and r not in stack]
                if ident not in state and waiting:
                    stack.extend(waiting)
                    continue
                # A ring of retractions cannot be written (ids are digests); if forged, its members do not count.
                state.setdefault(ident, not any(state.get(r, False) for r in by_target.get(ident, ())))
                stack.pop()
        return {ident for ident, living in state.items() if living}

    def ancestors(self, ident: str) -> set[str]:
        """Every decision that `ident` supersedes, directly or through others."""
        seen: set[str] = set()
        stack = list(self.decisions[ident].supersedes) if ident in self.decisions else []
        while stack:
            other = stack.pop()
            if other not in seen:
                seen.add(other)
                if other in self.decisions:
                    stack.extend(self.decisions[other].supersedes)
        return seen


def read(path: Path) -> DecisionLog:
    """Read the log at `path`; a missing file is an empty log."""
    lines = read_log(path)
    return DecisionLog.from_lines(lines.records, torn=lines.torn)


@dataclass(frozen=True)
class Folded:
    """What is in force.

    Attributes:
        heads: (path, aspect) to the decisions in force; more than one only where they agree or are in conflict.
        stale: living decisions whose image's bytes have changed, or those of the image it was told apart from.
        missing: living decisions whose image is no longer in the manifest.
    """

    heads: dict[tuple[str, str], tuple[Decision, ...]]
    stale: tuple[Decision, ...]
    missing: tuple[Decision, ...]

    def conflict(self, path: str, aspect: str) -> bool:
        """Whether decisions with different values are in force for this aspect."""
        return len({digest(d.value) for d in self.heads.get((path, aspect), ())}) > 1

    def get(self, path: str, aspect: str) -> Decision | None:
        """The decision in force, or None where there is none or a conflict."""
        heads = self.heads.get((path, aspect), ())
        return min(heads, key=lambda d: d.decision_id) if heads and not self.conflict(path, aspect) else None

    def aspects(self, path: str) -> list[str]:
        """The aspects of this image that somebody decided."""
        return sorted(aspect for known, aspect in self.heads if known == path)


def fold(log: DecisionLog, manifest: pl.DataFrame) -> Folded:
    """Fold a log over the images of a manifest; independent of the order of lines, idempotent.

    Args:
        log: the decisions and retractions.
        manifest: columns `path` and `sha256` are used.
    """
    alive = log.alive()
    digests = dict(zip(manifest["path"].to_list(), manifest["sha256"].to_list(), strict=True))
    rows_of: dict[str, list[str]] = {}
    for path, sha in digests.items():
        rows_of.setdefault(sha, []).append(path)
    candidates: dict[tuple[str, str], list[Decision]] = {}
    stale: list[Decision] = []
    missing: list[Decision] = []
    for ident in sorted(alive & log.decisions.keys()):
        decision = log.decisions[ident]
        if decision.scope == "bytes":
            rows = rows_of.get(decision.sha256, [])
        elif digests.get(decision.path) == decision.sha256:
            rows = [decision.path]
        else:
            rows = []
        other, bytes_then = decision.pair or ("", None)
        if bytes_then and digests.get(other) not in {bytes_then, None}:
            rows = []  # the picture that it was told apart from is another one now
        for row in rows:
            candidates.setdefault((row, decision.aspect), []).append(decision)
        if not rows:
            (stale if decision.path in digests else missing).append(decision)
    heads: dict[tuple[str, str], tuple[Decision, ...]] = {}
    for key, decisions in candidates.items():
        if len(decisions) > 1:
            superseded: set[str] = set().union(*(log.ancestors(d.decision_id) for d in decisions))
            decisions = [d for d in decisions if d.decision_id not in superseded] or decisions
        heads[key] = tuple(decisions)
    return Folded(heads, tuple(stale), tuple(missing))


def decide(
    path: Path, manifest: pl.DataFrame, choices: Iterable[tuple[str, str, Value]], *,
    check: str | None = None, batch: str | None = None, why: str | None = None, by: str | None = None,
    scope: Scope = "row",
) -> list[Decision]:  # fmt: skip
    """Append decisions to the log at `path`, each superseding the heads there are now.

    Args:
        path: the log.
        manifest: the images that may be decided on.
        choices: (image path, aspect, value) triples. Choices equal to what is in force already add no line.
        check: the check that led here.
        batch: name of the bulk action; given for more than one choice where it is left out.
        why: a reason in words.
        by: who decides; default `author()`.
        scope: `bytes` to decide for every row with the same bytes.

    Returns:
        The decisions that were appended.

    Raises:
        InputError: an image is not in the manifest. Nothing is appended then.
    """
    choices = list(choices)
    folded = fold(read(path), manifest)
    digests = dict(zip(manifest["path"].to_list(), manifest["sha256"].to_list(), strict=True))
    if unknown := sorted({image for image, _, _ in choices if image not in digests}):
        msg = f"no image {unknown[0]!r} in the manifest ({len(unknown)} such). `curate findings` lists paths."
        raise InputError(msg)
    stamp = now()
    by = by or author()
    if batch is None and len(choices) > 1:
        batch = digest(stamp, by, len(choices))[:12]
    made: list[Decision] = []
    for image, aspect, value in choices:
        heads = folded.heads.get((image, aspect), ())
        if heads and all(head.value == value for head in heads):
            continue
        made.append(
            Decision(
                path=image,
                sha256=digests[image],
                aspect=aspect,
                value=value,
                scope=scope,
                by=by,
                decided_at=stamp,
                check=check,
                batch=batch,
                why=why,
                supersedes=tuple(head.decision_id for head in heads),
            )
        )
    append_log(path, (decision.to_line() for decision in made))
    return made


@dataclass(frozen=True)
class Undone:
    """What an undo took back, and which members of a batch stay because a later decision superseded them."""

    retraction: Retraction | None
    kept: tuple[Decision, ...]


def undo(path: Path, *, ids: Sequence[str] = (), batch: str | None = None, last: bool = False) -> Undone:
    """Append a retraction of the named decisions, of a batch, or of what was done last.

    Raises:
        InputError: nothing of that name is in force; ids that exist are not guessed.
    """
    log = read(path)
    alive = log.alive()
    living = [d for i, d in log.decisions.items() if i in alive]
    if last:
        # What was done last may be an undo: taking that back brings its decisions into force again.
        lines: list[Decision | Retraction] = [*living, *(r for i, r in log.retractions.items() if i in alive)]
        newest = max(lines, key=lambda line: line.decided_at, default=None)
        if newest is None:
            msg = "there is no decision to undo"
            raise InputError(msg)
        if isinstance(newest, Decision) and newest.batch:
            batch = newest.batch
        else:
            ids = (newest.decision_id,)
    kept: list[Decision] = []
    if batch is not None:
        members = [d for d in living if d.batch == batch]
        if not members:
            msg = f"no decision of batch {batch!r} is in force; `curate log` lists batches"
            raise InputError(msg)
        superseded = set().union(*(log.ancestors(d.decision_id) for d in living if d.batch != batch))
        kept = [d for d in members if d.decision_id in superseded]
        ids = [d.decision_id for d in members if d.decision_id not in superseded]
    elif unknown := [i for i in ids if i not in alive]:
        msg = f"{unknown[0]!r} is no decision in force; `curate log` lists their ids"
        raise InputError(msg)
    if not ids:
        return Undone(None, tuple(kept))
    retraction = Retraction(ids=tuple(ids), batch=batch)
    append_log(path, [retraction.to_line()])
    return Undone(retraction, tuple(kept))
