"""The measuring stage as a whole: what a data set that is measured again, later, elsewhere or after a crash must be."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image, ImageDraw

from curate import figures, measure, pipeline
from curate.dataset import Dataset, new_dataset
from curate.images import ImageFailure
from curate.runner.local import LocalRunner
from curate.schema import STATUSES


def scene(seed: int) -> Image.Image:
    rng = random.Random(seed)
    image = Image.new("RGB", (48, 32), tuple(rng.randrange(256) for _ in range(3)))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, r = rng.randrange(48), rng.randrange(32), rng.randrange(3, 12)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.randrange(256) for _ in range(3)))
    return image


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Dataset]:
    """Makes a data set of so many images of two classes; the last two of the source cannot be read."""

    def made(name: str, n: int) -> Dataset:
        source = tmp_path / "source"
        if not source.exists():
            for number in range(n):
                file = source / "ab"[number % 2] / f"{number:03}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                scene(number).save(file)
            file.write_bytes(file.read_bytes()[:-30])
            (source / "b" / "html.jpg").write_bytes(b"<html>")
        data = new_dataset(name)
        data.import_images(source)
        return data

    return made


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that are measured from now on."""
    found: list[str] = []

    def watched(jobs: Any) -> figures.Measured:
        found.extend(path for path, *_ in jobs)
        return figures.measure_files(jobs)

    monkeypatch.setattr(measure, "measure_files", watched)
    return found


def crash_at(n: int) -> pipeline.Progress:
    def progress(stage: str, what: str, done: int, total: int) -> None:
        if stage == "measure" and done >= n:
            raise KeyboardInterrupt

    return progress


def version(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setitem(pipeline.VERSIONS, "measure", number)


def test_rows_of_an_older_version_are_not_taken_over(
    make: Callable[..., Dataset], measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make("a", 100)
    with pytest.raises(KeyboardInterrupt):  # the first run is ended: no stage has finished yet
        pipeline.run_measure(data.workspace, progress=crash_at(64))
    assert len(measured) == 64
    version(monkeypatch, 1000)
    data.measure()
    assert len(measured) == 64 + 100
    (data.workspace.tables / "stages.json").unlink()
    data.measure()
    assert len(measured) == 164  # what is known does not hang on the record of the stage
    (data.workspace.tables / "stages.json").unlink()
    version(monkeypatch, 1001)
    data.measure()
    assert len(measured) == 264
    assert data.measure().skipped
    assert not list(data.workspace.cache.glob("*.jsonl")), "what was kept along the way is in the tables"


def test_tables_that_tell_no_version_are_made_anew(make: Callable[..., Dataset], measured: list[str]) -> None:
    data = make("a", 10)
    data.measure()
    manifest, features = data.manifest, data.features
    data.workspace.write_table("manifest", manifest.with_columns(width=pl.lit(1, pl.Int32)))
    data.workspace.write_table("features", features.with_columns(brightness=pl.lit(9.0, pl.Float32)))
    measured.clear()
    data.measure()
    assert len(measured) == 10
    assert data.manifest.equals(manifest)
    assert data.features.equals(features)


def test_a_newer_version_that_is_ended_loses_neither_the_old_rows_nor_its_own(
    make: Callable[..., Dataset], measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make("a", 100)
    data.measure()
    before = data.features
    version(monkeypatch, 1000)
    measured.clear()
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_measure(data.workspace, progress=crash_at(64))
    assert data.features.equals(before)
    data.measure()
    assert (len(measured), len(set(measured))) == (100, 100)
    assert data.features.equals(before)


def test_a_failure_that_passes_is_tried_again_and_one_that_lasts_is_not(
    make: Callable[..., Dataset], measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make("a", 10)
    plain = figures.read_content

    def busy(file: Path) -> bytes:
        if file.name == "003.png":
            raise ImageFailure("unreadable_file", "Input/output error")
        return plain(file)

    with monkeypatch.context() as patch:
        patch.setattr(figures, "read_content", busy)
        record = data.measure()
        assert record.facts["unreadable"] == 3
    errors = dict(data.manifest.drop_nulls("error").select("path", "error").iter_rows())
    assert {Path(path).name: error.partition(":")[0] for path, error in errors.items()} == {
        "003.png": "unreadable_file", "009.png": "truncated", "html.jpg": "html",
    }  # fmt: skip
    measured.clear()
    record = data.measure()
    assert (record.facts["unreadable"], [Path(path).name for path in measured]) == (2, ["003.png"])
    assert data.features.height == 9
    version(monkeypatch, 1000)  # newer code may be able to read what older code could not
    measured.clear()
    data.measure()
    assert len(measured) == 10


CHILD = """
import sys
from pathlib import Path
from curate import measure, pipeline
from curate.runner.local import LocalRunner
from curate.workspace import Workspace

if __name__ == "__main__":
    pipeline.get_runner = lambda name: LocalRunner(workers=2, pool_from=2)
    measure.measure.__kwdefaults__["batch"] = 8
    workspace = Workspace(Path(sys.argv[1]))
    with workspace.stage_lock("measure"):
        pipeline.run_measure(workspace)
"""


def test_kills_while_it_measures_change_nothing(make: Callable[..., Dataset]) -> None:
    whole, torn = make("whole", 300), make("torn", 300)
    whole.measure()
    log = torn.workspace.cache / f"measured-{pipeline.VERSIONS['measure']}.jsonl"
    draw = random.Random(3)

    def lines() -> int:
        return log.read_bytes().count(b"\n") if log.exists() else 0

    killed = 0
    while not torn.workspace.has_table("features"):
        before, more = lines(), draw.randint(1, 80)
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(torn.workspace.root)], start_new_session=True)
        while lines() < before + more and child.poll() is None:
            time.sleep(0.0005)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            assert lines() > before or not log.exists()
        killed += child.wait() == -signal.SIGKILL
    torn.measure()
    assert killed >= 3
    assert torn.features.equals(whole.features)
    compared = [column for column in torn.manifest.columns if column != "mtime_ns"]
    assert torn.manifest.select(compared).equals(whole.manifest.select(compared))


# -- a data set as a whole


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_sources_stay_as_they_are_and_what_cannot_be_read_is_no_duplicate(
    make: Callable[..., Dataset], tmp_path: Path
) -> None:
    data = make("a", 20)
    for name in ("one", "two"):  # the same bytes that are no picture, and a picture twice
        (tmp_path / "source" / "a" / f"{name}.jpg").write_bytes(b"broken alike")
        scene(77).save(tmp_path / "source" / "a" / f"{name}.png")
    before = contents(tmp_path / "source")
    data.import_images(tmp_path / "source")
    data.measure()
    data.dedupe()
    assert {Path(path).stem for path in data.groups["path"]} == {"one", "two"}
    assert {Path(path).suffix for path in data.groups["path"]} == {".png"}
    bad = data.manifest.filter(pl.col("status") != STATUSES[0])["path"]
    assert len(bad) == 4
    assert set(data.findings.filter(pl.col("path").is_in(bad))["check"]) == {"quality:unreadable"}
    assert len(data.accept("duplicates:exact")) == 1
    assert contents(tmp_path / "source") == before


def test_the_order_in_which_a_folder_is_listed_changes_nothing(
    make: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make("first", 12)
    for name in ("x", "y", "z"):
        scene(3).save(tmp_path / "source" / "b" / f"{name}.jpg", quality=90)
    first.import_images(tmp_path / "source")
    plain = {name: getattr(Path, name) for name in ("iterdir", "glob", "rglob")}
    for name, method in plain.items():
        monkeypatch.setattr(Path, name, lambda self, *a, _m=method, **k: reversed(list(_m(self, *a, **k))))
    listdir, walk = os.listdir, os.walk
    monkeypatch.setattr(os, "listdir", lambda *a: list(reversed(listdir(*a))))
    monkeypatch.setattr(os, "walk", lambda *a, **k: iter([(t, d, f[::-1]) for t, d, f in walk(*a, **k)]))
    second = make("second", 12)
    for data in (first, second):
        data.dedupe()
    for name in ("features", "groups", "findings"):
        one, other = (getattr(data, name) for data in (first, second))
        assert one.height, name
        assert one.sort(one.columns[:2]).equals(other.sort(one.columns[:2])), name


def test_importing_changes_nothing_that_others_rely_on() -> None:
    script = """
import logging, os, sys, warnings
import numpy, polars, scipy.fft, scipy.sparse.csgraph  # they have filters and settings of their own
from PIL import Image, ImageFile

def state():
    loggers = {name: (l.level, list(l.handlers), l.propagate) for name, l in logging.root.manager.loggerDict.items()
               if isinstance(l, logging.Logger) and not name.startswith("curate")}
    root = logging.getLogger()
    return (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters), dict(os.environ),
            root.level, list(root.handlers), logging.root.manager.disable, sys.excepthook, os.getcwd())

before = state()
import curate, curate.cli, curate.dataset, curate.pipeline, curate.images, curate.measure, curate.manifest
import curate.runner.local, curate.checks, curate.neighbours
after = state()
for one, other in zip(before, after):
    assert one == other, (one, other)
"""
    subprocess.run([sys.executable, "-W", "default", "-c", script], check=True, timeout=300)


def test_the_number_of_workers_changes_no_table(make: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []
    for workers in (1, 3):
        monkeypatch.setattr(pipeline, "get_runner", lambda name, n=workers: LocalRunner(workers=n, pool_from=2))
        data = make(f"of {workers}", 140)
        data.dedupe()
        tables.append((data.features, data.groups, data.findings))
    for one, other in zip(*tables, strict=True):
        assert one.equals(other)
