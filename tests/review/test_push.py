"""What `push` makes of tables and log, in a real MongoDB."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from curate import decisions
from curate.review import actions, app
from curate.review.actions import Shown

C, S = "images/scraped/circle", "images/scraped/square"


def push(shapes: Any, **changes: Any) -> Any:
    tables = {
        "manifest": shapes.manifest, "findings": shapes.findings, "predictions": shapes.predictions,
        "queue": shapes.queue, "decisions_log": decisions.read(shapes.workspace.decisions),
    }  # fmt: skip
    return app.push(shapes.workspace, **(tables | changes))


@pytest.fixture
def dataset(shapes):
    pushed = push(shapes)
    yield pushed
    pushed.delete()


def sample(dataset, path):
    import fiftyone as fo

    return dataset.one(fo.ViewField("path") == path)


def test_every_readable_image_is_a_sample_with_what_is_known_of_it(dataset, shapes):
    assert dataset.persistent
    assert len(dataset) == 12
    wrong = sample(dataset, f"{C}/03.png")
    assert wrong.filepath == str(shapes.workspace.image(f"{C}/03.png"))
    assert (wrong.label.label, wrong.prediction.label, wrong.suggestion) == ("circle", "square", "square")
    assert wrong.prediction.confidence == pytest.approx(0.9)
    assert wrong.reason.splitlines() == [
        "predicted square at 0.98, labelled circle", "the label is wrong with p = 0.95: square fits",
    ]  # fmt: skip
    assert wrong.checks == ["confident_mistake", "label_error"]
    assert (wrong.worst, wrong.p_wrong, wrong.rank, wrong.decision) == (0.02, 0.98, 1, None)
    assert wrong.source == "http://shapes.example/circle/3"
    assert sample(dataset, f"{S}/04.png").duplicates == [f"{S}/05.png"]
    assert sample(dataset, f"{S}/05.png").duplicates == [f"{S}/04.png"]
    assert sample(dataset, f"{S}/05.png").scores.duplicates_exact == 0.0
    assert sample(dataset, f"{S}/00.png").reason == "random probe: is the label right?"
    assert sample(dataset, f"{C}/00.png").rank is None


def test_views_are_saved_worst_first(dataset, shapes):
    assert dataset.list_saved_views() == [
        "to review", "queue", "decided", "ambiguous", "confident_mistake", "duplicates:exact", "label_error",
    ]  # fmt: skip
    assert dataset.load_saved_view("queue").values("path") == shapes.queue["path"].to_list()
    assert dataset.load_saved_view("confident_mistake").values("path") == [f"{C}/03.png"]
    assert len(dataset.load_saved_view("decided")) == 0


def test_decisions_show_and_leave_the_view_of_what_is_to_review(dataset, shapes):
    workspace = shapes.workspace
    actions.relabel(workspace, [Shown(path=f"{C}/03.png")], "square")
    actions.drop(workspace, [Shown(path=f"{C}/03.png"), Shown(path=f"{S}/00.png")])
    actions.dismiss(workspace, [Shown(path=f"{C}/05.png", checks=("ambiguous",))])
    again = push(shapes)
    assert again.name == dataset.name
    assert sample(again, f"{C}/03.png").decision == "relabelled to square, dropped"
    assert sample(again, f"{C}/03.png").label.label == "square"
    assert sample(again, f"{S}/00.png").decision == "dropped"
    assert sample(again, f"{C}/05.png").decision == "dismissed ambiguous"
    assert again.load_saved_view("to review").values("path") == [f"{S}/05.png"]
    assert sorted(again.load_saved_view("decided").values("path")) == sorted(
        [f"{C}/03.png", f"{C}/05.png", f"{S}/00.png"]
    )


def test_pushing_again_updates_and_keeps_what_the_person_added(dataset, shapes):
    import fiftyone as fo

    mine = sample(dataset, f"{C}/01.png")
    mine.tags.append("ask somebody")
    mine.save()
    dataset.save_view("mine", dataset.match_tags("ask somebody"))
    manifest = shapes.manifest.filter(pl.col("path") != f"{C}/00.png").with_columns(
        status=pl.when(pl.col("path") == f"{S}/01.png").then(pl.lit("unreadable")).otherwise("status")
    )
    findings = shapes.findings.filter(pl.col("check") == "ambiguous")
    again = push(shapes, manifest=manifest, findings=findings, queue=shapes.queue.head(1))
    assert len(again) == 10
    assert len(set(again.values("path"))) == 10
    assert again.match(fo.ViewField("path").is_in([f"{C}/00.png", f"{S}/01.png"])).count() == 0
    assert sample(again, f"{C}/01.png").tags == ["ask somebody"]
    assert sorted(again.list_saved_views()) == ["ambiguous", "decided", "mine", "queue", "to review"]
    assert again.load_saved_view("queue").values("path") == [f"{C}/03.png"]


def test_before_the_audit_there_are_images_alone(shapes):
    dataset = push(shapes, findings=None, predictions=None, queue=None)
    assert len(dataset) == 12
    assert dataset.list_saved_views() == ["to review", "queue", "decided"]
    assert set(dataset.values("reason")) == {None}
    dataset.delete()


def test_two_folders_of_one_name_do_not_meet(dataset, shapes, make_shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_HOME", str(tmp_path / "elsewhere"))
    other = make_shapes()
    pushed = push(other)
    assert pushed.name != dataset.name
    assert push(shapes).name == dataset.name
    assert push(other).name == pushed.name
    pushed.delete()


def test_contradicting_decisions_are_shown(dataset, shapes):
    path = f"{C}/02.png"
    sha = shapes.manifest.filter(pl.col("path") == path)["sha256"][0]
    lines = [
        decisions.Decision(path=path, sha256=sha, aspect="membership", value=value, by=by)
        for value, by in (("in", "ann"), ("out", "bob"))
    ]
    log = decisions.DecisionLog({line.decision_id: line for line in lines}, {})
    assert sample(push(shapes, decisions_log=log), path).decision == "conflict: dropped (by bob) or kept (by ann)"
