from __future__ import annotations

import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from curate.config import AugmentSpec, TrainSpec
from curate.errors import DataCorrupt
from curate.images import ImageFailure
from curate.learn.cache import square

CLASSES = ("disc", "bars", "cross")
QUICK = TrainSpec(sizes=(32,), epochs_frozen=1, epochs=1, batch_size=12, lr=0.01, tta=False)
AUGMENT = AugmentSpec()


@pytest.fixture(scope="module")
def fit(arrays: Any) -> Any:
    """Trains on the pictures with what is given; (learner, history)."""
    from curate.learn.train import train

    pixels, labels = arrays

    def run(spec: TrainSpec = QUICK, **changed: Any) -> Any:
        given = {"rows": list(range(36)), "labels": labels, "seed": 0, "augment": AUGMENT} | changed
        rows, names = given.pop("rows"), given.pop("labels")
        return train(rows, names, CLASSES, pixels, spec=spec, **given)

    return run


@pytest.fixture(scope="module")
def trained(fit: Any) -> Any:
    """A learner after progressive training at 48 and 64 pixels, its history and what it told."""
    told: list[str] = []
    spec = TrainSpec(sizes=(48, 64), epochs_frozen=4, epochs=3, batch_size=24, lr=0.006, freeze_early=True)
    learner, history = fit(spec, report=told.append)
    return learner, history, told


def probs_of(learner: Any, pixels: Any, rows: Any = range(36), *, tta: bool = False) -> Any:
    from curate.learn.train import predict

    return predict(learner, pixels, list(rows), tta=tta)


# -- training


def test_training_learns_what_the_pictures_show(trained: Any, arrays: Any) -> None:
    probs = probs_of(trained[0], arrays[0])
    assert probs.shape == (36, 3)
    assert probs.dtype == np.float32
    assert probs.sum(axis=1) == pytest.approx(np.ones(36), abs=1e-5)
    right = np.array([CLASSES[n] for n in probs.argmax(axis=1)]) == np.array(arrays[1])
    assert right.mean() > 0.75, "a third by chance"


def test_sizes_grow_and_every_epoch_is_told_once(trained: Any, arrays: Any) -> None:
    learner, history, told = trained
    probs_of(learner, arrays[0], tta=True)  # predicting is no epoch
    sides = [48] * 7 + [64] * 3
    assert [(epoch, side) for epoch, side, _ in history] == list(enumerate(sides, start=1))
    assert history[-1][2] < history[0][2] / 3, "the loss falls"
    assert told == [
        *(f"head at 48 px, epoch {n} of 4" for n in range(1, 5)),
        *(f"all at 48 px, epoch {n} of 3" for n in range(1, 4)),
        *(f"all at 64 px, epoch {n} of 3" for n in range(1, 4)),
    ]


def test_predictions_come_in_the_order_of_the_rows_and_may_repeat(trained: Any, arrays: Any) -> None:
    whole = probs_of(trained[0], arrays[0])
    some = probs_of(trained[0], arrays[0], [30, 2, 2, 17])
    assert some == pytest.approx(whole[[30, 2, 2, 17]], abs=1e-4)


def test_test_time_augmentation_gives_distributions_near_those_without(trained: Any, arrays: Any) -> None:
    plain, augmented = probs_of(trained[0], arrays[0]), probs_of(trained[0], arrays[0], tta=True)
    assert augmented.sum(axis=1) == pytest.approx(np.ones(36), abs=1e-5)
    assert (plain.argmax(axis=1) == augmented.argmax(axis=1)).mean() > 0.8
    assert not np.allclose(plain, augmented, atol=1e-4)


def test_a_seed_makes_one_model_and_another_seed_another(fit: Any, arrays: Any) -> None:
    one, same, other = (probs_of(fit(seed=seed)[0], arrays[0]) for seed in (1, 1, 2))
    assert one == pytest.approx(same, abs=1e-5)
    assert not np.allclose(one, other, atol=1e-2)


def test_training_leaves_the_random_generators_of_others_alone(fit: Any) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(1))  # noqa: NPY002

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    wanted = draw()
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    fit(QUICK.model_copy(update={"epochs": 0}))
    assert draw() == wanted


def test_the_same_picture_under_two_labels_is_learnt_under_both(fit: Any) -> None:
    rows, labels = [0, 0, 12, 12, 24, 24], ["disc", "bars", "bars", "cross", "cross", "disc"]
    learner, _ = fit(QUICK.model_copy(update={"epochs": 0}), rows=rows, labels=labels)
    assert [CLASSES[int(label)] for _, label in learner.dls.train_ds] == labels


def test_classes_keep_their_order_even_where_one_has_no_picture(fit: Any, arrays: Any) -> None:
    learner, _ = fit(QUICK.model_copy(update={"epochs": 0}), rows=list(range(12, 36)), labels=arrays[1][12:])
    assert list(learner.dls.vocab) == list(CLASSES)
    assert probs_of(learner, arrays[0]).shape == (36, 3)


@pytest.mark.parametrize("early", [True, False])
def test_early_layers_stay_as_they_were_only_where_told(fit: Any, early: bool) -> None:
    from curate.learn.backbones import load_backbone

    before = load_backbone(QUICK.backbone).body
    learner, _ = fit(QUICK.model_copy(update={"freeze_early": early}))
    after = learner.model[0]

    def changed(part: slice) -> bool:
        pairs = zip(list(before)[part], list(after)[part], strict=True)
        weights = [(a, b) for x, y in pairs for (n, a), b in zip(x.named_parameters(), y.parameters(), strict=True)
                   if "bn" not in n and a.ndim == 4]  # fmt: skip
        return any(not torch.equal(a, b.cpu()) for a, b in weights)

    cut = load_backbone(QUICK.backbone).cut
    assert changed(slice(0, cut)) == (not early)
    assert changed(slice(cut, None))


def test_without_unfrozen_epochs_only_the_head_learns(fit: Any) -> None:
    from curate.learn.backbones import load_backbone

    learner, history = fit(QUICK.model_copy(update={"epochs": 0, "epochs_frozen": 2}))
    assert len(history) == 2
    before = load_backbone(QUICK.backbone).body
    convolutions = [
        (a, b) for a, b in zip(before.parameters(), learner.model[0].parameters(), strict=True) if a.ndim == 4
    ]
    assert all(torch.equal(a, b.cpu()) for a, b in convolutions)


def test_of_images_held_back_the_best_epoch_is_kept(fit: Any, arrays: Any) -> None:
    valid = list(range(0, 36, 6))
    spec = TrainSpec(sizes=(32,), epochs_frozen=1, epochs=4, batch_size=12, lr=0.01, tta=False)
    learner, history = fit(spec, valid=valid)
    losses = [values[1] for values in learner.recorder.values]
    assert len(history) <= 5
    x = probs_of(learner, arrays[0], valid)
    index = [CLASSES.index(arrays[1][n]) for n in valid]
    kept = -np.log(x[np.arange(len(valid)), index]).mean()
    assert kept == pytest.approx(min(losses), abs=0.01)


def test_images_held_back_are_never_trained_on(fit: Any) -> None:
    valid = [3, 20, 33]
    learner, _ = fit(QUICK.model_copy(update={"epochs": 0}), valid=valid)
    held = [item.row for item in learner.dls.valid_ds.items]
    assert held == valid
    assert sorted(item.row for item in learner.dls.train_ds.items) == [n for n in range(36) if n not in valid]


def test_a_batch_size_that_leaves_one_over_does_not_fail(fit: Any, arrays: Any) -> None:
    for n, size in ((13, 12), (3, 2), (2, 32)):
        rows = [0, *range(12, 12 + n - 1)]
        spec = QUICK.model_copy(update={"batch_size": size, "epochs": 0})
        _, history = fit(spec, rows=rows, labels=[arrays[1][n] for n in rows])
        assert np.isfinite(history[0][2])


def test_a_learning_rate_is_found_where_none_is_given(
    arrays: Any, fit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from curate.learn.train import learning_rate

    monkeypatch.chdir(tmp_path)
    spec = QUICK.model_copy(update={"lr": None, "epochs": 0, "batch_size": 4})
    rows = list(range(0, 36, 3))
    labels = [arrays[1][n] for n in rows]
    here = sorted(Path.cwd().iterdir())
    rate = learning_rate(rows, labels, CLASSES, arrays[0], spec=spec, augment=AUGMENT)
    assert 1e-6 < rate < 1
    learner, history = fit(spec, rows=rows, labels=labels)
    assert sorted(Path.cwd().iterdir()) == here, "nothing is left in the working folder"
    assert len(history) == 1, "the trial does not count as an epoch"
    assert np.isfinite(probs_of(learner, arrays[0])).all()


def test_mixup_can_be_switched_on(fit: Any, arrays: Any) -> None:
    learner, history = fit(augment=AugmentSpec(mixup=0.4))
    assert all(np.isfinite(loss) for _, _, loss in history)
    assert np.isfinite(probs_of(learner, arrays[0])).all()


def test_pictures_are_not_mirrored_unless_told(fit: Any) -> None:
    def flips(learner: Any) -> list[str]:
        names = [type(t).__name__ for t in learner.dls.train.after_batch.fs]
        return [name for name in names if "Flip" in name or "Dihedral" in name]

    spec = QUICK.model_copy(update={"epochs": 0})
    assert flips(fit(spec)[0]) == []
    assert flips(fit(spec, augment=AugmentSpec(flip=True))[0]) != []


# -- exported learners


def test_an_exported_learner_predicts_files_as_it_predicted_the_cache(
    trained: Any, arrays: Any, pictures: Any, tmp_path: Path
) -> None:
    from curate.learn.train import export, predict_files

    learner, _, _ = trained
    export(learner, tmp_path / "model.pkl")
    files = [pictures.workspace.image(path) for path in pictures.manifest["path"]]
    classes, probs = predict_files(tmp_path / "model.pkl", files)
    assert classes == list(CLASSES)
    assert probs.shape == (36, 3)
    assert probs == pytest.approx(probs_of(learner, arrays[0]), abs=1e-3)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["model.pkl"]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"<html>")
    with pytest.raises(ImageFailure, match="html"):
        predict_files(tmp_path / "model.pkl", [bad])


def test_files_are_opened_as_everywhere_else_and_keep_their_shape(trained: Any, tmp_path: Path) -> None:
    from fastai.learner import load_learner

    from curate.learn.train import export, predict_files

    export(trained[0], tmp_path / "model.pkl")
    wide = Image.new("RGB", (128, 64), (255, 255, 255))
    wide.paste((160, 20, 30), (10, 6, 54, 58))
    stored = wide.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    clear = Image.new("RGBA", (128, 64), (0, 0, 0, 0))
    clear.paste((160, 20, 30, 255), (10, 6, 54, 58))
    files = {name: tmp_path / f"{name}.png" for name in ("plain", "turned", "clear", "square", "stored", "squashed")}
    wide.save(files["plain"])
    stored.save(files["turned"], exif=exif.tobytes())
    clear.save(files["clear"])
    square(wide, 128).save(files["square"])
    stored.save(files["stored"])
    wide.resize((64, 64)).save(files["squashed"])
    probs = dict(zip(files, predict_files(tmp_path / "model.pkl", list(files.values()))[1], strict=True))
    for name in ("turned", "clear", "square"):
        assert probs[name] == pytest.approx(probs["plain"], abs=2e-3), name
    for name in ("stored", "squashed"):
        assert np.abs(probs[name] - probs["plain"]).max() > 1e-2, "otherwise the above shows nothing"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        native = load_learner(tmp_path / "model.pkl")
    with native.no_bar(), native.no_logging():
        assert native.predict(str(files["plain"]))[2].numpy() == pytest.approx(probs["plain"], abs=1e-3)


def test_an_exported_learner_carries_neither_pictures_nor_labels(trained: Any, tmp_path: Path) -> None:
    from curate.learn.train import CachedImage, export

    export(trained[0], tmp_path / "model.pkl")
    again = probs_of(trained[0], np.zeros((2, 48, 48, 3), np.uint8), [0, 1])
    assert again.shape == (2, 3), "the learner goes on after it was exported"
    back = pickle.loads(pickle.dumps(CachedImage(np.ones((3, 48, 48, 3), np.uint8))))
    assert back.pixels is None
    network = sum(p.numel() for p in trained[0].model.parameters()) * 4
    assert (tmp_path / "model.pkl").stat().st_size < 1.1 * network + 200_000


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 broken"])
def test_what_is_no_exported_learner_is_told(tmp_path: Path, content: bytes) -> None:
    from curate.learn.train import predict_files

    (tmp_path / "model.pkl").write_bytes(content)
    with pytest.raises(DataCorrupt, match=r"model\.pkl is no exported learner .*run `curate retrain` again"):
        predict_files(tmp_path / "model.pkl", [])
