"""What is suggested follows what was decided: through the stages, as a person would use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

import curate
from curate import apart
from curate.checks.duplicates import CONFLICT, NEAR, ORPHAN
from curate.cli import app
from curate.decisions import LABEL, MEMBERSHIP
from curate.errors import InputError
from curate.review import actions
from curate.review.actions import Shown
from curate.suggestions import open_findings


def scene(seed: int, size: tuple[int, int] = (240, 160)) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (240, 160), tuple(int(v) for v in rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(30):
        x, y, r = (int(v) for v in (rng.integers(0, 240), rng.integers(0, 160), rng.integers(5, 50)))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image.resize(size)


@pytest.fixture
def data(tmp_path: Path) -> Any:
    """Three sizes of one picture (`big`, `mid`, `small`), a byte copy of `mid`, and two other pictures."""
    source = tmp_path / "source"
    for label in "xy":
        (source / label).mkdir(parents=True)
    for name, size in (("big", (480, 320)), ("mid", (240, 160)), ("small", (120, 80))):
        scene(0, size).save(source / "x" / f"{name}.png")
    (source / "x" / "mid again.png").write_bytes((source / "x" / "mid.png").read_bytes())
    scene(1).save(source / "x" / "other.png")
    scene(2).save(source / "y" / "third.png")
    made = curate.new_dataset("some", classes={})
    made.import_images(source)
    made.dedupe()
    return made


def at(name: str, label: str = "x") -> str:
    return f"images/imported/source/{label}/{name}.png"


def why(data: Any) -> dict[str, str]:
    return {Path(path).stem: why for path, why in data.clean.rows.select("path", "why").iter_rows()}


def test_what_was_dropped_is_never_what_stays(data: Any) -> None:
    data.decide([(at("big"), MEMBERSHIP, "out")])
    made = data.accept("duplicates")
    assert {(Path(d.path).stem, Path(d.in_favour_of).stem) for d in made} == {
        ("mid", "mid again"),
        ("small", "mid again"),
    }
    assert data.clean.orphans == ()
    assert sorted(name for name, kept in why(data).items() if kept == "in") == ["mid again", "other", "third"]


def test_accepting_again_with_another_keeper_rule_leaves_one_of_each(data: Any) -> None:
    data.accept("duplicates")
    spec = data.workspace.spec_path
    spec.write_text(spec.read_text() + '\n[dedupe]\nkeeper = ["first"]\n')
    data = curate.open("some")
    data.dedupe()
    assert data.accept("duplicates") == []
    assert why(data)["big"] == "in"


def test_a_duplicate_whose_keeper_goes_in_the_same_breath_goes_in_favour_of_another(data: Any) -> None:
    found = data.findings
    drop = found.head(1).with_columns(path=pl.lit(at("big")), check=pl.lit("ambiguous"), suggestion=pl.lit(None))
    data.workspace.write_table("findings", pl.concat([found, drop.cast(dict(found.schema))]))
    data.accept("duplicates", "ambiguous")
    assert {name: kept for name, kept in why(data).items() if kept != "in"} == {
        "big": "dropped", "mid": "duplicate", "small": "duplicate",
    }  # fmt: skip
    assert data.clean.orphans == ()


def test_a_keeper_that_goes_later_is_told_at_the_next_dedupe_and_a_chain_that_ends_well_is_not(data: Any) -> None:
    data.accept("duplicates")
    data.decide([(at("big"), MEMBERSHIP, {"in_favour_of": at("other")})])
    data.dedupe()
    assert ORPHAN not in data.findings["check"].to_list()
    data.decide([(at("other"), MEMBERSHIP, "out")])
    data.dedupe()
    orphans = data.findings.filter(pl.col("check") == ORPHAN)["path"].to_list()
    assert {Path(path).stem for path in orphans} == {"big", "mid", "mid again", "small"}
    assert ORPHAN in data.open_findings["check"].to_list()


def test_a_conflict_is_settled_when_the_labels_agree_or_one_is_left(data: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "y" / "other copy.png").write_bytes((source / "x" / "other.png").read_bytes())
    data.import_images(source)
    data.dedupe()

    def conflicts() -> int:
        return data.open_findings.filter(pl.col("check") == CONFLICT).height

    assert conflicts() == 2
    data.decide([(at("other copy", "y"), LABEL, "x")])
    assert conflicts() == 0
    (made,) = data.accept(CONFLICT)
    assert made.in_favour_of is not None
    data.undo(ids=[made.decision_id])
    data.decide([(at("other copy", "y"), LABEL, "y")])
    assert conflicts() == 2
    data.decide([(at("other"), MEMBERSHIP, "out")])
    assert conflicts() == 0


def test_findings_are_settled_by_decisions_on_what_they_are_about(data: Any) -> None:
    groups = data.groups
    near = data.findings.filter(pl.col("check") == NEAR)
    assert open_findings(data.findings, data.clean, groups).equals(data.findings)
    data.decide([(at("small"), f"finding:{NEAR}", "dismissed")])
    assert data.open_findings.filter(pl.col("check") == NEAR).height == near.height - 1
    data.decide([(at(name), MEMBERSHIP, "out") for name in ("big", "mid again", "small")])
    assert data.open_findings.filter(pl.col("check") == NEAR).height == 0


def test_to_dismiss_another_finding_says_nothing_of_duplicates(data: Any) -> None:
    shown = Shown(path=at("mid"), checks=("quality:blurry",), duplicates=(at("big"), at("mid again")))
    actions.dismiss(data.workspace, [shown])
    assert apart.told_apart(data.clean.folded, data.manifest) == []
    actions.dismiss(data.workspace, [Shown(path=at("mid"), checks=(NEAR,), duplicates=shown.duplicates)])
    assert apart.told_apart(data.clean.folded, data.manifest) == [(at("mid"), at("big"))]


def test_the_app_accepts_what_can_stay_and_never_the_last_of_a_group(data: Any) -> None:
    data.decide([(at("big"), MEMBERSHIP, "out")])
    shown = [Shown(path=at(name), checks=(NEAR,), suggestion=at("big")) for name in ("mid", "mid again", "small")]
    actions.accept(data.workspace, shown)
    assert sorted(name for name, kept in why(data).items() if kept in {"in", "same_bytes"}) == [
        "mid again", "other", "third",
    ]  # fmt: skip


def test_told_apart_is_remembered_until_the_other_picture_changes(data: Any) -> None:
    def group_of(name: str) -> Any:
        return dict(data.groups.select("path", "group").iter_rows()).get(at(name))

    assert group_of("small") == group_of("big")
    data.tell_apart(at("small"), at("big"))
    data.dedupe()
    assert group_of("small") != group_of("big")
    assert group_of("mid") == group_of("mid again")
    data.workspace.image(at("big")).unlink()
    scene(0, (481, 321)).save(data.workspace.image(at("big")))
    data.dedupe()
    assert group_of("small") == group_of("big")
    assert [d.aspect for d in data.clean.folded.stale] == [f"pair:{at('big')}"]


def test_the_same_bytes_cannot_be_told_apart(data: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="have the same bytes"):
        data.tell_apart(at("mid"), at("mid again"))
    with pytest.raises(InputError, match="no image 'gone'"):
        data.tell_apart(at("mid"), "gone")
    table = tmp_path / "said.csv"
    table.write_text(f"path,decision,label,other\n{at('small')},distinct,,{at('big')}\n")
    assert [d.pair[0] for d in data.decide_from(table)] == [at("big")]


def test_dedupe_tells_counts_by_kind_and_what_is_settled(data: Any) -> None:
    def told() -> Any:
        result = CliRunner().invoke(app, ["dedupe", "some", "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.output.strip().splitlines()[-1])

    first = told()
    assert first["counts"] == first["open"]
    assert sum(first["counts"].values()) == 3
    data.accept("duplicates")
    second = told()
    assert second["counts"] == first["counts"]
    assert sum(second["open"].values()) == 0
    text = CliRunner().invoke(app, ["dedupe", "some"]).output
    assert "settled by decisions" in text
    assert "--accept" not in text
