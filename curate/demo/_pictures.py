"""The pictures of the gallery: pages of calligraphy, what does not belong there, copies and broken bodies."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from curate.demo._brush import Array, BrushFonts, blur, field, grey, ink, step, write
from curate.demo._paper import Material, choose_material, encode, paper, rules, seal, shoot, stamp

RED = (0.74, 0.13, 0.10)
SEAL_TEXT = "山川風月清雲和心石竹松書文道千秋長楽無為春花白水林泉東海明玉大方"
KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわん"

# (columns, rows) of a page and how often it is met: single characters, couplets, scrolls, pages of a copybook
LAYOUTS: tuple[tuple[float, tuple[int, int]], ...] = (
    (0.04, (1, 1)),
    (0.04, (1, 2)),
    (0.08, (1, 3)),
    (0.04, (1, 4)),
    (0.16, (2, 2)),
    (0.24, (2, 3)),
    (0.26, (3, 3)),
    (0.14, (3, 4)),
)


def choose_layout(rng: np.random.Generator) -> tuple[int, int]:
    """Draw (columns, rows) of a page."""
    weights = np.array([w for w, _ in LAYOUTS])
    return LAYOUTS[rng.choice(len(LAYOUTS), p=weights / weights.sum())][1]


def page(rng: np.random.Generator, fonts: BrushFonts, columns: Sequence[Sequence[tuple[str, str]]]) -> Image.Image:
    """Render one picture of calligraphy.

    Nothing but the shapes of the strokes depends on the style: paper, ink, layout, light and size are drawn from
    the same distributions whatever the style is.

    Args:
        rng: source of randomness.
        fonts: the fonts.
        columns: for each column from the right, (style, character) from top to bottom.
    """
    cols, rows = len(columns), max(len(c) for c in columns)
    many = max(cols, rows)
    lowest = (64, 120, 160, 190)[min(many, 4) - 1]
    longer = int(lowest * (400 / lowest) ** rng.beta(1.5, 1.7))
    margins = rng.uniform(0.04, 0.24, 4) * rng.uniform(0.5, 1.2)
    if rng.random() < 0.10:  # a detail: the frame cuts through what is written at the edges
        margins = rng.uniform(-0.12, 0.10, 4)
    if rng.random() < 0.08:
        margins[rng.integers(4)] += rng.uniform(0.4, 1.2)  # a bare side, as beside the text of a scroll
    height_cells = rows + margins[0] + margins[1]
    width_cells = cols + margins[2] + margins[3]
    cell = max(260.0, 1.4 * longer) / max(height_cells, width_cells)
    height, width = round(height_cells * cell), round(width_cells * cell)
    origin = (margins[0] * cell, margins[2] * cell)
    material = choose_material(rng)
    sheet = paper(rng, material, height, width)
    angle = float(np.clip(rng.normal(0, 1.6), -5, 5))
    if rng.random() < 0.17 and not material.stone:
        lines = _turn(rules(rng, height, width, cell=cell, origin=origin, grid=(rows, cols)), angle)
        colour = RED if rng.random() < 0.65 else (0.35, 0.35, 0.33)
        stamp(sheet, lines, 0, 0, colour)
    marks = write(rng, fonts, columns, shape=(height, width), cell=cell, origin=origin)
    opacity = ink(
        rng,
        _turn(marks, angle),
        cell=cell,
        weight=float(np.clip(rng.normal(0, 0.15), -0.3, 0.4)),
        dry=float(max(0.0, rng.uniform(-0.8, 0.6))),
        rough=float(rng.uniform(0.5, 1.0) if material.stone else rng.uniform(0, 0.5)),
    )
    opacity = opacity[..., None] * rng.uniform(0.86, 1.0)
    sheet = sheet * (1 - opacity) + opacity * np.array(material.ink, np.float32)
    if rng.random() < 0.28:
        _sign(rng, fonts, sheet, cell, material)
    return shoot(rng, sheet, longer)


def _turn(layer: Array, angle: float) -> Array:
    image = Image.fromarray((np.clip(layer, 0, 1) * 255).astype(np.uint8))
    return grey(image.rotate(angle, Image.Resampling.BICUBIC))


def _sign(rng: np.random.Generator, fonts: BrushFonts, sheet: Array, cell: float, material: Material) -> None:
    height, width = sheet.shape[:2]
    side = max(14, int(rng.uniform(0.16, 0.30) * min(cell, 160)))
    gap = int(rng.uniform(0.03, 0.10) * min(height, width))
    corner = rng.choice(4, p=[0.62, 0.14, 0.12, 0.12])  # most seals stand at the lower left, where the text ends
    top = height - gap - side if corner in (0, 2) else gap
    left = gap if corner in (0, 1) else width - gap - side
    for k in range(1 if rng.random() < 0.75 else 2):
        mark = seal(rng, fonts, "".join(rng.choice(list(SEAL_TEXT), int(rng.choice([1, 2, 4])), replace=False)), side)
        colour = RED if material.paper[0] - material.paper[1] < 0.4 else (0.35, 0.04, 0.04)
        stamp(sheet, mark, top - k * int(1.2 * side) * (1 if corner in (0, 2) else -1), left, colour)


def kana_page(rng: np.random.Generator, fonts: BrushFonts) -> Image.Image:
    """Render lines of hiragana, which are no style of Chinese characters at all."""
    cols, rows = int(rng.integers(2, 5)), int(rng.integers(4, 7))
    style = str(rng.choice(["regular", "running", "cursive"]))
    return page(rng, fonts, [[(style, c) for c in rng.choice(list(KANA), rows)] for _ in range(cols)])


def seal_picture(rng: np.random.Generator, fonts: BrushFonts) -> Image.Image:
    """Render a page of a seal collection: two to six impressions, with no brush writing."""
    cols, rows = ((1, 2), (2, 2), (2, 3), (3, 2))[int(rng.integers(4))]
    cell = int(rng.integers(130, 170))
    height, width = rows * cell, cols * cell
    light = next(m for m in (choose_material(rng) for _ in range(100)) if m.paper[1] > 0.7)
    sheet = paper(rng, light, height, width)
    for k in range(cols * rows):
        side = int(cell * rng.uniform(0.4, 0.75))
        chars = "".join(rng.choice(list(SEAL_TEXT), int(rng.choice([1, 2, 3, 4])), replace=False))
        row, col = divmod(k, cols)
        top, left = (int((n + 0.5) * cell - side / 2 + rng.normal(0, 0.05 * cell)) for n in (row, col))
        stamp(sheet, seal(rng, fonts, chars, side), top, left, RED)
    return shoot(rng, sheet, int(rng.integers(120, 360)))


def blank_picture(rng: np.random.Generator) -> Image.Image:
    """Render a sheet on which nothing is written, or a page with empty practice squares."""
    height, width = int(rng.integers(220, 420)), int(rng.integers(220, 420))
    material = choose_material(rng)
    sheet = paper(rng, material, height, width)
    if rng.random() < 0.4 and not material.stone:
        cell = min(height, width) / 3.3
        lines = rules(rng, height, width, cell=cell, origin=(0.15 * cell, 0.15 * cell), grid=(3, 3))
        stamp(sheet, lines, 0, 0, RED)
    return shoot(rng, sheet, int(rng.integers(100, 380)))


def drawing(rng: np.random.Generator, kind: str) -> Image.Image:
    """Render an ink painting: ``bamboo``, ``hills``, ``circle``, ``branch`` or ``fish``."""
    height, width = int(rng.integers(300, 420)), int(rng.integers(300, 420))
    light = next(m for m in (choose_material(rng) for _ in range(100)) if m.paper[1] > 0.7)
    sheet = paper(rng, light, height, width)
    painters = {"bamboo": _bamboo, "hills": _hills, "circle": _circle, "branch": _branch, "fish": _fish}
    wash, colour = painters[kind](rng, height, width)
    sheet = sheet * (1 - wash[..., None]) + wash[..., None] * np.array(light.ink, np.float32)
    sheet = sheet * (1 - colour[..., None]) + colour[..., None] * np.array((0.80, 0.22, 0.22), np.float32)
    return shoot(rng, sheet, int(rng.integers(160, 400)))


def _canvas(height: int, width: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (width, height), 0)
    return image, ImageDraw.Draw(image)


def _values(image: Image.Image, radius: float = 1.0) -> Array:
    return blur(grey(image), radius)


def _leaf(draw: ImageDraw.ImageDraw, x: float, y: float, angle: float, long: float, wide: float, fill: int) -> None:
    t = np.linspace(0, 1, 16)
    half = wide * np.sin(np.pi * t**0.8)
    ux, uy = np.cos(angle), np.sin(angle)
    left = [
        (float(x + long * a * ux - b * uy), float(y + long * a * uy + b * ux)) for a, b in zip(t, half, strict=True)
    ]
    right = [
        (float(x + long * a * ux + b * uy), float(y + long * a * uy - b * ux)) for a, b in zip(t, half, strict=True)
    ]
    draw.polygon(left + right[::-1], fill=fill)


def _bamboo(rng: np.random.Generator, height: int, width: int) -> tuple[Array, Array]:
    image, draw = _canvas(height, width)
    for _ in range(int(rng.integers(2, 4))):
        x, y, thick, fill = (
            rng.uniform(0.15, 0.85) * width,
            float(height),
            rng.uniform(5, 14),
            int(rng.integers(110, 220)),
        )
        lean = rng.normal(0, 0.08)
        while y > -20:
            long = rng.uniform(50, 95)
            nx, ny = x + lean * long, y - long
            draw.line((x, y - 3, nx, ny + 3), fill=fill, width=int(thick))
            for _ in range(int(rng.integers(2, 6))):
                angle = rng.uniform(0.1, 1.3) if rng.random() < 0.5 else np.pi - rng.uniform(0.1, 1.3)
                _leaf(draw, nx, ny, angle, rng.uniform(35, 90), rng.uniform(3, 7), int(rng.integers(150, 255)))
            x, y = nx, ny
    return _values(image), np.zeros((height, width), np.float32)


def _hills(rng: np.random.Generator, height: int, width: int) -> tuple[Array, Array]:
    wash = np.zeros((height, width), np.float32)
    yy = np.arange(height, dtype=np.float32)[:, None]
    for layer in range(int(rng.integers(3, 6))):
        ridge = (
            height * (0.25 + 0.14 * layer)
            + np.cumsum(rng.normal(0, 1.3, width))
            + 40 * np.sin(np.linspace(0, rng.uniform(4, 9), width) + rng.uniform(0, 6))
        )
        depth = (yy - ridge[None].astype(np.float32)) / height
        tone = (0.25 + 0.15 * layer) * np.exp(-6 * np.clip(depth, 0, None)) * (depth > 0)
        wash = np.maximum(wash, tone * (1 + 0.12 * field(rng, height, width, 9)))
    sun, draw = _canvas(height, width)
    x, y, r = rng.uniform(0.2, 0.8) * width, 0.14 * height, rng.uniform(12, 26)
    draw.ellipse((x - r, y - r, x + r, y + r), fill=210)
    return np.clip(blur(wash, 1.2), 0, 1), _values(sun)


def _circle(rng: np.random.Generator, height: int, width: int) -> tuple[Array, Array]:
    yy, xx = np.mgrid[:height, :width].astype(np.float32)
    radius, thick = 0.34 * min(height, width), rng.uniform(16, 34)
    dx, dy = xx - width / 2, (yy - height / 2) * rng.uniform(0.92, 1.08)
    turn = (np.arctan2(dy, dx) / (2 * np.pi) + rng.uniform(0, 1)) % 1
    ring = step(thick / 2 * (1 - 0.6 * turn) - np.abs(np.hypot(dx, dy) - radius * (1 + 0.05 * turn)), -1.5, 1.5)
    bands = field(rng, 1, 400, 6)[0]
    streak = bands[np.clip((np.hypot(dx, dy) - radius + 60) * 3, 0, 399).astype(int)]
    wash = ring * (turn < 0.93) * (1 - 0.9 * step(streak + 2.5 * turn, 1.6, 2.4))
    return wash.astype(np.float32), np.zeros((height, width), np.float32)


def _branch(rng: np.random.Generator, height: int, width: int) -> tuple[Array, Array]:
    image, draw = _canvas(height, width)
    petals, red = _canvas(height, width)
    side = 1 if rng.random() < 0.5 else -1
    stack = [(0.0 if side > 0 else float(width), 0.85 * height, -0.5 if side > 0 else np.pi + 0.5, 17.0)]
    while stack:
        x, y, angle, thick = stack.pop()
        for _ in range(int(rng.integers(3, 7))):
            angle += rng.normal(0, 0.3)
            nx, ny = x + 34 * np.cos(angle), y + 34 * np.sin(angle)
            draw.line((x, y, nx, ny), fill=int(rng.integers(170, 250)), width=max(1, int(thick)))
            x, y, thick = nx, ny, thick * 0.86
            if thick < 8 and rng.random() < 0.7:
                cx, cy = x + rng.normal(0, 9), y + rng.normal(0, 9)
                for k in range(5):
                    px, py = cx + 7 * np.cos(k * 1.257), cy + 7 * np.sin(k * 1.257)
                    red.ellipse((px - 5, py - 5, px + 5, py + 5), fill=int(rng.integers(120, 230)))
        if thick > 4:
            stack += [(x, y, angle + 0.6, thick * 0.8), (x, y, angle - 0.6, thick * 0.7)]
    return _values(image), _values(petals)


def _fish(rng: np.random.Generator, height: int, width: int) -> tuple[Array, Array]:
    image, draw = _canvas(height, width)
    for _ in range(int(rng.integers(2, 6))):
        x, y, angle = rng.uniform(0.2, 0.8) * width, rng.uniform(0.15, 0.85) * height, rng.uniform(0, 6.28)
        long = rng.uniform(60, 120)
        _leaf(draw, x, y, angle, long, long * 0.16, int(rng.integers(120, 230)))
        for turn in (-0.5, 0.5):
            _leaf(draw, x + 6 * np.cos(angle), y + 6 * np.sin(angle), angle + np.pi + turn, long * 0.4, 6, 110)
        ex, ey = x + 0.88 * long * np.cos(angle), y + 0.88 * long * np.sin(angle)
        draw.ellipse((ex - 3, ey - 3, ex + 3, ey + 3), fill=255)
    return _values(image, 1.6), np.zeros((height, width), np.float32)


def variant(rng: np.random.Generator, body: bytes, how: str) -> tuple[bytes, str]:
    """Return a changed copy of an encoded picture, and in words what was done.

    Args:
        rng: source of randomness.
        body: the encoded original.
        how: ``reencoded``, ``resized``, ``brightened``, ``watermarked`` or ``cropped``.
    """
    image = Image.open(io.BytesIO(body)).convert("RGB")
    quality = int(rng.integers(74, 92))
    if how == "reencoded":
        quality = int(rng.integers(50, 71))
        return encode(image, "jpg", quality), f"re-encoded as JPEG, quality {quality}"
    if how == "resized":
        factor = rng.uniform(0.5, 0.8)
        size = (round(image.width * factor), round(image.height * factor))
        return encode(image.resize(size, Image.Resampling.LANCZOS), "jpg", quality), f"resized to {factor:.0%}"
    if how == "brightened":
        factor = float(rng.choice([rng.uniform(0.85, 0.90), rng.uniform(1.10, 1.15)]))
        return encode(ImageEnhance.Brightness(image).enhance(factor), "jpg", quality), f"brightness {factor - 1:+.0%}"
    if how == "watermarked":
        text = str(rng.choice(["shufa-gallery.example", "(c) inkstone.example", "art-photo.example"]))
        return encode(_watermark(rng, image, text), "jpg", quality), f"watermark {text!r}"
    share = rng.uniform(0.05, 0.10, 2)
    where = rng.uniform(0, 1, 2)
    cut_x, cut_y = max(2, round(share[0] * image.width)), max(2, round(share[1] * image.height))
    left, top = round(cut_x * where[0]), round(cut_y * where[1])
    box = (left, top, image.width - (cut_x - left), image.height - (cut_y - top))
    return encode(image.crop(box), "jpg", quality), f"cropped by {share[0]:.0%} and {share[1]:.0%}"


def _watermark(rng: np.random.Generator, image: Image.Image, text: str) -> Image.Image:
    size = max(8, round(image.width * rng.uniform(0.055, 0.075)))
    font = ImageFont.load_default(size)
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    dark = np.asarray(image.convert("L")).mean() > 110
    fill = (0, 0, 0, 95) if dark else (255, 255, 255, 105)
    place = (image.width - 0.04 * image.width, image.height * rng.choice([0.08, 0.95]))
    ImageDraw.Draw(layer).text(place, text, font=font, fill=fill, anchor="rm")
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def broken(rng: np.random.Generator, how: str, body: bytes) -> bytes:
    """Return a body that is no readable picture.

    Args:
        rng: source of randomness.
        how: ``truncated_jpeg``, ``html``, ``empty`` or ``one_pixel``.
        body: a whole JPEG, used by ``truncated_jpeg``.
    """
    if how == "truncated_jpeg":
        return body[: int(len(body) * rng.uniform(0.35, 0.85))]
    if how == "html":
        title, text = (
            ("403 Forbidden", "Hotlinking is not allowed."),
            ("404 Not Found", "The requested picture was moved."),
            ("Please sign in", "You need an account to see the full size."),
            ("Just a moment...", "Checking your browser before you go on."),
        )[int(rng.integers(4))]
        mark = f"<!-- {rng.integers(1 << 40):010x} -->"
        head = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n"
        page_ = f"{head}<body><h1>{title}</h1><p>{text}</p></body></html>\n"
        return (page_ + mark).encode()
    if how == "one_pixel":
        return encode(Image.new("RGB", (1, 1), tuple(int(v) for v in rng.integers(0, 256, 3))), "jpg", 75)
    return b""
