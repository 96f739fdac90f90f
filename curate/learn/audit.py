"""The predictions that labels are judged by: embeddings, and out-of-fold probabilities."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from curate.checks.posterior import MANY, UNLABELLED, temperature, tempered
from curate.config import Spec
from curate.embedding_tag import embedding_tag
from curate.learn.backbones import device, load_backbone
from curate.learn.cache import Pixels, decoded
from curate.learn.embed import embed
from curate.learn.out_of_fold import FitPredict, make_folds, out_of_fold, probe
from curate.runner import Runner
from curate.schema import PREDICTIONS
from curate.workspace import Workspace, digest, file_digest, replacing

Mode = Literal["probe", "finetune"]


class Progress(Protocol):
    """Told what is being done and how far it is."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`what` in words, `done` of `total`."""
        ...


_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit computes.

    Attributes:
        embeddings: schema `EMBEDDINGS`.
        predictions: schema `PREDICTIONS`.
        mode: how the predictions were made.
        temperature: that the probabilities were scaled with, see `rescale`.
        notes: what a person should know, in words.
    """

    embeddings: pl.DataFrame
    predictions: pl.DataFrame
    mode: Mode
    temperature: float
    notes: tuple[str, ...]


def resolve_mode(mode: Literal["auto", "probe", "finetune"]) -> Mode:
    """`auto` is `finetune` on a GPU and `probe` elsewhere."""
    return mode if mode != "auto" else "finetune" if device().type == "cuda" else "probe"


def audit(
    workspace: Workspace, images: pl.DataFrame, groups: Mapping[str, int], classes: Sequence[str], *, spec: Spec,
    mode: Mode, runner: Runner, previous: pl.DataFrame | None = None, progress: Progress = lambda *_: None,
) -> Audit:  # fmt: skip
    """Embed images and predict each by a model that saw neither it nor a near-duplicate of it.

    Args:
        workspace: the data set; its cache is used.
        images: readable rows of the manifest outside the holdout; rows without a label are predicted, never learnt.
        groups: path to the number of what hangs together as duplicates, see `neighbours.touching`: it shares a fold.
        classes: names, in the order of the probabilities.
        spec: its `audit` section; for `finetune` also `train` and `augment`.
        mode: `probe` (regression on frozen embeddings) or `finetune` (fastai training per fold).
        runner: where pictures are decoded.
        previous: embeddings of an earlier time.
        progress: told how far it is.

    Raises:
        InputError: fewer than two classes have images.
    """
    options = spec.audit
    images = images.sort("path")
    index = {name: n for n, name in enumerate(classes)}
    labels = np.array([index.get(label, UNLABELLED) for label in images["label"].to_list()], dtype=np.int64)
    folds = make_folds(labels, fold_groups(images, groups), list(classes), k=options.folds, seed=options.seed)
    side = options.image_size
    pixels = decoded(workspace, images, side, runner=runner, progress=lambda d, t: progress("decoding", d, t))
    backbone = load_backbone(options.backbone, weights=options.weights)
    tag = embedding_tag(spec)
    embeddings = embed(
        images, pixels, backbone, tag=tag, mirror=spec.augment.flip, previous=previous,
        progress=lambda d, t: progress("embedding", d, t),
    )  # fmt: skip
    run = digest(mode, tag, options.model_dump(), classes, images["sha256"].to_list())[:12]
    if mode == "probe":
        vectors = embeddings["vector"].to_numpy()
        fit_predict = probe(vectors, labels, len(classes), regularisation=options.regularisation)
    else:
        weights = file_digest(Path(spec.train.weights)) if Path(spec.train.weights).is_file() else ""
        run = digest(run, spec.train.model_dump(), spec.augment.model_dump(), weights)[:12]
        rows = pixels.index(images["sha256"].to_list())
        fit_predict = finetune(pixels, rows, labels, folds.group, classes, spec, lambda w: progress(w, 0, 0))
    repeats = options.repeats if mode == "probe" else 1
    many = len(classes) > MANY
    shape, scratch = (images.height, len(classes)), workspace.cache / "total.npy"
    total = np.lib.format.open_memmap(scratch, "w+", np.float32, shape) if many else np.zeros(shape)
    for repeat in range(repeats):
        # Other folds each time: the mean depends less on who happened to be trained on together.
        split = folds
        if repeat:
            split = make_folds(labels, folds.group, list(classes), k=options.folds, seed=options.seed + repeat)
        base = repeat * options.folds
        out_of_fold(
            labels, split, len(classes), fit_predict, store=workspace.cache / "folds" / str(repeat), key=run,
            progress=partial(_tell_fold, progress, base, repeats), into=total,
        )  # fmt: skip
    np.divide(total, repeats, out=total)
    degree = temperature(labels, total)
    notes = (*folds.notes, f"weights {backbone.origin}") if options.weights else folds.notes
    if many:
        stored = workspace.tables / f"probs-{run}.npy"
        top, confidence = _store(stored, total, degree)
        del total
        scratch.unlink()
        size, peak = stored.stat().st_size / 2**30, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        told = f"{shape[0]} x {shape[1]} probabilities are on disk ({size:.1f} GiB); memory reached {peak:.1f} GiB"
        notes = (*notes, told)
        listed = pl.Series([[]] * images.height, dtype=pl.List(pl.Float32))
    else:
        probs = tempered(total, degree).astype(np.float32)
        top, confidence = probs.argmax(axis=1), probs.max(axis=1)
        listed = pl.Series(probs.tolist(), dtype=pl.List(pl.Float32))
    predictions = pl.DataFrame(
        {
            "path": images["path"],
            "fold": pl.Series(folds.fold, dtype=pl.Int32),
            "group": pl.Series(folds.group, dtype=pl.Int64),
            "probs": listed,
            "predicted": [classes[n] for n in top.tolist()],
            "confidence": pl.Series(confidence, dtype=pl.Float32),
            "run": [run] * images.height,
        },
        schema=PREDICTIONS.columns,
    )
    return Audit(embeddings=embeddings, predictions=predictions, mode=mode, temperature=degree, notes=notes)


def _tell_fold(progress: Progress, before: int, repeats: int, done: int, total: int) -> None:
    progress("predicting folds", before + done, total * repeats)


def _store(file: Path, total: NDArray[np.floating], degree: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Write probabilities in half precision, block by block; returns the likeliest class of each row and how likely."""
    top, confidence = np.empty(len(total), dtype=np.int64), np.empty(len(total), dtype=np.float32)
    with replacing(file) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=total.shape)
        for start in range(0, len(total), _ROWS):
            part = tempered(total[start : start + _ROWS], degree)
            out[start : start + _ROWS] = part
            top[start : start + _ROWS], confidence[start : start + _ROWS] = part.argmax(axis=1), part.max(axis=1)
        out.flush()
        del out
    return top, confidence


def fold_groups(images: pl.DataFrame, groups: Mapping[str, int]) -> NDArray[np.int64]:
    """(N,) ids: images of one number in `groups`, which is by path, share one; every other image has its own."""
    place: dict[int | str, int] = {}
    keys = (groups.get(path, path) for path in images["path"])
    return np.array([place.setdefault(key, len(place)) for key in keys], dtype=np.int64)


def finetune(
    pixels: Pixels, rows: NDArray[np.int64], labels: NDArray[np.int64], group: NDArray[np.int64],
    classes: Sequence[str], spec: Spec, report: Callable[[str], None],
) -> FitPredict:  # fmt: skip
    """Train the model of the spec for each fold; the epoch to keep is chosen on groups within the training part."""

    def fit_predict(train_rows: NDArray[np.int64], test: NDArray[np.int64], fold: int) -> NDArray[np.float32]:
        from curate.learn.train import predict, train

        inner = make_folds(labels[train_rows], group[train_rows], list(classes), k=8, seed=spec.audit.seed)
        valid = np.flatnonzero(inner.fold == 0)
        learner, _ = train(
            rows[train_rows].tolist(), [classes[n] for n in labels[train_rows]], classes, pixels.array,
            spec=spec.train, augment=spec.augment, seed=spec.audit.seed + fold, valid=valid.tolist(),
            report=lambda words: report(f"fold {fold + 1}: {words}"),
        )  # fmt: skip
        return predict(learner, pixels.array, rows[test].tolist(), tta=spec.train.tta)

    return fit_predict
