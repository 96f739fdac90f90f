"""What the buttons of the App do: decisions written to the log at once, and what to tell the person.

Every action takes the images it is about; none of them is ever about "all".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from curate import apart, decisions
from curate.checks.duplicates import EXACT, NEAR
from curate.decisions import LABEL, MEMBERSHIP, Decision, Retraction, Value
from curate.resolve import resolve
from curate.schema import GROUPS
from curate.suggestions import Keepers
from curate.workspace import Workspace

Choice = tuple[str, str, Value]

_NOT_DUPLICATES = frozenset({NEAR, EXACT})
"""To dismiss one of these says that two images are no duplicates; to dismiss another says nothing of that."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One image as the person sees it on the screen."""

    path: str
    checks: tuple[str, ...] = ()
    suggestion: str | None = None
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an action did.

    Attributes:
        message: to be shown to the person.
        paths: the images whose decisions changed.
    """

    message: str
    paths: tuple[str, ...] = ()


NOTHING_SELECTED = Outcome(message="No image is selected: tick the box in the corner of a picture first.")


def _images(n: int) -> str:
    return f"{n} image" if n == 1 else f"{n} images"


def _write(
    workspace: Workspace, shown: Sequence[Shown], choices: Iterable[Choice], done: str, *, skipped: str = ""
) -> Outcome:
    """Append the choices; say how many images are `done`, and how many were so before."""
    if not shown:
        return NOTHING_SELECTED
    checks = {check for image in shown for check in image.checks}
    made = decisions.decide(
        workspace.decisions, workspace.read_table("manifest"), choices, check=checks.pop() if len(checks) == 1 else None
    )
    paths = tuple(sorted({decision.path for decision in made}))
    same = len(shown) - len(paths)
    words = [f"{_images(len(paths))} {done}."] if paths else [f"Nothing to do: no image was {done}."]
    if same:
        words.append(skipped or f"{_images(same)} {'was' if same == 1 else 'were'} so before.")
    return Outcome(message=" ".join(words), paths=paths)


def keep(workspace: Workspace, shown: Sequence[Shown]) -> Outcome:
    """Decide that images belong to the data set, with the label they have."""
    return _write(workspace, shown, [(image.path, MEMBERSHIP, "in") for image in shown], "kept")


def drop(workspace: Workspace, shown: Sequence[Shown]) -> Outcome:
    """Decide that images do not belong to the data set."""
    return _write(workspace, shown, [(image.path, MEMBERSHIP, "out") for image in shown], "dropped")


def relabel(workspace: Workspace, shown: Sequence[Shown], label: str) -> Outcome:
    """Decide on the label of images."""
    return _write(workspace, shown, [(image.path, LABEL, label) for image in shown], f"relabelled to {label}")


def accept(workspace: Workspace, shown: Sequence[Shown]) -> Outcome:
    """Do what is suggested for each image: another label, to drop it, or to drop it in favour of another image.

    An image never goes in favour of one that is itself out: then the best of its group that stands stays, or it does.
    """
    manifest = workspace.read_table("manifest")
    known = set(manifest["path"].to_list())
    groups = workspace.read_table("groups") if workspace.has_table("groups") else GROUPS.empty()
    keepers = Keepers(resolve(manifest, decisions.read(workspace.decisions)), groups)
    choices: list[Choice] = []
    for image in shown:
        if image.suggestion in known:
            stays = keepers.instead_of(image.path, str(image.suggestion))
            if stays:
                choices.append((image.path, MEMBERSHIP, {"in_favour_of": stays}))
                keepers.leave(image.path)
        elif image.suggestion == "drop":
            choices.append((image.path, MEMBERSHIP, "out"))
        elif image.suggestion:
            choices.append((image.path, LABEL, image.suggestion))
    return _write(
        workspace, shown, choices, "changed as suggested",
        skipped="The others have no suggestion, were so before, or are the last that stand of their group.",
    )  # fmt: skip


def dismiss(workspace: Workspace, shown: Sequence[Shown]) -> Outcome:
    """Decide that there is nothing wrong: dismiss the findings on images.

    Where they were found to be duplicates, they are told apart from the others of their group, too; never from images
    with the same bytes.
    """
    manifest = workspace.read_table("manifest")
    digests = dict(manifest.select("path", "sha256").iter_rows())
    choices: list[Choice] = []
    for image in shown:
        choices += [(image.path, f"finding:{check}", "dismissed") for check in image.checks]
        if any(check in _NOT_DUPLICATES for check in image.checks):
            choices += [
                apart.tell_apart(manifest, image.path, other) for other in image.duplicates
                if digests.get(other, digests[image.path]) != digests[image.path]
            ]  # fmt: skip
    return _write(
        workspace, shown, choices, "dismissed", skipped="The others have no findings, or were dismissed before."
    )


def last_of(log: decisions.DecisionLog, by: str) -> Decision | None:
    """The newest decision of this person that nobody took back, nor decided on again since."""
    alive = log.alive()
    living = [d for ident, d in log.decisions.items() if ident in alive]
    superseded: set[str] = set().union(*(log.ancestors(d.decision_id) for d in living))
    mine = [d for d in living if d.by == by and d.decision_id not in superseded]
    return max(mine, key=lambda d: (d.decided_at, d.decision_id), default=None)


def undo(workspace: Workspace) -> Outcome:
    """Take back the last action of this person; again and again goes further back."""
    log = decisions.read(workspace.decisions)
    last = last_of(log, decisions.author())
    if last is None:
        return Outcome(message="There is no decision of yours to undo.")
    undone = (
        decisions.undo(workspace.decisions, batch=last.batch) if last.batch
        else decisions.undo(workspace.decisions, ids=[last.decision_id])
    )  # fmt: skip
    paths = tuple(sorted(_paths(log, undone.retraction)))
    words = f"Undone: the last decision on {_images(len(paths))}."
    if undone.kept:
        words += f" {len(undone.kept)} of that action stay, because they were decided on again since."
    return Outcome(message=words, paths=paths)


def _paths(log: decisions.DecisionLog, retraction: Retraction | None) -> set[str]:
    return {log.decisions[i].path for i in (retraction.ids if retraction else ()) if i in log.decisions}


def classes(workspace: Workspace, manifest: pl.DataFrame) -> Mapping[str, str]:
    """Every class that an image can have, with its name as people read it."""
    titles = workspace.spec().class_titles
    found = manifest["label"].drop_nulls().unique().sort().to_list()
    return titles | {name: name for name in found if name not in titles}
