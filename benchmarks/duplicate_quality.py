"""How well near-duplicates are found: each photograph with 16 transformations, beside the peers.

    python benchmarks/duplicate_quality.py --images DIR [--glyphs DIR] [--limit N] [--peers-python PYTHON]

A transformation is found where its picture is in one group with the original (for the peers: in one set, or named as
its duplicate). Precision is over all pairs of one group (peers: all pairs they name): the share that come from one
original; a few flags that differ in colour alone are there to be told apart. Peers get a second column `_grouped`, in
which all that hangs together through their pairs counts, as it does for us. `crop_6` and `crop_12` take so many percent
of width and height off each side. `--glyphs` does the same on plain pictures whose hashes collide, by default the
trusted holdout of the bundled sample.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from curate.demo.server import bundled_gallery
from curate.images import EXTENSIONS, load
from curate.measure import measure
from curate.neighbours import candidates, group_table, groups
from curate.neighbours.thorough import thorough_candidates
from curate.runner import get_runner
from curate.schema import MANIFEST
from curate.workspace import file_digest

Picture = Image.Image


def scaled(image: Picture, by: float) -> Picture:
    """Another size."""
    return image.resize((max(1, round(image.width * by)), max(1, round(image.height * by))), Image.Resampling.LANCZOS)


def valued(image: Picture, by: float) -> Picture:
    """Brightness and contrast changed alike."""
    return ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1 + by)).enhance(1 + by)


def cropped(image: Picture, share: float) -> Picture:
    """That share taken off each side."""
    x, y = round(image.width * share), round(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


def captioned(image: Picture) -> Picture:
    """A black bar with white words over the lowest eighth."""
    out = image.copy()
    draw = ImageDraw.Draw(out)
    top = round(out.height * 7 / 8)
    draw.rectangle((0, top, out.width, out.height), fill="black")
    draw.text((out.width * 0.05, top + 2), "a caption, as some sites write it", fill="white", font_size=out.height / 12)
    return out


def watermarked(image: Picture) -> Picture:
    """Words across the middle, half clear."""
    over = Image.new("RGBA", image.size)
    size = image.width / 6
    draw = ImageDraw.Draw(over)
    draw.text((image.width * 0.1, image.height / 2 - size / 2), "SAMPLE", fill=(255, 255, 255, 128), font_size=size)
    return Image.alpha_composite(image.convert("RGBA"), over).convert("RGB")


TRANSFORMATIONS: dict[str, tuple[Callable[[Picture], Picture], str, int]] = {
    "jpeg_60": (lambda i: i, ".jpg", 60),
    "jpeg_30": (lambda i: i, ".jpg", 30),
    "half_size": (lambda i: scaled(i, 0.5), ".jpg", 90),
    "quarter_size": (lambda i: scaled(i, 0.25), ".jpg", 90),
    "brighter": (lambda i: valued(i, 0.15), ".jpg", 90),
    "darker": (lambda i: valued(i, -0.15), ".jpg", 90),
    "greyscale": (lambda i: i.convert("L"), ".jpg", 90),
    "crop_6": (lambda i: cropped(i, 0.06), ".jpg", 90),
    "crop_12": (lambda i: cropped(i, 0.12), ".jpg", 90),
    "mirror": (ImageOps.mirror, ".jpg", 90),
    "quarter_turn": (lambda i: i.transpose(Image.Transpose.ROTATE_90), ".jpg", 90),
    "border": (lambda i: ImageOps.expand(i, border=max(1, min(i.size) // 12), fill="white"), ".jpg", 90),
    "caption": (captioned, ".jpg", 90),
    "watermark": (watermarked, ".jpg", 90),
    "sharpen": (lambda i: i.filter(ImageFilter.UnsharpMask(2, 150)), ".jpg", 90),
    "blur": (lambda i: i.filter(ImageFilter.GaussianBlur(1.5)), ".jpg", 90),
    "webp": (lambda i: i, ".webp", 80),
}

PEERS = {
    "imagededup_phash10": """
from imagededup.methods import PHash
found = PHash(verbose=False).find_duplicates(image_dir=folder, max_distance_threshold=10)
sets = [[name, other] for name, others in found.items() for other in others]
""",
    "imagededup_cnn90": """
from imagededup.methods import CNN
found = CNN(verbose=False).find_duplicates(image_dir=folder, min_similarity_threshold=0.9)
sets = [[name, other] for name, others in found.items() for other in others]
""",
    "cleanvision": """
from cleanvision import Imagelab
lab = Imagelab(data_path=folder)
lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
sets = [s for kind in ("exact_duplicates", "near_duplicates") for s in lab.info.get(kind, {}).get("sets", [])]
""",
    "fastdup": """
import fastdup
work = fastdup.create(work_dir=folder + "-fastdup", input_dir=folder)
work.run(overwrite=True)
near = work.similarity()
near = near[near["distance"] >= 0.9]
sets = near[["filename_from", "filename_to"]].values.tolist()
""",
}

FLAGS = {
    "france": ("#0055a4", "white", "#ef4135"), "italy": ("#009246", "white", "#ce2b37"),
    "nigeria": ("#008751", "white", "#008751"), "peru": ("#d91023", "white", "#d91023"),
    "belgium": ("black", "#fae042", "#ed2939"), "romania": ("#002b7f", "#fcd116", "#ce1126"),
    "mali": ("#14b53a", "#fcd116", "#ce1126"), "ivory coast": ("#f77f00", "white", "#009e60"),
}  # fmt: skip
"""Pictures of one pattern that differ in colour alone: wrong pairs for whoever looks at greys."""

Pairs = set[tuple[str, str]]


def draw_flags(folder: Path) -> None:
    """Three stripes each, upright and lying."""
    for name, colours in FLAGS.items():
        flag = Image.new("RGB", (300, 200))
        for n, colour in enumerate(colours):
            flag.paste(colour, (100 * n, 0, 100 * n + 100, 200))
        flag.save(folder / f"flag {name}__original.png")
        flag.transpose(Image.Transpose.ROTATE_90).save(folder / f"lying flag {name}__original.png")


def make(images: Path, folder: Path, limit: int) -> list[str]:
    """Write originals and transformations as `<number>__<name>.<ext>`; returns the numbers."""
    files = sorted(p for p in images.rglob("*") if p.suffix.lower() in {*EXTENSIONS.values(), ".jpeg"})[:limit]
    for number, file in enumerate(files):
        picture = load(file)
        picture.save(folder / f"{number:05}__original.jpg", quality=95)
        for name, (change, extension, quality) in TRANSFORMATIONS.items():
            change(picture).save(folder / f"{number:05}__{name}{extension}", quality=quality)
    return [f"{number:05}" for number in range(len(files))]


def ours(folder: Path, *, thorough: bool) -> Pairs:
    """All pairs of one group, through the library."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    known = {"status": "ok", "origin": "imported", "bytes": 0, "obtained": 0, "mtime_ns": 0}
    rows = [{"path": name, "sha256": file_digest(folder / name), **known} for name in names]
    manifest = pl.DataFrame(rows, schema=MANIFEST.columns)
    features, _ = measure(manifest, folder, runner=get_runner())
    found = candidates(features, folder, 10)
    if thorough:
        found = thorough_candidates(features, folder, found, runner=get_runner(), embeddings=embedded(folder, names))
    table = group_table(manifest, features, found, min_similarity=0.9)
    return {
        pair for _, part in table.group_by("group") for pair in combinations(sorted(part["path"].to_list()), 2)
    }  # fmt: skip


def embedded(folder: Path, names: list[str]) -> pl.DataFrame:
    """Embeddings of the bundled backbone, as `curate dedupe --thorough` makes them."""
    from curate.learn.backbones import load_backbone
    from curate.learn.cache import square
    from curate.learn.embed import features

    backbone = load_backbone("efficientnet_lite0")
    vectors = []
    for start in range(0, len(names), 256):
        squares = [np.asarray(square(load(folder / name, draft=160), 160)) for name in names[start : start + 256]]
        vectors += list(features(backbone, np.stack(squares)))
    array = pl.Series(np.concatenate(vectors), dtype=pl.Array(pl.Float32, backbone.features))
    digests = [file_digest(folder / name) for name in names]
    return pl.DataFrame({"path": names, "sha256": digests, "vector": array})


def grouped(pairs: Pairs) -> Pairs:
    """All pairs of what hangs together through `pairs`: what a person who acts on them would take for one picture."""
    names = sorted({name for pair in pairs for name in pair})
    place = {name: n for n, name in enumerate(names)}
    first, second = np.array([(place[a], place[b]) for a, b in pairs], dtype=np.int64).reshape(-1, 2).T
    members: dict[int, list[str]] = {}
    for name, number in zip(names, groups((first, second), len(names)).tolist(), strict=True):
        members.setdefault(number, []).append(name)
    return {pair for part in members.values() for pair in combinations(part, 2)}


def peer(code: str, python: str, folder: Path) -> Pairs | None:
    """All pairs that a peer names, None where it does not run there."""
    script = f"import json, sys\nfolder = sys.argv[1]\n{code}\nprint('sets ' + json.dumps(sets))"
    run = subprocess.run([python, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    told = [line[5:] for line in run.stdout.splitlines() if line.startswith("sets ")]
    if not told:
        print(f"  left out: {(run.stderr.strip().splitlines() or ['no answer'])[-1][:120]}")
        return None
    sets = [[Path(name).name for name in one] for one in json.loads(told[-1])]
    return {(min(a, b), max(a, b)) for one in sets for a, b in combinations(one, 2)}


def judged(pairs: Pairs, numbers: Iterable[str]) -> dict[str, float]:
    """Recall per transformation, and precision over all pairs."""
    together = {(a.split(".")[0], b.split(".")[0]) for a, b in pairs}
    together |= {(b, a) for a, b in together}
    numbers = list(numbers)
    out = {
        name: round(sum((f"{n}__original", f"{n}__{name}") in together for n in numbers) / len(numbers), 4)
        for name in TRANSFORMATIONS
    }
    right = sum(a.split("__")[0] == b.split("__")[0] for a, b in pairs)
    out["precision"] = round(right / len(pairs), 4) if pairs else 1.0
    return out


def main() -> None:
    """Print a table; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--glyphs", type=Path, default=bundled_gallery() / "holdout", help="pictures that look alike")
    parser.add_argument("--limit", type=int, default=200, help="pictures of each folder")
    parser.add_argument("--peers-python", default=sys.executable, help="a Python that has the peers installed")
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    for suffix, images in (("", options.images), ("_glyphs", options.glyphs)):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "images"
            folder.mkdir()
            numbers = make(images, folder, options.limit)
            if not suffix:
                draw_flags(folder)
            if not numbers:
                parser.error(f"no images below {images}")
            results["curate" + suffix] = judged(ours(folder, thorough=False), numbers)
            results["curate_thorough" + suffix] = judged(ours(folder, thorough=True), numbers)
            for name, code in {} if options.no_peers else PEERS.items():
                print(f"{name}{suffix} ...")
                pairs = peer(code, options.peers_python, folder)
                if pairs is not None:
                    results[name + suffix] = judged(pairs, numbers)
                    results[f"{name}_grouped{suffix}"] = judged(grouped(pairs), numbers)
    for suffix in ("", "_glyphs"):
        shown = [name for name in results if name.endswith("_glyphs") == bool(suffix)]
        print(f"\n{'':>14}" + "".join(f"{name:>26}" for name in shown))
        for row in [*TRANSFORMATIONS, "precision"]:
            print(f"{row:>14}" + "".join(f"{results[name][row]:>26.4f}" for name in shown))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
