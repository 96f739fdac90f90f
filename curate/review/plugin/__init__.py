"""Buttons above the grid of the App, and in the window of one image: FiftyOne loads this file in its server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from curate import decisions
from curate.errors import CurateError, InputError
from curate.review import actions
from curate.review.actions import Outcome, Shown
from curate.review.app import refresh
from curate.workspace import Workspace


class Button(foo.Operator):  # type: ignore[misc] # FiftyOne carries no types
    """A button that decides on the selected images, or on the one whose window is open."""

    key = ""
    label = ""
    description = ""
    prompt = False
    in_window = False

    @property
    def config(self) -> Any:
        """What FiftyOne asks of an operator."""
        name = f"{self.key}_shown" if self.in_window else self.key
        return foo.OperatorConfig(name=name, label=self.label, description=self.description, dynamic=self.prompt)

    def resolve_placement(self, ctx: Any) -> Any:
        """Where the button is: none but those of the window go into a toolbar of FiftyOne."""
        if not self.in_window:
            return None  # it is in `Bar`
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, types.Button(label=self.label, prompt=self.prompt))

    def act(self, ctx: Any, workspace: Workspace, shown: list[Shown]) -> Outcome:
        """Write the decisions."""
        raise NotImplementedError

    def show_next(self, ctx: Any, outcome: Outcome, following: str | None) -> str | None:
        """What the window of one image shows afterwards; None closes it."""
        return following

    def execute(self, ctx: Any) -> None:
        """Write the decisions, bring the screen up to date, and say what happened."""
        try:
            workspace = _workspace(ctx)
            following = _following(ctx)
            outcome = self.act(ctx, workspace, _shown(ctx))
        except CurateError as error:
            ctx.ops.notify(str(error), variant="error")
            return
        if outcome.paths:
            refresh(
                fo, ctx.dataset, manifest=workspace.read_table("manifest"),
                decisions_log=decisions.read(workspace.decisions), paths=list(outcome.paths),
            )  # fmt: skip
            ctx.ops.clear_selected_samples()
            ctx.ops.reload_dataset()
            if ctx.current_sample:
                shown_next = self.show_next(ctx, outcome, following)
                ctx.ops.open_sample(id=shown_next) if shown_next else ctx.ops.close_sample()
        ctx.ops.notify(outcome.message, variant="success" if outcome.paths else "warning")


def _workspace(ctx: Any) -> Workspace:
    root = ctx.dataset.info.get("curate_root")
    if not root:
        msg = f"{ctx.dataset.name} is no data set of curate: those are named curate-..."
        raise InputError(msg)
    return Workspace.find(Path(root))


def _shown(ctx: Any) -> list[Shown]:
    """The image whose window is open, else the selected ones."""
    idents = [ctx.current_sample] if ctx.current_sample else list(ctx.selected)
    if not idents:
        return []
    fields = ["path", "checks", "suggestion", "duplicates"]
    return [
        Shown(path=path, checks=tuple(checks or ()), suggestion=suggestion, duplicates=tuple(duplicates or ()))
        for path, checks, suggestion, duplicates in zip(*ctx.dataset.select(idents).values(fields), strict=True)
    ]


def _following(ctx: Any) -> str | None:
    """The image after the one whose window is open, in the order of the grid."""
    if not ctx.current_sample:
        return None
    idents = [*ctx.view.values("id"), None]
    return idents[idents.index(ctx.current_sample) + 1] if ctx.current_sample in idents else None


class Keep(Button):
    """Keep the images."""

    key = "keep"
    label = "Keep"
    description = "These images belong to the data set, with the label they have"

    def act(self, ctx: Any, workspace: Workspace, shown: list[Shown]) -> Outcome:
        """Write the decisions."""
        return actions.keep(workspace, shown)


class Drop(Button):
    """Drop the images."""

    key = "drop"
    label = "Drop"
    description = "These images do not belong to the data set (no file is deleted)"

    def act(self, ctx: Any, workspace: Workspace, shown: list[Shown]) -> Outcome:
        """Write the decisions."""
        return actions.drop(workspace, shown)


class AcceptSuggestion(Button):
    """Do what is suggested for each image."""

    key = "accept_suggestion"
    label = "Accept"
    description = "Give each of these images the label that is suggested for it"

    def act(self, ctx: Any, workspace: Workspace, shown: list[Shown]) -> Outcome:
        """Write the decisions."""
        return actions.accept(workspace, shown)


class Relabel(Button):
    """Ask for a class and give it to the images."""

    key = "relabel"
    label = "Relabel"
    description = "Give these images another label"
    prompt = True

    def resolve_input(self, ctx: Any) -> Any:
        """The form: one choice a class, the suggestion (else the prediction) chosen already."""
        form = types.Object()
        shown = _shown(ctx)
        if not shown:
            form.view("nothing", types.Warning(label=actions.NOTHING_SELECTED.message))
            return types.Property(form, view=types.View(label="Relabel"))
        workspace = _workspace(ctx)
        names = actions.classes(workspace, workspace.read_table("manifest"))
        choices = types.RadioGroup() if len(names) <= 12 else types.AutocompleteView()
        for name, title in names.items():
            choices.add_choice(name, label=title)
        predicted = ctx.dataset.match(fo.ViewField("path") == shown[0].path).values("prediction.label")
        default = next((name for name in (shown[0].suggestion, *predicted) if name in names), None)
        form.enum("label", choices.values(), label="The right label", view=choices, default=default, required=True)
        title = f"Relabel {len(shown)} image{'s' if len(shown) > 1 else ''}"
        return types.Property(form, view=types.View(label=title))

    def act(self, ctx: Any, workspace: Workspace, shown: list[Shown]) -> Outcome:
        """Write the decisions."""
        label = ctx.params.get("label")
        if not shown or not label:
            return actions.NOTHING_SELECTED
        return actions.relabel(workspace, shown, str(label))


class Dismiss(Button):
    """Say that the findings are wrong."""

    key = "dismiss"
    label = "Dismiss"
    description = "Nothing is wrong here: dismiss the findings; what was found to be a duplicate is told apart"

    def act(self, ctx: Any, workspace: Workspace, shown: list[Shown]) -> Outcome:
        """Write the decisions."""
        return actions.dismiss(workspace, shown)


class Undo(Button):
    """Take back the last action."""

    key = "undo"
    label = "Undo"
    description = "Take back your last decision; again and again goes further back"

    def act(self, ctx: Any, workspace: Workspace, shown: list[Shown]) -> Outcome:
        """Write the retraction."""
        return actions.undo(workspace)

    def show_next(self, ctx: Any, outcome: Outcome, following: str | None) -> str | None:
        """The image whose decision was taken back."""
        found = ctx.dataset.match(fo.ViewField("path") == outcome.paths[0]).values("id")
        return found[0] if found else following


class Bar(foo.Panel):  # type: ignore[misc] # FiftyOne carries no types
    """The buttons, in a row above the grid: FiftyOne's own toolbar hides them where the window is narrow."""

    @property
    def config(self) -> Any:
        """What FiftyOne asks of a panel."""
        return foo.PanelConfig(name="curate_bar", label="Decide", icon="rule", surfaces="grid")

    def on_load(self, ctx: Any) -> None:
        """Called when the panel opens."""

    def on_change_selected(self, ctx: Any) -> None:
        """Called when the selection changes: `render` tells the number."""

    def render(self, ctx: Any) -> Any:
        """A row of buttons, and how many images they are about."""
        panel = types.Object()
        row = panel.h_stack("row", gap=1, align_y="center")
        for button in BUTTONS:
            view = types.Button(
                label=button.label,
                operator=f"curate/{button.key}",
                prompt=button.prompt,
                variant="contained",
            )
            row.view(button.key, view)
        n = len(ctx.selected)
        row.md(f"{n} selected" if n else "Tick pictures below, then decide on them here.", name="words")
        return types.Property(panel, view=types.GridView(gap=1))


BUTTONS = (Keep, Drop, AcceptSuggestion, Relabel, Undo, Dismiss)


def register(plugin: Any) -> None:
    """What FiftyOne calls to learn of the operators."""
    plugin.register(Bar)
    for button in BUTTONS:
        plugin.register(button)
        plugin.register(type(f"{button.__name__}Shown", (button,), {"in_window": True}))
