"""The proof: the same model trained on the data set as it was and as it is, compared on the same holdout."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.config import Spec
from curate.errors import InputError
from curate.learn.cache import Pixels, decoded
from curate.runner import Runner
from curate.workspace import Workspace, digest, file_digest, replacing, write_bytes, write_json


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What training before and after gave.

    Attributes:
        probs: arm to (seeds, holdout images, K) probabilities.
        labels: (holdout images,) class indices.
        images: arm to the number of images trained on.
        runs: arm to the folder of its models, relative to the data set.
    """

    probs: dict[str, NDArray[np.float32]]
    labels: NDArray[np.int64]
    images: dict[str, int]
    runs: dict[str, str]

    def right(self, arm: str) -> NDArray[np.bool_]:
        """(seeds, holdout images) whether the model was right."""
        correct: NDArray[np.bool_] = self.probs[arm].argmax(axis=2) == self.labels
        return correct


def retrain(
    workspace: Workspace, arms: dict[str, pl.DataFrame], holdout: pl.DataFrame, classes: Sequence[str], *,
    spec: Spec, runner: Runner, progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Proof:  # fmt: skip
    """Train each arm with every seed of the spec, and predict the holdout.

    Each finished model is kept, and is not trained again as long as its images, labels and settings are the same; an
    interrupted run goes on at the model that it was at. All seeds and arms use the same learning rate: the spec's, or
    the one that lr_find suggests on the first arm and seed.

    Args:
        workspace: the data set; `models/` takes the runs.
        arms: name to columns `path, sha256, label`.
        holdout: columns `path, sha256, label`.
        classes: names, in the order of the probabilities.
        spec: sections `train` and `augment`.
        runner: where pictures are decoded.
        progress: told what is being done, in words, and how far it is (0 of 0: not known).

    Raises:
        InputError: an arm has fewer than two classes, or the holdout is empty.
    """
    if not holdout.height:
        msg = f"data set {workspace.name!r} has no holdout to compare on: make one with `curate holdout`."
        raise InputError(msg)
    for name, rows in arms.items():
        if rows["label"].n_unique() < 2:
            msg = f"the {name} data set has images of fewer than two classes: there is nothing to train."
            raise InputError(msg)
    side = spec.train.sizes[-1]
    everything = pl.concat(
        [holdout.select("path", "sha256"), *(rows.select("path", "sha256") for rows in arms.values())]
    )
    pixels = decoded(workspace, everything.unique("path", maintain_order=True), side, runner=runner,
                     progress=lambda d, t: progress(f"decoding at {side} px", d, t))  # fmt: skip
    index = {name: n for n, name in enumerate(classes)}
    probs: dict[str, NDArray[np.float32]] = {}
    runs: dict[str, str] = {}
    rate = spec.train.lr
    for arm, rows in arms.items():
        rows = rows.sort("path")
        settings = {"train": spec.train.model_dump(mode="json"), "augment": spec.augment.model_dump(mode="json")}
        if Path(spec.train.weights).is_file():
            settings["weights"] = {"sha256": file_digest(Path(spec.train.weights))}
        key = digest(arm, settings, classes, rows["sha256"].to_list(), rows["label"].to_list(), rate)[:12]
        folder = workspace.models / f"{arm}-{key}"
        if not (folder / "metrics.json").is_file():
            write_bytes(folder / "curate.toml", workspace.spec_path.read_bytes())
            with replacing(folder / "images.parquet") as temporary:
                rows.select("path", "sha256", "label").write_parquet(temporary)
        per_seed = []
        for seed in spec.train.seeds:
            place = folder / f"seed-{seed}"
            predicted, rate = _one(place, rows, holdout, classes, pixels, spec, seed, rate,
                                   partial(_tell, progress, f"{arm}, seed {seed}"))  # fmt: skip
            per_seed.append(predicted)
        probs[arm] = np.stack(per_seed)
        runs[arm] = str(folder.relative_to(workspace.root))
    labels = np.array([index[label] for label in holdout["label"].to_list()], dtype=np.int64)
    proof = Proof(probs=probs, labels=labels, images={a: r.height for a, r in arms.items()}, runs=runs)
    for arm in arms:
        accuracy = proof.right(arm).mean(axis=1)
        metrics = {
            "accuracy": round(float(accuracy.mean()), 6),
            "by_seed": dict(zip(map(str, spec.train.seeds), accuracy.round(6).tolist(), strict=True)),
            "images": proof.images[arm], "holdout": holdout.height, "lr": rate, "classes": list(classes),
        }  # fmt: skip
        write_json(workspace.root / runs[arm] / "metrics.json", metrics)
    _forget_others(workspace, set(runs.values()))
    return proof


def _tell(progress: Callable[[str, int, int], None], which: str, words: str) -> None:
    progress(f"{which}: {words}", 0, 0)


def _one(
    place: Path, rows: pl.DataFrame, holdout: pl.DataFrame, classes: Sequence[str], pixels: Pixels, spec: Spec,
    seed: int, rate: float | None, report: Callable[[str], None],
) -> tuple[NDArray[np.float32], float | None]:  # fmt: skip
    """Holdout probabilities of one model, and the rate it was trained at; taken from disk where it is finished.

    The predictions are written last, so that a folder that has them is complete.
    """
    saved = place / f"holdout-{digest(holdout['sha256'].to_list())[:12]}.npz"
    if saved.is_file() and (place / "model.pkl").is_file():  # the model goes when another run takes its place
        with np.load(saved) as archive:
            return archive["probs"], float(archive["lr"])
    from curate.learn.train import export, learning_rate, predict, train

    train_rows = pixels.index(rows["sha256"].to_list()).tolist()
    labels = rows["label"].to_list()
    if rate is None:
        report("looking for a learning rate")
        rate = learning_rate(train_rows, labels, classes, pixels.array, spec=spec.train, augment=spec.augment)
    learner, history = train(
        train_rows, labels, classes, pixels.array, spec=spec.train, augment=spec.augment, seed=seed, lr=rate,
        report=report,
    )  # fmt: skip
    report("predicting the holdout")
    test_rows = pixels.index(holdout["sha256"].to_list()).tolist()
    probs = predict(learner, pixels.array, test_rows, tta=spec.train.tta)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["epoch", "image_size", "train_loss"])
    table.writerows((epoch, size, f"{loss:.6f}") for epoch, size, loss in history)
    write_bytes(place / "history.csv", text.getvalue().encode())
    export(learner, place / "model.pkl")
    with replacing(saved) as temporary, temporary.open("wb") as stream:
        np.savez(stream, probs=probs, lr=np.float64(rate))
    return probs, rate


def _forget_others(workspace: Workspace, keep: set[str]) -> None:
    """Remove the exported models of earlier runs; their figures and histories stay."""
    for folder in workspace.models.glob("*-*"):
        if str(folder.relative_to(workspace.root)) not in keep:
            for model in folder.glob("seed-*/model.pkl"):
                model.unlink(missing_ok=True)
