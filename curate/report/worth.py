"""What the review was worth so far."""

from __future__ import annotations

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


def expectations(queue: pl.DataFrame, view: CleanView) -> tuple[Expectation, Expectation, int] | None:
    """What was expected of the review before it, what is expected now, and its length; None where nothing is judged."""
    judged = queue.sort("rank").filter(pl.col("p_wrong").is_not_null())
    if not judged.height:
        return None
    known = verdicts(judged, view)
    reviewed = int((known != UNDECIDED).sum())
    # The worth of an image includes that it is off topic, or under two labels: those are errors too.
    # People skip about: what was looked at counts as the head, wherever it lay.
    order = np.argsort(known == UNDECIDED, kind="stable")
    p_wrong = judged["worth"].to_numpy()[order]
    other = judged["checks"].list.eval(pl.element().is_in(LABEL_CHECKS).not_()).list.any().to_numpy()[order]
    strata = other.astype(np.int64)
    before = expect(p_wrong, k=reviewed, strata=strata)
    return before, expect(p_wrong, known[order], k=reviewed, strata=strata), reviewed
