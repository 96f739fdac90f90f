"""Brush glyphs and ink: which glyphs a font really draws, and how they lie on a page.

The character maps of the Kouzan fonts claim 12,204 characters each, but many of the glyphs behind them have
no contour at all. Everything here goes through :meth:`BrushFonts.drawn`, so that no picture comes out blank.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Array = npt.NDArray[np.float32]

CLASSES = ("regular", "running", "cursive")
FONT_FILES = {
    "regular": "kouzan-mouhitsu.ttf",
    "running": "kouzan-mouhitsu-gyosho.ttf",
    "cursive": "KouzanBrushFontSousyo.ttf",
}


class BrushFonts:
    """The three brush fonts of one folder.

    Args:
        folder: where the files named in ``FONT_FILES`` lie.

    Raises:
        FileNotFoundError: a font is missing; the message names the package that carries it.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = {style: folder / name for style, name in FONT_FILES.items()}
        for path in self._paths.values():
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing: apt-get install fonts-kouzan-mouhitsu, or give --fonts")
        self._drawn = {style: _drawn(path) for style, path in self._paths.items()}

    def drawn(self, style: str) -> frozenset[str]:
        """Return the characters for which the font of this style has a glyph with contours."""
        return self._drawn[style]

    def common_han(self) -> list[str]:
        """Return the Han characters that all three fonts draw, sorted.

        The same repertoire in each class keeps how complex a character is from telling the class.
        """
        shared = self.drawn("regular") & self.drawn("running") & self.drawn("cursive")
        return sorted(c for c in shared if "\u4e00" <= c <= "\u9fff")

    def glyph(self, style: str, char: str, size: int) -> Array:
        """Return coverage in [0, 1], shape ``(1.5 * size, 1.5 * size)``, the em box in the middle."""
        side = int(1.5 * size)
        image = Image.new("L", (side, side), 0)
        middle = (side / 2, side / 2)
        ImageDraw.Draw(image).text(middle, char, font=_font(self._paths[style], size), fill=255, anchor="mm")
        return grey(image)


@lru_cache(maxsize=96)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def _drawn(path: Path) -> frozenset[str]:
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # the fonts carry odd dates, which it warns about
    with TTFont(path, lazy=True) as font:
        glyphs = font["glyf"]
        names = font.getBestCmap().items()
        return frozenset(chr(code) for code, name in names if glyphs[name].numberOfContours != 0)


def grey(image: Image.Image) -> Array:
    """Return an eight-bit picture of one channel as values in [0, 1]."""
    values: Array = np.asarray(image, np.float32) / np.float32(255)
    return values


def field(rng: np.random.Generator, height: int, width: int, cell: float, stretch: float = 1.0) -> Array:
    """Return smooth noise of about zero mean and unit variance, shape ``(height, width)``.

    Args:
        rng: source of randomness.
        height: rows.
        width: columns.
        cell: size in pixels of one blotch.
        stretch: how many times longer than high a blotch is.
    """
    rows = max(2, round(height / cell) + 1)
    cols = max(2, round(width / (cell * stretch)) + 1)
    coarse = rng.standard_normal((rows, cols), dtype=np.float32)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise: Array = np.asarray(image, np.float32) * np.float32(1.4)
    return noise


def blur(values: Array, radius: float) -> Array:
    """Blur values in [0, 1] with a Gaussian; eight bits are enough for what is drawn here."""
    if radius < 0.2:
        return values
    image = Image.fromarray((np.clip(values, 0, 1) * 255).astype(np.uint8))
    return grey(image.filter(ImageFilter.GaussianBlur(float(radius))))


def step(values: Array, low: float, high: float) -> Array:
    """Return a smooth step from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((values - low) / (high - low), 0, 1)
    smooth: Array = (t * t * (3 - 2 * t)).astype(np.float32)
    return smooth


@dataclass(frozen=True, kw_only=True)
class Hand:
    """How the brush moves in one style: means of what varies from page to page.

    Attributes:
        slant: how far the tops lean to the right, as a share of the height.
        rise: how far horizontal strokes climb to the right, as a share of the width.
        sizes: standard deviation of the size of the characters.
        drift: standard deviation of their place, as a share of a cell.
        turn: standard deviation of their angle in degrees.
        tall: height against width.
        bend: how far strokes bend out of line, as a share of the size.
        links: share of neighbours in a column that are joined by a thread of ink.
        weight: how much wider (or, below 0, thinner) strokes are than in the font, as a share of the size.
    """

    slant: float
    rise: float
    sizes: float
    drift: float
    turn: float
    tall: float
    bend: float
    links: float
    weight: float


HANDS = {
    "regular": Hand(slant=0.0, rise=0.0, sizes=0.01, drift=0.006, turn=0.3, tall=0.86, bend=0.0, links=0.0, weight=0.0),
    "running": Hand(
        slant=0.05, rise=0.22, sizes=0.11, drift=0.03, turn=1.6, tall=1.12, bend=0.020, links=0.35, weight=0.019
    ),
    "cursive": Hand(
        slant=0.20, rise=0.06, sizes=0.17, drift=0.05, turn=3.0, tall=1.45, bend=0.028, links=1.0, weight=-0.004
    ),
}


def write(
    rng: np.random.Generator,
    fonts: BrushFonts,
    columns: Sequence[Sequence[tuple[str, str]]],
    *,
    shape: tuple[int, int],
    cell: float,
    origin: tuple[float, float],
) -> Array:
    """Write characters in vertical columns from the right to the left.

    Args:
        rng: source of randomness.
        fonts: the fonts.
        columns: for each column, (style, character) from top to bottom.
        shape: rows and columns of the page in pixels.
        cell: pixels from one character to the next.
        origin: top and left of the block of cells in pixels.

    Returns:
        Coverage of ink in [0, 1].
    """
    page = np.zeros(shape, np.float32)
    scale = rng.uniform(0.94, 1.1)
    mood = rng.uniform(0.8, 1.2)
    lean = rng.normal(0, 0.02)
    for index, column in enumerate(columns):
        x = origin[1] + (len(columns) - index - 0.5) * cell
        end: tuple[float, float] | None = None
        for row, (style, char) in enumerate(column):
            hand = HANDS[style]
            size = max(
                8, round(cell * scale * (1 + mood * float(np.clip(rng.normal(0, hand.sizes), -0.2, 0.2))) / 4) * 4
            )
            tile = _moved(rng, fonts.glyph(style, char, size), hand, mood, lean)
            dy, dx = rng.normal(0, hand.drift * mood * cell, 2)
            top = round(origin[0] + (row + 0.5) * cell + dy) - tile.shape[0] // 2
            left = round(x + dx) - tile.shape[1] // 2
            _place(page, tile, top, left)
            first, last = _ends(tile)
            if end is not None and rng.random() < hand.links * mood:
                _link(page, rng, end, (left + first[0], top + first[1]), cell)
            end = (left + last[0], top + last[1])
    return page


def _moved(rng: np.random.Generator, glyph: Array, hand: Hand, mood: float, lean: float) -> Array:
    """Slant, stretch, turn and bend one character about its middle."""
    side = glyph.shape[0]
    angle = np.deg2rad(rng.normal(0, hand.turn * mood))
    slant, rise = hand.slant * mood + lean + rng.normal(0, 0.02), hand.rise * mood + rng.normal(0, 0.02)
    tall = np.sqrt(hand.tall**mood * np.exp(rng.normal(0, 0.03)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.array([[1 / tall, -slant], [-rise, tall]])).astype(np.float32)
    across = np.arange(side, dtype=np.float32) - side / 2
    x, y = across[None, :], across[:, None]
    bend = hand.bend * mood * side / 1.5
    from_x = inverse[0, 0] * x + inverse[0, 1] * y + bend * field(rng, side, side, side / 5) + side / 2
    from_y = inverse[1, 0] * x + inverse[1, 1] * y + bend * field(rng, side, side, side / 5) + side / 2
    return _widened(_sampled(glyph, from_x, from_y), hand.weight * mood * side / 1.5)


def _widened(tile: Array, pixels: float) -> Array:
    """Grow strokes by so many pixels on each side, or shrink them."""
    if abs(pixels) < 0.1:
        return tile
    radius = 1.2 * abs(pixels)
    return step(blur(tile, radius) - (0.25 if pixels > 0 else 0.65), -0.2, 0.2)


def _sampled(tile: Array, x: Array, y: Array) -> Array:
    """Look a tile up at fractional places, bilinear."""
    x = np.clip(x, 0, tile.shape[1] - 1.001)
    y = np.clip(y, 0, tile.shape[0] - 1.001)
    x0, y0 = x.astype(np.intp), y.astype(np.intp)
    fx, fy = x - x0, y - y0
    upper = tile[y0, x0] * (1 - fx) + tile[y0, x0 + 1] * fx
    lower = tile[y0 + 1, x0] * (1 - fx) + tile[y0 + 1, x0 + 1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float32)


def _ends(tile: Array) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (x, y) of the topmost and the lowest ink, where the brush comes in and leaves."""
    rows = np.flatnonzero((tile > 0.5).any(1))
    if not len(rows):
        return (tile.shape[1] / 2, tile.shape[0] / 2), (tile.shape[1] / 2, tile.shape[0] / 2)
    y0, y1 = int(rows[0]), int(rows[-1])
    return (float(np.argmax(tile[y0])), y0), (float(np.argmax(tile[y1])), y1)


def _link(
    page: Array, rng: np.random.Generator, start: tuple[float, float], end: tuple[float, float], cell: float
) -> None:
    """Draw the thread of ink from one character to the next in place, thin in the middle."""
    image = Image.new("L", (page.shape[1], page.shape[0]), 0)
    draw = ImageDraw.Draw(image)
    swing = np.array([rng.uniform(0.1, 0.3) * cell, 0.12 * cell])
    p0, p3 = np.array(start), np.array(end)
    p1, p2 = p0 + swing * (-1, 1), p3 + swing * (1, -1)
    for t in np.linspace(0, 1, 40):
        x, y = (1 - t) ** 3 * p0 + 3 * t * (1 - t) ** 2 * p1 + 3 * t * t * (1 - t) * p2 + t**3 * p3
        r = cell * (0.009 + 0.012 * abs(2 * t - 1))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    np.maximum(page, grey(image), out=page)


def _place(page: Array, tile: Array, top: int, left: int) -> None:
    t0, l0 = max(0, top), max(0, left)
    t1, l1 = min(page.shape[0], top + tile.shape[0]), min(page.shape[1], left + tile.shape[1])
    if t0 < t1 and l0 < l1:
        part = page[t0:t1, l0:l1]
        np.maximum(part, tile[t0 - top : t1 - top, l0 - left : l1 - left], out=part)


def ink(rng: np.random.Generator, page: Array, *, cell: float, weight: float, dry: float, rough: float) -> Array:
    """Turn clean outlines into ink: heavier or lighter strokes, rough edges, dry brush, uneven density.

    Args:
        rng: source of randomness.
        page: coverage in [0, 1].
        cell: size of a character in pixels.
        weight: -1 for thinned strokes, +1 for thickened ones.
        dry: 0 for a wet brush, 1 for one that runs dry.
        rough: 0 for sharp edges, 1 for edges eaten by paper or stone.

    Returns:
        Opacity of the ink in [0, 1].
    """
    height, width = page.shape
    soft = blur(page, 0.007 * cell)
    edge = 0.5 - 0.2 * weight + rough * 0.09 * field(rng, height, width, max(1.5, cell / 40))
    solid = step(soft - edge, -0.25, 0.25)
    density = 1 - 0.10 * np.abs(field(rng, height, width, cell / 2.5))
    if dry > 0:
        angle = rng.uniform(20, 70)
        streaks = _turned(rng, height, width, max(1.2, cell / 45), angle)
        where = step(field(rng, height, width, cell / 1.6), 1.3 - 1.4 * dry, 2.2 - 1.4 * dry)
        density = density * (1 - 0.9 * where * step(streaks, 0.0, 0.7))
    return np.clip(solid * density, 0, 1).astype(np.float32)


def _turned(rng: np.random.Generator, height: int, width: int, cell: float, angle: float) -> Array:
    side = int(np.hypot(height, width)) + 2
    image = Image.fromarray(field(rng, side, side, cell, stretch=14)).rotate(angle, Image.Resampling.BILINEAR)
    top, left = (side - height) // 2, (side - width) // 2
    return np.asarray(image, np.float32)[top : top + height, left : left + width]
