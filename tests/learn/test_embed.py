from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from curate.learn.backbones import Backbone, load_backbone
from curate.learn.cache import Pixels, decoded
from curate.learn.embed import embed, features
from curate.schema import EMBEDDINGS, validate


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("efficientnet_lite0")


def vectors(table: pl.DataFrame) -> Any:
    return table["vector"].to_numpy()


def test_each_image_has_a_vector_in_the_order_of_the_images(pictures: Any, runner: Any, backbone: Backbone) -> None:
    pixels = decoded(pictures.workspace, pictures.manifest, 32, runner=runner)
    seen = []
    images = pictures.manifest.sample(fraction=1, shuffle=True, seed=0)
    table = embed(images, pixels, backbone, tag="lite@32", progress=lambda *at: seen.append(at))
    assert validate(table, EMBEDDINGS)["path"].to_list() == images["path"].to_list()
    assert table.schema["vector"] == pl.Array(pl.Float32, 1280)
    assert table["backbone"].unique().to_list() == ["lite@32"]
    assert seen == [(36, 36)]
    found = vectors(table)
    alone = np.concatenate(list(features(backbone, pixels.array[pixels.index(images["sha256"].to_list())], batch=7)))
    assert found == pytest.approx(alone, abs=1e-4)
    assert np.abs(found).max() > 0.01


def test_pictures_of_one_class_lie_nearer_than_others(pictures: Any, runner: Any, backbone: Backbone) -> None:
    pixels = decoded(pictures.workspace, pictures.manifest, 48, runner=runner)
    x = vectors(embed(pictures.manifest, pixels, backbone, tag="t"))
    x = x - x.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    similar = x @ x.T - 2 * np.eye(36)
    labels = np.array(pictures.manifest["label"].to_list())
    assert (labels[similar.argmax(axis=1)] == labels).mean() > 0.8


def test_what_is_known_is_taken_over_by_bytes_and_tag(pictures: Any, runner: Any, backbone: Backbone) -> None:
    pixels = decoded(pictures.workspace, pictures.manifest, 32, runner=runner)
    first = embed(pictures.manifest.head(6), pixels, backbone, tag="t")
    black = Pixels(np.zeros_like(pixels.array), pixels.rows)  # what is embedded anew is told from what is taken over
    moved = pictures.manifest.head(8).with_columns(path="other/" + pl.col("path"))
    again = embed(moved, black, backbone, tag="t", previous=first)
    assert again["path"].to_list() == moved["path"].to_list()
    assert (vectors(again)[:6] == vectors(first)).all()
    assert vectors(again)[6] == pytest.approx(vectors(again)[7], abs=1e-5)
    other = embed(moved, black, backbone, tag="another", previous=first)
    assert other["backbone"].unique().to_list() == ["another"]
    assert not np.allclose(vectors(other)[0], vectors(first)[0], atol=1e-3)


def test_the_same_bytes_are_embedded_once_and_told_twice(pictures: Any, runner: Any, backbone: Backbone) -> None:
    pixels = decoded(pictures.workspace, pictures.manifest.head(2), 32, runner=runner)
    twice = pl.concat([pictures.manifest.head(2), pictures.manifest.head(2).with_columns(path="b/" + pl.col("path"))])
    seen = []
    table = embed(twice, pixels, backbone, tag="t", progress=lambda *at: seen.append(at))
    assert seen == [(2, 2)]
    assert (vectors(table)[:2] == vectors(table)[2:]).all()


def test_no_images_are_an_empty_table(pictures: Any, backbone: Backbone) -> None:
    nothing = Pixels(np.empty((0, 32, 32, 3), np.uint8), {})
    assert validate(embed(pictures.manifest.clear(), nothing, backbone, tag="t"), EMBEDDINGS).height == 0


def test_a_mirror_image_has_the_same_vector_where_both_count(pictures: Any, runner: Any, backbone: Backbone) -> None:
    pixels = decoded(pictures.workspace, pictures.manifest, 32, runner=runner)
    turned = Pixels(np.ascontiguousarray(pixels.array[:, :, ::-1]), pixels.rows)
    one, other = (embed(pictures.manifest, seen, backbone, tag="t", mirror=True) for seen in (pixels, turned))
    assert vectors(one) == pytest.approx(vectors(other), abs=1e-4)
    alone = vectors(embed(pictures.manifest, pixels, backbone, tag="t"))
    assert np.abs(vectors(one) - alone).max() > 1e-3
