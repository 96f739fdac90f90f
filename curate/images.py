"""The one place where pixels are opened: an image, or a named failure.

Limits against decompression bombs are checked from the header, before a pixel is decoded.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from curate.errors import CurateError

MAX_PIXELS = 178_956_970
"""Larger pictures are refused as bombs: twice the limit at which Pillow warns."""

EXTENSIONS = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "AVIF": ".avif", "TIFF": ".tif",
    "BMP": ".bmp",
}  # fmt: skip
"""Formats that are read, and the extension that their content gets."""

FORMATS = tuple(name for name in EXTENSIONS if name != "MPO")  # the JPEG plugin opens MPO

Mode = Literal["RGB", "L", "native"]

_NEARLY_WHITE = 235

FailureReason = Literal["empty", "html", "svg", "not_an_image", "truncated", "too_large", "corrupt", "unreadable_file"]


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What the header says: Pillow's format name, size in pixels after EXIF orientation, mode, EXIF orientation 1-8."""

    format: str
    width: int
    height: int
    mode: str
    orientation: int


class ImageFailure(CurateError):
    """An image cannot be used; `reason` is one of `FailureReason`, `detail` says more.

    Internal: callers turn it into a row or a line with its reason, it never reaches the user as an exception.
    """

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: FailureReason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageFailure], tuple[FailureReason, str]]:
        """Exceptions are pickled by their message alone, which would not come back from a worker process."""
        return type(self), (self.reason, self.detail)


def describe_bytes(head: bytes) -> FailureReason:
    """Name what bytes that are no image look like, from their first kilobyte.

    Example:
        >>> describe_bytes(b"<!DOCTYPE html><html>"), describe_bytes(b"")
        ('html', 'empty')
    """
    if not head:
        return "empty"
    text = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<svg", b"<?xml")) and b"<svg" in text:
        return "svg"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<?xml", b"<!--")):
        return "html"
    return "not_an_image"


_opening = threading.Lock()  # `warnings.catch_warnings` is not thread-safe


@contextmanager
def _open(source: Path | bytes) -> Iterator[Image.Image]:
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise ImageFailure("unreadable_file", error.strerror or str(error)) from error
    with stream, _identify(stream) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(f"{image.width} x {image.height} pixels")
        yield image


def _identify(stream: IO[bytes]) -> Image.Image:
    try:
        Image.init()  # loads every plugin, once: `formats` below may only name loaded ones
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked by the caller, before decoding
            return Image.open(stream, formats=list(FORMATS))
    except UnidentifiedImageError as error:
        stream.seek(0)
        raise ImageFailure(describe_bytes(stream.read(1024)), "no readable image format") from error
    except Image.DecompressionBombError as error:
        raise _too_large("more pixels than Pillow opens") from error
    except Exception as error:  # a broken header can raise almost anything from a decoder
        raise ImageFailure("corrupt", f"{type(error).__name__}: {error}") from error


def _too_large(size: str) -> ImageFailure:
    return ImageFailure("too_large", f"{size}, the limit is {MAX_PIXELS} in all")


def _orientation(image: Image.Image) -> int:
    try:
        # Not image.getexif(): for PNG it decodes the pixels, and what was damaged goes unnoticed the second time.
        return int(Image.Image.getexif(image).get(0x0112, 1))
    except Exception:  # noqa: BLE001 - broken EXIF must not cost the picture
        return 1


def read_header(source: Path | bytes) -> ImageHeader:
    """Read format, size and mode without decoding pixels. Raises `ImageFailure`."""
    with _open(source) as image:
        return _header(image)


def _header(image: Image.Image) -> ImageHeader:
    orientation = _orientation(image)
    width, height = (image.height, image.width) if orientation >= 5 else image.size
    return ImageHeader(format=image.format or "?", width=width, height=height, mode=image.mode, orientation=orientation)


def load(source: Path | bytes, *, mode: Mode = "RGB", draft: int | None = None) -> Image.Image:
    """Decode the first frame in full, turned as EXIF says, converted to `mode`.

    Args:
        source: a file, or the bytes of one.
        mode: `RGB` or `L`, alpha laid on white, or on black where what is seen is nearly white; or `native`: as it is,
            but that one colour which stands for what is clear becomes alpha.
        draft: decode a JPEG at the smallest of its scales whose sides are at least this many pixels.

    Raises:
        ImageFailure: no readable image; truncated files are failures, never half pictures.
    """
    return load_with_header(source, mode=mode, draft=draft)[0]


def load_with_header(
    source: Path | bytes, *, mode: Mode = "RGB", draft: int | None = None, longer: int | None = None
) -> tuple[Image.Image, ImageHeader]:
    """As `load`, and the header of the file, from one opening; with `longer`, the longer side alone must be so long."""
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "another library has switched on LOAD_TRUNCATED_IMAGES"
    with _open(source) as image:
        header = _header(image)
        if (draft or longer) and image.format == "JPEG" and image.mode in {"RGB", "L"}:
            size = (draft, draft) if draft else _inside(image.size, longer or 1)
            image.draft(mode if mode == "L" else "RGB", size)
        try:
            image.load()
            return _convert(ImageOps.exif_transpose(image) if header.orientation > 1 else image, mode), header
        except Exception as error:
            text = str(error).lower()
            reason: FailureReason = "truncated" if "trunc" in text or "broken data" in text else "corrupt"
            raise ImageFailure(reason, f"{type(error).__name__}: {error}") from error


def _inside(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """The sides of a picture of that shape whose longer side has so many pixels, rounded up."""
    most = max(size)
    return max(1, -(-longer * size[0] // most)), max(1, -(-longer * size[1] // most))


def _laid_on_paper(rgba: Image.Image) -> Image.Image:
    """Without alpha: on white, or on black where white would swallow what is seen, as of a white logo."""
    seen = rgba.convert("L").histogram(rgba.getchannel("A").point(lambda alpha: 255 * (alpha >= 128)))
    paper = 0 if sum(seen) and sum(seen[_NEARLY_WHITE:]) > 0.98 * sum(seen) else 255
    return Image.alpha_composite(Image.new("RGBA", rgba.size, (paper, paper, paper, 255)), rgba)


def _convert(image: Image.Image, mode: Mode) -> Image.Image:
    if "transparency" in image.info and image.mode in {"1", "L", "P", "RGB"}:
        image = image.convert("RGBA")  # one colour or palette entry stands for what is clear
    if mode in {image.mode, "native"}:
        return image.copy()
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        # Pillow clips 16-bit greys to 255 when it converts them: scale them instead.
        _, high = image.convert("F").getextrema()
        top = 65535.0 if isinstance(high, float) and high > 255 else 255.0
        image = image.convert("F").point(lambda value: value * (255.0 / top)).convert("L")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        image = _laid_on_paper(image.convert("RGBA"))
    return image.convert("RGB").convert(mode) if image.mode == "CMYK" else image.convert(mode)
