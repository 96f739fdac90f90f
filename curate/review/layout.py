"""How a data set looks in the App: groups of the sidebar, colours, and the saved views."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from curate.wording import ABOUT, check_title

ON_THE_GRID = ["label", "prediction", "reason", "decision"]
"""Fields whose values are shown on every picture from the start."""

COLOURS = {
    "label": "#1f6feb", "prediction": "#8957e5", "reason": "#57606a", "decision": "#1a7f37",
    "checks": "#9a6700", "suggestion": "#8957e5", "source": "#57606a", "rank": "#57606a",
}  # fmt: skip

FIELDS = {
    "label": "the label in force: the one that was given, or the one that was decided",
    "prediction": "what a model says that saw neither this image nor a near-duplicate of it",
    "reason": "what is wrong with it, one sentence for each check that found something",
    "decision": "what was decided on it; empty: nothing yet",
    "rank": "place in the review queue; 1 is the most worthwhile to look at",
    "checks": "which checks found something, worst first",
    "suggestion": "what Accept does: another label, or the image in whose favour this one is dropped",
    "p_wrong": "how likely the label is wrong, 0 to 1",
    "worst": "the lowest score of any check, 0 to 1; lower is worse",
    "duplicates": "the other images of its duplicate group",
    "path": "the path by which curate knows the image",
    "source": "where it was obtained from",
}

TO_REVIEW = "to review"
QUEUE = "queue"
DECIDED = "decided"


def dress(fo: Any, dataset: Any) -> None:
    """Set the sidebar, the colours and what the grid shows at first."""
    for name, told in FIELDS.items():
        field = dataset.get_field(name)
        field.description = told
        field.save()
    group = fo.SidebarGroupDocument
    dataset.app_config.sidebar_groups = [
        group(name="tags", paths=["tags"], expanded=True),
        group(name="on the picture", paths=ON_THE_GRID, expanded=True),
        group(name="why it is here", paths=["rank", "checks", "suggestion", "p_wrong", "worst"], expanded=True),
        group(name="score of each check (lower is worse)", paths=_score_paths(dataset), expanded=False),
        group(name="metadata", paths=["path", "source", "duplicates", "id", "filepath", "created_at",
                                      "last_modified_at", "metadata.size_bytes", "metadata.mime_type",
                                      "metadata.width", "metadata.height", "metadata.num_channels"], expanded=False),
    ]  # fmt: skip
    dataset.app_config.active_fields = fo.ActiveFields(paths=ON_THE_GRID, exclude=False)
    dataset.app_config.color_scheme = fo.ColorScheme(
        color_by="field", fields=[{"path": path, "fieldColor": colour} for path, colour in COLOURS.items()]
    )
    dataset.save()


def score_field(check: str) -> str:
    """The field that holds the score of a check: `scores.duplicates_near` for `duplicates:near`."""
    return "scores." + re.sub(r"\W", "_", check)


def _score_paths(dataset: Any) -> list[str]:
    return sorted(path for path in dataset.get_field_schema(flat=True) if path.startswith("scores."))


def save_views(fo: Any, dataset: Any, checks: Iterable[str]) -> None:
    """Save our views, over those that we saved before; views of the person stay as they are."""
    ordered = dataset.exists("rank").sort_by("rank")
    views = {
        TO_REVIEW: (ordered.exists("decision", False), "#d29922",
                    "What to look at, most worthwhile first. An image leaves this view when you decide on it."),
        QUEUE: (ordered, "#6e7781", "The whole review queue in its order, with what is decided already."),
        DECIDED: (dataset.exists("decision"), "#1a7f37", "Every image with a decision in force."),
    }  # fmt: skip
    for check in sorted(checks):
        score = score_field(check)
        told = ABOUT.get(check, f"found by the check {check_title(check)}")
        views[check] = (dataset.exists(score).sort_by(score), "#cf222e", f"Worst first: {told}.")
    for gone in set(dataset.info.get("curate_views", ())) - set(views):
        if dataset.has_saved_view(gone):
            dataset.delete_saved_view(gone)
    for name, (view, colour, description) in views.items():
        dataset.save_view(name, view, description=description, color=colour, overwrite=True)
    dataset.info = {**dataset.info, "curate_views": list(views)}
    dataset.save()
