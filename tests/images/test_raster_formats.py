"""Malicious files and files of other formats are refused before they cost memory or time."""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from internvl_gguf.images.load import DEFAULT_MAX_PIXELS, load_image
from internvl_gguf.images.raster_formats import MAX_JPEG_SCANS, MAX_SIDE, _jpeg_scans, identify, quiet_pillow
from internvl_gguf.tiling import tile_image
from tests.support.calls import calls_of
from tests.support.pictures import PILLOW, encoded, random_picture, refusal

SHORT, LONG, RATIONAL, UNDEFINED = 3, 4, 5, 7
Tag = tuple[int, int, int, bytes]
"""Of a TIFF: number, type, count, and the value."""


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, *, depth: int = 1, colour: int = 0, rows: bytes = b"\0" * 64, extra: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + data + chunk(b"IEND", b"")


def tiff(tags: list[Tag], pixels: bytes = bytes(256)) -> bytes:
    """A little-endian TIFF: the directory, the values outside of it, then the pixels, where tag 273 or 324 points."""
    outside_at = 8 + 2 + 12 * len(tags) + 4
    outside = b"".join(value for _, _, _, value in tags if len(value) > 4)
    directory, at = b"", outside_at
    for tag, kind, count, value in tags:
        if tag in (273, 324):
            value = struct.pack("<I", outside_at + len(outside))
        inside = struct.pack("<I", at) if len(value) > 4 else value.ljust(4, b"\0")
        at += len(value) if len(value) > 4 else 0
        directory += struct.pack("<HHI", tag, kind, count) + inside
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + directory + bytes(4) + outside + pixels


def grey_tags(side: int = 16, compression: int = 1) -> list[Tag]:
    numbers = [
        (256, side),
        (257, side),
        (258, 8),
        (259, compression),
        (262, 1),
        (273, 0),
        (277, 1),
        (278, side),
        (279, 256),
    ]
    return [(tag, LONG if tag in (273, 279) else SHORT, 1, struct.pack("<I", number)) for tag, number in numbers]


def peak_and_result(data: bytes, tmp_path: Path) -> tuple[int, str]:
    """Load in a child and give what it grew by, in MiB, and what it said."""
    resource = pytest.importorskip("resource", reason="memory is measured by POSIX means")
    assert resource
    path = tmp_path / "bomb"
    path.write_bytes(data)
    code = """
import resource, sys
from internvl_gguf.errors import PictureError
from internvl_gguf.images.load import load_image
unit = 2**20 if sys.platform == "darwin" else 2**10
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    said = "loaded " + str(load_image(sys.argv[1]).size)
except PictureError as error:
    said = error.message
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // unit, said)
"""
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60)
    assert run.stderr == ""
    grown, said = run.stdout.split(" ", 1)
    return int(grown), said


# Bombs


def bombs() -> Iterator[tuple[str, bytes, str]]:
    """Name, bytes, and what the refusal says."""
    yield "PNG of 30000 x 30000", png(30000, 30000), "900.0 megapixels"
    yield "PNG of 2 billion squared", png(2**31 - 1, 2**31 - 1), "megapixels"
    gif = bytearray(encoded(random_picture(), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    yield "GIF screen", bytes(gif), "65535 x 65535"
    frame = b"GIF89a\x0a\0\x0a\0\0\0\0" + b"," + struct.pack("<4H", 0, 0, 12000, 12000) + b"\0\x02\x02\x44\x01\0;"
    yield "GIF frame larger than its screen", frame, "144.0 megapixels"
    canvas = struct.pack("<I", 0) + (16382).to_bytes(3, "little") * 2
    webp = encoded(random_picture(), "WebP", lossless=True)[12:]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + webp
    yield "WebP canvas", b"RIFF" + struct.pack("<I", len(body)) + body, "268" if PILLOW >= (13, 0) else "damaged"
    bmp = bytearray(encoded(random_picture(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 30000, 30000)
    yield "BMP", bytes(bmp), "900.0 megapixels"
    jpeg = bytearray(encoded(random_picture(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    yield "JPEG", bytes(jpeg), "65535 x 65535"
    yield "PPM", b"P6 30000 30000 255\n" + bytes(100), "900.0 megapixels"
    yield (
        "TIFF",
        tiff([(256, LONG, 1, struct.pack("<I", 30000)), *grey_tags()[1:]]).replace(
            struct.pack("<HHII", 257, SHORT, 1, 16), struct.pack("<HHII", 257, SHORT, 1, 30000)
        ),
        "900.0 megapixels",
    )
    tile = [(322, LONG, 1, struct.pack("<I", 46336)), (323, LONG, 1, struct.pack("<I", 46336))]
    tags = [tag for tag in grey_tags(compression=8) if tag[0] not in (273, 278, 279)]
    tags += [*tile, (324, LONG, 1, b"\0\0\0\0"), (325, LONG, 1, struct.pack("<I", 64))]
    yield "TIFF of one tile of 2 GB", tiff(tags, zlib.compress(bytes(5000))), "tiles are far larger"
    overlapping = [(40000 + n, UNDEFINED, 200_000, bytes(5)) for n in range(300)]
    yield "TIFF tags over the same bytes", tiff(grey_tags() + overlapping, bytes(300_000)), "TIFF tags"
    fractions = [(282, RATIONAL, 100_000, bytes(800_000))]
    yield "TIFF tag of fractions", tiff(grey_tags() + fractions), "TIFF tags"
    text = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(200 * 2**20)))
    yield "PNG text of 200 MB", png(8, 8, extra=text), "damaged"


@pytest.mark.parametrize(("data", "said"), [pytest.param(data, said, id=name) for name, data, said in bombs()])
def test_bombs_are_refused_before_they_take_memory(data: bytes, said: str, tmp_path: Path) -> None:
    grown, message = peak_and_result(data, tmp_path)
    assert said in message
    assert grown < 40


def test_exif_whose_tags_share_their_data_costs_nothing(tmp_path: Path) -> None:
    """Read tag by tag, 6,000 tags of 70,000 bytes each are 420 MB from a file of 300 KB."""
    count = 6000
    tags = b"".join(struct.pack("<HHII", 1000 + n, UNDEFINED, 70_000, 0) for n in range(count))
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + tags + bytes(4)
    parts = [block[at : at + 60_000] for at in range(0, len(block), 60_000)]
    segments = b"".join(struct.pack(">HH", 0xFFE1, len(part) + 8) + b"Exif\0\0" + part for part in parts)
    jpeg = encoded(random_picture(), "JPEG")
    bare = jpeg[:2] + jpeg[20:]  # without its JFIF segment, so that Pillow would look for the density in the EXIF
    for data in (bare[:2] + segments + bare[2:], png(8, 8, extra=chunk(b"eXIf", block))):
        grown, message = peak_and_result(data, tmp_path)
        assert message.startswith("loaded")
        assert grown < 40


def test_a_jpeg_that_repeats_its_scans_is_refused() -> None:
    """A scan of 40 bytes costs a pass over every pixel: 640 KB of them kept a core busy for minutes."""
    jpeg = encoded(random_picture(), "JPEG", progressive=True)
    last, end = jpeg.rindex(b"\xff\xda"), jpeg.rindex(b"\xff\xd9")
    assert load_image(jpeg[:end] + jpeg[last:end] * 20 + jpeg[end:]).size == (37, 23)
    assert "scans" in refusal(jpeg[:end] + jpeg[last:end] * 200 + jpeg[end:]).message
    video = jpeg + b"\xff\xda\0\2" * 500  # what phones append to a motion photo is not counted
    assert load_image(video).tobytes() == load_image(jpeg).tobytes()


def test_noise_in_a_jpeg_is_not_walked_byte_by_byte() -> None:
    """Counting scans once took longer than decoding: 4 s for 35 MB."""
    data = encoded(random_picture(size=(2000, 1500)), "JPEG", quality=95)
    assert _jpeg_scans(data, MAX_JPEG_SCANS) == 1
    assert calls_of(lambda: _jpeg_scans(data, MAX_JPEG_SCANS)) < 100


def test_the_limit_is_exact_and_ours() -> None:
    data = encoded(random_picture(), "PNG")
    assert load_image(data, max_pixels=37 * 23).size == (37, 23)
    assert "limit" in refusal(data, max_pixels=37 * 23 - 1).message
    assert "limit" in refusal(random_picture(), max_pixels=100).message
    assert "Scale it down first" in refusal(data, max_pixels=100).hint


def test_pictures_between_our_limit_and_pillows_warning_load_in_silence(
    recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pillow's own limit warns from 89 megapixels on; larger phone photos are within ours."""
    data = encoded(Image.new("1", (9500, 9500)), "PNG")
    assert load_image(data).size == (9500, 9500)
    assert DEFAULT_MAX_PIXELS > 9500 * 9500
    assert not recwarn
    assert capfd.readouterr() == ("", "")


def test_nothing_of_pillows_settings_is_changed() -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(Image.ID)
    load_image(encoded(random_picture(), "PNG"))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(Image.ID)) == before


# Odd sizes


@pytest.mark.parametrize("size", [(1, 1), (20000, 1), (1, 20000), (MAX_SIDE, 1), (2, 3)])
def test_odd_sizes_are_legal_and_can_be_tiled(size: tuple[int, int]) -> None:
    result = load_image(encoded(Image.new("RGB", size, (10, 20, 30)), "PNG"))
    assert result.size == size
    assert tile_image(result).tiles[0].getpixel((200, 200)) == (10, 20, 30)


def test_a_side_may_not_be_endless() -> None:
    assert "side" in refusal(Image.new("1", (MAX_SIDE + 1, 1))).message


@pytest.mark.parametrize(("width", "height"), [(0, 0), (0, 5), (5, 0)])
def test_pictures_without_pixels(width: int, height: int) -> None:
    assert "no pixels" in refusal(Image.new("RGB", (width, height))).message
    for data in (png(width, height), b"P6 %d %d 255\n" % (width, height)):
        assert refusal(data).message
    gif = b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0,\0\0\0\0\0\0\0\0\0\x02\x02\x44\x01\0;"
    assert refusal(gif).message


# Damage


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused_and_not_filled_with_grey(kind: str, part: float) -> None:
    data = encoded(random_picture(), kind)
    error = refusal(data[: int(len(data) * part)])
    assert f"the {kind} data is damaged or cut short" in error.message
    assert "again" in error.hint


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_the_first_bytes_alone(kind: str) -> None:
    data = encoded(random_picture(), kind)
    for length in range(1, 64):
        assert refusal(data[:length]).message


# What is not a picture


@pytest.mark.parametrize(
    ("data", "what", "hint"),
    [
        (b"%PDF-1.7\n", "a PDF", "PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "PostScript", "PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC", "pillow-heif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC", "pillow-heif"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video", "frame"),
        (b"\x1a\x45\xdf\xa3\x01\0\0", "a video", "frame"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG", "Render"),
        (b'<?xml version="1.0"?>\n<!-- made\nby hand -->\n<svg/>', "an SVG", "Render"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>404", "a web page", "picture itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS", "git lfs pull"),
        (b"8BPS\0\1", "a Photoshop", "Convert"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000", "Convert"),
        (b"\xff\x0a\x00", "a JPEG XL", "Convert"),
        (b"PK\x03\x04", "an archive", "Extract"),
        (b"GGUF\3\0\0\0", "a model", "model"),
        (b"\0\0\1\0\1\0", "an icon", "Convert"),
        (encoded(random_picture(), "ICO"), "an icon", "Convert"),
        (encoded(random_picture(), "TGA"), "a TGA", "Convert"),
        (encoded(random_picture().convert("L"), "TGA", compression="tga_rle"), "a TGA", "Convert"),
        (encoded(random_picture().convert("P"), "TGA"), "a TGA", "Convert"),
        (b"hello, this is text", "not a picture of a known format", "PNG"),
        (bytes(100), "not a picture of a known format", "PNG"),
    ],
)
def test_other_files_are_named_for_what_they_are(data: bytes, what: str, hint: str) -> None:
    error = refusal(data)
    assert what in error.message
    assert hint in error.hint


def test_postscript_never_reaches_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's EPS plugin starts Ghostscript, an interpreter with a history."""
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("a process was started"))
    for start in (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xc5\xd0\xd3\xc6" + bytes(28)):
        refusal(start + b"%%BoundingBox: 0 0 10 10\nshowpage\n")


def test_a_camera_raw_file_is_not_taken_for_its_small_preview() -> None:
    raw = tiff([*grey_tags(), (50706, 1, 4, b"\1\4\0\0")])
    assert "raw file" in refusal(raw).message


def test_formats_are_told_by_content() -> None:
    for kind in ("PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "PPM"):
        assert identify(encoded(random_picture(), kind), "x") == kind
    assert identify(encoded(random_picture(), "MPO"), "x") == "JPEG"
    big = encoded(random_picture(), "TIFF", big_tiff=True)
    assert identify(big, "x") == "TIFF"
    assert load_image(big).tobytes() == random_picture().tobytes()


# Silence that other threads do not feel


def test_only_the_decoding_thread_is_hushed(caplog: pytest.LogCaptureFixture) -> None:
    def speak() -> None:
        warnings.warn("heard", stacklevel=1)
        logging.getLogger("PIL.TiffImagePlugin").error("heard")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_pillow:
            speak()
            assert not caught
            assert not caplog.records
            other = threading.Thread(target=speak)
            other.start()
            other.join()
        assert len(caught) == len(caplog.records) == 1
        speak()
    assert len(caught) == len(caplog.records) == 2


def test_many_threads_load_at_once() -> None:
    data = {kind: encoded(random_picture(), kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "WebP")}
    expected = {kind: load_image(file).tobytes() for kind, file in data.items()}
    wrong: list[str] = []

    def work() -> None:
        wrong.extend(kind for _ in range(10) for kind in data if load_image(data[kind]).tobytes() != expected[kind])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
