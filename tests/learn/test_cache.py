from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curate.learn.cache import decoded, square


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([8, 32, 33]))
def test_a_picture_fits_into_a_square_whatever_its_shape(width: int, height: int, side: int) -> None:
    found = square(Image.new("RGB", (width, height), (9, 99, 199)), side)
    assert (found.size, found.mode) == ((side, side), "RGB")
    assert found.getextrema() == ((9, 9), (99, 99), (199, 199)), "margins take the colour of the edge"


def test_a_picture_is_neither_squashed_nor_cropped() -> None:
    image = Image.new("RGB", (80, 40), (255, 255, 255))
    image.paste((0, 0, 0), (30, 10, 50, 30))  # a black square of 20 x 20
    image.paste((255, 0, 0), (0, 0, 4, 40))  # and a red edge on the left
    found = np.asarray(square(image, 40)).astype(int)
    black = found.sum(axis=2) < 100
    rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
    assert len(rows) == pytest.approx(len(columns), abs=1)
    assert len(rows) == pytest.approx(10, abs=2)
    assert (found[20, 0] == (255, 0, 0)).all()
    assert (found[2, 20] == (255, 255, 255)).all()


def test_pictures_come_by_their_digest(pictures: Any, runner: Any) -> None:
    seen = []
    pixels = decoded(pictures.workspace, pictures.manifest, 32, runner=runner, progress=lambda *at: seen.append(at))
    assert (pixels.array.shape, pixels.array.dtype) == ((36, 32, 32, 3), np.uint8)
    assert seen[-1] == (36, 36)
    for path, sha in pictures.manifest.select("path", "sha256").sample(5, seed=0).iter_rows():
        with Image.open(pictures.workspace.image(path)) as image:
            assert (pixels.array[pixels.index([sha])[0]] == np.asarray(square(image.convert("RGB"), 32))).all()


def test_what_is_cached_is_not_decoded_again_and_what_is_new_is_added(pictures: Any, runner: Any) -> None:
    workspace, manifest = pictures.workspace, pictures.manifest
    first = decoded(workspace, manifest.head(30), 32, runner=runner)
    before = np.array(first.array)
    for path in manifest.head(30)["path"]:  # were they decoded again, it would fail
        workspace.image(path).unlink()
    again = decoded(workspace, manifest.head(30), 32, runner=runner)
    assert (again.array == before).all()
    fewer = decoded(workspace, manifest.tail(6).head(0).vstack(manifest.slice(3, 4)), 32, runner=runner)
    assert (fewer.array[fewer.index(manifest["sha256"].slice(3, 4).to_list())] == before[3:7]).all()
    more = decoded(workspace, manifest.sample(fraction=1, shuffle=True, seed=1), 32, runner=runner)
    assert more.array.shape[0] == 36
    assert (more.array[more.index(manifest["sha256"].to_list())[:30]] == before).all()
    assert len(list(workspace.cache.glob("pixels-32-*.npy"))) == 1


def test_each_size_has_its_own_cache(pictures: Any, runner: Any) -> None:
    for side in (16, 32, 16):
        assert decoded(pictures.workspace, pictures.manifest.head(3), side, runner=runner).array.shape[1] == side
    assert len(list(pictures.workspace.cache.glob("pixels-*.npy"))) == 2


def test_the_same_bytes_under_two_paths_are_decoded_once(pictures: Any, runner: Any) -> None:
    one = pictures.manifest.head(1)
    twice = pl.concat([one, one.with_columns(path=pl.lit("images/gone.png"))])
    assert decoded(pictures.workspace, twice, 32, runner=runner).array.shape[0] == 1


def test_an_interrupted_run_leaves_the_cache_as_it_was(pictures: Any, runner: Any) -> None:
    workspace, manifest = pictures.workspace, pictures.manifest
    before = np.array(decoded(workspace, manifest.head(5), 32, runner=runner).array)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoded(workspace, manifest, 32, runner=runner, progress=stop)
    assert sorted(p.suffix for p in workspace.cache.iterdir()) == [".npy", ".parquet"]
    assert (decoded(workspace, manifest.head(5), 32, runner=runner).array == before).all()
    assert len(decoded(workspace, manifest, 32, runner=runner).array) == 36


def test_a_cache_whose_pictures_were_thrown_away_is_made_anew(pictures: Any, runner: Any) -> None:
    first = np.array(decoded(pictures.workspace, pictures.manifest, 32, runner=runner).array)
    for file in pictures.workspace.cache.glob("pixels-*.npy"):
        file.unlink()
    assert (decoded(pictures.workspace, pictures.manifest, 32, runner=runner).array == first).all()


def test_no_images_are_no_pictures(pictures: Any, runner: Any) -> None:
    for _ in range(2):
        assert decoded(pictures.workspace, pictures.manifest.clear(), 32, runner=runner).array.shape == (0, 32, 32, 3)
    assert len(decoded(pictures.workspace, pictures.manifest, 32, runner=runner).array) == 36
