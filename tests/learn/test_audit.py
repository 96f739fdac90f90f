from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curate.checks import Tables
from curate.checks.labels import LABEL_ERROR, posterior_of
from curate.checks.labels import check as check_labels
from curate.config import AuditSpec, Spec, parse_spec
from curate.errors import InputError
from curate.learn.audit import Audit, audit, fold_groups, resolve_mode
from curate.learn.backbones import device
from curate.learn.out_of_fold import make_folds
from curate.schema import EMBEDDINGS, PREDICTIONS, validate

CLASSES = ("disc", "bars", "cross")
REPEATS = AuditSpec().repeats
SPEC = """
[audit]
image_size = 64
folds = 3
regularisation = 0.01
[train]
sizes = [48, 64]
epochs_frozen = 4
epochs = 3
batch_size = 24
lr = 0.006
freeze_early = true
tta = false
"""


def groups_of(*groups: list[str]) -> dict[str, int]:
    return {path: number for number, group in enumerate(groups) for path in group}


class Desk:
    """Audits the pictures; four of them carry a wrong label, one none, and six are pairs of near-duplicates."""

    def __init__(self, pictures: Any, runner: Any) -> None:
        self.workspace, self.runner = pictures.workspace, runner
        paths = pictures.manifest["path"].to_list()
        self.wrong = {paths[1], paths[14], paths[20], paths[30]}
        other = pl.col("label").replace({"disc": "bars", "bars": "cross", "cross": "disc"})
        self.unlabelled = paths[5]
        self.images = pictures.manifest.with_columns(
            label=pl.when(pl.col("path").is_in(list(self.wrong)))
            .then(other)
            .when(pl.col("path") == self.unlabelled)
            .then(None)
            .otherwise("label")
        )
        self.true = dict(pictures.manifest.select("path", "label").iter_rows())
        self.groups = groups_of(paths[2:4], paths[16:18], paths[25:27])
        self.told: list[tuple[str, int, int]] = []

    def run(self, mode: Any, *, spec: str = SPEC, **changed: Any) -> Audit:
        self.told = []
        options: Spec = parse_spec(spec)
        given = {"images": self.images, "groups": self.groups, "classes": CLASSES, "previous": None} | changed
        return audit(
            self.workspace, given["images"], given["groups"], given["classes"], spec=options, mode=mode,
            runner=self.runner, previous=given["previous"], progress=lambda *at: self.told.append(at),
        )  # fmt: skip


@pytest.fixture
def desk(pictures: Any, runner: Any) -> Desk:
    return Desk(pictures, runner)


def assert_sound(desk: Desk, done: Audit) -> None:
    """What holds for the predictions of either mode."""
    table = validate(done.predictions, PREDICTIONS)
    assert table["path"].to_list() == sorted(desk.images["path"])
    probs = np.array(table["probs"].to_list())
    assert probs.shape == (36, 3)
    assert probs.sum(axis=1) == pytest.approx(np.ones(36), abs=1e-4)
    assert table["predicted"].to_list() == [CLASSES[n] for n in probs.argmax(axis=1)]
    assert table["confidence"].to_list() == pytest.approx(probs.max(axis=1))
    assert table["run"].n_unique() == 1
    assert sorted(table["fold"].unique()) == [0, 1, 2]
    fold = dict(table.select("path", "fold").iter_rows())
    for number in set(desk.groups.values()):
        assert len({fold[path] for path, group in desk.groups.items() if group == number}) == 1
    assert table["group"].n_unique() == 36 - 3
    assert done.temperature > 0
    assert validate(done.embeddings, EMBEDDINGS)["path"].to_list() == table["path"].to_list()


def right(desk: Desk, done: Audit) -> float:
    """Share of predictions that are what the picture shows, whatever its label says."""
    said = done.predictions.select("path", "predicted").iter_rows()
    return float(np.mean([desk.true[path] == predicted for path, predicted in said]))


def test_a_probe_predicts_what_the_pictures_show_and_finds_the_wrong_labels(desk: Desk) -> None:
    done = desk.run("probe")
    assert_sound(desk, done)
    assert done.mode == "probe"
    assert done.notes == ()
    assert right(desk, done) > 0.85
    tables = Tables(manifest=desk.images, predictions=done.predictions, classes=CLASSES)
    found = set(check_labels(tables, parse_spec("").checks).filter(check=LABEL_ERROR)["path"])
    assert len(found & desk.wrong) >= 3, (found, desk.wrong, done.temperature)
    assert len(found - desk.wrong) <= 3
    assert {what for what, _, _ in desk.told} == {"decoding", "embedding", "predicting folds"}
    assert ("predicting folds", 3 * REPEATS, 3 * REPEATS) in desk.told


def test_fine_tuning_predicts_each_fold_by_a_model_of_its_own(desk: Desk) -> None:
    done = desk.run("finetune")
    assert_sound(desk, done)
    assert done.mode == "finetune"
    assert right(desk, done) > 0.65, "a third by chance"
    words = [what for what, _, _ in desk.told]
    for fold in (1, 2, 3):
        assert f"fold {fold}: all at 64 px, epoch 1 of 3" in words
    again = desk.run("finetune")
    assert again.predictions.equals(done.predictions)
    assert not any("epoch" in what for what, _, _ in desk.told), "finished folds are not trained again"


def test_fine_tuning_looks_for_a_rate_where_none_is_given(desk: Desk) -> None:
    some = desk.images.filter(pl.col("label").is_in(["bars", "cross"]))
    spec = SPEC.replace("lr = 0.006", "").replace("folds = 3", "folds = 2").replace("epochs = 3", "epochs = 0")
    spec = spec.replace("sizes = [48, 64]", "sizes = [32]").replace("epochs_frozen = 4", "epochs_frozen = 1")
    done = desk.run("finetune", spec=spec.replace("batch_size = 24", "batch_size = 4"), images=some)
    assert validate(done.predictions, PREDICTIONS).height == some.height


def test_fine_tuning_never_trains_on_what_it_predicts_nor_on_a_copy(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curate.learn import train as training

    seen: list[tuple[set[int], list[int], set[int]]] = []
    plain_train, plain_predict = training.train, training.predict

    def train(rows: Any, labels: Any, *given: Any, **options: Any) -> Any:
        seen.append((set(rows), list(options["valid"]), set()))
        assert None not in labels
        return plain_train(rows, labels, *given, **options)

    def predict(learner: Any, pixels: Any, rows: Any, **options: Any) -> Any:
        seen[-1][2].update(rows)
        return plain_predict(learner, pixels, rows, **options)

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "predict", predict)
    quick = SPEC.replace("epochs_frozen = 4", "epochs_frozen = 1").replace("epochs = 3", "epochs = 0")
    done = desk.run("finetune", spec=quick.replace("[48, 64]", "[32]"))
    table = done.predictions.join(desk.images.select("path", "sha256"), on="path")
    # Rows of the cache are in the order in which the pictures were decoded: that of the sorted paths.
    group = table.sort("path")["group"].to_list()
    unlabelled = table.sort("path")["path"].to_list().index(desk.unlabelled)
    assert sorted(row for _, _, predicted in seen for row in predicted) == list(range(36))
    for trained, valid, predicted in seen:
        assert not {group[row] for row in trained} & {group[row] for row in predicted}
        assert unlabelled not in trained
        order = sorted(trained)
        held = {group[order[place]] for place in valid}
        assert held, "the epoch is chosen on images of the training part"
        assert not held & {group[row] for place, row in enumerate(order) if place not in valid}


def test_embeddings_of_an_earlier_time_are_taken_over(desk: Desk) -> None:
    first = desk.run("probe")
    again = desk.run("probe", previous=first.embeddings)
    assert again.embeddings.equals(first.embeddings)
    assert again.predictions.equals(first.predictions)
    assert not any(what in {"decoding", "embedding"} for what, _, _ in desk.told)
    smaller = desk.run("probe", spec=SPEC.replace("image_size = 64", "image_size = 32"), previous=first.embeddings)
    assert smaller.embeddings["backbone"].unique().to_list() == ["efficientnet_lite0@32"]
    assert smaller.predictions["run"][0] != first.predictions["run"][0]


def test_an_interrupted_audit_goes_on_at_the_fold_it_was_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = desk.run("probe")
    for file in (desk.workspace.cache / "folds").rglob("*-2.npy"):
        file.unlink()

    def times() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (desk.workspace.cache / "folds").rglob("*.npy")}

    kept = times()
    assert len(kept) == 2 * REPEATS
    assert desk.run("probe").predictions.equals(whole.predictions)
    assert kept.items() <= times().items()
    assert len(times()) == 3 * REPEATS


def test_another_label_is_another_prediction_and_the_order_of_rows_is_not(desk: Desk) -> None:
    first = desk.run("probe")
    mixed = desk.images.sample(fraction=1, shuffle=True, seed=1)
    turned = dict(reversed(desk.groups.items()))
    assert desk.run("probe", images=mixed, groups=turned).predictions.equals(first.predictions)
    swapped = desk.images.with_columns(label=pl.col("label").replace({"disc": "bars", "bars": "disc"}))
    other = desk.run("probe", images=swapped)
    assert other.predictions["predicted"].to_list() != first.predictions["predicted"].to_list()


def test_too_little_to_tell_apart_is_told(desk: Desk) -> None:
    with pytest.raises(InputError, match="only disc has labelled images"):
        desk.run("probe", images=desk.images.filter(label="disc"))
    few = pl.concat([desk.images.filter(label="disc"), desk.images.filter(label="cross").head(2)])
    (note,) = desk.run("probe", images=few).notes
    assert note.startswith("class cross has 2 distinct images for 3 folds")


def test_groups_share_a_number_and_all_others_have_their_own(manifest_of: Any) -> None:
    images = manifest_of([{"path": p} for p in "abcdef"])
    found = fold_groups(images, groups_of(["b", "e"], ["d", "x"], ["c", "f"])).tolist()
    assert found[1] == found[4]
    assert found[2] == found[5]
    assert len(set(found)) == 4
    assert len(set(fold_groups(images, {}).tolist())) == 6


def test_without_a_gpu_auto_is_a_probe() -> None:
    assert resolve_mode("auto") == ("finetune" if device().type == "cuda" else "probe")
    assert resolve_mode("probe") == "probe"
    assert resolve_mode("finetune") == "finetune"


def test_probabilities_of_many_classes_are_mapped_from_disk(desk: Desk) -> None:
    classes = [*CLASSES, *(f"kanji {n}" for n in range(600))]
    done = desk.run("probe", classes=classes)
    assert done.predictions["probs"].to_list() == [[]] * 36
    (file,) = desk.workspace.tables.glob("probs-*.npy")
    assert file.stem == f"probs-{done.predictions['run'][0]}"
    probs = np.load(file, mmap_mode="r")
    assert (probs.shape, probs.dtype) == ((36, 603), np.float16)
    assert np.asarray(probs, dtype=np.float64).sum(axis=1) == pytest.approx(np.ones(36), abs=1e-2)
    assert [classes[n] for n in probs.argmax(axis=1)] == done.predictions["predicted"].to_list()
    assert "36 x 603 probabilities are on disk" in done.notes[-1]
    tables = Tables(
        manifest=desk.images, predictions=done.predictions, embeddings=done.embeddings, probs=probs,
        classes=tuple(classes),
    )  # fmt: skip
    known = posterior_of(tables)
    assert known is not None
    rows, labels, _, posterior = known
    assert posterior.p_true.shape == (35, 603)
    assert posterior.p_true.sum(axis=1) == pytest.approx(np.ones(35), abs=1e-4)
    wrong = np.array([path in desk.wrong for path in rows["path"]])
    assert posterior.p_wrong[wrong].mean() > posterior.p_wrong[~wrong].mean()
    assert labels.max() < 3


def test_folds_of_many_classes_keep_groups_together_and_spread_each_class() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(700), 10)
    group = np.arange(7000)
    group[1::10] = group[::10]
    order = rng.permutation(7000)
    folds = make_folds(labels[order], group[order], [str(n) for n in range(700)], k=5, seed=1)
    for number in range(0, 7000, 997):
        assert len(set(folds.fold[folds.group == group[number]])) == 1
    for label in range(0, 700, 37):
        assert np.bincount(folds.fold[labels[order] == label], minlength=5).max() <= 4
    assert np.bincount(folds.fold).min() > 1200
