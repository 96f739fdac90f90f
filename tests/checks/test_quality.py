from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from curate.checks import Tables
from curate.checks.quality import check, notes
from curate.config import ChecksSpec
from curate.figures import figures
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
        ("a", "quality:dark", "dark: mean brightness 0.02, the limit is [checks] dark = 0.08"),
        ("b", "quality:odd_aspect", "odd aspect: longer over shorter side 9, the limit is [checks] odd_aspect = 4"),
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


def test_a_reason_names_the_key_and_figure_of_the_spec_and_enough_digits(manifest_of: Any, features_of: Any) -> None:
    """So that a person finds in curate.toml what was compared, and sees that the figure is beyond it."""
    cases = {
        "bright": ({"brightness": 0.9851}, "0.9851, the limit is [checks] bright = 0.985"),
        "mostly_border": ({"border": 0.60001}, "0.60001, the limit is [checks] mostly_border = 0.6"),
        "odd_aspect": ({"width": 4001, "height": 1000}, "4.001, the limit is [checks] odd_aspect = 4"),
        "dark": ({"brightness": 0.07999}, "0.07999, the limit is [checks] dark = 0.08"),
        "blurry": ({"sharpness": 0.0014999}, "0.0014999, the limit is [checks] blurry = 0.0015"),
    }
    for fault, (figure, told) in cases.items():
        rows = [{"path": f"{n:02}"} | (figure if n == 0 else {}) for n in range(20)]
        tables = Tables(manifest=manifest_of([{"path": row["path"]} for row in rows]), features=features_of(rows))
        (reason,) = check(tables, ChecksSpec())["reason"]
        assert reason.startswith(fault.replace("_", " ") + ": ")
        assert reason.endswith(f" {told}")


def test_what_many_pictures_have_is_the_style_of_the_data_set_and_told_once(manifest_of: Any, features_of: Any) -> None:
    faults: dict[str, dict[str, float]] = {
        "dark": {"brightness": 0.05}, "bright": {"brightness": 0.99}, "low_contrast": {"contrast": 0.01},
        "low_information": {"entropy": 0.5}, "blurry": {"sharpness": 0.001}, "tiny": {"width": 28, "height": 28},
        "odd_aspect": {"width": 900},
    }  # fmt: skip
    for fault, figure in faults.items():
        for many, of, told in ((10, 10, 10), (30, 100, 30), (31, 100, 0), (100, 100, 0)):
            rows = [{"path": f"{n:03}"} | (figure if n < many else {}) for n in range(of)]
            tables = Tables(manifest=manifest_of([{"path": row["path"]} for row in rows]), features=features_of(rows))
            assert check(tables, ChecksSpec())["check"].to_list() == [f"quality:{fault}"] * told
            said = notes(tables, ChecksSpec())
            assert len(said) == (told == 0)
            assert all(f"{many} of {of} pictures are {fault.replace('_', ' ')} ([checks] {fault} = " in s for s in said)
            assert check(tables, ChecksSpec(style=1.0)).height == many


def test_a_whole_set_of_strokes_on_black_raises_no_alarm(tmp_path: Path, manifest_of: Any) -> None:
    """As the digits of MNIST: 28 pixels, white on black, without a colour."""
    paths = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        image = Image.new("L", (112, 112))
        points = [tuple(int(v) for v in rng.integers(30, 82, 2)) for _ in range(3)]
        ImageDraw.Draw(image).line(points, fill=255, width=8)
        paths.append(f"{seed:02}.png")
        image.resize((28, 28), Image.Resampling.BOX).save(tmp_path / paths[-1])
    manifest = manifest_of([{"path": path} for path in paths])
    features, _ = measure(manifest, tmp_path, runner=LocalRunner(workers=1))
    tables = Tables(manifest=manifest, features=features)
    assert check(tables, ChecksSpec()).height <= 10
    assert any("tiny" in note for note in notes(tables, ChecksSpec()))


def test_skies_and_flags_have_no_border() -> None:
    down = np.linspace(60, 230, 200)[:, None, None] * np.array([0.8, 0.9, 1.0])
    sky = Image.fromarray(np.broadcast_to(down, (200, 300, 3)).astype(np.uint8))
    flag = Image.new("RGB", (300, 200), (0, 0, 0))
    flag.paste((220, 0, 0), (0, 66, 300, 133))
    flag.paste((255, 205, 0), (0, 133, 300, 200))
    same_twice = Image.new("RGB", (300, 200), (200, 0, 0))
    same_twice.paste((255, 255, 255), (0, 66, 300, 133))
    for image in (sky, flag, same_twice):
        for way in (image, image.transpose(Image.Transpose.ROTATE_90)):
            assert figures(way)["border"] < 0.4
    wide = Image.new("RGB", (300, 300))
    wide.paste(scene(0, (300, 100)), (0, 100))
    assert figures(wide)["border"] == pytest.approx(2 / 3, abs=0.02)  # bars above and below, over the full width
