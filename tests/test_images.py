"""Whatever a person hands over as a picture comes out upright, RGB and as the model card would read it."""

from __future__ import annotations

import base64
import io
import os
import pathlib
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.images import describe_source, load_image

ORIENTATION = 0x0112


def noise(mode="RGB", size=(37, 23), seed=5):
    """A picture of `mode` in which every pixel differs from its neighbours."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, size, random.Random(seed).randbytes(size[0] * size[1] * bands))


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def pixels(picture):
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def refusal(source, **options):
    """The error that load_image raises; both its parts are one line each."""
    with pytest.raises(PictureError) as caught:
        load_image(source, **options)
    for part in (caught.value.message, caught.value.hint):
        assert part
        assert part.isprintable()
    return caught.value


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
        ("YCbCr", "TIFF", {}),
        ("LAB", "TIFF", {}),
        ("L", "PPM", {}),
        ("RGB", "PPM", {}),
    ],
)
def test_opaque_files_give_exactly_the_pixels_the_card_reads(mode, kind, options):
    data = encoded(noise(mode), kind, **options)
    result = load_image(data)
    assert type(result) is Image.Image
    assert result.mode == "RGB"
    assert result.tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_opaque_pillow_pictures_convert_as_pillow_converts(mode):
    source = noise("L").convert("1") if mode == "1" else noise(mode)
    assert load_image(source).tobytes() == source.convert("RGB").tobytes()


def test_one_bit_files_are_black_and_white():
    bits = noise("L").convert("1")
    for kind, options in (("PNG", {}), ("TIFF", {"compression": "group4"}), ("BMP", {}), ("PPM", {})):
        assert load_image(encoded(bits, kind, **options)).tobytes() == bits.convert("RGB").tobytes()


def test_ycck_jpeg_of_adobe_is_not_shown_as_a_negative():
    plain = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red ink
    data = bytearray(encoded(plain, "JPEG"))
    data[2:2] = bytes.fromhex("ffee000e") + b"Adobe\0\x64\0\0\0\0\0"  # the segment Photoshop writes: CMYK, inverted
    shown = load_image(bytes(data)).getpixel((8, 8))
    assert shown == Image.open(io.BytesIO(data)).convert("RGB").getpixel((8, 8))
    assert load_image(encoded(plain, "JPEG")).getpixel((8, 8))[0] > 200


def test_a_colour_profile_changes_nothing_for_the_card_ignores_it():
    profile = bytes(200)
    assert load_image(encoded(noise(), "PNG", icc_profile=profile)).tobytes() == noise().tobytes()


# Orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF", "AVIF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_exif_orientation_is_applied(kind, value):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    options = {"lossless": True} if kind == "WebP" else {}
    data = encoded(noise(size=(32, 16)), kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    result = load_image(data)
    assert result.size == ((16, 32) if value >= 5 else (32, 16))
    assert result.tobytes() == expected.tobytes()
    assert load_image(Image.open(io.BytesIO(data))).tobytes() == expected.tobytes()


def test_an_upright_result_is_not_turned_again():
    """A phone photo loaded twice (once by the caller, once by the session) came out lying on its side."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    once = load_image(encoded(noise(), "JPEG", exif=exif))
    assert load_image(once).tobytes() == once.tobytes()
    assert once.info == {}


def test_orientation_in_xmp_and_in_imagemagick_text_counts():
    xmp = b'<x:xmpmeta xmlns:tiff="t"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    assert load_image(encoded(noise(), "WebP", lossless=True, xmp=xmp)).tobytes() == noise().rotate(180).tobytes()
    block = Image.Exif()
    block[ORIENTATION] = 3
    text = "\nexif\n      40\n" + block.tobytes().hex()
    source = noise()
    source.info["Raw profile type exif"] = text
    assert load_image(source).tobytes() == noise().rotate(180).tobytes()


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
def test_damaged_exif_is_ignored_for_the_pixels_are_sound(exif):
    data = encoded(noise(), "PNG", exif=exif)
    assert load_image(data).tobytes() == noise().tobytes()


# Transparency


@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF"])
def test_transparency_is_laid_on_white(kind):
    picture = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        picture.putpixel((x, 0), (200, 100, 0, alpha))
    options = {"lossless": True, "exact": True} if kind == "WebP" else {}
    shown = pixels(load_image(encoded(picture, kind, **options)))[0]
    assert shown[0].tolist() == [255, 255, 255]
    assert np.abs(shown[1] - [227, 177, 127]).max() <= 1
    assert shown[2].tolist() == [200, 100, 0]


def test_opaque_alpha_changes_no_pixel():
    source = noise()
    source.putalpha(255)
    assert load_image(source).tobytes() == noise().tobytes()


@pytest.mark.parametrize("mode", ["LA", "PA", "La", "RGBa", "RGBA"])
def test_every_mode_with_alpha_shows_white_where_it_is_clear(mode):
    clear = Image.new("LA" if mode in ("LA", "La") else "RGBA", (4, 4), 0)
    clear = clear.convert(mode) if mode != "PA" else Image.new("PA", (4, 4))
    assert load_image(clear).getcolors() == [(16, (255, 255, 255))]


@pytest.mark.parametrize(
    ("mode", "key", "other"), [("L", 7, 8), ("P", 7, 8), ("RGB", (1, 2, 3), (1, 2, 4)), ("1", 0, 1)]
)
def test_a_transparent_colour_is_white(mode, key, other):
    picture = Image.new(mode, (2, 1), other)
    if mode == "P":
        picture.putpalette([value // 3 for value in range(768)])
    picture.putpixel((0, 0), key)
    stored = encoded(picture, "PNG", transparency=key)
    shown = load_image(stored)
    assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert shown.getpixel((1, 0)) == picture.convert("RGB").getpixel((1, 0))


def test_a_palette_with_alpha_per_entry():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    shown = load_image(encoded(picture, "PNG", transparency=bytes([128, 0])))
    assert np.abs(np.array(shown.getpixel((0, 0))) - [132, 137, 142]).max() <= 1
    assert shown.getpixel((1, 0)) == (255, 255, 255)


def test_the_transparent_colour_of_deep_pictures():
    grey = Image.fromarray(np.array([[1000, 1001, 65535]], dtype=np.uint16))
    grey.info["transparency"] = 1000
    assert [load_image(grey).getpixel((x, 0))[0] for x in range(3)] == [255, 4, 255]
    deep = Image.new("RGB", (2, 1), (0x12, 0x34, 0x56))
    deep.putpixel((1, 0), (0x12, 0x34, 0x57))
    deep.info["transparency"] = (0x1234, 0x3456, 0x5678)  # as Pillow reports the key of a 16-bit RGB PNG
    shown = load_image(deep)
    assert shown.getpixel((0, 0)) == (255, 255, 255)
    assert shown.getpixel((1, 0)) == (0x12, 0x34, 0x57)


# Deep grey


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped_to_white(kind):
    """Image.convert clips at 255, so an X-ray or depth map became a white square."""
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    shown = pixels(load_image(encoded(Image.fromarray(levels), kind)))
    assert (shown == np.arange(256).reshape(16, 16, 1)).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bit_grey_in_either_byte_order(mode):
    dtype = {"I;16": "<u2", "I;16L": "<u2", "I;16B": ">u2", "I;16N": "=u2"}[mode]
    data = np.array([[0, 257, 32896, 65535]], dtype=dtype)
    assert pixels(load_image(Image.frombytes(mode, (4, 1), data.tobytes())))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_integer_grey_of_eight_and_sixteen_bits_and_more():
    def mode_i(values):
        return Image.fromarray(np.array([values], dtype=np.int32))

    assert pixels(load_image(mode_i([0, 100, 255])))[0, :, 0].tolist() == [0, 100, 255]
    assert pixels(load_image(mode_i([0, 25700, 65535])))[0, :, 0].tolist() == [0, 100, 255]
    assert "beyond 16 bits" in refusal(mode_i([0, 70000])).message
    assert "beyond 16 bits" in refusal(mode_i([-1, 5])).message
    assert load_image(b"P5 2 1 65535\n\0\xff\0\0").getpixel((0, 0)) == (1, 1, 1)


def test_floating_point_grey():
    assert pixels(load_image(Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))))[0, :, 0].tolist() == [
        0,
        128,
        255,
    ]
    assert "0 to 1" in refusal(Image.fromarray(np.array([[0, 7.5]], dtype=np.float32))).message


# Animations


def test_the_first_frame_of_an_animation():
    frames = [noise(seed=seed) for seed in range(3)]
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


def test_a_pillow_picture_is_taken_at_its_current_frame_and_left_as_it_is():
    frames = [noise(seed=seed) for seed in range(3)]
    source = Image.open(io.BytesIO(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])))
    source.seek(2)
    assert load_image(source).tobytes() == frames[2].tobytes()
    mine = noise()
    load_image(mine).putpixel((0, 0), (1, 2, 3))
    assert mine.tobytes() == noise().tobytes()


def test_a_gif_whose_first_frame_covers_a_part_is_white_elsewhere():
    part = bytes.fromhex("2c0100010001000100000202440100")  # a 1 x 1 frame at (1, 1)
    control = bytes.fromhex("21f9040100000100")
    data = b"GIF89a\x03\0\x03\0\x80\0\0" + bytes([255, 0, 0, 0, 0, 255]) + control + part + b";"
    shown = load_image(data)
    assert shown.getpixel((1, 1)) == (255, 0, 0)


# Kinds of source


def test_every_kind_of_source_gives_the_same_pixels(tmp_path):
    data = encoded(noise(), "PNG")
    path = tmp_path / "ein Bild #1 100%.png"
    path.write_bytes(data)
    base = base64.b64encode(data).decode()
    percent = "".join(f"%{byte:02x}" for byte in data)
    for source in (
        path,
        str(path),
        path.as_uri(),
        path.as_uri().replace("file://", "FILE://localhost"),
        data,
        bytearray(data),
        memoryview(data),
        memoryview(data + data)[: len(data)],
        noise(),
        Image.open(path),
        np.asarray(noise()),
        f"data:image/png;base64,{base}",
        f"DATA:;BASE64,{base.rstrip('=')}",
        f"data:image/jpeg;name=a.png;base64,\n{base[:40]}\n {base[40:]}",
        "data:image/png;base64," + base.replace("+", "%2B").replace("/", "%2F"),
        f"data:image/png,{percent}",
    ):
        assert load_image(source).tobytes() == noise().tobytes(), describe_source(source)


def test_the_name_of_a_file_does_not_decide_what_it_is(tmp_path):
    path = tmp_path / "photo.pdf"
    path.write_bytes(encoded(noise(), "PNG"))
    assert load_image(path).tobytes() == noise().tobytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
def test_a_named_pipe_as_process_substitution_makes_it(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())", pipe],
        stdin=subprocess.PIPE,
    )
    writer.stdin.write(encoded(noise(), "PNG"))
    writer.stdin.close()
    assert load_image(pipe).tobytes() == noise().tobytes()
    assert writer.wait() == 0


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 7, 255]], dtype=np.uint8), [0, 7, 255]),
        (np.array([[[0], [7], [255]]], dtype=np.uint8), [0, 7, 255]),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0, 257, 32896, 65535]], dtype=np.uint16), [0, 1, 128, 255]),
        (np.array([[0, 257, 32896, 65535]], dtype=">u2"), [0, 1, 128, 255]),
        (np.array([[0, 0.5, 1]], dtype=np.float16), [0, 128, 255]),
        (np.array([[0, 0.5, 1]], dtype=np.float64), [0, 128, 255]),
        (np.array([[1]], dtype=np.float32), [255]),
    ],
)
def test_grey_arrays(array, expected):
    assert pixels(load_image(array))[0, :, 1].tolist() == expected


def test_colour_arrays_of_any_layout_in_memory():
    rgb = np.asarray(noise())
    for array in (rgb[:, ::-1][:, ::-1], np.asfortranarray(rgb), np.concatenate([rgb, rgb], axis=2)[:, :, 3:]):
        assert load_image(array).tobytes() == noise().tobytes()
    assert load_image(rgb[:, :, ::-1]).tobytes() == rgb[:, :, ::-1].tobytes()
    assert load_image(rgb.astype(np.float32) / 255).tobytes() == noise().tobytes()
    assert load_image(rgb.astype(np.uint16) * 257).tobytes() == noise().tobytes()
    clear = np.zeros((2, 2, 4), dtype=np.uint8)
    assert load_image(clear).getcolors() == [(4, (255, 255, 255))]


@pytest.mark.parametrize(
    ("array", "said", "hint"),
    [
        (np.zeros((3, 20, 30), dtype=np.uint8), "shape", "transpose(1, 2, 0)"),
        (np.zeros((2, 20, 30, 3), dtype=np.uint8), "shape", "one by one"),
        (np.zeros((20, 30, 2), dtype=np.uint8), "shape", "height x width"),
        (np.zeros(30, dtype=np.uint8), "shape", "height x width"),
        (np.array(3, dtype=np.uint8), "shape", "height x width"),
        (np.zeros((0, 5), dtype=np.uint8), "no pixels", "1 x 1"),
        (np.zeros((5, 5), dtype=np.int64), "int64", "uint8"),
        (np.zeros((5, 5), dtype=complex), "complex", "uint8"),
        (np.full((5, 5), "a"), "<U1", "uint8"),
        (np.full((5, 5), 200.0), "from 0 to 1", "uint8"),
        (np.full((5, 5), -0.1), "from 0 to 1", "normalisation"),
        (np.array([[0.5, np.nan]]), "nan", "0..1"),
        (np.array([[0.5, np.inf]]), "inf", "0..1"),
    ],
)
def test_arrays_that_are_no_picture(array, said, hint):
    error = refusal(array)
    assert said in error.message
    assert hint in error.hint


def test_other_objects_are_refused_with_the_way_to_pass_them(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(), "PNG"))
    with path.open("rb") as file:
        assert "read()" in refusal(file).hint
    assert "numpy array" in refusal(None).hint
    assert "type list" in refusal([path]).message
    with pytest.raises(InvalidRequestError, match="max_pixels"):
        load_image(path, max_pixels=0)


# What can go wrong with a file


def test_missing_folder_empty_and_unreadable_names(tmp_path):
    (tmp_path / "empty.png").touch()
    assert "no such file" in refusal(tmp_path / "none.png").message
    assert str(tmp_path / "none.png") in refusal(tmp_path / "none.png").message
    assert "no such file" in refusal(tmp_path / "empty.png" / "below.png").message
    assert "no such file" in refusal("a\0b").message
    assert "empty path" in refusal("").message
    assert "folder" in refusal(tmp_path).message
    assert "empty" in refusal(tmp_path / "empty.png").message
    assert "empty" in refusal(b"").message
    assert "given as bytes" in refusal(b"").message
    assert "data:image/png;base64," in refusal("iVBORw0KGgo" * 900).hint
    assert len(refusal("x" * 100_000).message) < 400


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(noise(), "PNG"))
    path.chmod(0)
    was = os.geteuid()
    if was == 0:  # root may read everything, so be somebody else for the call
        os.seteuid(65534)
    try:
        assert "no permission" in refusal(path).message
    finally:
        os.seteuid(was)


@pytest.mark.skipif(not pathlib.Path("/dev/zero").exists(), reason="devices of POSIX")
def test_a_device_is_not_read_without_end():
    assert "device" in refusal("/dev/zero").message


@pytest.mark.parametrize(
    "uri", ["http://example.org/a.png", "HTTPS://example.org/a.png", "s3://bucket/a.png", "file://host/a"]
)
def test_nothing_is_fetched(uri):
    assert "never fetched" in refusal(uri).message
    assert "Download" in refusal(uri).hint


def test_damaged_data_uris():
    assert "comma" in refusal("data:image/png;base64").message
    assert "base64" in refusal("data:image/png;base64,@@@@").message
    assert "base64" in refusal("data:image/png;base64,A").message
    assert "empty" in refusal("data:image/png;base64,").message
    assert "web page" in refusal("data:text/html,<html>hello</html>").message


def test_files_are_limited_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("internvl_gguf.images.MAX_FILE_BYTES", 2**20)
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(2**20 + 1)
    assert "limit" in refusal(path).message
    assert "limit" in refusal(bytes(2**20 + 1)).message
    assert "limit" in refusal("data:," + "a" * 2**21).message


def test_names_in_messages_are_one_printable_line():
    assert describe_source("a\nb\x1b[31m.png") == r"a\nb\x1b[31m.png"
    assert describe_source("schön.png") == "schön.png"
    assert describe_source(os.fsdecode(b"\xff.png")).isprintable()
    assert describe_source(pathlib.PurePath("x") / "y.png") == str(pathlib.PurePath("x/y.png"))
    assert "RGB, 37 x 23" in describe_source(noise())
    assert "2 x 3 x 3, uint8" in describe_source(np.zeros((2, 3, 3), dtype=np.uint8))
    assert "\n" not in refusal("no\nsuch.png").message


def test_a_closed_pillow_picture_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(), "PNG"))
    source = Image.open(path)
    source.close()
    assert "closed" in refusal(source).message


def test_loading_prints_nothing_and_warns_of_nothing(recwarn, capfd):
    exif = Image.Exif()
    exif[ORIENTATION] = 1
    broken = bytearray(encoded(noise("P"), "TIFF", exif=exif))
    broken[-8:] = b"\xff" * 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (bytes(broken), np.array([[np.nan]]), encoded(noise("P"), "PNG", transparency=bytes(9))):
            try:
                load_image(source)
            except PictureError:
                continue
    assert capfd.readouterr() == ("", "")
    assert not recwarn


def test_numpy_is_not_needed_to_read_a_picture_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(noise(), "PNG"))
    code = (
        "import sys; from internvl_gguf.images import load_image; load_image(sys.argv[1]);"
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 0
