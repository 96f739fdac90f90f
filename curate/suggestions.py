"""What findings still say, and what to do about them, after what was decided.

Findings tell of the images as they came. A decision changes what they mean: an image that was dropped cannot stay in
place of another, and copies that were given one label no longer contradict one another.
"""

from __future__ import annotations

import polars as pl

from curate.checks.duplicates import CONFLICT, ORPHAN
from curate.checks.labels import AMBIGUOUS, CLEANLAB, CONFIDENT, LABEL_ERROR
from curate.decisions import LABEL, MEMBERSHIP, Value
from curate.resolve import STANDING, CleanView

LABEL_CHECKS = frozenset({LABEL_ERROR, CONFIDENT, AMBIGUOUS, CLEANLAB})
"""Checks on what an image is called; a decision on the label settles them."""


class Keepers:
    """Which image stays in place of another, as things are now.

    Args:
        view: what the decisions make of the images.
        groups: schema `GROUPS`.
    """

    def __init__(self, view: CleanView, groups: pl.DataFrame) -> None:
        stands = view.rows.filter(pl.col("why").is_in(list(STANDING)))
        self.label: dict[str, str | None] = dict(stands.select("path", "label").iter_rows())
        self._members: dict[int, list[str]] = {}
        self._group: dict[str, int] = {}
        for path, group in groups.select("path", "group").iter_rows():
            self._group[path] = group
            self._members.setdefault(group, []).append(path)

    def leave(self, path: str) -> None:
        """From now on this image is out."""
        self.label.pop(path, None)

    def standing(self, path: str) -> list[str]:
        """The images of its group that are not out, best first by the keeper rule; of none where it is alone."""
        return [member for member in self._members.get(self._group.get(path, -1), ()) if member in self.label]

    def instead_of(self, path: str, suggested: str) -> str | None:
        """What stays if `path` goes: what was suggested, else the best of its group; None where it must stay itself."""
        if path not in self.label:
            return None
        if suggested in self.label and suggested != path:
            return suggested
        best = next(iter(self.standing(path)), path)
        return best if best != path else None

    def agree(self, path: str) -> bool:
        """Whether all that stand of its group have one label now."""
        return len({self.label[member] for member in self.standing(path)}) <= 1


def open_findings(findings: pl.DataFrame, view: CleanView, groups: pl.DataFrame) -> pl.DataFrame:
    """The findings that no decision has settled.

    Settled is what was dismissed, or is about an image that is out or that somebody kept; a finding on a label where a
    label was decided; a duplicate without another one that stands; a conflict where all that stand now agree.
    """
    keepers = Keepers(view, groups)
    out = set(view.rows.filter(pl.col("why").is_in(["dropped", "duplicate"]))["path"].to_list())

    def is_open(path: str, check: str, suggestion: str | None) -> bool:
        decided = {aspect for aspect in (MEMBERSHIP, LABEL, f"finding:{check}") if view.folded.get(path, aspect)}
        if check == ORPHAN:
            return f"finding:{check}" not in decided
        if path in out or MEMBERSHIP in decided or f"finding:{check}" in decided:
            return False
        if check in LABEL_CHECKS:
            return LABEL not in decided
        if check == CONFLICT:
            return path not in keepers.label or not keepers.standing(path) or not keepers.agree(path)
        if check.startswith("duplicates:") and suggestion:
            return keepers.instead_of(path, suggestion) is not None
        return True

    rows = findings.select("path", "check", "suggestion").iter_rows()
    return findings.filter(pl.Series([is_open(*row) for row in rows], dtype=pl.Boolean))


def choices(findings: pl.DataFrame, view: CleanView, groups: pl.DataFrame) -> list[tuple[str, str, Value]]:
    """What findings suggest, as (path, aspect, value), for those that nobody decided on.

    Duplicates go in favour of the image that stays: never of one that is out, or goes in the same breath, and never
    all of a group. Labels become the suggested class. Images for which nothing is suggested are dropped.
    """
    known = set(view.rows["path"].to_list())
    chosen: dict[tuple[str, str], Value] = {}
    followers: list[tuple[str, str]] = []
    keepers = Keepers(view, groups)
    for path, check, suggestion in findings.select("path", "check", "suggestion").iter_rows():
        aspect = LABEL if suggestion and suggestion not in known else MEMBERSHIP
        if view.folded.get(path, f"finding:{check}") or view.folded.heads.get((path, aspect)):
            continue
        if suggestion in known:
            followers.append((path, suggestion))
        elif check == CONFLICT and keepers.standing(path) and keepers.agree(path):
            followers.append((path, keepers.standing(path)[0]))
        else:
            chosen.setdefault((path, aspect), suggestion or "out")
    for (path, aspect), value in chosen.items():
        if aspect == MEMBERSHIP and value == "out":
            keepers.leave(path)
    stays: dict[str, str] = {}
    for path, suggested in followers:
        other = keepers.instead_of(path, suggested)
        if other and (path, MEMBERSHIP) not in chosen:
            stays[path] = other
            keepers.leave(path)
    for path, other in stays.items():
        while other in stays:  # what was to stay went later, in favour of another
            other = stays[other]
        chosen[path, MEMBERSHIP] = {"in_favour_of": other}
    return [(path, aspect, value) for (path, aspect), value in chosen.items()]
