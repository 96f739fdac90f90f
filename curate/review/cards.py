"""What findings and queue say of each image, put together for the screen."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl


@dataclass(kw_only=True)
class Card:
    """What is shown of one image, but for its label and what was decided.

    Attributes:
        reasons: one sentence a check, worst score first; what another one says already is left out.
        scores: check to score, in [0, 1], lower is worse.
        duplicates: paths of the other images of its group.
        suggestion: a class, or the path of the image in whose favour this one can be dropped.
        p_wrong: how likely the label is wrong.
        rank: place in the queue, from 1.
    """

    reasons: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    duplicates: set[str] = field(default_factory=set)
    suggestion: str | None = None
    p_wrong: float | None = None
    rank: int | None = None

    def add_reason(self, reason: str) -> None:
        """Add a sentence, unless one that is there says the same and more."""
        if not any(known.startswith(reason) for known in self.reasons):
            self.reasons = [*(known for known in self.reasons if not reason.startswith(known)), reason]


def cards_of(findings: pl.DataFrame | None, queue: pl.DataFrame | None) -> dict[str, Card]:
    """Cards by path, for the images with a finding, of a group of duplicates, or with a place in the queue.

    Args:
        findings: table of findings; None where no check has run.
        queue: the review queue (`rank, path, reason, p_wrong, suggestion, ...`); None where there is none.
    """
    cards: dict[str, Card] = {}
    groups: dict[int, set[str]] = {}
    if findings is not None:
        for row in findings.sort("score", "check", "path").iter_rows(named=True):
            card = cards.setdefault(row["path"], Card())
            card.add_reason(row["reason"])
            card.scores.setdefault(row["check"], row["score"])
            card.suggestion = card.suggestion or row["suggestion"]
            if row["p_wrong"] is not None:
                card.p_wrong = max(card.p_wrong or 0.0, row["p_wrong"])
            if row["group"] is not None:
                keeper = {row["suggestion"]} if row["suggestion"] else set()
                groups.setdefault(row["group"], set()).update({row["path"]}, keeper)
    for members in groups.values():
        for path in members:
            cards.setdefault(path, Card()).duplicates |= members - {path}
    if queue is not None:
        for row in queue.iter_rows(named=True):
            card = cards.setdefault(row["path"], Card())
            card.rank = row["rank"]
            card.reasons = card.reasons or [row["reason"]]
            card.suggestion = row["suggestion"] or card.suggestion
            card.p_wrong = card.p_wrong if row["p_wrong"] is None else row["p_wrong"]
    return cards
