from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import decisions
from curate.decisions import (
    LABEL,
    MEMBERSHIP,
    Decision,
    DecisionLog,
    Folded,
    Retraction,
    Undone,
    decide,
    fold,
    read,
    undo,
)
from curate.errors import InputError
from curate.workspace import read_log

PATHS = ("p0", "p1", "p2")
ASPECTS: dict[str, list[Any]] = {
    MEMBERSHIP: ["in", "out", {"in_favour_of": "p1"}], LABEL: ["cat", "dog"], "split": ["holdout"],
    "finding:outlier": ["dismissed"], "pair:p1": ["distinct"],
}  # fmt: skip

# -- a random history: every line sees some of the decisions before it


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Decision | Retraction], dict[str, str]]:
    """Lines as people may write them, not knowing of each other, and the digests that the images have now."""
    digests = {path: draw(st.sampled_from(["one", "two", f"of {path}"])) for path in PATHS}
    lines: list[Decision | Retraction] = []
    for number in range(draw(st.integers(0, 14))):
        known = [line.decision_id for line in lines]
        if known and draw(st.integers(0, 3)) == 0:
            ids = draw(
                st.lists(st.sampled_from([*known, "an id that nobody has"]), min_size=1, max_size=3, unique=True)
            )
            lines.append(Retraction(ids=tuple(ids), by="ann", decided_at=f"t{number}"))
            continue
        path, aspect = draw(st.sampled_from([*PATHS, "gone"])), draw(st.sampled_from(list(ASPECTS)))
        same = [d.decision_id for d in lines if isinstance(d, Decision) and d.aspect == aspect]
        lines.append(
            Decision(
                path=path, sha256=digests.get(path, "?") if draw(st.integers(0, 4)) else "stale", aspect=aspect,
                value=draw(st.sampled_from(ASPECTS[aspect])), scope=draw(st.sampled_from(["row", "row", "bytes"])),
                by=draw(st.sampled_from(["ann", "bob"])), decided_at=f"t{draw(st.integers(0, 3))}", check=None,
                batch=draw(st.sampled_from([None, "b1"])), why=draw(st.sampled_from([None, "so"])),
                supersedes=tuple(draw(st.lists(st.sampled_from(same), max_size=3))) if same else (),
            )
        )  # fmt: skip
    return lines, digests


def table(digests: dict[str, str]) -> pl.DataFrame:
    return pl.DataFrame({"path": list(digests), "sha256": list(digests.values())}, schema_overrides={"path": pl.String})


def folded(lines: Any, digests: dict[str, str]) -> Folded:
    texts = [json.dumps(line.to_line()) for line in lines]
    return fold(DecisionLog.from_lines(map(json.loads, texts)), table(digests))


@given(histories(), st.data())
def test_folding_does_not_depend_on_the_order_of_lines_nor_on_repeated_ones(
    history: tuple[list[Any], dict[str, str]], data: st.DataObject
) -> None:
    lines, digests = history
    once = folded(lines, digests)
    repeated = data.draw(st.lists(st.sampled_from(lines), max_size=6)) if lines else []
    mixed = data.draw(st.permutations([*lines, *repeated]))
    assert folded(mixed, digests) == once
    turned = dict(data.draw(st.permutations(list(digests.items()))))
    assert folded(mixed, turned) == once


def plain_model(lines: list[Any], digests: dict[str, str]) -> Any:
    """What is in force, straight from the words of the design: slow and simple."""
    retractions = {line.decision_id: line for line in lines if isinstance(line, Retraction)}
    by_id = {line.decision_id: line for line in lines if isinstance(line, Decision)}

    def lives(ident: str) -> bool:
        return not any(ident in r.ids and lives(name) for name, r in retractions.items())

    def before(ident: str) -> set[str]:
        return {o for one in by_id[ident].supersedes if one in by_id for o in {one, *before(one)}}

    heads: dict[Any, set[str]] = {}
    stale, missing = set(), set()
    applied: dict[Any, set[str]] = {}
    for ident, d in by_id.items():
        if not lives(ident):
            continue
        rows = [p for p, sha in digests.items() if sha == d.sha256 and (d.scope == "bytes" or p == d.path)]
        for row in rows:
            applied.setdefault((row, d.aspect), set()).add(ident)
        if not rows:
            (stale if d.path in digests else missing).add(ident)
    for key, idents in applied.items():
        heads[key] = {one for one in idents if not any(one in before(other) for other in idents)}
    return heads, stale, missing


@given(histories())
def test_folding_does_what_the_design_says(history: tuple[list[Any], dict[str, str]]) -> None:
    lines, digests = history
    found = folded(lines, digests)
    heads, stale, missing = plain_model(lines, digests)
    assert {key: {d.decision_id for d in ds} for key, ds in found.heads.items()} == heads
    assert {d.decision_id for d in found.stale} == stale
    assert {d.decision_id for d in found.missing} == missing
    for (path, aspect), ds in found.heads.items():
        differ = len({json.dumps(d.value) for d in ds}) > 1
        assert found.conflict(path, aspect) == differ
        decision = found.get(path, aspect)
        assert (decision is None) == differ
        assert decision is None or decision in ds


@given(histories())
def test_a_line_reads_back_as_what_was_written(history: tuple[list[Any], dict[str, str]]) -> None:
    lines, _ = history
    log = DecisionLog.from_lines([json.loads(json.dumps(line.to_line())) for line in lines])
    assert log.rejected == ()
    for line in lines:
        known = log.retractions if isinstance(line, Retraction) else log.decisions
        assert known[line.decision_id].to_line() == line.to_line()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=12), inner, max_size=2),
    max_leaves=4,
)
good = Decision(path="p0", sha256="one", aspect=MEMBERSHIP, value="out", by="ann", decided_at="t").to_line()
keys = st.sampled_from([*good, "ids", "batch", "check", "why"])


@given(st.lists(st.dictionaries(keys, json_values | st.just("decision") | st.just("retract"), max_size=3), max_size=4))
def test_lines_broken_by_hand_are_told_and_never_fatal(changes: list[dict[str, Any]]) -> None:
    lines = [good | change for change in changes]
    log = DecisionLog.from_lines([*lines, good], torn=["half a li"])
    assert log.rejected[0] == "half a li"
    assert len(log.rejected) - 1 + len(log.decisions) + len(log.retractions) <= len(lines) + 1
    assert Decision.from_line(good) in log.decisions.values()
    found = fold(log, table({"p0": "one"}))
    assert found.heads or log.retractions or not log.alive()


@pytest.mark.parametrize(
    "change",
    [
        {"path": "\ud800"}, {"value": {"in_favour_of": float("nan")}}, {"value": ["in"]}, {"value": None},
        {"supersedes": "abc"}, {"supersedes": 3}, {"supersedes": None}, {"why": "\udfff"}, {"aspect": 3},
        {"kind": "retract"}, {"kind": "retract", "ids": 5}, {"kind": "retract", "ids": ["\ud800"]},
    ],
)  # fmt: skip
def test_a_line_that_is_no_decision_is_set_aside(change: dict[str, Any]) -> None:
    log = DecisionLog.from_lines([good | change, good])
    assert len(log.rejected) == 1
    assert list(log.decisions) == [good["decision_id"]]
    assert log.retractions == {}


@pytest.mark.parametrize(
    ("aspect", "value"),
    [
        (MEMBERSHIP, "perhaps"), (MEMBERSHIP, {}), (MEMBERSHIP, {"in_favour_of": 3}), (MEMBERSHIP, {"instead": "p1"}),
        (LABEL, ""), (LABEL, {"in_favour_of": "p1"}), ("split", ""), ("finding:outlier", "yes"), ("pair:p1", "same"),
        ("colour", "red"), ("", "in"),
    ],
)  # fmt: skip
def test_a_value_that_an_aspect_cannot_have_is_refused(aspect: str, value: Any) -> None:
    with pytest.raises(InputError, match=r"decision on p0: .* cannot be"):
        Decision(path="p0", sha256="one", aspect=aspect, value=value)


def test_the_same_content_is_the_same_decision_and_other_content_another() -> None:
    usual = {"path": "p0", "sha256": "one", "aspect": LABEL, "value": "cat", "by": "ann", "decided_at": "t"}
    first = Decision(**usual, supersedes=("x", "y"))
    assert Decision(**usual, supersedes=("y", "x")).decision_id == first.decision_id
    for change in (
        {"path": "p1"}, {"sha256": "two"}, {"value": "dog"}, {"by": "bob"}, {"decided_at": "u"}, {"scope": "bytes"},
        {"why": "so"}, {"batch": "b"}, {"check": "c"}, {"supersedes": ("x",)},
    ):  # fmt: skip
        assert Decision(**usual | {"supersedes": ("x", "y")} | change).decision_id != first.decision_id


# -- on disk


class Book:
    """A log on disk and three images."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "decisions.jsonl"
        self.images = table({path: f"sha {path}" for path in PATHS})

    def decide(self, *choices: tuple[str, str, Any], **options: Any) -> list[Decision]:
        return decide(self.path, self.images, choices, **{"by": "ann", **options})

    def undo(self, **options: Any) -> Undone:
        return undo(self.path, **options)

    def value(self, path: str, aspect: str) -> Any:
        found = self.fold()
        if found.conflict(path, aspect):
            return "conflict"
        decision = found.get(path, aspect)
        return decision and decision.value

    def fold(self) -> Folded:
        return fold(read(self.path), self.images)

    def lines(self) -> int:
        return len(read_log(self.path).records)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_the_last_decision_of_one_person_is_in_force(book: Book) -> None:
    book.decide(("p0", LABEL, "cat"))
    (second,) = book.decide(("p0", LABEL, "dog"), why="has a snout", check="label_error")
    assert book.value("p0", LABEL) == "dog"
    assert len(second.supersedes) == 1
    assert (second.by, second.why, second.check, second.sha256) == ("ann", "has a snout", "label_error", "sha p0")


def test_aspects_do_not_overwrite_each_other(book: Book) -> None:
    book.decide(("p0", LABEL, "cat"))
    book.decide(("p0", MEMBERSHIP, {"in_favour_of": "p1"}))
    book.decide(("p0", "finding:outlier", "dismissed"))
    assert book.value("p0", LABEL) == "cat"
    assert book.value("p0", MEMBERSHIP) == {"in_favour_of": "p1"}
    assert book.fold().aspects("p0") == ["finding:outlier", LABEL, MEMBERSHIP]
    assert book.fold().aspects("p1") == []


def test_saying_what_is_in_force_already_adds_no_line(book: Book) -> None:
    book.decide(("p0", LABEL, "cat"))
    assert book.decide(("p0", LABEL, "cat")) == []
    assert book.lines() == 1


def test_an_image_that_is_not_there_appends_nothing(book: Book) -> None:
    with pytest.raises(InputError, match="no image 'nowhere' in the manifest"):
        book.decide(("p0", LABEL, "cat"), ("nowhere", LABEL, "cat"))
    assert not book.path.exists()


def at_once(book: Book, *values: str) -> None:
    """Several people decide on p0 without seeing each other's line."""
    before = book.path.read_bytes() if book.path.exists() else b""
    written = b""
    for name, value in enumerate(values):
        book.path.write_bytes(before)
        book.decide(("p0", LABEL, value), by=f"person {name}")
        written += book.path.read_bytes()[len(before) :]
    book.path.write_bytes(before + written)


def test_two_heads_that_differ_are_a_conflict_settled_by_a_decision_that_supersedes_both(book: Book) -> None:
    book.decide(("p0", LABEL, "bird"))
    at_once(book, "cat", "dog")
    assert book.value("p0", LABEL) == "conflict"
    assert book.fold().get("p0", LABEL) is None
    assert {d.value for d in book.fold().heads["p0", LABEL]} == {"cat", "dog"}
    (settled,) = book.decide(("p0", LABEL, "cat"))
    assert len(settled.supersedes) == 2
    assert book.value("p0", LABEL) == "cat"
    book.undo(ids=[settled.decision_id])
    assert book.value("p0", LABEL) == "conflict"


def test_two_heads_that_agree_are_no_conflict(book: Book) -> None:
    at_once(book, "cat", "cat")
    assert book.lines() == 2
    assert book.value("p0", LABEL) == "cat"
    assert book.decide(("p0", LABEL, "cat")) == []
    (third,) = book.decide(("p0", LABEL, "dog"))
    assert len(third.supersedes) == 2
    assert book.value("p0", LABEL) == "dog"


def test_undo_puts_back_what_was_superseded_and_undoing_it_too(book: Book) -> None:
    book.decide(("p0", LABEL, "cat"))
    (second,) = book.decide(("p0", LABEL, "dog"))
    first_undo = book.undo(ids=[second.decision_id]).retraction
    assert first_undo is not None
    assert book.value("p0", LABEL) == "cat"
    second_undo = book.undo(ids=[first_undo.decision_id]).retraction
    assert second_undo is not None
    assert book.value("p0", LABEL) == "dog"
    book.undo(ids=[second_undo.decision_id])
    assert book.value("p0", LABEL) == "cat"
    book.undo(last=True)
    assert book.value("p0", LABEL) == "dog"


def test_undoing_in_the_middle_leaves_what_came_after(book: Book) -> None:
    _, (second,), _ = (book.decide(("p0", LABEL, value)) for value in ("cat", "dog", "bird"))
    book.undo(ids=[second.decision_id])
    assert book.value("p0", LABEL) == "bird"
    book.undo(last=True)  # the undo
    third = next(d for d in book.fold().heads["p0", LABEL])
    book.undo(ids=[third.decision_id])
    assert book.value("p0", LABEL) == "dog"


def test_a_decision_after_an_undo_supersedes_what_is_in_force(book: Book) -> None:
    book.decide(("p0", LABEL, "cat"))
    (second,) = book.decide(("p0", LABEL, "dog"))
    book.undo(ids=[second.decision_id])
    book.decide(("p0", LABEL, "bird"))
    assert book.value("p0", LABEL) == "bird"
    book.undo(last=True)
    assert book.value("p0", LABEL) == "cat"


def test_a_batch_is_undone_at_once_but_for_what_was_decided_since(book: Book) -> None:
    book.decide(("p1", MEMBERSHIP, "in"))
    made = book.decide(*((path, MEMBERSHIP, "out") for path in PATHS))
    assert len({d.batch for d in made}) == 1
    book.decide(("p2", MEMBERSHIP, "in"))
    undone = book.undo(batch=made[0].batch)
    assert [d.path for d in undone.kept] == ["p2"]
    assert [book.value(path, MEMBERSHIP) for path in PATHS] == [None, "in", "in"]
    assert undone.retraction is not None
    assert undone.retraction.batch == made[0].batch
    book.undo(ids=[undone.retraction.decision_id])
    assert [book.value(path, MEMBERSHIP) for path in PATHS] == ["out", "out", "in"]


def test_a_batch_of_which_all_was_decided_since_stays(book: Book) -> None:
    book.decide(("p0", LABEL, "cat"), batch="mine")
    book.decide(("p0", LABEL, "dog"))
    undone = book.undo(batch="mine")
    assert undone.retraction is None
    assert [d.value for d in undone.kept] == ["cat"]
    assert book.lines() == 2


def test_what_was_done_last_is_undone_also_where_it_was_a_batch(book: Book) -> None:
    book.decide(("p0", LABEL, "cat"))
    book.decide(*((path, MEMBERSHIP, "out") for path in PATHS))
    book.undo(last=True)
    assert [book.value(path, MEMBERSHIP) for path in PATHS] == [None, None, None]
    assert book.value("p0", LABEL) == "cat"
    book.undo(last=True)
    assert [book.value(path, MEMBERSHIP) for path in PATHS] == ["out", "out", "out"]


def test_undoing_what_is_not_in_force_is_refused(book: Book) -> None:
    with pytest.raises(InputError, match="there is no decision to undo"):
        book.undo(last=True)
    (first,) = book.decide(("p0", LABEL, "cat"))
    with pytest.raises(InputError, match="'unknown' is no decision in force"):
        book.undo(ids=[first.decision_id, "unknown"])
    with pytest.raises(InputError, match="no decision of batch 'b' is in force"):
        book.undo(batch="b")
    book.undo(ids=[first.decision_id])
    with pytest.raises(InputError, match="is no decision in force"):
        book.undo(ids=[first.decision_id])
    assert book.lines() == 2


def test_a_long_chain_of_undoing_and_deciding_folds(book: Book) -> None:
    lines: list[Any] = [Decision(path="p0", sha256="sha p0", aspect=LABEL, value="cat", by="a", decided_at="t")]
    for number in range(3000):
        lines.append(Retraction(ids=(lines[-1].decision_id,), by="a", decided_at=str(number)))
    log = DecisionLog.from_lines([line.to_line() for line in lines])
    assert (lines[0].decision_id in log.alive()) == (len(lines) % 2 == 1)
    chain: list[Decision] = []
    for number in range(3000):
        before = (chain[-1].decision_id,) if chain else ()
        chain.append(
            Decision(
                path="p0", sha256="sha p0", aspect=LABEL, value=f"{number}", by="a", decided_at="t", supersedes=before
            )
        )
    found = fold(DecisionLog.from_lines([d.to_line() for d in reversed(chain)]), book.images)
    assert [d.value for d in found.heads["p0", LABEL]] == ["2999"]


# -- bytes that changed


def test_a_decision_on_other_bytes_is_stale_and_never_applied(book: Book) -> None:
    (first,) = book.decide(("p0", MEMBERSHIP, "out"))
    book.images = table({"p0": "other bytes", "p1": "sha p1"})
    assert book.value("p0", MEMBERSHIP) is None
    assert book.fold().stale == (first,)
    (second,) = book.decide(("p0", MEMBERSHIP, "in"))
    assert second.supersedes == ()
    assert book.value("p0", MEMBERSHIP) == "in"
    book.images = table({"p0": "sha p0"})
    assert book.value("p0", MEMBERSHIP) == "out"
    assert book.fold().stale == (second,)


def test_a_decision_on_a_missing_image_is_missing_and_not_stale(book: Book) -> None:
    (first,) = book.decide(("p0", MEMBERSHIP, "out"))
    book.images = table({"p1": "sha p1"})
    assert (book.fold().missing, book.fold().stale, book.fold().heads) == ((first,), (), {})


def test_a_decision_for_bytes_holds_for_every_row_with_them(book: Book) -> None:
    book.images = table({"p0": "same", "p1": "same", "p2": "other"})
    (both,) = book.decide(("p0", MEMBERSHIP, "out"), scope="bytes")
    assert [book.value(path, MEMBERSHIP) for path in PATHS] == ["out", "out", None]
    book.decide(("p1", MEMBERSHIP, "in"))
    assert [book.value(path, MEMBERSHIP) for path in PATHS] == ["out", "in", None]
    book.images = table({"p0": "other", "p2": "same"})
    assert [book.value(path, MEMBERSHIP) for path in ("p0", "p2")] == [None, "out"]
    assert both not in book.fold().stale


# -- crashes and accidents


def test_a_torn_last_line_is_set_aside_and_the_next_decision_is_not_swallowed(book: Book) -> None:
    book.decide(("p0", LABEL, "cat"))
    book.decide(("p1", LABEL, "cat"))
    book.path.write_bytes(book.path.read_bytes()[:-20])
    log = read(book.path)
    assert (len(log.decisions), len(log.rejected)) == (1, 1)
    assert book.value("p1", LABEL) is None
    book.decide(("p1", LABEL, "dog"))
    assert [book.value(path, LABEL) for path in PATHS] == ["cat", "dog", None]
    assert len(read(book.path).rejected) == 1


def test_a_log_that_git_merged_line_by_line_reads_as_the_union(book: Book) -> None:
    book.decide(("p0", LABEL, "cat"))
    ours = theirs = book.path.read_bytes()
    book.decide(("p1", LABEL, "cat"))
    ours = book.path.read_bytes()
    book.path.write_bytes(theirs)
    book.decide(("p2", LABEL, "dog"))
    book.path.write_bytes(book.path.read_bytes() + ours)
    assert [book.value(path, LABEL) for path in PATHS] == ["cat", "cat", "dog"]


def test_a_missing_log_is_an_empty_one(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == DecisionLog({}, {})
    assert fold(read(tmp_path / "none.jsonl"), table({})) == Folded({}, (), ())


def test_who_decides_is_the_account_unless_told(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_USER", "zoe")
    assert decisions.author() == "zoe"
    (made,) = decide(book.path, book.images, [("p0", LABEL, "cat")])
    assert made.by == "zoe"
    monkeypatch.delenv("CURATE_USER")
    monkeypatch.setenv("LOGNAME", "account")
    assert decisions.author() == "account"
