from __future__ import annotations

from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from curate.errors import InputError
from curate.measure import measure
from curate.neighbours import Candidate, candidates, group_table, groups, near_pairs, pair_table, touching
from curate.neighbours.looks import Looks, read_looks, read_pixels
from curate.runner.local import LocalRunner
from curate.schema import GROUPS, PAIRS, validate
from curate.workspace import file_digest

Triples = list[tuple[int, int, int]]


def brute(hashes: NDArray[np.uint64], limit: int) -> Triples:
    found = []
    for i in range(len(hashes) - 1):
        distance = np.bitwise_count(hashes[i + 1 :] ^ hashes[i])
        found += [(i, i + 1 + int(j), int(distance[j])) for j in np.flatnonzero(distance <= limit)]
    return found


def triples(hashes: NDArray[np.uint64], limit: int) -> Triples:
    i, j, distance = near_pairs(hashes, limit)
    assert (i.dtype, j.dtype, distance.dtype) == (np.int64, np.int64, np.int16)
    return list(zip(i.tolist(), j.tolist(), distance.tolist(), strict=True))


def planted(rng: np.random.Generator, n: int, limit: int) -> NDArray[np.uint64]:
    """Random hashes, a third of them within 0 to `limit` + 2 bits of another; distinct, in random order."""
    base = rng.integers(0, 2**64, n, dtype=np.uint64)
    for place in range(0, n - 1, 3):
        bits = rng.choice(64, size=rng.integers(1, limit + 3), replace=False)
        base[place + 1] = base[place] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64))
    found = np.unique(base)
    rng.shuffle(found)
    return found


# -- near pairs


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=30), st.integers(0, 16))
def test_few_hashes_are_paired_as_by_brute_force(values: list[int], limit: int) -> None:
    hashes = np.array(values, dtype=np.uint64)
    wanted = brute(hashes, limit) if limit else []
    assert triples(hashes, limit) == wanted


@given(st.integers(0, 2**32), st.integers(1, 16), st.integers(2, 60))
def test_planted_near_hashes_are_found_as_by_brute_force(seed: int, limit: int, n: int) -> None:
    hashes = planted(np.random.default_rng(seed), n, limit)
    assert triples(hashes, limit) == brute(hashes, limit)


@pytest.mark.parametrize("limit", range(17))
def test_many_hashes_are_paired_as_by_brute_force(limit: int) -> None:
    hashes = planted(np.random.default_rng(limit), 4300, limit)
    assert len(hashes) > 4096, "too few for the banded search"
    wanted = brute(hashes, limit)
    assert limit == 0 or len(wanted) > 400
    assert triples(hashes, limit) == (wanted if limit else [])


@settings(max_examples=6)
@given(st.integers(0, 2**32), st.integers(1, 16), st.integers(4097, 4600), st.integers(1, 40))
def test_crowded_hashes_are_paired_as_by_brute_force(seed: int, limit: int, n: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    # Only some bits differ at all, as with the hashes of blank pages: buckets get long.
    free = np.bitwise_or.reduce(np.uint64(1) << rng.choice(64, size=max(bits, 16), replace=False).astype(np.uint64))
    hashes = np.unique(rng.integers(0, 2**64, n, dtype=np.uint64) & free)
    extra = rng.integers(0, 2**64, max(0, 4100 - len(hashes)), dtype=np.uint64)
    hashes = np.unique(np.concatenate([hashes, extra]))
    rng.shuffle(hashes)
    i, j, distance = near_pairs(hashes, limit)
    n_near = sum(int((np.bitwise_count(hashes[k + 1 :] ^ hashes[k]) <= limit).sum()) for k in range(len(hashes) - 1))
    assert len(i) == n_near
    assert (i < j).all()
    keys = i * len(hashes) + j
    assert (np.diff(keys) > 0).all(), "sorted, each pair once"
    assert (distance == np.bitwise_count(hashes[i] ^ hashes[j])).all()
    assert distance.max(initial=0) <= limit


@pytest.mark.parametrize(("n", "limit"), [(70_000, 1), (80_000, 2)])
def test_hashes_that_differ_in_few_bits_alone_are_paired_however_many(n: int, limit: int) -> None:
    """All of them share most bands: one bucket holds more than is compared at a time."""
    values = np.arange(n, dtype=np.uint64)
    ones = [np.uint64(1) << np.uint64(k) for k in range(17)]
    masks = ones + [a | b for a, b in combinations(ones, 2)] * (limit == 2)
    wanted = sum(int((((values ^ mask) < n) & ((values ^ mask) > values)).sum()) for mask in masks)
    i, j, distance = near_pairs(values, limit)
    assert len(i) == wanted
    assert (np.bitwise_count(values[i] ^ values[j]) == distance).all()
    assert distance.max() == limit


@pytest.mark.parametrize("limit", [-1, 17, 64])
def test_a_distance_out_of_range_is_refused(limit: int) -> None:
    with pytest.raises(InputError, match=f"max_distance must be 0 to 16 bits, not {limit}"):
        near_pairs(np.array([1, 2], dtype=np.uint64), limit)


def test_repeated_hashes_are_refused() -> None:
    with pytest.raises(InputError, match="distinct hashes"):
        near_pairs(np.array([1, 2, 1], dtype=np.uint64), 3)


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=15))
def test_groups_are_what_hangs_together_numbered_by_first_member(n: int, edges: list[tuple[int, int]]) -> None:
    edges = [(a % n, b % n) for a, b in edges]
    found = groups((np.array([a for a, _ in edges]), np.array([b for _, b in edges])), n)
    label = list(range(n))
    for _ in range(n):
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
    numbers = {root: place for place, root in enumerate(dict.fromkeys(label))}
    assert found.tolist() == [numbers[root] for root in label]


# -- comparing pictures


def looks_of(*pictures: Image.Image, root: Path) -> Looks:
    jobs = []
    for n, picture in enumerate(pictures):
        picture.save(root / f"look {n}.png")
        jobs.append((f"{n}", str(root / f"look {n}.png")))
    return Looks(**read_looks(jobs))


def similar(looks: Looks, *pairs: tuple[int, int]) -> list[float]:
    first, second = np.array(pairs, dtype=np.int64).T
    return [round(float(s), 3) for s in looks.similarity(first, second)]


def test_the_similarity_of_greys_is_their_correlation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 64, 64), dtype=np.uint8)
    mixed = (0.7 * a + 0.3 * b).astype(np.uint8)
    looks = looks_of(*(Image.fromarray(x) for x in (a, mixed, 255 - a, a // 2 + 60)), root=tmp_path)
    wanted = np.corrcoef(a.ravel(), mixed.ravel())[0, 1]
    assert similar(looks, (0, 1), (0, 2), (0, 3)) == [pytest.approx(wanted, abs=1e-3), -1, pytest.approx(1, abs=1e-3)]


def test_plain_pictures_are_alike_where_their_brightness_is(tmp_path: Path) -> None:
    def plain(grey: int) -> Image.Image:
        return Image.new("L", (64, 64), grey)

    looks = looks_of(plain(100), plain(103), plain(0), plain(255), scene(0), root=tmp_path)
    assert similar(looks, (0, 1), (2, 3), (0, 4)) == [1, 0, 0]


def flag(*colours: str) -> Image.Image:
    image = Image.new("RGB", (90, 60))
    for n, colour in enumerate(colours):
        image.paste(colour, (30 * n, 0, 30 * n + 30, 60))
    return image


def test_pictures_that_differ_in_colour_alone_are_different_and_grey_ones_are_not(tmp_path: Path) -> None:
    france, italy, ireland = (
        flag("#0055a4", "white", "#ef4135"), flag("#009246", "white", "#ce2b37"), flag("#169b62", "white", "#ff883e"),
    )  # fmt: skip
    red, blue = Image.new("RGB", (60, 60), "#c03030"), Image.new("RGB", (60, 60), "#3050ff")
    looks = looks_of(france, italy, ireland, france.convert("L"), red, blue, scene(0), root=tmp_path)
    assert max(similar(looks, (0, 1), (0, 2), (4, 5))) < 0.9
    assert similar(looks, (0, 3))[0] > 0.99
    recoded = tmp_path / "scene.jpg"
    ImageEnhance.Color(scene(0)).enhance(0.8).save(recoded, quality=40)
    again = looks_of(scene(0), Image.open(recoded), root=tmp_path)
    assert similar(again, (0, 1))[0] > 0.95


def scene(seed: int, size: tuple[int, int] = (240, 160)) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (240, 160), tuple(int(v) for v in rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, r = (int(v) for v in (rng.integers(0, 240), rng.integers(0, 160), rng.integers(5, 50)))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image.resize(size)


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    scene(0).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"<html>")
    jobs = [(name, str(tmp_path / name)) for name in ("broken.png", "a.png", "gone.png")]
    for read in (read_looks, read_pixels):
        assert read(jobs)["digest"].tolist() == ["a.png"]
        assert read([])["digest"].tolist() == []


def test_what_was_read_is_kept_by_its_bytes_and_a_broken_file_of_the_cache_is_made_anew(tmp_path: Path) -> None:
    for n in range(3):
        scene(n).save(tmp_path / f"{n}.png")
    jobs = [(f"{n}", str(tmp_path / f"{n}.png")) for n in range(3)]
    told: list[tuple[int, int]] = []

    def read(some: list[tuple[str, str]]) -> Looks:
        told.clear()
        one = LocalRunner(workers=1)
        return Looks.read(some, runner=one, cache=tmp_path / "cache", progress=lambda *step: told.append(step))

    read(jobs[:2])
    assert told == [(2, 2)]
    (tmp_path / "0.png").unlink()
    looks = read(list(reversed(jobs)))
    assert told == [(1, 1)]
    assert looks.digest.tolist() == ["2", "1", "0"]
    assert np.array_equal(looks.grey[:2], Looks(**read_looks(jobs[1:])).grey[::-1])
    for file in (tmp_path / "cache").rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    assert read(jobs).digest.tolist() == ["1", "2"]


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "TIFF"), ("P", "PNG"), ("RGBA", "PNG"), ("CMYK", "TIFF"), ("1", "BMP")]
)
def test_pixels_are_compared_as_they_are_seen(tmp_path: Path, mode: str, kind: str) -> None:
    image = scene(1, (40, 30)).convert(mode)
    image.save(tmp_path / "a", "PNG" if mode != "CMYK" else "TIFF")
    image.save(tmp_path / "b", kind)
    changed = image.copy()
    changed.putpixel((7, 7), 0 if mode in {"1", "L", "P"} else (1,) * len(mode))
    changed.save(tmp_path / "c", kind)
    a, b, c = read_pixels([(name, str(tmp_path / name)) for name in "abc"])["pixels"].tolist()
    assert a == b
    assert (a == c) == (changed.tobytes() == image.tobytes())


def gather(root: Path, manifest_of: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    paths = sorted(file.name for file in root.iterdir() if file.is_file())
    manifest = manifest_of([{"path": path, "sha256": file_digest(root / path)} for path in paths])
    features, _ = measure(manifest, root, runner=LocalRunner(workers=1))
    return manifest, features


def grouped(root: Path, manifest_of: Any, **options: Any) -> dict[str, set[str]]:
    """Representative to the members of its group."""
    manifest, features = gather(root, manifest_of)
    found = group_table(manifest, features, candidates(features, root, 10), min_similarity=0.9, **options)
    return {name: set(part["path"]) for (name,), part in found.group_by("representative")}


def test_planted_duplicates_are_found_and_nothing_else(tmp_path: Path, manifest_of: Any) -> None:
    wanted = {}
    for seed in range(12):
        scene(seed).save(tmp_path / f"{seed}.png")
        copies = {f"{seed}.png"}
        if seed % 2:
            scene(seed, (120, 80)).save(tmp_path / f"{seed} small.jpg", quality=70)
            copies.add(f"{seed} small.jpg")
        if seed % 3 == 0:
            (tmp_path / f"{seed} again.png").write_bytes((tmp_path / f"{seed}.png").read_bytes())
            copies.add(f"{seed} again.png")
        if len(copies) > 1:
            wanted[frozenset(copies)] = True
    assert set(map(frozenset, grouped(tmp_path, manifest_of).values())) == set(wanted)


@pytest.mark.parametrize("count", [3, 40])
def test_copies_with_one_hash_become_one_group_whichever_is_the_largest(
    tmp_path: Path, manifest_of: Any, count: int
) -> None:
    """Only comparing each with the first would leave most of them without a group."""
    for n in range(count):
        image = scene(0, (242, 161) if n == count // 2 else (240, 160))
        image.putpixel((0, 0), (n, n, n))
        image.save(tmp_path / f"{n:02}.png")
    Image.new("RGB", (10, 90)).save(tmp_path / "other.png")
    assert gather(tmp_path, manifest_of)[1]["phash"].n_unique() <= 3
    assert grouped(tmp_path, manifest_of) == {f"{count // 2:02}.png": {f"{n:02}.png" for n in range(count)}}


def test_a_picture_squeezed_into_another_shape_is_no_candidate(tmp_path: Path, manifest_of: Any) -> None:
    scene(0).save(tmp_path / "a.png")
    scene(0, (160, 160)).save(tmp_path / "squeezed.png")
    _, features = gather(tmp_path, manifest_of)
    assert features["phash"].n_unique() == 1
    assert candidates(features, tmp_path, 10) == []


def test_candidates_do_not_depend_on_the_order_of_rows(tmp_path: Path, manifest_of: Any) -> None:
    for n in range(4):
        scene(0, (240 + n, 160)).save(tmp_path / f"{n}.png")
        scene(1, (240 + n, 160)).save(tmp_path / f"x{n}.jpg")
    _, features = gather(tmp_path, manifest_of)
    first = candidates(features, tmp_path, 10)
    assert len(first) == 12
    assert all(c.first < c.second for c in first)
    for seed in range(3):
        assert candidates(features.sample(fraction=1, shuffle=True, seed=seed), tmp_path, 10) == first
    assert candidates(features.clear(), tmp_path, 10) == []


# -- groups of duplicates

LETTERS = "abcdef"


def table(manifest: pl.DataFrame, features: pl.DataFrame, edges: Any, **options: Any) -> pl.DataFrame:
    found = [Candidate(first=min(a, b), second=max(a, b), distance=3, similarity=s) for a, b, s in edges]
    return group_table(manifest, features, found, min_similarity=0.9, **options)


def sets(found: pl.DataFrame) -> set[frozenset[str]]:
    return {frozenset(part["path"]) for _, part in found.group_by("group")}


@pytest.mark.parametrize("order", list(permutations("abc")))
@pytest.mark.parametrize(("best", "wanted"), [("b", {"abc"}), ("a", {"ab"}), ("c", {"bc"})])
def test_a_chain_is_cut_by_the_keeper_and_not_by_the_order(
    order: tuple[str, ...], best: str, wanted: set[str], manifest_of: Any, features_of: Any
) -> None:
    manifest = manifest_of([{"path": p, "obtained": LETTERS.index(p)} for p in order])
    features = features_of([{"path": p, "width": 200 if p == best else 100} for p in order])
    edges = [("a", "b", 0.95), ("b", "c", 0.95)]
    for some in (edges, edges[::-1]):
        found = table(manifest, features, some)
        assert sets(found) == {frozenset(part) for part in wanted}
        assert found["representative"].unique().to_list() == [best]


def test_the_keeper_rules_apply_in_their_order(manifest_of: Any, features_of: Any) -> None:
    manifest = manifest_of([{"path": p, "obtained": n} for p, n in (("d", 0), ("a", 1), ("b", 2), ("c", 2))])
    features = features_of([
        {"path": "a", "width": 10, "height": 90, "sharpness": 0.1}, {"path": "b", "width": 90, "height": 10},
        {"path": "c", "width": 30, "height": 30}, {"path": "d", "width": 20, "height": 20, "sharpness": 0.5},
    ])  # fmt: skip
    edges = [(a, b, 0.95) for a, b in combinations("abcd", 2)]
    for keeper, wanted in (
        (("largest", "sharpest", "first"), "a"), (("sharpest",), "d"), (("first",), "d"), (("largest", "first"), "a"),
    ):  # fmt: skip
        found = table(manifest, features, edges, keeper=keeper)
        assert found["representative"].unique().to_list() == [wanted], keeper
    without = [(a, b, s) for a, b, s in edges if "a" not in (a, b) and "d" not in (a, b)]
    assert table(manifest, features, without)["representative"].unique().to_list() == ["b"], "ties go by path"


def test_pairs_that_a_person_told_apart_do_not_group(manifest_of: Any, features_of: Any) -> None:
    manifest = manifest_of([{"path": p, "sha256": "same" if p in "de" else p} for p in "abcde"])
    features = features_of([{"path": p} for p in "abcde"])
    edges = [("a", "b", 0.95), ("a", "c", 0.95)]
    assert sets(table(manifest, features, edges)) == {frozenset("abc"), frozenset("de")}
    apart = table(manifest, features, edges, distinct=[("b", "a"), ("d", "e")])
    assert sets(apart) == {frozenset("ac"), frozenset("de")}, "the same bytes are duplicates, whatever was said"


def test_what_was_told_apart_shares_no_group_through_a_third_nor_loses_its_copies(
    manifest_of: Any, features_of: Any
) -> None:
    manifest = manifest_of([{"path": p, "sha256": "same" if p in "ad" else p} for p in "abcd"])
    features = features_of([{"path": p, "width": 900 if p == "c" else 100} for p in "abcd"])
    edges = [("a", "c", 0.95), ("b", "c", 0.95)]
    assert sets(table(manifest, features, edges)) == {frozenset("abcd")}
    assert sets(table(manifest, features, edges, distinct=[("b", "d")])) == {frozenset("acd")}
    assert sets(table(manifest, features, [("a", "b", 0.95)], distinct=[("a", "b")])) == {frozenset("ad")}


def test_a_small_crop_does_not_stay_in_place_of_the_whole_picture(manifest_of: Any, features_of: Any) -> None:
    manifest, features = manifest_of([{"path": p} for p in "abcd"]), features_of([
        {"path": p, "width": 4000 if p == "a" else 300} for p in "abcd"
    ])  # fmt: skip
    found = [
        Candidate(first=a, second=b, distance=20, similarity=0.8, aligned=True)
        for a, b in (("a", "b"), ("a", "c"), ("b", "c"), ("b", "d"))
    ]
    groups_of = group_table(manifest, features, found, min_similarity=0.9)
    assert groups_of.select("path", "representative").rows() == [(p, "a") for p in "abcd"]


def test_pairs_tell_what_cut_groups_do_not(manifest_of: Any, features_of: Any) -> None:
    manifest = manifest_of([{"path": p} for p in "abc"])
    found = [Candidate(first=a, second=b, distance=3, similarity=0.95) for a, b in ("ab", "bc")]
    features = features_of([{"path": p, "width": 300 if p == "a" else 100} for p in "abc"])
    assert sets(group_table(manifest, features, found, min_similarity=0.9)) == {frozenset("ab")}
    pairs = pair_table(manifest, found, min_similarity=0.9)
    validate(pairs, PAIRS)
    direct, connected = touching(manifest, pairs)
    assert direct == {"a": ["b"], "b": ["a", "c"], "c": ["b"]}
    assert len(set(connected.values())) == 1
    fewer = pair_table(manifest, found, min_similarity=0.9, distinct=[("c", "b")])
    assert fewer.select("first", "second").rows() == [("a", "b")]
    assert touching(manifest, fewer)[0].keys() == {"a", "b"}


def test_what_is_not_alike_enough_or_could_not_be_compared_does_not_group(manifest_of: Any, features_of: Any) -> None:
    manifest, features = manifest_of([{"path": p} for p in "abcd"]), features_of([{"path": p} for p in "abcd"])
    edges = [("a", "b", 0.8999), ("b", "c", float("nan")), ("c", "d", 0.9)]
    assert sets(table(manifest, features, edges)) == {frozenset("cd")}


def test_unreadable_images_never_group(manifest_of: Any, features_of: Any) -> None:
    rows = [
        {"path": p, "sha256": "same", "status": status}
        for p, status in zip("abcd", ["ok", "unreadable", "missing", "ok"], strict=True)
    ]
    found = table(manifest_of(rows), features_of([{"path": p, "sha256": "same"} for p in "abcd"]), [("a", "b", 1.0)])
    assert found["path"].to_list() == ["a", "d"]
    assert validate(table(manifest_of([]), features_of([]), []), GROUPS).height == 0


def test_a_candidate_speaks_for_all_rows_with_its_bytes(manifest_of: Any, features_of: Any) -> None:
    shas = {"a": "1", "b": "1", "c": "2", "d": "2", "e": "3"}
    manifest = manifest_of([{"path": p, "sha256": sha} for p, sha in shas.items()])
    features = features_of([{"path": p, "sha256": sha, "width": 999 if p == "d" else 9} for p, sha in shas.items()])
    found = table(manifest, features, [("a", "c", 0.95)])
    assert found.select("path", "kind", "representative", "distance").rows() == [
        ("d", "near", "d", 0), ("c", "exact", "d", 0), ("a", "near", "d", 3), ("b", "near", "d", 3),
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from(LETTERS), st.sampled_from(LETTERS), st.sampled_from([0.5, 0.9, 1.0])), max_size=12
    ),
    st.lists(st.sampled_from("123456"), min_size=6, max_size=6),
    st.lists(st.integers(1, 3), min_size=6, max_size=6),
    st.lists(st.tuples(st.sampled_from(LETTERS), st.sampled_from(LETTERS)), max_size=3),
    st.integers(0, 2**32),
)
def test_groups_hold_together_and_do_not_depend_on_order(
    manifest_of: Any, features_of: Any, edges: list[tuple[str, str, float]], shas: list[str], widths: list[int],
    distinct: list[tuple[str, str]], seed: int,
) -> None:  # fmt: skip
    one_each = {frozenset((a, b)): (a, b, s) for a, b, s in edges}  # as from `candidates`: a pair has one similarity
    sha = dict(zip(LETTERS, shas, strict=True))
    by_bytes = {frozenset((sha[a], sha[b])): (a, b, s) for a, b, s in one_each.values()}
    edges = list(by_bytes.values())
    manifest = manifest_of([{"path": p, "sha256": sha[p]} for p in LETTERS])
    features = features_of([{"path": p, "sha256": sha[p], "width": w} for p, w in zip(LETTERS, widths, strict=True)])
    found = table(manifest, features, edges, distinct=distinct)
    validate(found, GROUPS)
    rng = np.random.default_rng(seed)
    for _ in range(2):
        mixed = [edges[n] for n in rng.permutation(len(edges))]
        again = table(
            manifest.sample(fraction=1, shuffle=True, seed=seed),
            features.sample(fraction=1, shuffle=True, seed=seed + 1),
            mixed,
            distinct=[(b, a) for a, b in distinct],
        )
        assert again.equals(found)
    near = {frozenset((sha[a], sha[b])) for a, b, s in edges if s >= 0.9}
    apart = {frozenset((sha[a], sha[b])) for a, b in distinct if sha[a] != sha[b]}
    width = {s: max(w for p, w in zip(LETTERS, widths, strict=True) if sha[p] == s) for s in shas}
    for (_,), part in found.group_by("group"):
        assert part.height > 1
        best = part["representative"].unique().to_list()
        assert best == [part["path"][0]]
        for path, kind in part.select("path", "kind").iter_rows():
            assert width[sha[path]] <= width[sha[best[0]]]
            if path != best[0]:
                assert kind == ("exact" if sha[path] == sha[best[0]] else "near")
                assert kind == "exact" or frozenset((sha[path], sha[best[0]])) in near
        assert not any(frozenset((sha[a], sha[b])) in apart for a, b in combinations(part["path"].to_list(), 2))
    grouped_paths = set(found["path"])
    alone = [p for p in LETTERS if p not in grouped_paths]
    for a, b in combinations(alone, 2):
        assert sha[a] != sha[b]
        linked = frozenset((sha[a], sha[b])) in near
        assert not linked or frozenset((sha[a], sha[b])) in apart, "two that belong together are both without a group"
