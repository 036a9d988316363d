"""Decode allowed raster formats, after checks that keep Pillow from taking far more memory or time than a file is
worth.

Pillow's `Image.open` is not used, though it takes a list of formats: its limit of pixels is one for the process, with a
warning, and its JPEG plugin parses all EXIF before that limit. Here an allow-list of its decoders is called directly,
each under our own limits, so nothing global is changed and other users of Pillow in the process are not affected. For
the allowed formats the pixels are those of `Image.open`.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import threading
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from internvl_gguf.errors import PictureError
from internvl_gguf.utils.safe_text import error_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_SIDE = 100_000
MAX_JPEG_SCANS = 100
MAX_TIFF_FRACTIONS = 20_000
FORMATS = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PPM"

_AGAIN = "Export or download it again; if another program opens it, save it there as PNG."
_CONVERT = "Convert it to PNG or JPEG first."
_TIFF_TYPE_SIZES = dict(zip((*range(1, 14), 16, 17, 18), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 8, 8, 8), strict=True))
_TIFF_NUMBERS = {3: "H", 4: "L", 13: "L", 16: "Q", 18: "Q"}
_TIFF_RATIONALS = {5, 10}
_TIFF_POINTERS = {34665, 34853, 40965}  # EXIF, GPS and interoperability directories
_ORIENTATION, _TILE_WIDTH, _TILE_LENGTH, _DNG_VERSION = 0x0112, 322, 323, 50706


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG whose EXIF is not parsed while opening: Pillow would parse all of it to find the printing density."""

    def _read_dpi_from_exif(self) -> None:
        return


# An MPO is a JPEG followed by others, so the JPEG decoder gives its first picture.
_DECODERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": _Jpeg,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}

_OPTIONAL = {"WebP": WebPImagePlugin, "AVIF": AvifImagePlugin}

_SIGNATURES = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("WebP", re.compile(rb"RIFF.{4}WEBPVP8[ XL]", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM.{8}", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("AVIF", re.compile(rb".{4}ftyp(avi[fs]|(mif1|msf1).{4}(.{4}){0,6}avi[fs])", re.DOTALL)),
    ("PPM", re.compile(rb"P[1-6f]\s")),
)

# (signature, what it is, what to do); searched only when no format above matches.
_UNSUPPORTED_SIGNATURES = (
    (rb"%PDF-", "a PDF", "Export the page as a PNG first."),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript", "Export it as a PNG first."),
    (rb".{4}ftyp(hei|hev|mif1|msf1)", "a HEIC picture", "Convert it, or open it with pillow-heif and pass the result."),
    (rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", "a video", "Give it as Video(path), or extract a frame as PNG."),
    (rb"RIFF.{4}WEBP", "a WebP of an unknown kind", _AGAIN),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", "an SVG drawing",
     "Render it to PNG first."),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head)", "a web page", "Download the picture itself, not the page."),
    (rb"version https://git-lfs", "a Git LFS pointer", "Fetch the picture with `git lfs pull`."),
    (rb"8BPS", "a Photoshop file", _CONVERT),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000", _CONVERT),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL", _CONVERT),
    (rb"\0\0[\x01\x02]\0[^\0]\0", "an icon", _CONVERT),  # with at least one picture, which tells it from a TGA
    (rb"\x76\x2f\x31\x01|#\?RADIANCE", "a high-dynamic-range picture", _CONVERT),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive or an office document", "Extract the picture first."),
    (rb".(\0[\x02\x03\x0a\x0b]\0{5}|\x01[\x01\x09].{5}).{8}[\x08\x0f\x10\x18\x20]", "a TGA picture", _CONVERT),
    (rb"GGUF", "a model file", "Give the model to --mmproj or as the model, and a picture here."),
)  # fmt: skip


class _QuietPillow(threading.local):
    """Context manager that drops Pillow's warnings about damaged metadata, in the decoding thread only.

    `warnings.catch_warnings` swaps the filters of the whole process, so two threads using it can lose or leak each
    other's. This object is part of a warnings filter and of a logging filter instead, and answers for its own thread.
    """

    active = False

    def match(self, text: str) -> bool:
        """Return whether to ignore a warning; called as the message pattern of a warnings filter."""
        return self.active

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to let a record pass; called as a logging filter."""
        return not self.active

    def __enter__(self) -> Self:
        filters = cast("list[Any]", warnings.filters)
        if not any(entry[1] is self for entry in filters):
            filters.insert(0, ("ignore", self, Warning, None, 0))
        self.active = True
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.active = False


quiet_pillow = _QuietPillow()
logging.getLogger("PIL.TiffImagePlugin").addFilter(quiet_pillow)


def identify(data: bytes, name: str) -> str:
    """Return the format of a picture file by its first bytes, whatever its name says.

    Raises:
        PictureError: bytes that are not of an allowed format; the message says what they look like.
    """
    head = data[:1024]
    for kind, signature in _SIGNATURES:
        if signature.match(head):
            if not getattr(_OPTIONAL.get(kind), "SUPPORTED", True):
                raise PictureError(f"Cannot use {name}: this build of Pillow has no {kind} decoder.", _CONVERT)
            return kind
    for pattern, what, hint in _UNSUPPORTED_SIGNATURES:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            raise PictureError(f"Cannot use {name}: it is {what}, not a picture file that can be decoded.", hint)
    raise PictureError(f"Cannot use {name}: it is not a picture of a known format.", f"Use {FORMATS}.")


def check_size(size: tuple[int, int], max_pixels: int, name: str) -> None:
    """Refuse a picture by its width and height, before memory is allocated for its pixels.

    Raises:
        PictureError: no pixels, more than max_pixels, or a side above MAX_SIDE.
    """
    width, height = size
    if width < 1 or height < 1:
        raise PictureError(f"Cannot use {name}: it has no pixels ({width} x {height}).", "Give one of at least 1 x 1.")
    if width * height > max_pixels:
        raise PictureError(
            f"Cannot use {name}: {width} x {height} is {width * height / 1e6:,.1f} megapixels,"
            f" more than the limit of {max_pixels / 1e6:,.1f}.",
            "Scale it down first; it would take 4 to 16 bytes of memory a pixel.",
        )
    if max(width, height) > MAX_SIDE:
        raise PictureError(
            f"Cannot use {name}: {width} x {height} has a side longer than {MAX_SIDE:,} pixels.",
            "Scale or crop it first.",
        )


def decode(data: bytes, max_pixels: int, name: str) -> ImageFile.ImageFile:
    """Decode the first frame of a picture file, in the mode it is stored in.

    Raises:
        PictureError: not an allowed format, damaged, cut short, or too large.
    """
    kind = identify(data, name)
    _check_structure(kind, data, name)
    with quiet_pillow:
        try:
            picture = _DECODERS[kind](io.BytesIO(data))
            check_size(picture.size, max_pixels, name)
            _check_opened(picture, name)
            picture.load()
        except PictureError:
            raise
        except MemoryError:
            raise PictureError(f"Cannot use {name}: not enough memory to decode it.", "Scale it down first.") from None
        except Image.DecompressionBombError as error:
            reason = f"it has more pixels than Pillow decodes ({error_line(error)})"
            raise PictureError(f"Cannot use {name}: {reason}.", "Scale it down first.") from error
        except Exception as error:  # decoders raise all kinds of errors for damaged data
            reason = f"the {kind} data is damaged or cut short ({error_line(error)})"
            raise PictureError(f"Cannot use {name}: {reason}.", _AGAIN) from error
    return picture


def stored_size(data: bytes, max_pixels: int, name: str) -> tuple[int, int]:
    """Return (width, height) of a picture file in pixels, as stored, from its header; nothing is decoded.

    Raises:
        PictureError: as `decode`, for what the header shows.
    """
    kind = identify(data, name)
    _check_structure(kind, data, name)
    with quiet_pillow:
        try:
            size = _DECODERS[kind](io.BytesIO(data)).size
        except Exception as error:  # decoders raise all kinds of errors for damaged data
            reason = f"the {kind} data is damaged or cut short ({error_line(error)})"
            raise PictureError(f"Cannot use {name}: {reason}.", _AGAIN) from error
    check_size(size, max_pixels, name)
    return size


def orientation(info: dict[Any, Any]) -> int:
    """Return the EXIF orientation (1 to 8) in a Pillow picture's `info`, else the one in its XMP, else 1.

    It is read directly because Pillow's reader copies every tag: a few kilobytes whose tags all point at the same data
    would become gigabytes. Damaged EXIF counts as none, since it does not affect the pixels.
    """
    exif = info.get("exif")
    if not isinstance(exif, bytes):
        exif = _raw_profile(info.get("Raw profile type exif"))
    for entry in _tiff_tags(exif.removeprefix(b"Exif\0\0")):
        if entry.tag == _ORIENTATION and entry.length == 1 and entry.type in (3, 4):
            return entry.number if 1 <= entry.number <= 8 else 1
    xmp = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
    xmp = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])["<]', xmp) if isinstance(xmp, bytes) else None
    return int(found[1]) if found else 1


def _raw_profile(text: object) -> bytes:
    """Decode EXIF as ImageMagick writes it into PNG text: three lines of title, then hexadecimal."""
    if not isinstance(text, str):
        return b""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


class _Tag(NamedTuple):
    tag: int
    type: int
    length: int  # how many numbers or characters the value has
    number: int  # the first number of a value held in the directory itself, else the offset of the value
    bytes_outside: int  # bytes of the value that lie elsewhere in the file


def _tiff_tags(data: bytes, start: int | None = None) -> Iterator[_Tag]:
    """Yield the tags of one directory of a TIFF or EXIF block, the first by default; stop where it is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return
    big = data[2:4] in (b"+\0", b"\0+")
    word, entry = order + ("Q" if big else "L"), struct.Struct(order + ("HHQ8s" if big else "HHL4s"))
    counter = struct.Struct(order + ("Q" if big else "H"))
    try:
        at = struct.unpack_from(word, data, 8 if big else 4)[0] if start is None else start
        (tags,) = counter.unpack_from(data, at)
        for index in range(min(tags, 0xFFFF)):
            tag, kind, count, value = entry.unpack_from(data, at + counter.size + index * entry.size)
            size = count * _TIFF_TYPE_SIZES.get(kind, 0)
            outside = size if size > len(value) else 0
            code = word if outside else order + _TIFF_NUMBERS.get(kind, "B")
            yield _Tag(tag, kind, count, struct.unpack_from(code, value)[0], outside)
    except (struct.error, OverflowError):
        return


def _all_tiff_tags(data: bytes) -> Iterator[_Tag]:
    """Yield the tags of a TIFF's first picture, those of its EXIF and GPS directories included."""
    pending: list[int | None] = [None]
    seen: set[int] = set()
    while pending:
        for tag in _tiff_tags(data, pending.pop()):
            yield tag
            if tag.tag in _TIFF_POINTERS and tag.number not in seen and len(seen) < len(_TIFF_POINTERS):
                seen.add(tag.number)
                pending.append(tag.number)


def _check_structure(kind: str, data: bytes, name: str) -> None:
    """Refuse files built to make opening or decoding them cost far more than their size.

    Raises:
        PictureError: naming what is out of proportion.
    """
    if kind == "JPEG" and _jpeg_scans(data, MAX_JPEG_SCANS) > MAX_JPEG_SCANS:
        raise PictureError(f"Cannot use {name}: a JPEG of more than {MAX_JPEG_SCANS} scans.", _AGAIN)
    if kind != "TIFF":
        return
    claimed = fractions = 0
    for tag in _all_tiff_tags(data):
        claimed += tag.bytes_outside
        fractions += tag.length if tag.type in _TIFF_RATIONALS else 0
    if claimed > 4 * len(data) or fractions > MAX_TIFF_FRACTIONS:
        raise PictureError(f"Cannot use {name}: its TIFF tags claim more data than a picture's could.", _AGAIN)


def _check_opened(picture: ImageFile.ImageFile, name: str) -> None:
    """Refuse a TIFF whose decoding would take memory beyond its size, or whose picture is only a preview.

    Raises:
        PictureError: saying which.
    """
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return
    if _DNG_VERSION in picture.tag_v2:
        raise PictureError(f"Cannot use {name}: it is a camera's raw file.", "Develop it to JPEG, PNG or TIFF first.")
    tile = int(picture.tag_v2.get(_TILE_WIDTH, 0)) * int(picture.tag_v2.get(_TILE_LENGTH, 0))
    if tile > max(2 * picture.width * picture.height, 1 << 22):
        raise PictureError(f"Cannot use {name}: its TIFF tiles are far larger than the picture.", _AGAIN)


def _jpeg_scans(data: bytes, enough: int) -> int:
    """Count the scans of the first picture of a JPEG file, up to a little past `enough`.

    A progressive JPEG may repeat a scan of a few bytes over every pixel; each costs a pass over the whole picture.
    """
    scans, at = 0, 2
    marker = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # a literal first byte is searched for at memchr's speed
    while scans <= enough and (found := marker.search(data, at)):
        code, at = found[1][0], found.end()
        if code == 0xD9:
            break
        scans += code == 0xDA
        if code not in (0x01, 0xD8) and len(data) >= at + 2:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return scans
