"""Shared by all tests: a home and a database of their own, and a small data set with findings."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import polars as pl
import pytest
from PIL import Image, ImageDraw

from curate.schema import FEATURES, FINDINGS, MANIFEST, PREDICTIONS
from curate.workspace import Workspace, file_digest

# FiftyOne reads its settings when it is imported, and one process has one database: so once for the whole run.
_FIFTYONE = Path(tempfile.mkdtemp(prefix="curate-tests-fiftyone-"))
os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
os.environ["FIFTYONE_DATABASE_DIR"] = str(_FIFTYONE / "db")
os.environ["FIFTYONE_CONFIG_PATH"] = str(_FIFTYONE / "config.json")
for _name in ("FIFTYONE_DATABASE_URI", "FIFTYONE_PLUGINS_DIR", "FIFTYONE_PRIVATE_DATABASE_PORT", "CURATE_USER"):
    os.environ.pop(_name, None)

# No deadline: an example that is slow on a busy machine is no failure.
hypothesis.settings.register_profile("curate", deadline=None)
hypothesis.settings.load_profile("curate")


def pytest_sessionfinish() -> None:
    if "fiftyone.core.odm.database" in sys.modules:
        # FiftyOne ends its mongod when the process has ended: too late to remove the folder, so end it now.
        database = sys.modules["fiftyone.core.odm.database"]
        database._disconnect()
        if service := database._db_service:
            child = service.child
            service.stop()
            child.wait(60)
    shutil.rmtree(_FIFTYONE, ignore_errors=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for `datasets/` and `reports/`."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("CURATE_HOME", str(folder))
    return folder


Rows = Iterable[dict[str, Any]]
Table = Callable[[Rows], pl.DataFrame]


@pytest.fixture(scope="session")
def manifest_of() -> Table:
    """A manifest from rows that name what matters to the test; the rest is filled in."""
    usual = {
        "bytes": 1000, "format": "PNG", "width": 100, "height": 100, "mode": "RGB", "label": "a", "split": None,
        "origin": "scraped", "source": None, "status": "ok", "error": None, "mtime_ns": 0,
    }  # fmt: skip

    def make(rows: Rows) -> pl.DataFrame:
        whole = [usual | {"sha256": f"sha of {row['path']}", "obtained": n} | row for n, row in enumerate(rows)]
        return pl.DataFrame(whole, schema=MANIFEST.columns)

    return make


@pytest.fixture(scope="session")
def features_of() -> Table:
    """A table of features from rows that name what matters to the test; the rest is that of a good picture."""
    usual = {
        "phash": 0, "dhash": 0, "brightness": 0.5, "contrast": 0.2, "entropy": 7.0, "sharpness": 0.01, "width": 100,
        "height": 100, "aspect": 1.0, "colourfulness": 0.3, "border": 0.0,
    }  # fmt: skip

    def make(rows: Rows) -> pl.DataFrame:
        whole = [usual | {"sha256": f"sha of {row['path']}"} | row for row in rows]
        return pl.DataFrame(whole, schema=FEATURES.columns)

    return make


SPEC = """
title = "Shapes"
[[classes]]
name = "circle"
title = "round"
[[classes]]
name = "square"
"""


@dataclass(frozen=True)
class Shapes:
    """A data set of 12 drawn shapes.

    `circle/03.png` is labelled a circle and shows a square; `square/04.png` and `square/05.png` are the same picture;
    `circle/05.png` is an ambiguous one. The queue holds these, and `square/00.png` as a probe.
    """

    workspace: Workspace
    manifest: pl.DataFrame
    findings: pl.DataFrame
    predictions: pl.DataFrame
    queue: pl.DataFrame


def _draw(path: Path, shape: str, seed: int) -> None:
    image = Image.new("RGB", (160, 160), (235, 228, 210))
    box = (20 + 2 * seed, 30, 120 + 3 * seed, 130)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "circle" else draw.rectangle)(box, fill=(40 + 20 * seed, 30, 160 - 20 * seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _make_shapes(name: str = "shapes") -> Shapes:
    """Make the data set on disk, tables and all."""
    workspace = Workspace.create(name, SPEC)
    rows = []
    for label in ("circle", "square"):
        for seed in range(6):
            path = f"images/scraped/{label}/{seed:02}.png"
            shape = "square" if (label, seed) == ("circle", 3) else label
            _draw(workspace.image(path), shape, 4 if (label, seed) == ("square", 5) else seed)
            rows.append({
                "path": path, "sha256": file_digest(workspace.image(path)),
                "bytes": workspace.image(path).stat().st_size, "format": "PNG", "width": 160, "height": 160,
                "mode": "RGB", "label": label, "split": None, "origin": "scraped",
                "source": f"http://shapes.example/{label}/{seed}", "obtained": len(rows),
                "mtime_ns": workspace.image(path).stat().st_mtime_ns, "status": "ok", "error": None,
            })  # fmt: skip
    manifest = pl.DataFrame(rows, schema=MANIFEST.columns)
    c, s = "images/scraped/circle", "images/scraped/square"
    found = [
        (f"{c}/03.png", "confident_mistake", 0.02, 0.98, None, "square", "predicted square at 0.98, labelled circle"),
        (f"{c}/03.png", "label_error", 0.05, 0.95, None, "square", "the label is wrong with p = 0.95: square fits"),
        (f"{c}/05.png", "ambiguous", 0.45, 0.4, None, None, "circle 0.55, square 0.45: the model cannot tell"),
        (f"{s}/05.png", "duplicates:exact", 0.0, None, 1, f"{s}/04.png", "the same bytes as square/04.png"),
    ]
    findings = pl.DataFrame(found, schema=FINDINGS.columns, orient="row")
    said = [
        (row["path"], i % 5, i, [0.1, 0.9], "square" if row["path"] == f"{c}/03.png" else row["label"], 0.9, "run")
        for i, row in enumerate(rows)
    ]
    predictions = pl.DataFrame(said, schema=PREDICTIONS.columns, orient="row")
    queue = pl.DataFrame(
        {
            "rank": [1, 2, 3, 4],
            "path": [f"{c}/03.png", f"{s}/05.png", f"{c}/05.png", f"{s}/00.png"],
            "checks": [["confident_mistake", "label_error"], ["duplicates:exact"], ["ambiguous"], []],
            "reason": ["predicted square at 0.98, labelled circle", "the same bytes as square/04.png",
                       "circle 0.55, square 0.45: the model cannot tell", "random probe: is the label right?"],
            "p_wrong": [0.98, None, 0.4, 0.01],
            "suggestion": ["square", f"{s}/04.png", None, None],
            "probe": [False, False, False, True],
        },
        schema_overrides={"checks": pl.List(pl.String)},
    )  # fmt: skip
    for table_name, table in (("manifest", manifest), ("findings", findings), ("predictions", predictions)):
        workspace.write_table(table_name, table)
    return Shapes(workspace, manifest, findings, predictions, queue)


@pytest.fixture
def make_shapes(home: Path) -> Callable[..., Shapes]:
    """Makes a data set of shapes, under $CURATE_HOME as it is then; a name can be given."""
    return _make_shapes


@pytest.fixture
def shapes(make_shapes: Callable[..., Shapes]) -> Shapes:
    """The data set of shapes in the home of this test."""
    return make_shapes()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium or Chrome; where there is none, tests fail unless CURATE_SKIP_BROWSER is set."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    if os.environ.get("CURATE_SKIP_BROWSER"):
        pytest.skip("no Chromium here, and CURATE_SKIP_BROWSER is set: the App was not clicked")
    pytest.fail("no Chromium: install it (`make test` tries to), or set CURATE_SKIP_BROWSER=1")


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
