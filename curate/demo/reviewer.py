"""The simulated reviewer: answers the head of the queue from planted.csv, as a person who knows the subject would."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from curate.dataset import Dataset
from curate.decisions import LABEL, MEMBERSHIP, Value, fold
from curate.demo.evaluate import Fault, truth

NAME = "simulated reviewer"


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """What the reviewer did: images asked about, labels changed, images dropped, duplicates accepted in bulk."""

    asked: int
    relabelled: int
    dropped: int
    kept: int
    duplicates: int


def review(dataset: Dataset, faults: list[Fault], *, budget: int) -> Reviewed:
    """Accept the duplicates of another image, then answer the first `budget` images of the queue.

    A wrong label gets the true one, what is off topic or shows two styles is dropped, everything else is kept. Images
    that somebody decided on are left alone, so that asking again changes nothing.
    """
    for check in ("duplicates:exact", "duplicates:near"):
        if dataset.findings.filter(pl.col("check") == check).height:
            dataset.accept(check, by=NAME, why="duplicates are accepted in bulk")
    planted = truth(dataset.workspace, faults)
    folded = fold(dataset.decisions, dataset.manifest)
    asked = asked_about(dataset, budget)
    choices = [
        (path, *answer(planted.get(path, {}))) for path in asked
        if not (folded.heads.get((path, MEMBERSHIP)) or folded.heads.get((path, LABEL)))
    ]  # fmt: skip
    if choices:
        dataset.decide(choices, by=NAME, why="answered from planted.csv", batch="simulated-review")
    return tally(dataset, asked)


def asked_about(dataset: Dataset, budget: int) -> list[str]:
    """The first `budget` images of the queue that are not out in favour of another."""
    folded = fold(dataset.decisions, dataset.manifest)
    return [
        path for path in dataset.queue.sort("rank")["path"].to_list()
        if not ((member := folded.get(path, MEMBERSHIP)) and member.in_favour_of)
    ][:budget]  # fmt: skip


def answer(faults: dict[str, Fault]) -> tuple[str, Value]:
    """The aspect and value that a person who knows the subject would decide on."""
    if "off_topic" in faults or "two_styles" in faults:
        return MEMBERSHIP, "out"
    for fault in faults.values():
        if fault.true and fault.true != fault.given:
            return LABEL, fault.true
    return MEMBERSHIP, "in"


def tally(dataset: Dataset, asked: list[str]) -> Reviewed:
    """Count what is in force on the images that were asked about, and the duplicates that are out."""
    folded = fold(dataset.decisions, dataset.manifest)
    labels = [folded.get(path, LABEL) for path in asked]
    members = [folded.get(path, MEMBERSHIP) for path in asked]
    favoured = [
        path for path, aspect in folded.heads
        if aspect == MEMBERSHIP and (d := folded.get(path, aspect)) is not None and d.in_favour_of
    ]  # fmt: skip
    return Reviewed(
        asked=len(asked), relabelled=sum(d is not None for d in labels),
        dropped=sum(d is not None and d.is_out and not d.in_favour_of for d in members),
        kept=sum(d is not None and not d.is_out for d in members), duplicates=len(favoured),
    )  # fmt: skip
