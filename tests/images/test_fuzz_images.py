"""Damaged picture files: each gives an RGB picture within the limits or a PictureError, and nothing else.

Seeded, so a failure names the format and the run that remakes it. Hundreds of runs by default, tens of thousands
with `-m thorough`.
"""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image, ImageDraw

from internvl_gguf.errors import PictureError
from internvl_gguf.images.load import load_image
from tests.support.pictures import PILLOW

MAX_PIXELS = 400_000
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def base_picture() -> Image.Image:
    picture = Image.new("RGB", (61, 47), (200, 220, 240))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((5, 5, 40, 40), fill=(200, 30, 30))
    draw.text((10, 20), "grid", fill=(0, 0, 0))
    picture.paste(Image.frombytes("RGB", (16, 16), random.Random(3).randbytes(768)), (44, 30))
    return picture


def valid_files(kind: str) -> Iterator[bytes]:
    """Several kinds of valid file of one format, each with metadata, so that damage finds different decoders."""
    picture = base_picture()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description longer than four bytes"
    grey, palette, alpha = picture.convert("L"), picture.quantize(16), picture.convert("RGBA")
    alpha.putalpha(grey)
    frames = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    plans: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "PNG": [(picture, {"exif": exif}), (palette, {"transparency": 3}), (alpha, {}), (picture, frames)],
        "JPEG": [
            (picture, {"exif": exif}),
            (picture, {"progressive": True}),
            (picture.convert("CMYK"), {}),
            (grey, {}),
        ],
        "WebP": [(picture, {"exif": exif}), (alpha, {"lossless": True}), (picture, frames)],
        "GIF": [(palette, {}), (palette, {"transparency": 2, "interlace": 1}), (picture, frames)],
        "BMP": [(picture, {}), (palette, {}), (grey, {}), (alpha, {})],
        "TIFF": [
            (picture, {"exif": exif}),
            (palette, {"compression": "tiff_lzw"}),
            (alpha, {"compression": "tiff_adobe_deflate"}),
            (grey.convert("1"), {"compression": "group4"}),
            (picture, {"compression": "jpeg"}),
            (picture, {"big_tiff": True, **frames}),
        ],
        "AVIF": [(picture, {"exif": exif, "speed": 10}), (alpha, {"speed": 10})],
        "PPM": [(picture, {}), (grey, {}), (grey.convert("1"), {})],
    }
    for source, options in plans[kind]:
        file = io.BytesIO()
        source.save(file, kind, **options)
        yield file.getvalue()
    if kind == "BMP":
        yield rle_bmp()
    if kind == "PPM":
        yield b"P3\n# plain\n4 4 255\n" + b" ".join(str(n * 5).encode() for n in range(48))
        yield b"P5 4 4 1023\n" + bytes(range(32))


def rle_bmp() -> bytes:
    """A run-length BMP of 8 x 4, which Pillow reads and does not write."""
    rows = (b"\x05\x01\x00\x03\x02\x03\x04\x00" + b"\0\0") * 4 + b"\0\1"
    palette = b"".join(bytes([n, 255 - n, n // 2, 0]) for n in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + len(rows), 0, 0, 14 + 40 + 1024) + header + palette + rows


def damage(intact: bytes, other: bytes, rng: random.Random) -> bytes:
    """One of the ways in which files break, and in which they are broken on purpose."""
    data = bytearray(intact)
    way = rng.randrange(8)
    at = rng.randrange(len(data))
    if way == 0:  # flipped bits
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == 1:  # flipped bits in the header, where sizes and kinds stand
        for _ in range(rng.choice((1, 2, 4))):
            data[rng.randrange(min(len(data), 96))] = rng.randrange(256)
    elif way == 2:  # cut short
        del data[at:]
    elif way == 3:  # another file's end
        data[at:] = other[rng.randrange(len(other)) :]
    elif way == 4:  # a part twice, or missing
        end = min(len(data), at + rng.randrange(1, 64))
        data[at:end] = data[at:end] * rng.choice((0, 2, 9))
    elif way == 5:  # an extreme number, mostly in the header
        place = rng.randrange(min(len(data), 96) if rng.random() < 0.7 else len(data))
        form = rng.choice((">I", "<I", ">H", "<H", ">Q", "<Q"))
        size = struct.calcsize(form)
        data[place : place + size] = struct.pack(form, rng.choice(EXTREMES) & (2 ** (8 * size) - 1))
    elif way == 6:  # zeros
        end = min(len(data), at + rng.randrange(1, 200))
        data[at:end] = bytes(end - at)
    else:  # rubbish
        data[at:at] = rng.randbytes(rng.randrange(1, 40))
    return bytes(data)


def with_right_checksums(damaged: bytes) -> bytes:
    """A PNG with its chunks' checksums made right again, so that damage gets past them to the decoder."""
    data, at = bytearray(damaged), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


def peak_mib() -> float:
    """The most memory this process has had, in MiB; 0 where it cannot be asked."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def run(kind: str, runs: int, seed: int) -> int:
    """Damage and load `runs` files; give how many still gave a picture."""
    files = list(valid_files(kind))
    for data in files:
        load_image(data)
    before, survived = peak_mib(), 0
    for index in range(runs):
        rng = random.Random(f"{kind} {seed} {index}")
        data = damage(rng.choice(files), rng.choice(files), rng)
        if kind == "PNG" and rng.random() < 0.6:
            data = with_right_checksums(data)
        try:
            result = load_image(data, max_pixels=MAX_PIXELS)
        except PictureError as error:
            lines = [error.message, error.hint]
        except BaseException as error:
            error.add_note(f"format {kind}, seed {seed}, run {index}")
            raise
        else:
            survived += 1
            lines = []
            assert type(result) is Image.Image, index
            assert result.mode == "RGB", index
            assert 1 <= result.width * result.height <= MAX_PIXELS, index
            assert len(result.tobytes()) == 3 * result.width * result.height, index
        assert all(line.isprintable() and line for line in lines), index
    assert peak_mib() - before < 100
    return survived


def check(kind: str, runs: int, seed: int, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]) -> None:
    survived = run(kind, runs, seed)
    assert 0 < survived < runs  # damage that nothing survives, or that everything does, tests little
    assert not recwarn
    out, err = capfd.readouterr()
    assert out == ""
    # libtiff writes about damaged strips to stderr itself; so did the AV1 decoder in older wheels of Pillow.
    if kind != "TIFF" and (kind != "AVIF" or PILLOW >= (12, 2)):
        assert err == ""


FORMATS = ["PNG", "JPEG", "WebP", "GIF", "BMP", "TIFF", "AVIF", "PPM"]


@pytest.mark.parametrize("kind", FORMATS)
def test_hundreds_of_damaged_files(
    kind: str, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    check(kind, 250, 0, recwarn, capfd)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", FORMATS)
def test_thousands_of_damaged_files(
    kind: str, seed: int, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    check(kind, 8000, seed, recwarn, capfd)
