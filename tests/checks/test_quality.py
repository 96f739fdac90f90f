from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from curate.checks import Tables
from curate.checks.quality import check
from curate.config import ChecksSpec
from curate.measure import measure
from curate.runner.local import LocalRunner

FAULTS = (
    "dark", "bright", "low_contrast", "low_information", "blurry", "tiny", "odd_aspect", "greyscale", "mostly_border",
)  # fmt: skip


def scene(seed: int, size: tuple[int, int] = (240, 160)) -> Image.Image:
    rng = np.random.default_rng(seed)
    grain = rng.normal(128, 12, (size[1], size[0])).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(grain).convert("RGB")
    pen = ImageDraw.Draw(image)
    for _ in range(14):
        x, y, r = (int(v) for v in (rng.integers(0, size[0]), rng.integers(0, size[1]), rng.integers(5, 40)))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


def faulty(fault: str, seed: int) -> Image.Image:
    image = scene(seed)
    if fault == "dark":
        return image.point(lambda v: v // 20)
    if fault == "bright":
        return image.point(lambda v: 252 + v // 70)
    if fault == "low_contrast":
        return image.point(lambda v: 120 + v // 30)
    if fault == "low_information":
        return Image.new("RGB", (240, 160), (10 * seed, 90, 90))
    if fault == "blurry":
        return image.filter(ImageFilter.GaussianBlur(9))
    if fault == "tiny":
        return image.resize((45, 30))
    if fault == "greyscale":
        return image.convert("L")
    if fault == "mostly_border":
        return ImageOps.expand(image, 140, (250, 20, 20))
    return image.resize((240, 40)).resize((480, 60))


@pytest.fixture
def planted(tmp_path: Path, manifest_of: Any) -> tuple[Tables, dict[str, set[str]]]:
    """Measured pictures, five with each fault and forty without; and the paths of each fault."""
    wanted: dict[str, set[str]] = {}
    for fault in (*FAULTS, "good"):
        for seed in range(5 if fault != "good" else 40):
            path = f"{fault} {seed}.png"
            (faulty(fault, seed) if fault != "good" else scene(seed)).save(tmp_path / path)
            wanted.setdefault(fault, set()).add(path)
    manifest = manifest_of([{"path": path} for paths in wanted.values() for path in paths])
    features, failures = measure(manifest, tmp_path, runner=LocalRunner(workers=1))
    assert failures == {}
    return Tables(manifest=manifest, features=features), wanted


def test_planted_faults_are_found_and_good_pictures_are_not_flagged(
    planted: tuple[Tables, dict[str, set[str]]],
) -> None:
    tables, wanted = planted
    table = check(tables, ChecksSpec())
    for fault in FAULTS:
        found = set(table.filter(check=f"quality:{fault}")["path"])
        assert wanted[fault] <= found, fault
    assert not wanted["good"] & set(table["path"])
    for fault in ("tiny", "odd_aspect", "greyscale"):  # what does not come with another fault
        assert set(table.filter(check=f"quality:{fault}")["path"]) == wanted[fault]


def test_a_finding_tells_its_figure_and_the_limit(manifest_of: Any, features_of: Any) -> None:
    manifest = manifest_of([{"path": "a"}, {"path": "b"}])
    features = features_of([{"path": "a", "brightness": 0.02}, {"path": "b", "width": 900, "height": 100}])
    table = check(Tables(manifest=manifest, features=features), ChecksSpec())
    assert table.select("path", "check", "reason").rows() == [
        ("a", "quality:dark", "dark: mean brightness 0.02, the limit is 0.08"),
        ("b", "quality:odd_aspect", "odd aspect: shorter over longer side 0.111, the limit is 0.25"),
    ]
    assert table["score"].to_list() == pytest.approx([0.25, 4 / 9])


def test_the_worse_the_figure_the_lower_the_score(manifest_of: Any, features_of: Any) -> None:
    worse = {
        "dark": ("brightness", [0.07, 0.04, 0.0]), "bright": ("brightness", [0.99, 0.995, 1.0]),
        "low_contrast": ("contrast", [0.019, 0.01, 0.0]), "low_information": ("entropy", [0.9, 0.5, 0.0]),
        "blurry": ("sharpness", [0.0014, 0.001, 0.0]), "tiny": ("height", [31, 20, 1]),
    }  # fmt: skip
    for fault, (column, values) in worse.items():
        rows = [{"path": str(n), "width": 64, "height": 64} | {column: v} for n, v in enumerate(values)]
        tables = Tables(manifest=manifest_of([{"path": row["path"]} for row in rows]), features=features_of(rows))
        table = check(tables, ChecksSpec()).filter(check=f"quality:{fault}")
        scores = dict(table.select("path", "score").iter_rows())
        assert 1 > scores["0"] > scores["1"] > scores["2"] >= 0, fault


def test_limits_are_options(manifest_of: Any, features_of: Any) -> None:
    tables = Tables(manifest=manifest_of([{"path": "a"}]), features=features_of([{"path": "a", "brightness": 0.02}]))
    assert check(tables, ChecksSpec(dark=0.01)).height == 0
    assert check(tables, ChecksSpec(dark=0.0, bright=1.0, tiny=101))["check"].to_list() == ["quality:tiny"]


def test_what_cannot_be_read_is_told_with_its_error(manifest_of: Any) -> None:
    manifest = manifest_of([
        {"path": "a", "status": "unreadable", "error": "truncated: half"}, {"path": "b", "status": "missing",
         "error": "the file is not there", "split": "holdout"}, {"path": "c"},
    ])  # fmt: skip
    table = check(Tables(manifest=manifest), ChecksSpec())
    assert table.select("path", "check", "score", "reason").rows() == [
        ("a", "quality:unreadable", 0.0, "cannot be read: truncated: half"),
        ("b", "quality:unreadable", 0.0, "cannot be read: the file is not there"),
    ]


def test_grey_or_framed_pictures_are_told_only_where_they_stand_out(manifest_of: Any, features_of: Any) -> None:
    for column, value, fault in (("colourfulness", 0.0, "greyscale"), ("border", 0.8, "mostly_border")):
        for many, told in ((1, 1), (2, 2), (3, 0)):
            rows = [{"path": f"{n:02}"} | ({column: value} if n < many else {}) for n in range(20)]
            tables = Tables(manifest=manifest_of([{"path": row["path"]} for row in rows]), features=features_of(rows))
            assert check(tables, ChecksSpec()).filter(check=f"quality:{fault}").height == told
