"""What the review was worth so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.budget import UNDECIDED, Expectation, expect
from curate.decisions import LABEL, MEMBERSHIP
from curate.resolve import CleanView

LABEL_CHECKS = ["label_error", "confident_mistake", "ambiguous", "cleanlab"]
"""Checks that see what p_wrong sees; images that others flagged are wrong for other reasons."""


def verdicts(queue: pl.DataFrame, view: CleanView) -> NDArray[np.int64]:
    """(N,) in the order of the queue: 1 where a decision found an error, 0 where it found none, else `UNDECIDED`.

    An error is another label, or an image that belongs to no class. Duplicates are none.
    """
    given = dict(view.rows.select("path", "given").iter_rows())
    out = np.full(queue.height, UNDECIDED, dtype=np.int64)
    for place, path in enumerate(queue["path"].to_list()):
        label, member = view.folded.get(path, LABEL), view.folded.get(path, MEMBERSHIP)
        if label is not None:
            out[place] = int(label.value != given[path])
        elif member is not None and not member.in_favour_of:
            out[place] = int(member.is_out)
        elif member is None and any(aspect.startswith("finding:") for aspect in view.folded.aspects(path)):
            out[place] = 0
    return out


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What the review found so far, and what going on would.

    Attributes:
        reviewed: images that were looked at. found: errors among them.
        following: length of the next stretch of the queue. next: errors to expect in it; next_interval: 90%.
        remaining: errors to expect in all that was not looked at; remaining_interval: 90%.
    """

    reviewed: int
    found: int
    following: int
    next: float
    next_interval: tuple[float, float]
    remaining: float
    remaining_interval: tuple[float, float]

    def words(self) -> str:
        """One sentence for the terminal."""
        low, high = (round(v) for v in self.next_interval)
        least, most = (round(v) for v in self.remaining_interval)
        return (
            f"reviewed {self.reviewed}, found {self.found} errors; the next {self.following} hold about "
            f"{self.next:.0f} ({low} to {high}); about {self.remaining:.0f} ({least} to {most}) remain in all"
        )


def outlook(queue: pl.DataFrame, view: CleanView, *, following: int = 100) -> Outlook | None:
    """What the next images of the queue hold; None where nothing is judged."""
    judged = _in_order(queue, view)
    if judged is None:
        return None
    worth, known, strata, _ = judged
    reviewed = int((known != UNDECIDED).sum())
    length = min(following, len(worth) - reviewed)
    now = expect(worth, known, k=reviewed, strata=strata)
    then = expect(worth, known, k=reviewed + length, strata=strata)
    found = int(now.first)
    return Outlook(
        reviewed=reviewed, found=found, following=length, next=then.first - found,
        next_interval=(then.first_interval[0] - found, then.first_interval[1] - found), remaining=now.beyond,
        remaining_interval=now.beyond_interval,
    )  # fmt: skip


def calibrated(queue: pl.DataFrame, view: CleanView) -> dict[str, float]:
    """Path to the chance that its label is wrong, corrected by what was decided; 0 or 1 where it was decided."""
    judged = _in_order(queue, view)
    if judged is None:
        return {}
    worth, known, strata, paths = judged
    return dict(zip(paths, expect(worth, known, k=0, strata=strata).p_wrong.tolist(), strict=True))


def _in_order(
    queue: pl.DataFrame, view: CleanView
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], list[str]] | None:
    """Worth, verdict, stratum and path of each judged image: those that were looked at first, then by rank."""
    judged = queue.sort("rank").filter(pl.col("p_wrong").is_not_null())
    if not judged.height:
        return None
    known = verdicts(judged, view)
    # People skip about: what was looked at counts as the head, wherever it lay.
    order = np.argsort(known == UNDECIDED, kind="stable")
    other = judged["checks"].list.eval(pl.element().is_in(LABEL_CHECKS).not_()).list.any().to_numpy()
    # The worth of an image includes that it is off topic, or under two labels: those are errors too.
    paths = [judged["path"][int(n)] for n in order]
    return judged["worth"].to_numpy()[order], known[order], other.astype(np.int64)[order], paths


def expectations(queue: pl.DataFrame, view: CleanView) -> tuple[Expectation, Expectation, int] | None:
    """What was expected of the review before it, what is expected now, and its length; None where nothing is judged."""
    judged = _in_order(queue, view)
    if judged is None:
        return None
    worth, known, strata, _ = judged
    reviewed = int((known != UNDECIDED).sum())
    return expect(worth, k=reviewed, strata=strata), expect(worth, known, k=reviewed, strata=strata), reviewed
