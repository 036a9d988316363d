"""Any kind of picture source is loaded upright, in RGB, and as the model card would read it."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from internvl_gguf.errors import PictureError
from internvl_gguf.images.load import load_image
from tests.support.pictures import PILLOW, encoded, random_picture, refusal

ORIENTATION = 0x0112
needs_pillow_13 = pytest.mark.skipif(PILLOW < (13, 0), reason="an older Pillow cannot read what it writes here")
Colour = int | tuple[int, int, int]


def pixels(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


# The card's recipe, byte for byte


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "PNG", {}),
        ("L", "PNG", {}),
        ("P", "PNG", {}),
        ("RGB", "JPEG", {"quality": 60}),
        ("RGB", "JPEG", {"progressive": True}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "WebP", {"quality": 50}),
        ("RGB", "WebP", {"lossless": True}),
        ("RGB", "AVIF", {}),
        ("P", "GIF", {}),
        ("L", "GIF", {}),
        ("RGB", "BMP", {}),
        ("P", "BMP", {}),
        ("RGB", "TIFF", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "TIFF", {"compression": "jpeg"}),
        ("CMYK", "TIFF", {}),
        pytest.param("YCbCr", "TIFF", {}, marks=needs_pillow_13),
        ("LAB", "TIFF", {}),
        ("L", "PPM", {}),
        ("RGB", "PPM", {}),
    ],
)
def test_opaque_files_give_exactly_the_pixels_the_card_reads(mode: str, kind: str, options: dict[str, Any]) -> None:
    data = encoded(random_picture(mode), kind, **options)
    result = load_image(data)
    assert type(result) is Image.Image
    assert result.mode == "RGB"
    assert result.tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_opaque_pillow_pictures_convert_as_pillow_converts(mode: str) -> None:
    source = random_picture("L").convert("1") if mode == "1" else random_picture(mode)
    assert load_image(source).tobytes() == source.convert("RGB").tobytes()


def test_one_bit_files_are_black_and_white() -> None:
    bits = random_picture("L").convert("1")
    for kind, options in (("PNG", {}), ("TIFF", {"compression": "group4"}), ("BMP", {}), ("PPM", {})):
        assert load_image(encoded(bits, kind, **options)).tobytes() == bits.convert("RGB").tobytes()


def test_ycck_jpeg_of_adobe_is_not_shown_as_a_negative() -> None:
    plain = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red ink
    data = bytearray(encoded(plain, "JPEG"))
    data[2:2] = bytes.fromhex("ffee000e") + b"Adobe\0\x64\0\0\0\0\0"  # the segment Photoshop writes: CMYK, inverted
    shown = load_image(bytes(data)).getpixel((8, 8))
    assert shown == Image.open(io.BytesIO(data)).convert("RGB").getpixel((8, 8))
    assert pixels(load_image(encoded(plain, "JPEG")))[8, 8, 0] > 200


def test_a_colour_profile_changes_nothing_for_the_card_ignores_it() -> None:
    profile = bytes(200)
    assert load_image(encoded(random_picture(), "PNG", icc_profile=profile)).tobytes() == random_picture().tobytes()


# Orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF", "AVIF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_is_applied(kind: str, value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    options = {"lossless": True} if kind == "WebP" else {}
    data = encoded(random_picture(size=(32, 16)), kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    result = load_image(data)
    assert result.size == ((16, 32) if value >= 5 else (32, 16))
    assert result.tobytes() == expected.tobytes()
    assert load_image(Image.open(io.BytesIO(data))).tobytes() == expected.tobytes()


def test_an_upright_result_is_not_turned_again() -> None:
    """A phone photo loaded twice (once by the caller, once by the session) came out lying on its side."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    once = load_image(encoded(random_picture(), "JPEG", exif=exif))
    assert load_image(once).tobytes() == once.tobytes()
    assert once.info == {}


def test_orientation_in_xmp_and_in_imagemagick_text_counts() -> None:
    xmp = b'<x:xmpmeta xmlns:tiff="t"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    assert (
        load_image(encoded(random_picture(), "WebP", lossless=True, xmp=xmp)).tobytes()
        == random_picture().rotate(180).tobytes()
    )
    block = Image.Exif()
    block[ORIENTATION] = 3
    text = "\nexif\n      40\n" + block.tobytes().hex()
    source = random_picture()
    source.info["Raw profile type exif"] = text
    assert load_image(source).tobytes() == random_picture().rotate(180).tobytes()


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\xf0\xff\xff\xff",
        b"nonsense",
    ],
)
def test_damaged_exif_is_ignored_for_the_pixels_are_sound(exif: bytes) -> None:
    data = encoded(random_picture(), "PNG", exif=exif)
    assert load_image(data).tobytes() == random_picture().tobytes()


# Transparency


@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF"])
def test_transparency_is_laid_on_white(kind: str) -> None:
    picture = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        picture.putpixel((x, 0), (200, 100, 0, alpha))
    options = {"lossless": True, "exact": True} if kind == "WebP" else {}
    shown = pixels(load_image(encoded(picture, kind, **options)))[0]
    assert shown[0].tolist() == [255, 255, 255]
    assert np.abs(shown[1] - [227, 177, 127]).max() <= 1
    assert shown[2].tolist() == [200, 100, 0]


def test_opaque_alpha_changes_no_pixel() -> None:
    source = random_picture()
    source.putalpha(255)
    assert load_image(source).tobytes() == random_picture().tobytes()


@pytest.mark.parametrize("mode", ["LA", "PA", "La", "RGBa", "RGBA"])
def test_every_mode_with_alpha_shows_white_where_it_is_clear(mode: str) -> None:
    clear = Image.new("LA" if mode in ("LA", "La") else "RGBA", (4, 4), 0)
    clear = clear.convert(mode) if mode != "PA" else Image.new("PA", (4, 4))
    assert load_image(clear).getcolors() == [(16, (255, 255, 255))]


@pytest.mark.parametrize(
    ("mode", "key", "other"), [("L", 7, 8), ("P", 7, 8), ("RGB", (1, 2, 3), (1, 2, 4)), ("1", 0, 1)]
)
def test_a_transparent_colour_is_white(mode: str, key: Colour, other: Colour) -> None:
    picture = Image.new(mode, (2, 1), other)
    if mode == "P":
        picture.putpalette([value // 3 for value in range(768)])
    picture.putpixel((0, 0), key)
    stored = encoded(picture, "PNG", transparency=key)
    shown = load_image(stored)
    assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert shown.getpixel((1, 0)) == picture.convert("RGB").getpixel((1, 0))


def test_a_palette_with_alpha_per_entry() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    shown = load_image(encoded(picture, "PNG", transparency=bytes([128, 0])))
    assert np.abs(np.array(shown.getpixel((0, 0))) - [132, 137, 142]).max() <= 1
    assert shown.getpixel((1, 0)) == (255, 255, 255)


def test_the_transparent_colour_of_deep_pictures() -> None:
    grey = Image.fromarray(np.array([[1000, 1001, 65535]], dtype=np.uint16))
    grey.info["transparency"] = 1000
    assert pixels(load_image(grey))[0, :, 0].tolist() == [255, 4, 255]
    deep = Image.new("RGB", (2, 1), (0x12, 0x34, 0x56))
    deep.putpixel((1, 0), (0x12, 0x34, 0x57))
    deep.info["transparency"] = (0x1234, 0x3456, 0x5678)  # as Pillow reports the key of a 16-bit RGB PNG
    shown = load_image(deep)
    assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert shown.getpixel((1, 0)) == (0x12, 0x34, 0x57)


# Deep grey


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white(kind: str) -> None:
    """Image.convert clips at 255, so an X-ray or depth map became a white square."""
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    shown = pixels(load_image(encoded(Image.fromarray(levels), kind)))
    assert (shown == np.arange(256).reshape(16, 16, 1)).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bit_grey_in_either_byte_order(mode: str) -> None:
    dtype = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": "=u2"}[mode]
    data = np.array([[0, 257, 32896, 65535]], dtype=dtype)
    assert pixels(load_image(Image.frombytes(mode, (4, 1), data.tobytes())))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_integer_grey_of_eight_and_sixteen_bits_and_more() -> None:
    def mode_i(values: list[int]) -> Image.Image:
        return Image.fromarray(np.array([values], dtype=np.int32))

    assert pixels(load_image(mode_i([0, 100, 255])))[0, :, 0].tolist() == [0, 100, 255]
    assert pixels(load_image(mode_i([0, 25700, 65535])))[0, :, 0].tolist() == [0, 100, 255]
    assert "beyond 16 bits" in refusal(mode_i([0, 70000])).message
    assert "beyond 16 bits" in refusal(mode_i([-1, 5])).message
    assert load_image(b"P5 2 1 65535\n\0\xff\0\0").getpixel((0, 0)) == (1, 1, 1)


def test_floating_point_grey() -> None:
    assert pixels(load_image(Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))))[0, :, 0].tolist() == [
        0,
        128,
        255,
    ]
    assert "0 to 1" in refusal(Image.fromarray(np.array([[0, 7.5]], dtype=np.float32))).message


# Animations


def test_the_first_frame_of_an_animation() -> None:
    frames = [random_picture(seed=seed) for seed in range(3)]
    for kind, options in (
        ("GIF", {}),
        ("WebP", {"lossless": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("MPO", {}),
        ("AVIF", {}),
    ):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        first = Image.open(io.BytesIO(data)).convert("RGB")
        assert load_image(data).tobytes() == first.tobytes(), kind


def test_a_pillow_picture_is_taken_at_its_current_frame_and_left_as_it_is() -> None:
    frames = [random_picture(seed=seed) for seed in range(3)]
    source = Image.open(io.BytesIO(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])))
    source.seek(2)
    assert load_image(source).tobytes() == frames[2].tobytes()
    mine = random_picture()
    load_image(mine).putpixel((0, 0), (1, 2, 3))
    assert mine.tobytes() == random_picture().tobytes()


def test_a_gif_whose_first_frame_covers_a_part_is_white_elsewhere() -> None:
    part = bytes.fromhex("2c0100010001000100000202440100")  # a 1 x 1 frame at (1, 1)
    control = bytes.fromhex("21f9040100000100")
    data = b"GIF89a\x03\0\x03\0\x80\0\0" + bytes([255, 0, 0, 0, 0, 255]) + control + part + b";"
    shown = load_image(data)
    assert shown.getpixel((1, 1)) == (255, 0, 0)
    assert shown.getpixel((0, 0)) == shown.getpixel((2, 2)) == (255, 255, 255)


def test_loading_prints_nothing_and_warns_of_nothing(
    recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    broken = bytearray(encoded(random_picture("P"), "TIFF", exif=exif))
    broken[-8:] = b"\xff" * 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (bytes(broken), np.array([[np.nan]]), encoded(random_picture("P"), "PNG", transparency=bytes(9))):
            try:
                load_image(source)
            except PictureError:
                continue
    assert capfd.readouterr() == ("", "")
    assert not recwarn


def test_numpy_is_not_needed_to_read_a_picture_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(random_picture(), "PNG"))
    code = (
        "import sys; from internvl_gguf.images.load import load_image; load_image(sys.argv[1]);"
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 0
