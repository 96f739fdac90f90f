from __future__ import annotations

import errno
import gc
import io
import os
import pickle
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

import curate.images
from curate.images import (
    EXTENSIONS,
    MAX_PIXELS,
    PASSING,
    ImageFailure,
    ImageHeader,
    describe_bytes,
    load,
    load_with_header,
    read_header,
)

Pixel = tuple[int, ...]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """Red above, blue below; green in the upper left corner."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (0, height // 2, width, height))
    image.paste((0, 255, 0), (0, 0, width // 4, height // 4))
    return image


def png_header(width: int, height: int, colours: int = 2) -> bytes:
    """A PNG whose header claims this size, with hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 50)) + chunk(b"IEND", b"")


def failure(source: Path | bytes) -> ImageFailure:
    with pytest.raises(ImageFailure) as caught:
        load(source)
    return caught.value


def near(found: Any, wanted: Pixel, tolerance: int = 3) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(found, wanted, strict=True))


# -- what is no image is named

HTML = b"\xef\xbb\xbf\n <!DOCTYPE html><html><body>Consent</body></html>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"), (HTML, "html"), (b"<html>", "html"), (b"<?xml version='1.0'?><rss/>", "html"), (SVG, "svg"),
        (b"<svg/>", "svg"), (b"\x00" * 2000, "not_an_image"), (b"%PDF-1.7", "not_an_image"),
        (b'{"error": 404}', "not_an_image"), (b"\xff\xd8\xff", "not_an_image"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_image_are_told_by_what_they_look_like(tmp_path: Path, body: bytes, reason: str) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(body)
    assert failure(file).reason == reason
    assert failure(body).reason == reason
    assert describe_bytes(body) == reason
    with pytest.raises(ImageFailure, match=f"^{reason}: "):
        read_header(file)


def test_a_file_that_cannot_be_opened_is_a_failure(tmp_path: Path) -> None:
    assert failure(tmp_path / "none.png").reason == "unreadable_file"
    assert failure(tmp_path).reason == "unreadable_file"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, "Input/output error"), "unreadable_file"),
        (PermissionError(errno.EACCES, "Permission denied"), "unreadable_file"),
        (OSError(errno.EMFILE, "Too many open files"), "unreadable_file"),
        (MemoryError(), "out_of_memory"), (OSError("out of memory error when reading image file"), "out_of_memory"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["open", "load"])
def test_what_lies_in_the_machine_is_told_from_what_lies_in_the_picture(
    error: Exception, reason: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    body = encoded(picture())
    monkeypatch.setattr(*((Image, "open", fail) if where == "open" else (ImageFile.ImageFile, "load", fail)))
    assert failure(body).reason == reason
    assert reason in PASSING


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_a_failure_and_never_half_a_picture(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8))
    body = encoded(noise, kind)
    assert load(body).size == (90, 80)
    assert failure(body[: int(len(body) * share)]).reason in {"truncated", "corrupt"}


@pytest.mark.parametrize("draft", [None, 16])
def test_a_truncated_jpeg_is_a_failure_also_when_decoded_small(draft: int | None) -> None:
    body = encoded(picture(400, 300), "JPEG")
    with pytest.raises(ImageFailure) as caught:
        load(body[: len(body) // 2], draft=draft)
    assert caught.value.reason == "truncated"


def test_damage_inside_a_png_is_a_failure() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8))
    whole = encoded(noise)
    for place in (len(whole) // 4, len(whole) // 2, len(whole) * 9 // 10):
        body = bytearray(whole)
        body[place] ^= 0xFF
        assert failure(bytes(body)).reason == "truncated"


@pytest.mark.parametrize("kind", ["EPS", "PPM", "ICO", "TGA"])
def test_formats_that_are_not_wanted_are_not_opened(kind: str) -> None:
    assert failure(encoded(picture(), kind)).reason == "not_an_image"


# -- bombs


@pytest.mark.parametrize("size", [(50_000, 50_000), (MAX_PIXELS + 1, 1), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("pillow_checks", [True, False])
def test_a_bomb_is_refused_by_its_header(
    size: tuple[int, int], pillow_checks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not pillow_checks:  # another library may have switched Pillow's own check off
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    body = png_header(*size)
    assert failure(body).reason == "too_large"
    with pytest.raises(ImageFailure, match=r"^too_large: .*the limit is 178956970"):
        read_header(body)


def test_memory_is_bounded_by_bytes_and_not_by_pixels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate.images, "MAX_BYTES", 60 * 40 * 4 - 1)
    grey = picture().convert("L")
    assert load(encoded(grey)).size == (60, 40)
    assert failure(encoded(picture())).reason == "too_large"
    assert failure(encoded(picture().convert("RGBA"))).reason == "too_large"
    large = encoded(picture(400, 300), "JPEG")  # fits where it is decoded at a smaller scale
    assert failure(large).reason == "too_large"
    assert load(large, draft=30).size == (50, 38)


def test_a_header_below_the_limit_is_read_without_decoding() -> None:
    header = read_header(png_header(13_000, 13_000))  # half a gigabyte of pixels, were they decoded
    assert header == ImageHeader(format="PNG", width=13_000, height=13_000, mode="RGB", orientation=1)


def test_reading_a_header_decodes_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = {kind: encoded(picture(), kind) for kind in sorted(set(EXTENSIONS) - {"MPO"})}
    decoded = []
    plain = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.format) or plain(self))
    for kind, body in bodies.items():
        assert read_header(body).format == kind
    assert decoded == []
    load(bodies["PNG"])
    assert decoded != []


# -- right pictures


def test_the_smallest_picture_is_one() -> None:
    assert read_header(encoded(Image.new("RGB", (1, 1)))).width == 1
    for kind in ("PNG", "JPEG", "GIF"):
        image = load(encoded(Image.new("RGB", (1, 1), (255, 255, 255)), kind), draft=128)
        assert (image.size, image.mode, image.getpixel((0, 0))) == ((1, 1), "RGB", (255, 255, 255))


@pytest.mark.parametrize("kind", sorted(set(EXTENSIONS) - {"MPO"}))
def test_every_format_is_read_by_its_content_whatever_its_name(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}, "JPEG": {"quality": 100}}.get(kind, {})
    file.write_bytes(encoded(picture(), kind, **lossless))
    header = read_header(file)
    assert (header.format, header.width, header.height, header.orientation) == (kind, 60, 40, 1)
    image = load(file)
    assert near(image.getpixel((5, 5)), (0, 255, 0), 20)
    assert near(image.getpixel((50, 5)), (255, 0, 0), 20)
    assert near(image.getpixel((50, 35)), (0, 0, 255), 20)


def with_late_exif(body: bytes) -> bytes:
    """The PNG with its EXIF moved behind the pixels, as some programs write it."""
    chunks, place = [], 8
    while place < len(body):
        length = int.from_bytes(body[place : place + 4], "big") + 12
        chunks.append(body[place : place + length])
        place += length
    late = [chunk for chunk in chunks if chunk[4:8] == b"eXIf"]
    return body[:8] + b"".join([*(c for c in chunks[:-1] if c[4:8] != b"eXIf"), *late, chunks[-1]])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG, EXIF last", "TIFF", "TIFF, packed", "WEBP", "MPO"])
def test_pictures_are_turned_as_their_exif_says(orientation: int, kind: str, tmp_path: Path) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = picture(160, 96)
    if orientation in turns:
        stored = stored.transpose(turns[orientation])  # what a camera held that way stores
    packed = {"compression": "tiff_lzw"} if "packed" in kind else {"quality": 90}
    body = encoded(stored, kind.partition(",")[0], exif=exif if "TIFF" in kind else exif.tobytes(), **packed)
    if "last" in kind:
        body = with_late_exif(body)
        assert body.index(b"eXIf") > body.index(b"IDAT")
    (tmp_path / "a").write_bytes(body)
    for header in (read_header(body), read_header(tmp_path / "a"), load_with_header(body, longer=40)[1]):
        assert (header.width, header.height, header.orientation) == (160, 96, orientation)
    for draft in (None, 40):
        image = load(body, draft=draft)
        assert image.width / image.height == pytest.approx(160 / 96)
        x, y = image.width // 8, image.height // 8
        assert near(image.getpixel((x, y)), (0, 255, 0), 30)
        assert near(image.getpixel((7 * x, y)), (255, 0, 0), 30)
        assert near(image.getpixel((7 * x, 7 * y)), (0, 0, 255), 30)


def test_an_orientation_that_does_not_exist_costs_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    assert load(encoded(picture(), "JPEG", exif=exif.tobytes())).size in {(60, 40), (40, 60)}
    broken = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert load(broken).size == (60, 40)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_greys_keep_their_shades(kind: str, order: str) -> None:
    shades = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(order)
    if order == ">u2" and kind == "PNG":
        image = Image.fromarray(shades.astype("<u2"))
    else:
        mode = "I;16" if order == "<u2" else "I;16B"
        image = Image.frombytes(mode, (64, 64), shades.tobytes())
    body = encoded(image, kind)
    for grey in (np.asarray(load(body, mode="L")), np.asarray(load(body))[..., 1]):
        assert np.abs(grey.astype(float) - shades.astype(float) / 257).max() <= 1


def deep(values: Any) -> Any:
    """What is made of a one-row TIFF of these values."""
    return np.asarray(load(encoded(Image.fromarray(np.array([values])), "TIFF"), mode="L"))[0].tolist()


def test_deep_greys_are_scaled_by_their_type_and_not_by_what_they_show() -> None:
    assert deep(np.array([0, 255, 6553, 65535], np.uint16)) == [0, 1, 25, 255]
    assert deep(np.array([0, 200], np.uint16)) == [0, 1]  # dark, and not as bright as a picture of 8 bits
    assert deep(np.array([0, 200, 2**30, 2**31 - 1], np.int32)) == [0, 0, 128, 255]
    assert deep(np.array([-5, 2**31 - 1], np.int32)) == [0, 255]
    body = encoded(Image.fromarray(np.array([[0, 2**31 - 1, -1, -(2**31)]], np.int32)), "TIFF")
    unsigned = bytearray(body)
    place = body.index(struct.pack("<HHI", 339, 3, 1))  # SampleFormat: signed
    unsigned[place + 8 : place + 10] = struct.pack("<H", 1)
    assert np.asarray(load(bytes(unsigned), mode="L"))[0].tolist() == [0, 128, 255, 128]


def test_greys_that_are_real_numbers_keep_their_shades_and_survive_what_is_no_number() -> None:
    real = np.float32
    assert deep(np.array([0, 0.1, 0.5, 1], real)) == [0, 26, 128, 255]
    assert deep(np.array([0, 1.5, 128, 255], real)) == [0, 2, 128, 255]
    assert deep(np.array([0, 256, 32768, 65535], real)) == [0, 1, 128, 255]
    assert deep(np.array([-1, np.nan, 0.5, np.inf, -np.inf], real)) == [0, 0, 128, 255, 0]
    assert deep(np.array([np.nan, np.nan], real)) == [0, 0]
    tall = np.linspace(0, 1, 1000, dtype=real)[:, None]
    assert np.asarray(load(encoded(Image.fromarray(tall), "TIFF"), mode="L"))[:, 0].tolist() == (
        np.rint(tall * 255)[:, 0].tolist()
    )


def test_cmyk_is_shown_as_its_colours() -> None:
    image = picture().convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        body = encoded(image, kind)
        assert read_header(body).mode == "CMYK"
        found = load(body)
        assert near(found.getpixel((50, 5)), (255, 0, 0), 12)
        assert load(body, mode="L").mode == "L"


def test_transparency_lies_on_white_in_every_mode_that_has_it() -> None:
    half = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    half.putpixel((1, 0), (0, 0, 0, 0))
    palette = half.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
    clear = palette.getpixel((1, 0))
    assert isinstance(clear, int)
    alphas = bytes(0 if n == clear else 255 for n in range(256))
    grey = Image.new("L", (2, 1), 90)
    grey.putpixel((1, 0), 7)
    cases = [
        (encoded(half), (200, 0, 0)), (encoded(half, "WEBP", lossless=True), (200, 0, 0)),
        (encoded(palette, transparency=clear), (200, 0, 0)), (encoded(palette, transparency=alphas), (200, 0, 0)),
        (encoded(palette, "GIF", transparency=clear), (200, 0, 0)),
        (encoded(half.convert("RGB"), transparency=(0, 0, 0)), (200, 0, 0)),
        (encoded(grey, transparency=7), (90, 90, 90)), (encoded(grey, "GIF", transparency=7), (90, 90, 90)),
        (encoded(half.convert("LA")), (60, 60, 60)),
    ]  # fmt: skip
    for body, solid in cases:
        image = load(body)
        assert image.mode == "RGB"
        assert near(image.getpixel((0, 0)), solid)
        assert image.getpixel((1, 0)) == (255, 255, 255)
        assert load(body, mode="L").getpixel((1, 0)) == 255


def test_a_palette_without_transparency_keeps_its_colours() -> None:
    image = load(encoded(picture().convert("P", palette=Image.Palette.ADAPTIVE)))
    assert near(image.getpixel((50, 5)), (255, 0, 0))


def test_one_bit_pictures_are_black_and_white() -> None:
    image = Image.new("1", (4, 4), 1)
    image.putpixel((0, 0), 0)
    found = load(encoded(image))
    assert (found.getpixel((0, 0)), found.getpixel((1, 1))) == ((0, 0, 0), (255, 255, 255))


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [picture(), Image.new("RGB", (60, 40), (1, 2, 3)), Image.new("RGB", (60, 40), (9, 9, 9))]
    body = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=10)
    with Image.open(io.BytesIO(body)) as image:
        assert image.n_frames == 3
    assert near(load(body).getpixel((50, 5)), (255, 0, 0), 10)
    assert near(load(body).getpixel((50, 35)), (0, 0, 255), 10)


def test_a_jpeg_of_several_pictures_is_decoded_small_too(monkeypatch: pytest.MonkeyPatch) -> None:
    body = encoded(picture(800, 600), "MPO", save_all=True, append_images=[picture(800, 600)])
    assert read_header(body).format == "MPO"
    sizes = []
    plain = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: sizes.append(self.size) or plain(self))
    small = load(body, draft=128)
    assert set(sizes) == {small.size} == {(200, 150)}
    assert near(small.getpixel((10, 10)), (0, 255, 0), 30)


def test_drafts_are_smaller_but_never_below_what_was_asked() -> None:
    body = encoded(picture(800, 600), "JPEG")
    small = load(body, draft=128)
    assert 128 <= min(small.size) < 600
    assert small.width / small.height == pytest.approx(4 / 3, abs=0.02)
    assert load(body, draft=5000).size == (800, 600)


# -- housekeeping


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_no_file_stays_open_whether_it_could_be_read_or_not(tmp_path: Path) -> None:
    whole = encoded(picture(), "JPEG")
    bodies = [
        whole,
        whole[:-100],
        HTML,
        b"",
        png_header(50_000, 50_000),
        encoded(picture()),
        encoded(picture(), "TIFF"),
    ]
    files = []
    for n, body in enumerate(bodies):
        files.append(tmp_path / f"{n}.jpg")
        files[-1].write_bytes(body)
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - pathlib would hold the folder open
    outcomes = []
    kept: list[Any] = []  # a failure that somebody keeps must not keep the file open
    for file in files:
        for read in (read_header, load):
            try:
                kept.append(read(file))
                outcomes.append("ok")
            except ImageFailure as error:
                kept.append(error)
                outcomes.append(error.reason)
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert outcomes.count("ok") == 7
    for file in files:  # nor is it locked or changed
        assert file.read_bytes() == bodies[files.index(file)]


def test_a_failure_survives_a_trip_through_another_process() -> None:
    error = failure(b"")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is ImageFailure
    assert (back.reason, back.detail, str(back)) == (error.reason, error.detail, str(error))


def test_many_threads_read_the_same() -> None:
    bodies = [encoded(picture(), kind) for kind in ("PNG", "JPEG", "GIF", "BMP")] * 20
    one = [load(body).tobytes() for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        assert [image.tobytes() for image in pool.map(load, bodies)] == one


def test_a_white_picture_on_nothing_is_laid_on_black_and_others_on_white():
    for ink, paper in (((255, 255, 255), 0), ((250, 251, 252), 0), ((200, 0, 0), 255), ((0, 0, 0), 255)):
        logo = Image.new("RGBA", (40, 40), (*ink, 0))
        logo.paste((*ink, 255), (10, 10, 30, 30))
        buffer = io.BytesIO()
        logo.save(buffer, "PNG")
        seen = load(buffer.getvalue())
        assert seen.getpixel((0, 0)) == (paper,) * 3
        assert seen.getpixel((20, 20)) == ink
        assert load(buffer.getvalue(), mode="native").mode == "RGBA"
