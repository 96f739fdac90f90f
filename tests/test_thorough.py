from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw, ImageOps

from curate.measure import measure
from curate.neighbours import candidates, group_table, near_pairs
from curate.neighbours.alignment import similarity, turned
from curate.neighbours.thorough import by_vectors, by_windows, thorough_candidates
from curate.neighbours.views import views
from curate.runner.local import LocalRunner
from curate.workspace import file_digest

HERE = LocalRunner(workers=1)


def scene(seed: int, size: tuple[int, int] = (240, 160)) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(int(v) for v in rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(40):
        x, y, r = (int(v) for v in (rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(5, 40)))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def captioned(image: Image.Image) -> Image.Image:
    out = image.copy()
    ImageDraw.Draw(out).rectangle((0, image.height * 7 // 8, image.width, image.height), fill="black")
    return out


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "crop": lambda i: i.crop((15, 10, 225, 150)),
    "wide crop": lambda i: i.crop((29, 19, 211, 141)),
    "mirror": ImageOps.mirror,
    "flip": ImageOps.flip,
    "left turn": lambda i: i.transpose(Image.Transpose.ROTATE_90),
    "right turn": lambda i: i.transpose(Image.Transpose.ROTATE_270),
    "half turn": lambda i: i.transpose(Image.Transpose.ROTATE_180),
    "frame": lambda i: ImageOps.expand(i, 14, "white"),
    "caption": captioned,
    "grey": lambda i: i.convert("L"),
}


def grouped(root: Path, manifest_of: Any, **options: Any) -> pl.DataFrame:
    names = sorted(p.name for p in root.iterdir() if p.is_file())  # the fixtures keep a home folder there
    manifest = manifest_of([{"path": name, "sha256": file_digest(root / name)} for name in names])
    features, _ = measure(manifest, root, runner=HERE)
    found = thorough_candidates(features, root, candidates(features, root, 10), runner=HERE, **options)
    return group_table(manifest, features, found, min_similarity=0.9)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_pictures_are_found_and_others_are_not(tmp_path: Path, manifest_of: Any, change: str) -> None:
    for seed in range(6):
        scene(seed).save(tmp_path / f"{seed} a.png")
        CHANGES[change](scene(seed)).save(tmp_path / f"{seed} b.jpg", quality=85)
    table = grouped(tmp_path, manifest_of)
    groups = {frozenset(part["path"].to_list()) for _, part in table.group_by("group")}
    assert groups == {frozenset({f"{seed} a.png", f"{seed} b.jpg"}) for seed in range(6)}


def test_all_changes_of_a_picture_are_one_group_even_where_the_frame_is_the_largest(
    tmp_path: Path, manifest_of: Any
) -> None:
    for seed in range(3):
        scene(seed).save(tmp_path / f"{seed} a.png")
        for change, make in CHANGES.items():
            make(scene(seed)).save(tmp_path / f"{seed} {change}.jpg", quality=85)
    table = grouped(tmp_path, manifest_of)
    assert sorted(part["path"].str.slice(0, 1).unique().to_list() for _, part in table.group_by("group")) == [
        ["0"], ["1"], ["2"],
    ]  # fmt: skip
    assert table.height == 3 * (1 + len(CHANGES))


def test_a_picture_squeezed_into_another_shape_is_another(tmp_path: Path, manifest_of: Any) -> None:
    scene(1).save(tmp_path / "a.png")
    scene(1).resize((160, 160)).save(tmp_path / "b.png")
    assert grouped(tmp_path, manifest_of).height == 0


def test_pictures_in_like_frames_are_not_alike(tmp_path: Path, manifest_of: Any) -> None:
    for seed in range(8):
        ImageOps.expand(scene(seed), 20, "white").save(tmp_path / f"{seed}.png")
    assert grouped(tmp_path, manifest_of).height == 0


def test_what_cannot_be_read_takes_no_part(tmp_path: Path) -> None:
    scene(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    seen = views([("b", str(tmp_path / "b.png")), ("a", str(tmp_path / "a.png")), ("gone", str(tmp_path / "gone.png"))])
    assert seen["digest"].tolist() == ["a"]
    assert len(views([])["digest"]) == 0


def test_nothing_to_compare_is_no_pair() -> None:
    empty = views([])
    assert by_windows(empty["hashes"]).shape == (0, 2)
    assert by_vectors(np.zeros((1, 5))).shape == (0, 2)
    assert by_vectors(np.zeros((0, 5))).shape == (0, 2)


def test_embeddings_propose_their_nearest_others() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 300))
    x[7] = x[3] + 0.1 * rng.standard_normal(300)
    assert [3, 7] in by_vectors(x).tolist()


@pytest.mark.parametrize("how", range(8))
def test_every_orientation_is_recognised(how: int) -> None:
    picture = np.asarray(scene(3, (64, 64)).convert("L"))[None]
    score, found = similarity(picture, turned(picture, how), np.ones(1), np.ones(1))
    assert score[0] > 0.95
    assert np.array_equal(turned(turned(picture, how), int(found[0])), picture)


@pytest.mark.parametrize("limit", [3, 6])
def test_skewed_hashes_are_paired_as_by_brute_force_with_any_number_of_workers(limit: int) -> None:
    rng = np.random.default_rng(limit)
    one = np.uint64(1) << np.arange(64, dtype=np.uint64)
    centre = rng.integers(0, 2**64, dtype=np.uint64)
    cluster = centre ^ one[rng.integers(0, 64, 3000)] ^ one[rng.integers(0, 64, 3000)]
    low = rng.integers(0, 2**14, 3000, dtype=np.uint64)  # all alike in the other bits
    hashes = np.unique(np.concatenate([one, cluster, low, rng.integers(0, 2**64, 2000, dtype=np.uint64)]))
    rng.shuffle(hashes)
    near = np.triu(np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= limit, 1)
    for workers in (1, 3):
        i, j, distance = near_pairs(hashes, limit, workers=workers)
        assert np.array_equal(np.stack([i, j]), np.stack(np.nonzero(near)))
        assert np.array_equal(distance, np.bitwise_count(hashes[i] ^ hashes[j]))
