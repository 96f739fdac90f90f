"""The one place where pixels are opened: an image, or a named failure.

Limits against decompression bombs are checked from the header, before a pixel is decoded.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from curate.errors import CurateError

MAX_PIXELS = 178_956_970
"""Larger pictures are refused as bombs: twice the limit at which Pillow warns."""

MAX_BYTES = 2**29
"""Pictures that would take more memory as they are decoded are refused: 134 million pixels in colour, which Pillow
keeps in four bytes each. To convert one takes about as much again, and a worker per core does so."""

EXTENSIONS = {
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "AVIF": ".avif", "TIFF": ".tif",
    "BMP": ".bmp",
}  # fmt: skip
"""Formats that are read, and the extension that their content gets."""

FORMATS = tuple(name for name in EXTENSIONS if name != "MPO")  # the JPEG plugin opens MPO

Mode = Literal["RGB", "L", "native"]

_NEARLY_WHITE = 235

FRAME_PIXELS = 200_000_000
"""Of an animation, frames are checked until so many pixels were decoded."""

_ANIMATED = frozenset({"GIF", "WEBP", "PNG", "AVIF"})

FailureReason = Literal[
    "empty", "html", "svg", "not_an_image", "truncated", "too_large", "corrupt", "unreadable_file", "out_of_memory"
]

PASSING = ("unreadable_file", "out_of_memory")
"""Reasons that lie in the machine and not in the picture: the next time it may well be read."""


def is_passing(error: str | None) -> bool:
    """Whether the text of an `ImageFailure` tells of the machine and not of the picture.

    Example:
        >>> is_passing("unreadable_file: Input/output error"), is_passing("truncated: half a file"), is_passing(None)
        (True, False, False)
    """
    return error is not None and error.partition(":")[0] in PASSING


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


def read_content(file: Path) -> bytes:
    """The bytes of a file; raises `ImageFailure`."""
    try:
        return file.read_bytes()
    except (OSError, MemoryError) as error:
        raise _failure(error) from error


@contextmanager
def _open(source: Path | bytes) -> Iterator[Image.Image]:
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    except OSError as error:
        raise _failure(error) from error
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
        raise _failure(error) from error


def _failure(error: Exception) -> ImageFailure:
    """What went wrong, as a named failure; Pillow's own complaints are OSErrors without a number."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or "out of memory" in text:
        return ImageFailure("out_of_memory", f"{type(error).__name__}: {error}")
    if isinstance(error, OSError) and error.errno is not None:
        return ImageFailure("unreadable_file", error.strerror or str(error))
    broken = "trunc" in text or "broken data" in text
    return ImageFailure("truncated" if broken else "corrupt", f"{type(error).__name__}: {error}")


def _too_large(size: str) -> ImageFailure:
    return ImageFailure("too_large", f"{size}, the limit is {MAX_PIXELS} in all")


def _bytes_of(image: Image.Image) -> int:
    each = 1 if image.mode in {"1", "L", "P"} else 2 if image.mode.startswith("I;16") else 4
    return image.width * image.height * each


def _orientation(image: Image.Image) -> int:
    try:
        if image.format == "PNG" and "exif" not in image.info and (late := _late_exif(image)):
            exif = Image.Exif()
            exif.load(late)
            return int(exif.get(0x0112, 1))
        # Not image.getexif(): for PNG it decodes the pixels, and what was damaged goes unnoticed the second time.
        return int(Image.Image.getexif(image).get(0x0112, 1))
    except Exception:  # noqa: BLE001 - broken EXIF must not cost the picture
        return 1


def _late_exif(image: Image.Image) -> bytes | None:
    """The EXIF of a PNG that stands behind its pixels, where Pillow looks only once it has decoded them."""
    stream = getattr(image, "fp", None)
    if stream is None:
        return None
    place = stream.tell()
    try:
        stream.seek(8)
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return bytes(stream.read(length))
            if kind == b"IEND":
                break
            stream.seek(length + 4, io.SEEK_CUR)
        return None
    finally:
        stream.seek(place)


def read_header(source: Path | bytes) -> ImageHeader:
    """Read format, size and mode without decoding pixels. Raises `ImageFailure`."""
    with _open(source) as image:
        return _header(image)


def _header(image: Image.Image) -> ImageHeader:
    orientation = _orientation(image)
    turned = orientation >= 5 and image.format != "TIFF"  # of a TIFF Pillow tells the size that it has when turned
    width, height = (image.height, image.width) if turned else image.size
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
        if (draft or longer) and image.format in {"JPEG", "MPO"} and image.mode in {"RGB", "L"}:
            size = (draft, draft) if draft else _inside(image.size, longer or 1)
            image.draft(mode if mode == "L" else "RGB", size)
        if _bytes_of(image) > MAX_BYTES:
            message = f"{image.width} x {image.height} pixels of {image.mode}, the limit is {MAX_BYTES} bytes"
            raise ImageFailure("too_large", message)
        try:
            top = _brightest(image)
            image.load()
            # Pillow turns a TIFF while it decodes it.
            upright = ImageOps.exif_transpose(image) if header.orientation > 1 and image.format != "TIFF" else image
            return _convert(upright, mode, top), header
        except Exception as error:
            raise _failure(error) from error


def check(
    body: bytes, *, max_pixels: int = MAX_PIXELS, room: Callable[[int], AbstractContextManager[object]] = nullcontext
) -> ImageHeader:
    """Decode an image to its end without converting it, of an animation all frames; raises `ImageFailure`.

    Not detected: a JPEG whose pixel data has a hole, or was cut and given an end again. libjpeg fills the rest with
    grey and warns, and Pillow does not pass the warning on.

    Args:
        body: the bytes of a file.
        max_pixels: larger pictures are refused by what their header says.
        room: called with the number of pixels; the decoding is done in the context that it gives.
    """
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "another library has switched on LOAD_TRUNCATED_IMAGES"
    if _is_cut(body):
        raise ImageFailure("truncated", "shorter than its header says")
    with _open(body) as image:
        header, pixels = _header(image), image.width * image.height
        if pixels > max_pixels or _bytes_of(image) > MAX_BYTES:
            message = f"{image.width} x {image.height} pixels of {image.mode}, the limit is {max_pixels} in all"
            raise ImageFailure("too_large", message)
        with room(pixels):
            try:
                image.load()
                if image.format in _ANIMATED:
                    for number in range(1, min(getattr(image, "n_frames", 1), FRAME_PIXELS // pixels + 1)):
                        image.seek(number)
                        image.load()
            except Exception as error:
                raise _failure(error) from error
        return header


def _is_cut(body: bytes) -> bool:
    """Whether a body is shorter than it says, of formats whose decoders say other things of what was cut."""
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return int.from_bytes(body[4:8], "little") + 8 > len(body)
    place, boxes = 0, body[4:12] in {b"ftypavif", b"ftypavis"}
    while boxes and place < len(body):
        length = int.from_bytes(body[place : place + 4], "big")
        if length < 8:  # up to the end, or longer than four bytes can say
            return False
        place += length
    return boxes and place > len(body)


def _inside(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """The sides of a picture of that shape whose longer side has so many pixels, rounded up."""
    most = max(size)
    return max(1, -(-longer * size[0] // most)), max(1, -(-longer * size[1] // most))


def _laid_on_paper(rgba: Image.Image) -> Image.Image:
    """Without alpha: on white, or on black where white would swallow what is seen, as of a white logo."""
    alpha = rgba.getchannel("A")
    seen = rgba.convert("L").histogram(alpha.point(lambda value: 255 * (value >= 128)))
    paper = 0 if sum(seen) and sum(seen[_NEARLY_WHITE:]) > 0.98 * sum(seen) else 255
    laid = Image.new("RGB", rgba.size, (paper, paper, paper))
    laid.paste(rgba, mask=alpha)  # one copy; `alpha_composite` would need three
    return laid


def _brightest(image: Image.Image) -> float | None:
    """The value that stands for white in greys of more than 8 bits, by their type; None for real numbers."""
    if image.mode == "F" or image.format != "TIFF":
        return None if image.mode == "F" else 65535.0
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits, signed = int(tags.get(258, (16,))[0]), tags.get(339, (1,))[0] == 2
    return float(2 ** (bits - signed) - 1)


def _shallow(image: Image.Image, top: float | None) -> Image.Image:
    """Greys of more than 8 bits as 8 bits, black to white by their type and not by what they show.

    Pillow would clip them. Real numbers come without a scale: up to 1 they are shares, up to 255 greys, else 16 bits.
    What is no number is black.
    """
    import numpy as np  # here, because few pictures need it

    values = np.asarray(image)
    if top is not None and top >= 2**32 - 1:
        values = values.view(np.uint32)  # Pillow has no such type
    parts = [values[row : row + 256] for row in range(0, len(values), 256)]  # a copy of one part at a time
    if top is None:
        high = max((float(part[np.isfinite(part)].max(initial=0.0)) for part in parts), default=0.0)
        top = 1.0 if high <= 1 else 255.0 if high <= 255 else 65535.0
    greys = np.empty(values.shape, dtype=np.uint8)
    for n, part in enumerate(parts):
        scaled = np.nan_to_num(part.astype(np.float32), nan=0.0, posinf=top, neginf=0.0) * np.float32(255 / top)
        greys[n * 256 : n * 256 + len(part)] = np.rint(scaled.clip(0, 255))
    return Image.fromarray(greys)


def _convert(image: Image.Image, mode: Mode, top: float | None) -> Image.Image:
    if "transparency" in image.info and image.mode in {"1", "L", "P", "RGB"}:
        image = image.convert("RGBA")  # one colour or palette entry stands for what is clear
    if mode in {image.mode, "native"}:
        return image.copy()
    if image.mode.startswith("I;16") or image.mode in {"I", "F"}:
        image = _shallow(image, top)
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        image = _laid_on_paper(image if image.mode == "RGBA" else image.convert("RGBA"))
    if image.mode == "CMYK":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)
