"""What lies under and over the ink: paper, ruled lines, seals, and the light and lens that took the picture."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from curate.demo._brush import Array, BrushFonts, blur, field, grey, step

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Material:
    """Paper and ink that go together; ``stone`` for a rubbing, whose strokes are the bare paper."""

    paper: Colour
    ink: Colour
    texture: float
    stone: bool = False


MATERIALS: tuple[tuple[float, Material], ...] = (
    (0.30, Material(paper=(0.97, 0.96, 0.94), ink=(0.10, 0.10, 0.11), texture=0.3)),
    (0.30, Material(paper=(0.94, 0.90, 0.81), ink=(0.11, 0.10, 0.10), texture=0.7)),
    (0.14, Material(paper=(0.83, 0.74, 0.58), ink=(0.14, 0.11, 0.09), texture=1.0)),
    (0.07, Material(paper=(0.74, 0.70, 0.63), ink=(0.13, 0.12, 0.12), texture=0.8)),
    (0.03, Material(paper=(0.76, 0.20, 0.15), ink=(0.09, 0.06, 0.06), texture=0.5)),
    (0.015, Material(paper=(0.70, 0.14, 0.12), ink=(0.88, 0.73, 0.36), texture=0.5)),
    (0.015, Material(paper=(0.13, 0.17, 0.31), ink=(0.85, 0.72, 0.42), texture=0.5)),
    (0.07, Material(paper=(0.13, 0.13, 0.13), ink=(0.87, 0.85, 0.80), texture=1.0, stone=True)),
)


def choose_material(rng: np.random.Generator) -> Material:
    """Draw a material; its colours vary a little from picture to picture."""
    weights = np.array([w for w, _ in MATERIALS])
    base = MATERIALS[rng.choice(len(MATERIALS), p=weights / weights.sum())][1]
    shift = rng.normal(0, 0.02) + rng.normal(0, 0.012, 3)
    fade = rng.uniform(0, 0.14) if not base.stone else rng.uniform(0, 0.06)
    paper = np.clip(np.array(base.paper) + shift, 0, 1)
    pen = np.array(base.ink) * (1 - fade) + paper * fade
    return Material(paper=_colour(paper), ink=_colour(pen), texture=base.texture, stone=base.stone)


def _colour(values: np.typing.NDArray[np.float64]) -> Colour:
    return float(values[0]), float(values[1]), float(values[2])


def paper(rng: np.random.Generator, material: Material, height: int, width: int) -> Array:
    """Return a sheet without ink, shape ``(height, width, 3)``, values in [0, 1]."""
    long = max(height, width)
    amount = material.texture * rng.uniform(0.3, 0.9)
    shade = 0.022 * amount * field(rng, height, width, long / 4)
    shade += 0.012 * amount * field(rng, height, width, long / 25)
    shade += 0.008 * amount * field(rng, height, width, 1.6)
    if rng.random() < 0.35:  # fibres or laid lines
        shade += 0.016 * amount * field(rng, height, width, 1.5, stretch=18)
    if rng.random() < 0.2:
        shade += 0.014 * amount * field(rng, width, height, 1.5, stretch=22).T
    sheet = np.empty((height, width, 3), np.float32)
    sheet[:] = np.array(material.paper, np.float32)
    sheet += shade[..., None]
    if material.stone:
        _weather(rng, sheet, long)
    elif rng.random() < 0.25 * material.texture + 0.05:
        spots = step(field(rng, height, width, long / rng.uniform(4, 14)), 1.2, 2.6) * rng.uniform(0.1, 0.3)
        sheet -= spots[..., None] * np.array([0.35, 0.5, 0.7], np.float32)
    if rng.random() < 0.12:
        _crease(rng, sheet)
    return np.clip(sheet, 0, 1)


def _weather(rng: np.random.Generator, sheet: Array, long: int) -> None:
    height, width = sheet.shape[:2]
    level = rng.uniform(0.4, 1.0)
    specks = step(field(rng, height, width, max(1.3, long / 160)), 2.0 - 0.4 * level, 2.9)
    patches = step(field(rng, height, width, long / 9), 1.5, 2.6) * step(
        field(rng, height, width, long / 60), -0.3, 0.9
    )
    cloth = 0.03 * level * field(rng, height, width, 2.0)
    light = (
        np.clip(0.75 * specks + 0.55 * patches * level, 0, 0.85) + cloth + 0.03 * field(rng, height, width, long / 5)
    )
    sheet += (light * rng.uniform(0.5, 0.9))[..., None].astype(np.float32)
    if rng.random() < 0.4:
        _crease(rng, sheet, strength=0.45)


def _crease(rng: np.random.Generator, sheet: Array, strength: float = -0.1) -> None:
    height, width = sheet.shape[:2]
    image = Image.new("L", (width, height), 0)
    y = rng.uniform(0.1, 0.9) * height
    drop = rng.normal(0, 0.2) * height if strength > 0 else rng.normal(0, 0.02) * height
    xs = np.linspace(0, width, 9)
    ys = y + np.linspace(0, 1, 9) * drop + np.cumsum(rng.normal(0, 0.006 * height, 9))
    ImageDraw.Draw(image).line([(float(a), float(b)) for a, b in zip(xs, ys, strict=True)], fill=255, width=1)
    mark = blur(grey(image), 0.8)
    if rng.random() < 0.5 and strength < 0:
        mark = np.ascontiguousarray(
            np.asarray(Image.fromarray(mark).transpose(Image.Transpose.ROTATE_90).resize((width, height)))
        )
    sheet += strength * 2 * mark[..., None]


def rules(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    cell: float,
    origin: tuple[float, float],
    grid: tuple[int, int],
) -> Array:
    """Draw practice squares, column rules or a frame; opacity in [0, 1], shape ``(height, width)``."""
    image = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(image)
    rows, cols = grid
    top, left = origin
    bottom, right = top + rows * cell, left + cols * cell
    kind = rng.choice(["rice", "field", "columns", "frame"], p=[0.35, 0.25, 0.28, 0.12])
    line = max(1, round(cell / 90))
    if kind in ("rice", "field"):
        for r in range(rows):
            for c in range(cols):
                y, x = top + r * cell, left + c * cell
                draw.rectangle((x, y, x + cell, y + cell), outline=255, width=line)
                _dashes(draw, (x, y + cell / 2), (x + cell, y + cell / 2), cell)
                _dashes(draw, (x + cell / 2, y), (x + cell / 2, y + cell), cell)
                if kind == "rice":
                    _dashes(draw, (x, y), (x + cell, y + cell), cell)
                    _dashes(draw, (x + cell, y), (x, y + cell), cell)
    elif kind == "columns":
        for c in range(cols + 1):
            draw.line((left + c * cell, top, left + c * cell, bottom), fill=255, width=line)
        draw.rectangle((left, top, right, bottom), outline=255, width=line)
    else:
        gap = 0.06 * cell
        draw.rectangle((left - gap, top - gap, right + gap, bottom + gap), outline=255, width=2 * line)
    return grey(image) * np.float32(rng.uniform(0.4, 0.85))


def _dashes(draw: ImageDraw.ImageDraw, a: tuple[float, float], b: tuple[float, float], cell: float) -> None:
    n = 10
    for k in range(n):
        t0, t1 = (k + 0.2) / n, (k + 0.7) / n
        points = [(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for t in (t0, t1)]
        draw.line(points, fill=150, width=max(1, round(cell / 140)))


def seal(rng: np.random.Generator, fonts: BrushFonts, chars: str, side: int) -> Array:
    """Draw the impression of a seal with up to four characters; opacity in [0, 1], shape ``(side, side)``."""
    work = max(side, 40)
    rows, cols = {1: (1, 1), 2: (2, 1), 3: (2, 2), 4: (2, 2)}[len(chars)]
    frame = Image.new("L", (work, work), 0)
    draw = ImageDraw.Draw(frame)
    edge = max(1, work // 18)
    box = (1, 1, work - 2, work - 2)
    round_ = rng.random() < 0.2
    white = bool(rng.random() < 0.5)
    draw_box = draw.ellipse if round_ else draw.rectangle
    draw_box(box, outline=255, width=edge, fill=255 if white else 0)
    inner = work * (0.66 if round_ else 0.84)
    text = np.zeros((work, work), np.float32)
    for k, char in enumerate(chars):
        c, r = divmod(k, rows)
        size = max(8, int(inner / max(rows, cols) * 1.02))
        glyph = fonts.glyph("regular", char, size)
        h, w = int(inner / rows), int(inner / cols)
        part = Image.fromarray((glyph * 255).astype(np.uint8))
        inked = part.getbbox() or (0, 0, part.width, part.height)
        tile = np.asarray(part.crop(inked).resize((max(4, w - 2), max(4, h - 2))), np.float32) / 255
        y = int((work - inner) / 2 + r * h)
        x = int((work + inner) / 2 - (c + 1) * w)
        text[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    text = step(blur(text, work / 90), 0.18, 0.5)
    shape = grey(frame)
    mark = shape * (1 - text) if white else np.maximum(shape, text)
    mark = mark * (1 - 0.8 * step(field(rng, work, work, max(1.3, work / 30)), 0.9, 1.9))
    image = Image.fromarray((mark * 255).astype(np.uint8)).rotate(rng.normal(0, 2), Image.Resampling.BICUBIC)
    return grey(image.resize((side, side), Image.Resampling.LANCZOS))


def stamp(sheet: Array, mark: Array, top: int, left: int, colour: Colour) -> None:
    """Press a mark onto the sheet in place; what falls outside is cut off."""
    t0, l0 = max(0, top), max(0, left)
    t1, l1 = min(sheet.shape[0], top + mark.shape[0]), min(sheet.shape[1], left + mark.shape[1])
    if t0 < t1 and l0 < l1:
        alpha = mark[t0 - top : t1 - top, l0 - left : l1 - left, None] * 0.88
        part = sheet[t0:t1, l0:l1]
        part[:] = part * (1 - alpha) + alpha * np.array(colour, np.float32)


def shoot(rng: np.random.Generator, sheet: Array, longer: int) -> Image.Image:
    """Photograph or scan a sheet: light, lens, sensor and size.

    Args:
        rng: source of randomness.
        sheet: shape ``(H, W, 3)``, values in [0, 1].
        longer: pixels on the longer side of the result.
    """
    height, width = sheet.shape[:2]
    photo = rng.random() < 0.4
    yy, xx = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    light = np.ones((height, width), np.float32)
    if photo:
        angle = rng.uniform(0, 2 * np.pi)
        light += rng.uniform(0, 0.16) * (np.cos(angle) * xx + np.sin(angle) * yy)
        light -= rng.uniform(0, 0.16) * (xx**2 + yy**2)
        light *= rng.uniform(0.78, 1.06)
        if rng.random() < 0.12:  # the shadow of a hand or a window bar
            offset = rng.uniform(-0.6, 0.6)
            light *= 1 - 0.25 * step(np.sin(angle) * xx - np.cos(angle) * yy - offset, -0.25, 0.25)
    cast = 1 + (rng.normal(0, 0.035, 3) if photo else rng.normal(0, 0.008, 3))
    lit = np.clip(sheet * light[..., None] * cast.astype(np.float32), 0, 1)
    image = Image.fromarray((lit * 255).astype(np.uint8))
    scale = longer / max(height, width)
    size = (max(24, round(width * scale)), max(24, round(height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    softness = abs(rng.normal(0, 0.25 if not photo else 0.45)) * longer / 220
    if softness > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(float(min(softness, 1.6))))
    values = np.asarray(image, np.float32)
    strength = abs(rng.normal(0, 1.2 if not photo else 2.6))
    grain = rng.standard_normal((*values.shape[:2], 1), dtype=np.float32) * strength
    if photo:
        grain = grain + rng.standard_normal(values.shape, dtype=np.float32) * strength * 0.4
    image = Image.fromarray(np.clip(values + grain, 0, 255).astype(np.uint8))
    return image.convert("L").convert("RGB") if rng.random() < 0.15 else image


def encode(image: Image.Image, kind: str, quality: int) -> bytes:
    """Encode as ``jpg``, ``png`` or ``webp``; ``quality`` is not used for PNG."""
    out = io.BytesIO()
    if kind == "png":
        image.quantize(48, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    elif kind == "webp":
        image.save(out, "WEBP", quality=quality, method=4)
    else:
        image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()
