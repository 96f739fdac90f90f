"""Render the bundled gallery: pictures of calligraphy with planted faults, and a trusted holdout.

    python -m curate.demo.render_gallery --out DIR [--seed 7] [--fonts DIR]

The same seed, fonts and library versions give the same bytes. The fonts are those of the Debian package
fonts-kouzan-mouhitsu (public domain).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from curate.demo._brush import CLASSES, BrushFonts
from curate.demo._paper import encode
from curate.demo._pictures import (
    blank_picture,
    broken,
    choose_layout,
    drawing,
    kana_page,
    page,
    seal_picture,
    variant,
)
from curate.demo._plan import Entry, address, plan, ranks

FONTS = Path("/usr/share/fonts/truetype/kouzan-mouhitsu")
HOLDOUT_PER_CLASS = 200
HOLDOUT_SHARE = 0.4  # of the characters, kept out of the gallery
COLUMNS = ("class", "rank", "host", "path", "file", "answer", "title", "width", "height")
PLANTED = ("path", "fault", "given", "true", "of", "detail")
DRAWINGS = ("bamboo", "hills", "circle", "branch", "fish", "hills", "circle")
STYLE_NAMES = {"regular": "楷书", "running": "行书", "cursive": "草书"}
TITLES = (
    "{} 作品欣赏 {}",
    "{}字帖 第{}页",
    "名家{}集字 {}",
    "{}法帖高清 {}",
    "{} calligraphy {}",
    "每日一字 {} {}",
    "{}条幅 四尺 {}",
    "{}入门教程（{}）",
)


@dataclass(frozen=True)
class Body:
    """An encoded picture and the size it is announced with."""

    data: bytes
    ext: str
    width: int
    height: int


class Characters:
    """Hands out characters, each at most once per style."""

    def __init__(self, rng: np.random.Generator, pool: Sequence[str]) -> None:
        self._left = {style: iter([str(c) for c in rng.permutation(list(pool))]) for style in CLASSES}

    def take(self, style: str, count: int) -> Iterator[tuple[str, str]]:
        """Yield ``count`` pairs (style, character)."""
        for _ in range(count):
            yield style, next(self._left[style])


class Renderer:
    """Renders entries; each picture draws from a generator of its own, named by what it is and its number."""

    def __init__(self, seed: int, fonts: BrushFonts) -> None:
        self._seed = seed
        self._fonts = fonts
        pool = [str(c) for c in self.rng(1).permutation(fonts.common_han())]
        cut = int(HOLDOUT_SHARE * len(pool))
        self._gallery = Characters(self.rng(2), pool[cut:])
        self._holdout = Characters(self.rng(3), pool[:cut])

    def rng(self, *key: int) -> np.random.Generator:
        """Return the generator of this name."""
        return np.random.default_rng([self._seed, *key])

    def written(self, rng: np.random.Generator, chars: Characters, style: str, second: str = "") -> Image.Image:
        """Render a page in one style, or in two side by side."""
        cols, rows = choose_layout(rng)
        if second:
            cols, rows = int(rng.choice([2, 2, 4])), int(rng.integers(1, 4))
        styles = [style] * (cols - cols // 2) + [second or style] * (cols // 2)
        if second and rng.random() < 0.5:
            styles.reverse()
        return page(rng, self._fonts, [list(chars.take(s, rows)) for s in styles])

    def body(self, index: int, entry: Entry, done: Sequence[Body | None]) -> Body:
        """Return what is served for an entry.

        Args:
            index: number of the entry.
            entry: what to show; its counterpart, if it has one, is rendered already.
            done: the bodies so far.
        """
        rng = self.rng(4, index)
        original = done[entry.of] if entry.of >= 0 else None
        if original is not None:
            if entry.fault in ("exact_duplicate", "cross_class"):
                return original
            data, _ = variant(rng, original.data, "cropped" if entry.fault == "near_crop" else entry.detail)
            return _body(data, "jpg")
        if entry.fault == "off_topic":
            return _encoded(rng, self._off_topic(rng, index, entry.detail))
        style = entry.true or CLASSES[index % 3]
        image = self.written(rng, self._gallery, style, entry.second)
        if entry.fault == "broken":
            data = broken(rng, entry.detail, encode(image, "jpg", int(rng.integers(60, 95))))
            return Body(data, "jpg", image.width, image.height)
        return _encoded(rng, image)

    def _off_topic(self, rng: np.random.Generator, index: int, kind: str) -> Image.Image:
        if kind == "kana":
            return kana_page(rng, self._fonts)
        if kind == "seal":
            return seal_picture(rng, self._fonts)
        if kind == "blank":
            return blank_picture(rng)
        return drawing(rng, kind)

    def holdout(self, style: str, index: int) -> bytes:
        """Return one JPEG of the holdout."""
        rng = self.rng(5, CLASSES.index(style), index)
        return encode(self.written(rng, self._holdout, style), "jpg", int(rng.integers(40, 96)))


def _encoded(rng: np.random.Generator, image: Image.Image) -> Body:
    small = max(image.size) < 210
    kind = str(rng.choice(["jpg", "webp", "png"], p=[0.72, 0.08, 0.20] if small else [0.91, 0.09, 0.0]))
    return _body(encode(image, kind, int(rng.integers(40, 96))), kind)


def _body(data: bytes, ext: str) -> Body:
    with Image.open(io.BytesIO(data)) as image:
        return Body(data, ext, image.width, image.height)


def _name(data: bytes, ext: str) -> str:
    return f"{hashlib.sha256(data).hexdigest()[:12]}.{ext}"


def render(out: Path, *, seed: int, fonts: Path) -> None:
    """Render everything into a folder, which is replaced once all is done.

    Args:
        out: the folder to make.
        seed: the seed of all randomness.
        fonts: the folder with the brush fonts.

    Raises:
        FileNotFoundError: a font is missing.
    """
    renderer = Renderer(seed, BrushFonts(fonts))
    work = out.with_name(out.name + ".tmp")
    shutil.rmtree(work, ignore_errors=True)
    (work / "images").mkdir(parents=True)
    entries = plan(renderer.rng(6))
    drawings = iter(DRAWINGS)
    entries = [_named(e, drawings) for e in entries]
    bodies: list[Body | None] = [None] * len(entries)
    for index in sorted(range(len(entries)), key=lambda i: entries[i].of >= 0):
        if entries[index].answer in ("ok", "503_once"):
            body = renderer.body(index, entries[index], bodies)
            (work / "images" / _name(body.data, body.ext)).write_bytes(body.data)
            bodies[index] = body
    _tables(work, renderer, entries, bodies)
    for style in CLASSES:
        folder = work / "holdout" / style
        folder.mkdir(parents=True)
        for index in range(HOLDOUT_PER_CLASS):
            data = renderer.holdout(style, index)
            (folder / _name(data, "jpg")).write_bytes(data)
    (work / "LICENSE.md").write_text(LICENCE, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    work.rename(out)


def _named(entry: Entry, drawings: Iterator[str]) -> Entry:
    if entry.detail != "drawing":
        return entry
    return replace(entry, detail=next(drawings))


def _tables(work: Path, renderer: Renderer, entries: Sequence[Entry], bodies: Sequence[Body | None]) -> None:
    rng = renderer.rng(7)
    rank = ranks(rng, list(entries))
    paths: list[str] = []
    for body in bodies:
        path = address(rng, body.ext if body else "jpg")
        while path in paths:
            path = address(rng, body.ext if body else "jpg")
        paths.append(path)
    rows = []
    for i in sorted(range(len(entries)), key=lambda i: (CLASSES.index(entries[i].given), rank[i])):
        entry, body = entries[i], bodies[i]
        title = str(rng.choice(TITLES)).format(STYLE_NAMES[entry.given], int(rng.integers(1, 400)))
        size = (body.width, body.height) if body else (int(rng.integers(100, 400)), int(rng.integers(100, 400)))
        file = _name(body.data, body.ext) if body else ""
        rows.append((entry.given, rank[i], int(rng.integers(1, 4)), paths[i], file, entry.answer, title, *size))
    _csv(work / "catalog.csv", COLUMNS, rows)
    _csv(
        work / "planted.csv",
        PLANTED,
        [
            (paths[i], e.fault, e.given, e.true, paths[e.of] if e.of >= 0 else "", e.detail)
            for i, e in enumerate(entries)
            if e.fault
        ],
    )


def _csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


LICENCE = """# Licence of the gallery

The pictures in `images/` and `holdout/` are rendered by `curate/demo/render_gallery.py`. Whatever rights there may be
in them are waived: they are released under CC0 1.0 (https://creativecommons.org/publicdomain/zero/1.0/).

They show glyphs of three brush fonts by Kouzan Aoyagi (青柳衡山), who has given up his copyright in them:

| style | font | file |
|---|---|---|
| regular 楷书 | 衡山毛筆フォント | `kouzan-mouhitsu.ttf` |
| running 行书 | 衡山毛筆フォント行書 | `kouzan-mouhitsu-gyosho.ttf` |
| cursive 草书 | 衡山毛筆フォント草書 | `KouzanBrushFontSousyo.ttf` |

Sources: https://opentype.jp/kouzanmouhitufont.htm, https://opentype.jp/kouzangyousho.htm,
https://opentype.jp/kouzansousho.htm. Debian packages them as `fonts-kouzan-mouhitsu` (licence: public domain). The
fonts themselves are not part of this project. Paper, seals, drawings and light are computed.

To render again:

    apt-get install fonts-kouzan-mouhitsu
    python -m curate.demo.render_gallery --out curate/demo/gallery --seed 7
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Render the bundled gallery.")
    parser.add_argument("--out", type=Path, required=True, help="folder to make or replace")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--fonts", type=Path, default=FONTS, help="folder with the Kouzan fonts")
    args = parser.parse_args(argv)
    try:
        render(args.out, seed=args.seed, fonts=args.fonts)
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
