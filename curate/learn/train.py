"""Training with fastai: a frozen head first, then unfrozen with discriminative rates, at growing sizes."""

from __future__ import annotations

import contextlib
import pickle
import random
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixUp
from fastai.callback.schedule import valley
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.data.block import CategoryBlock, DataBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import IndexSplitter, Normalize
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.vision.augment import aug_transforms
from fastai.vision.core import PILImage, Transform
from fastai.vision.data import ImageBlock
from fastai.vision.learner import create_head
from numpy.typing import NDArray
from torch import nn

from curate.config import AugmentSpec, TrainSpec
from curate.errors import DataCorrupt, EnvironmentMissing
from curate.images import load
from curate.learn.backbones import Backbone, device, load_backbone, splitter
from curate.learn.cache import square
from curate.workspace import replacing

Report = Callable[[str], None]


@dataclass(frozen=True)
class Item:
    """A picture: a row of the decoded cache, or a file; and its label. One row may be there twice, under two labels."""

    row: int = -1
    label: str = ""
    file: str = ""


def label_of(item: Item) -> str:
    """Gives fastai the class name."""
    return item.label


class CachedImage:
    """Gives fastai a picture: by row from the decoded cache, or from a file once the learner was exported."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels: NDArray[np.uint8] | None = pixels

    def __call__(self, item: Item) -> PILImage:
        """The picture of a row of the cache, or of a file."""
        if item.file:
            return PILImage.create(np.asarray(load(Path(item.file))))
        assert self.pixels is not None, "an exported learner reads files, not rows of a cache"
        return PILImage.create(np.array(self.pixels[item.row]))

    def __getstate__(self) -> dict[str, Any]:
        return {"pixels": None}


class Square(Transform):  # type: ignore[misc]
    """Fits a picture into a square as the decoded cache does; also where fastai itself opened a file."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def encodes(self, image: PILImage) -> PILImage:
        """Called by fastai."""
        return PILImage.create(np.asarray(square(image, self.side)))


class EpochReport(Callback):  # type: ignore[misc]
    """Tells of each finished epoch in one line."""

    def __init__(self, report: Report, what: str) -> None:
        self.report, self.what = report, what

    def after_epoch(self) -> None:
        """Called by fastai."""
        if not hasattr(self.learn, "lr_finder"):
            self.report(f"{self.what}, epoch {self.epoch + 1} of {self.n_epoch}")


class LossHistory(Callback):  # type: ignore[misc]
    """Keeps the training loss of each epoch, for history.csv."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, float]] = []
        self.side = 0

    def after_train(self) -> None:
        """Called by fastai, after an epoch of training and never when predicting."""
        if not hasattr(self.learn, "lr_finder"):
            self.rows.append((len(self.rows) + 1, self.side, float(self.learn.smooth_loss)))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators that fastai draws from, and put them back as they were afterwards."""
    before = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002 - fastai draws from it
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def _loaders(
    rows: Sequence[int], labels: Sequence[str], classes: Sequence[str], pixels: NDArray[np.uint8], side: int,
    backbone: Backbone, augment: AugmentSpec, batch_size: int, valid: Sequence[int],
) -> DataLoaders:  # fmt: skip
    items = [Item(row, label) for row, label in zip(rows, labels, strict=True)]
    transforms = aug_transforms(
        do_flip=augment.flip, max_rotate=augment.max_rotate, max_zoom=augment.max_zoom,
        max_lighting=augment.max_lighting, max_warp=augment.max_warp,
    )  # fmt: skip
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(classes), sort=False)),
        get_x=CachedImage(pixels),
        get_y=label_of,
        splitter=IndexSplitter(list(valid)),
        item_tfms=Square(side),
        batch_tfms=[*transforms, Normalize.from_stats(backbone.mean, backbone.std, cuda=device().type == "cuda")],
    )
    # One more than the rest of the last batch: fastai drops it, and a batch of one breaks batch norm.
    size = min(batch_size, max(2, len(rows) - len(valid)))
    return block.dataloaders(items, bs=size, num_workers=0, device=device())


def train(
    rows: Sequence[int], labels: Sequence[str], classes: Sequence[str], pixels: NDArray[np.uint8], *,
    spec: TrainSpec, augment: AugmentSpec, seed: int, lr: float | None = None, valid: Sequence[int] = (),
    report: Report = lambda _: None,
) -> tuple[Learner, list[tuple[int, int, float]]]:  # fmt: skip
    """Train a classifier with fastai.

    A new head is trained on the frozen body, then everything with discriminative rates, one cycle each, at each of
    the sizes of the spec in turn (progressive resizing; Howard and Gugger, fastai). Nothing of `rows` is held back
    unless `valid` names positions: then the best epoch on those is kept, and training stops early.

    Args:
        rows: rows of `pixels` to train on.
        labels: their class names.
        classes: all classes, in order.
        pixels: (N, side, side, 3) decoded pictures.
        spec: sizes, epochs, batch, backbone.
        augment: what may be done to a picture.
        seed: of shuffling, augmentation and head.
        lr: base rate; default spec.lr, else lr_find's valley.
        valid: positions within `rows` held back to choose the epoch.
        report: told of each epoch.

    Returns:
        The learner, and (epoch, side, training loss) rows.
    """
    told: dict[str, Any] = {"augment": augment, "seed": seed, "lr": lr, "valid": valid, "report": report}
    try:
        return _train(rows, labels, classes, pixels, spec=spec, **told)
    except torch.OutOfMemoryError as error:
        smaller = spec.batch_size // 2
        if smaller < 2:
            msg = "the GPU has too little memory for two images at a time: take a smaller backbone or smaller sizes."
            raise EnvironmentMissing(msg) from error
    # Outside the handler, so that what the exception holds on to is freed.
    report(f"out of GPU memory: going on with batches of {smaller}")
    torch.cuda.empty_cache()
    return train(rows, labels, classes, pixels, spec=spec.model_copy(update={"batch_size": smaller}), **told)


def _train(
    rows: Sequence[int], labels: Sequence[str], classes: Sequence[str], pixels: NDArray[np.uint8], *,
    spec: TrainSpec, augment: AugmentSpec, seed: int, lr: float | None, valid: Sequence[int], report: Report,
) -> tuple[Learner, list[tuple[int, int, float]]]:  # fmt: skip
    history = LossHistory()
    with seeded(seed):
        make, learner = _learner(rows, labels, classes, pixels, spec=spec, augment=augment, valid=valid, cbs=[history])
        with learner.no_bar(), learner.no_logging():
            rate = lr or spec.lr or _find_rate(learner)
            for number, side in enumerate(spec.sizes):
                history.side = side
                if number:
                    learner.dls = make(side=side)
                else:
                    if spec.epochs_frozen:
                        learner.fit_one_cycle(spec.epochs_frozen, rate, cbs=EpochReport(report, f"head at {side} px"))
                    learner.freeze_to(-2) if spec.freeze_early else learner.unfreeze()
                if spec.epochs:
                    watch: list[Callback] = [EpochReport(report, f"all at {side} px")]
                    watch += [KeepBest(spec.epochs)] if valid else []
                    top = rate / (2 * (number + 1))
                    learner.fit_one_cycle(spec.epochs, slice(top / 20, top), cbs=watch)
    return learner, history.rows


def learning_rate(
    rows: Sequence[int], labels: Sequence[str], classes: Sequence[str], pixels: NDArray[np.uint8], *,
    spec: TrainSpec, augment: AugmentSpec, seed: int = 0,
) -> float:  # fmt: skip
    """The base rate that lr_find's valley suggests (Smith 2015); arguments as for `train`."""
    with seeded(seed):
        _, learner = _learner(rows, labels, classes, pixels, spec=spec, augment=augment, valid=(), cbs=[])
        with learner.no_bar(), learner.no_logging():
            return _find_rate(learner)


def _find_rate(learner: Learner) -> float:
    before = learner.path
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy's old names, in what fastai puts back afterwards
        learner.path = Path(folder)  # fastai keeps the model there meanwhile; it would be the working folder
        try:
            return float(learner.lr_find(show_plot=False, suggest_funcs=(valley,)).valley)
        finally:
            learner.path = before


def _learner(
    rows: Sequence[int], labels: Sequence[str], classes: Sequence[str], pixels: NDArray[np.uint8], *,
    spec: TrainSpec, augment: AugmentSpec, valid: Sequence[int], cbs: list[Callback],
) -> tuple[Callable[..., DataLoaders], Learner]:  # fmt: skip
    """A learner with a new head on a frozen body, and what makes its loaders at another size."""
    backbone = load_backbone(spec.backbone, weights=spec.weights)
    make = partial(_loaders, rows, labels, classes, pixels, backbone=backbone, augment=augment,
                   batch_size=spec.batch_size, valid=valid)  # fmt: skip
    model = nn.Sequential(backbone.body, create_head(backbone.features, len(classes)))
    for layer in backbone.body.modules():
        # Some ImageNet bodies move their statistics by 1% a batch: too slowly for a few hundred pictures.
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1
    callbacks = [*cbs, MixUp(augment.mixup)] if augment.mixup else list(cbs)
    if device().type == "cuda":
        callbacks.append(MixedPrecision())
    learner = Learner(
        make(side=spec.sizes[0]), model, loss_func=CrossEntropyLossFlat(), splitter=splitter(backbone.cut),
        cbs=callbacks, metrics=[accuracy] if valid else [], train_bn=False,
    )  # fmt: skip
    model.to(memory_format=torch.channels_last)
    learner.freeze()
    return make, learner


class KeepBest(EarlyStoppingCallback):  # type: ignore[misc]
    """Stops when the validation loss no longer falls, and puts the weights of the best epoch back; in memory."""

    def __init__(self, epochs: int) -> None:
        super().__init__(monitor="valid_loss", patience=max(2, epochs // 2))
        self.weights: dict[str, torch.Tensor] = {}

    def after_epoch(self) -> None:
        """Called by fastai."""
        super().after_epoch()
        if self.new_best:
            self.weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def after_fit(self) -> None:
        """Called by fastai."""
        super().after_fit()
        if self.weights:
            self.model.load_state_dict(self.weights)


def predict(learner: Learner, pixels: NDArray[np.uint8], rows: Sequence[int], *, tta: bool) -> NDArray[np.float32]:
    """Probabilities (len(rows), K) of rows of the decoded cache; with test-time augmentation where asked."""
    getter = learner.dls.train_ds.tls[0].tfms.fs[0]
    getter.pixels = pixels
    loader = learner.dls.test_dl([Item(row) for row in rows], bs=64, num_workers=0)
    with learner.no_bar(), learner.no_logging():
        probs, _ = learner.tta(dl=loader, n=4) if tta else learner.get_preds(dl=loader)
    found: NDArray[np.float32] = probs.float().numpy()
    return found


def export(learner: Learner, path: Path) -> None:
    """Save the learner as fastai exports it, whole or not at all."""
    with replacing(path) as temporary, learner.removed_cbs(learner.cbs.filter(lambda cb: isinstance(cb, LossHistory))):
        learner.path = temporary.parent
        learner.export(temporary.name)


def predict_files(path: Path, files: Sequence[Path]) -> tuple[list[str], NDArray[np.float32]]:
    """Classes, and probabilities (len(files), K), of image files by an exported learner.

    The learner is a pickle: load only those that this data set made.

    Raises:
        DataCorrupt: the file is no exported learner.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that pickles are to be trusted: said above
            learner = load_learner(path, cpu=device().type == "cpu")
    except (pickle.UnpicklingError, EOFError, AttributeError, RuntimeError) as error:
        msg = f"{path} is no exported learner ({error}); run `curate retrain` again."
        raise DataCorrupt(msg) from error
    loader = learner.dls.test_dl([Item(file=str(file)) for file in files], bs=64, num_workers=0)
    with learner.no_bar(), learner.no_logging():
        probs, _ = learner.get_preds(dl=loader)
    return list(learner.dls.vocab), probs.float().numpy()
