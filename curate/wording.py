"""Checks and decisions in words for the screen."""

from __future__ import annotations

from curate.decisions import LABEL, MEMBERSHIP, SPLIT, Decision, Folded

ABOUT = {
    "duplicates:exact": "the same bytes as an image that stays",
    "duplicates:near": "nearly the same picture as an image that stays",
    "duplicates:orphan": "dropped in favour of an image that is itself out",
    "duplicates:conflict": "the same picture under two labels",
    "leakage": "the same picture is in the holdout",
    "confident_mistake": "the model is sure of another class",
    "label_error": "the label is probably wrong",
    "ambiguous": "the model cannot tell which class it is, or two classes are on one picture",
    "cleanlab": "cleanlab's own rule finds the label wrong",
    "outlier": "unlike every other image of the data set",
    "quality:unreadable": "a file that no picture can be read from",
    "quality:dark": "hardly any light",
    "quality:bright": "hardly anything but white",
    "quality:low_contrast": "hardly any difference between light and dark",
    "quality:low_information": "plain: next to nothing on it",
    "quality:blurry": "out of focus",
    "quality:tiny": "very few pixels",
    "quality:greyscale": "grey among pictures in colour",
    "quality:mostly_border": "a small picture in a wide frame",
    "quality:odd_aspect": "far longer than wide, or the other way round",
}
"""What a finding of each check says."""


def check_title(check: str) -> str:
    """The name of a check as people read it."""
    return check.replace("_", " ").replace(":", ": ")


def _phrase(decision: Decision) -> str:
    if decision.aspect == MEMBERSHIP:
        if decision.in_favour_of:
            return f"dropped in favour of {decision.in_favour_of}"
        return "dropped" if decision.is_out else "kept"
    if decision.aspect == LABEL:
        return f"relabelled to {decision.value}"
    if decision.aspect == SPLIT:
        return f"put into {decision.value}"
    kind, _, what = decision.aspect.partition(":")
    return f"dismissed {check_title(what)}" if kind == "finding" else f"not a duplicate of {what}"


def _rank(aspect: str) -> tuple[int, str]:
    order = {LABEL: 0, MEMBERSHIP: 1}
    return order.get(aspect, 2), aspect


def decision_text(folded: Folded, path: str) -> str | None:
    """The decisions in force on an image: "kept", "relabelled to running, dropped", or None where there is none.

    Decisions that contradict one another are told as such.
    """
    phrases = []
    for aspect in sorted(folded.aspects(path), key=_rank):
        heads = folded.heads[path, aspect]
        if folded.conflict(path, aspect):
            phrases.append("conflict: " + " or ".join(sorted({f"{_phrase(d)} (by {d.by})" for d in heads})))
        else:
            phrases.append(_phrase(heads[0]))
    return ", ".join(phrases) or None


def label_in_force(folded: Folded, path: str, given: str | None) -> str | None:
    """The label that was decided, else the one that was given."""
    decided = folded.get(path, LABEL)
    return str(decided.value) if decided else given
