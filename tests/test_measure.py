from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageFilter

from curate.figures import SIDE, figures, measure_files
from curate.images import load_with_header
from curate.measure import dhash, measure, pack, phash
from curate.runner.local import LocalRunner
from curate.schema import FEATURES, validate

HERE = LocalRunner(workers=1)


def scene(seed: int, size: tuple[int, int] = (300, 200)) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(int(v) for v in rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, r = (int(v) for v in (rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(5, 60)))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def number(found: imagehash.ImageHash) -> int:
    return int(str(found), 16)


def measured(manifest: pl.DataFrame, root: Path, **options: Any) -> tuple[pl.DataFrame, dict[str, str]]:
    return measure(manifest, root, runner=HERE, **options)


# -- hashes


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_hashes_are_those_of_imagehash(tmp_path: Path, kind: str) -> None:
    sizes = [(300, 200), (2000, 1500), (40, 700), (128, 128), (9, 8), (1, 1), (33, 31)]
    files = []
    for seed, size in enumerate(sizes * 3):
        files.append(tmp_path / f"{seed}.{kind}")
        scene(seed, size).save(files[-1], kind)
    measured = measure_files([(file.name, "sha", str(file)) for file in files])
    assert measured.failures == []
    images = [load_with_header(file, longer=SIDE)[0] for file in files]  # as measured: JPEGs at a smaller scale
    assert phash(measured.for_phash).tolist() == [number(imagehash.phash(image)) for image in images]
    assert dhash(measured.for_dhash).tolist() == [number(imagehash.dhash(image)) for image in images]


@given(hnp.arrays(np.uint8, (3, 32, 32)), hnp.arrays(np.uint8, (3, 8, 9)))
def test_hashes_of_any_greys_are_those_of_imagehash(for_phash: Any, for_dhash: Any) -> None:
    assert phash(for_phash).tolist() == [number(imagehash.phash(Image.fromarray(greys))) for greys in for_phash]
    assert dhash(for_dhash).tolist() == [number(imagehash.dhash(Image.fromarray(greys))) for greys in for_dhash]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5))
def test_packing_puts_the_first_bit_highest(values: list[int]) -> None:
    bits = np.array([[c == "1" for c in f"{value:064b}"] for value in values]).reshape(-1, 8, 8)
    assert pack(bits).tolist() == values
    assert pack(bits).dtype == np.uint64


def test_a_hash_hardly_changes_with_size_and_encoding_and_much_with_content(tmp_path: Path) -> None:
    image = scene(0, (600, 400))
    image.save(tmp_path / "whole.png")
    image.resize((300, 200)).save(tmp_path / "small.jpg", quality=60)
    scene(1, (600, 400)).save(tmp_path / "other.png")
    measured = measure_files([(name, "", str(tmp_path / name)) for name in ("whole.png", "small.jpg", "other.png")])
    whole, small, other = phash(measured.for_phash).tolist()
    assert (whole ^ small).bit_count() <= 4
    assert (whole ^ other).bit_count() >= 16


# -- figures


def test_figures_of_plain_pictures_are_known() -> None:
    for grey in (0, 51, 255):
        found = figures(Image.new("RGB", (128, 80), (grey,) * 3))
        assert found["brightness"] == pytest.approx(grey / 255)
        assert (found["contrast"], found["entropy"], found["sharpness"]) == pytest.approx((0, 0, 0), abs=1e-6)
        assert (found["colourfulness"], found["border"]) == (0.0, 1.0)


def test_figures_of_half_black_half_white() -> None:
    image = Image.new("RGB", (128, 128))
    image.paste((255, 255, 255), (64, 0, 128, 128))
    found = figures(image)
    assert found["brightness"] == pytest.approx(0.5)
    assert found["contrast"] == pytest.approx(0.5)
    assert found["entropy"] == pytest.approx(1.0)


def test_the_border_is_the_area_of_plain_margins() -> None:
    image = Image.new("RGB", (100, 100), (255, 255, 255))
    image.paste(scene(0, (60, 40)), (20, 30))
    assert figures(image)["border"] == pytest.approx(1 - 0.24, abs=0.02)


def test_colours_are_colourful_and_greys_are_not() -> None:
    assert figures(Image.new("RGB", (9, 9), (255, 0, 0)))["colourfulness"] == pytest.approx(1.0)
    assert figures(scene(0).convert("L").convert("RGB"))["colourfulness"] == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_blurring_lowers_sharpness_at_every_size(tmp_path: Path, seed: int) -> None:
    for size in ((300, 200), (1200, 800)):
        image = scene(seed, size)
        image.save(tmp_path / "sharp.png")
        image.filter(ImageFilter.GaussianBlur(size[0] / 40)).save(tmp_path / "blurred.png")
        (sharp, blurred), *_ = measure_files([(n, "", str(tmp_path / n)) for n in ("sharp.png", "blurred.png")])
        assert sharp["sharpness"] > 5 * blurred["sharpness"]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_figures_of_every_small_picture_are_finite(width: int, height: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = figures(Image.fromarray(pixels))
    assert all(math.isfinite(value) for value in found.values())
    for name in ("brightness", "contrast", "colourfulness", "border"):
        assert 0 <= found[name] <= 1
    assert 0 <= found["entropy"] <= 8


# -- the stage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for n in range(7):
        scene(n).save(tmp_path / f"{n}.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:300])
    (tmp_path / "html.jpg").write_bytes(b"<html>")
    return tmp_path


def test_rows_come_in_the_order_of_the_manifest_whatever_the_batches(root: Path, manifest_of: Any) -> None:
    manifest = manifest_of([{"path": f"{n}.png"} for n in (3, 1, 6, 0, 2, 5, 4)])
    tables = [measured(manifest, root, batch=size)[0] for size in (1, 3, 64)]
    assert validate(tables[0], FEATURES)["path"].to_list() == manifest["path"].to_list()
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert tables[0]["width"].unique().to_list() == [300]
    assert tables[0]["aspect"].to_list() == pytest.approx([1.5] * 7)


def test_what_cannot_be_read_is_told_and_stops_nothing(root: Path, manifest_of: Any) -> None:
    paths = ["0.png", "broken.png", "html.jpg", "gone.png", "1.png"]
    rows = [{"path": path} for path in paths] + [{"path": "2.png", "status": "unreadable"}]
    seen = []
    table, failures = measured(
        manifest_of(rows), root, batch=2, progress=lambda done, total: seen.append((done, total))
    )
    assert table["path"].to_list() == ["0.png", "1.png"]
    assert set(failures) == {"broken.png", "html.jpg", "gone.png"}
    assert failures["broken.png"].startswith("truncated: ")
    assert failures["html.jpg"].startswith("html: ")
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_nothing_readable_is_an_empty_table(root: Path, manifest_of: Any) -> None:
    for rows in ([], [{"path": "html.jpg"}], [{"path": "0.png", "status": "missing"}]):
        table, _ = measured(manifest_of(rows), root)
        assert validate(table, FEATURES).height == 0


def test_only_what_is_new_or_changed_is_measured(root: Path, manifest_of: Any) -> None:
    manifest = manifest_of([{"path": f"{n}.png"} for n in range(4)])
    first, _ = measured(manifest, root)
    for n in range(4):  # were any of them opened again, it would be told as a failure
        (root / f"{n}.png").unlink()
    again, failures = measured(manifest, root, previous=first)
    assert failures == {}
    assert again.equals(first)
    scene(99, (50, 50)).save(root / "1.png")
    changed = manifest_of([{"path": "1.png", "sha256": "new"}, {"path": "5.png"}, {"path": "3.png"}])
    second, failures = measured(changed, root, previous=first)
    assert failures == {}
    assert second["path"].to_list() == ["1.png", "5.png", "3.png"]
    assert second["width"].to_list() == [50, 300, 300]
    assert second.filter(pl.col("path") == "3.png").equals(first.filter(pl.col("path") == "3.png"))


def test_every_batch_is_kept_and_a_run_that_was_ended_goes_on_from_there(root: Path, manifest_of: Any) -> None:
    """A crash loses at most the last batch, of what was measured and of what could not be read alike."""
    manifest = manifest_of([{"path": f} for f in ("0.png", "broken.png", "1.png", "gone.png", "2.png", "3.png")])
    whole = measured(manifest, root)
    log = root / "log.jsonl"

    def crash(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(manifest, root, log=log, progress=crash, batch=1)
    with log.open("ab") as stream:
        stream.write(b'{"path": "2.png", "sha')  # a crash while it was written
    for name in ("0.png", "broken.png", "1.png"):  # were they opened again, they would be told as gone
        (root / name).unlink()
    done = []
    table, failures = measured(manifest, root, log=log, progress=lambda *told: done.append(told), batch=1)
    assert done == [(1, 3), (2, 3), (3, 3)]  # that a file is gone may be otherwise now, so it is tried again
    assert table.equals(whole[0])
    assert failures == whole[1]
    assert measured(manifest_of([{"path": "0.png", "sha256": "other bytes"}]), root, log=log)[0].height == 0


def test_several_workers_measure_what_one_does(root: Path, manifest_of: Any) -> None:
    manifest = manifest_of([{"path": name} for name in sorted(p.name for p in root.iterdir() if p.is_file())])
    one = measure(manifest, root, runner=LocalRunner(workers=1), batch=1)
    several = measure(manifest, root, runner=LocalRunner(workers=3, pool_from=2), batch=2)
    assert one[0].height == 7
    assert several[0].equals(one[0])
    assert several[1] == one[1]


def test_plain_pictures_that_lie_differently_are_not_the_same(tmp_path: Path, manifest_of: Any) -> None:
    from curate.neighbours import candidates, group_table
    from curate.workspace import file_digest

    Image.new("RGB", (200, 100), (9, 99, 9)).save(tmp_path / "wide.png")
    Image.new("RGB", (100, 200), (9, 99, 9)).save(tmp_path / "high.png")
    Image.new("RGB", (200, 100), (9, 99, 9)).save(tmp_path / "wide too.png", compress_level=0)
    manifest = manifest_of([
        {"path": name, "sha256": file_digest(tmp_path / name)} for name in ("wide.png", "high.png", "wide too.png")
    ])  # fmt: skip
    assert manifest["sha256"].n_unique() == 3
    table, _ = measured(manifest, tmp_path)
    found = group_table(manifest, table, candidates(table, tmp_path, 10), min_similarity=0.9)
    assert sorted(found["path"].to_list()) == ["wide too.png", "wide.png"]
    assert found["kind"].to_list() == ["exact", "exact"]  # the same pixels, packed otherwise
