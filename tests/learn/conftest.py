from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw

from curate.learn.cache import square
from curate.runner.local import LocalRunner
from curate.workspace import Workspace, file_digest

CLASSES = ("disc", "bars", "cross")


def picture(kind: str, seed: int) -> Image.Image:
    """A small picture whose class even a tiny model can tell, on a background that says nothing."""
    rng = np.random.default_rng([seed, CLASSES.index(kind)])
    grain = rng.normal(0, 6, (40, 48, 3)) + rng.integers(170, 230, 3)
    image = Image.fromarray(grain.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    x, y = (int(v) for v in rng.integers(-4, 5, 2))
    colour = {"disc": (160, 20, 30), "bars": (20, 120, 40), "cross": (20, 30, 140)}[kind]
    if kind == "disc":
        pen.ellipse((12 + x, 8 + y, 36 + x, 32 + y), fill=colour)
    elif kind == "bars":
        for at in range(6, 44, 9):
            pen.rectangle((at + x, 4, at + x + 4, 36), fill=colour)
    else:
        pen.line((8 + x, 6, 40 + x, 34), fill=colour, width=7)
        pen.line((40 + x, 6, 8 + x, 34), fill=colour, width=7)
    return image


@dataclass(frozen=True)
class Pictures:
    """A data set of 36 pictures of three classes on disk, and its manifest."""

    workspace: Workspace
    manifest: pl.DataFrame


@pytest.fixture
def pictures(home: Any, manifest_of: Any) -> Pictures:
    workspace = Workspace.create("shapes", "")
    rows = []
    for kind in CLASSES:
        for seed in range(12):
            path = f"images/scraped/{kind}/{seed:02}.png"
            file = workspace.image(path)
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(kind, seed).save(file)
            rows.append({"path": path, "sha256": file_digest(file), "label": kind, "width": 48, "height": 40})
    return Pictures(workspace, manifest_of(rows))


@pytest.fixture(scope="session")
def runner() -> LocalRunner:
    return LocalRunner(workers=1)


@pytest.fixture(scope="session")
def arrays() -> tuple[Any, list[str]]:
    """(36, 64, 64, 3) decoded pictures of the three classes, and their labels."""
    labels = [kind for kind in CLASSES for _ in range(12)]
    decoded = [np.asarray(square(picture(kind, n % 12), 64)) for n, kind in enumerate(labels)]
    return np.stack(decoded), labels
