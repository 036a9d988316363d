"""Paths, URIs, bytes, arrays and Pillow pictures: each kind of picture source, and each of its errors."""

from __future__ import annotations

import base64
import io
import os
import pathlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.load import describe_source, load_image
from tests.support.pictures import encoded, noise, random_picture, refusal


def pixels(picture: Image.Image) -> np.ndarray:
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


# Kinds of source


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    data = encoded(random_picture(), "PNG")
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
        random_picture(),
        Image.open(path),
        np.asarray(random_picture()),
        f"data:image/png;base64,{base}",
        f"DATA:;BASE64,{base.rstrip('=')}",
        f"data:image/jpeg;name=a.png;base64,\n{base[:40]}\n {base[40:]}",
        "data:image/png;base64," + base.replace("+", "%2B").replace("/", "%2F"),
        f"data:image/png,{percent}",
    ):
        assert load_image(source).tobytes() == random_picture().tobytes(), describe_source(source)


def test_the_name_of_a_file_does_not_decide_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "photo.pdf"
    path.write_bytes(encoded(random_picture(), "PNG"))
    assert load_image(path).tobytes() == random_picture().tobytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
def test_a_named_pipe_as_process_substitution_makes_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())", pipe],
        stdin=subprocess.PIPE,
    )
    writer.stdin.write(encoded(random_picture(), "PNG"))
    writer.stdin.close()
    assert load_image(pipe).tobytes() == random_picture().tobytes()
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
def test_grey_arrays(array: np.ndarray, expected: list[int]) -> None:
    assert pixels(load_image(array))[0, :, 1].tolist() == expected


def test_colour_arrays_of_any_layout_in_memory() -> None:
    rgb = np.asarray(random_picture())
    for array in (rgb[:, ::-1][:, ::-1], np.asfortranarray(rgb), np.concatenate([rgb, rgb], axis=2)[:, :, 3:]):
        assert load_image(array).tobytes() == random_picture().tobytes()
    assert load_image(rgb[:, :, ::-1]).tobytes() == rgb[:, :, ::-1].tobytes()
    assert load_image(rgb.astype(np.float32) / 255).tobytes() == random_picture().tobytes()
    assert load_image(rgb.astype(np.uint16) * 257).tobytes() == random_picture().tobytes()
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
def test_arrays_that_are_no_picture(array: np.ndarray, said: str, hint: str) -> None:
    error = refusal(array)
    assert said in error.message
    assert hint in error.hint


def test_open_files_are_pictures_and_read_from_their_beginning(tmp_path: Path) -> None:
    """A BytesIO was refused, and stands at its end after `picture.save(file)`."""
    path = tmp_path / "a.png"
    random_picture().save(path)
    expected = load_image(path).tobytes()
    memory = io.BytesIO()
    random_picture().save(memory, "PNG")
    with path.open("rb") as file:
        assert [load_image(each).tobytes() for each in (memory, memory, file)] == [expected] * 3
    memory.close()
    assert "closed" in refusal(memory).message


def test_a_home_that_no_shell_expanded_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--image=~/photo.jpg`, lines of --batch and Python ended in "there is no such file"."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    random_picture().save(tmp_path / "a.png")
    assert load_image("~/a.png").size == random_picture().size
    (tmp_path / "~").mkdir()
    noise(1, 7, 5).save(tmp_path / "~" / "a.png")
    assert load_image("~/a.png").size == (7, 5)  # what is really called so


def test_other_objects_are_refused_with_the_way_to_pass_them(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(random_picture(), "PNG"))
    with path.open() as file:
        assert 'open(path, "rb")' in refusal(file).hint
    assert "numpy array" in refusal(None).hint
    assert "type list" in refusal([path]).message
    with pytest.raises(InvalidRequestError, match="max_pixels"):
        load_image(path, max_pixels=0)


# What can go wrong with a file


def test_missing_folder_empty_and_unreadable_names(tmp_path: Path) -> None:
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
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(random_picture(), "PNG"))
    path.chmod(0)
    was = os.geteuid()
    if was == 0:  # root may read everything, so be somebody else for the call
        os.seteuid(65534)
    try:
        assert "no permission" in refusal(path).message
    finally:
        os.seteuid(was)


@pytest.mark.skipif(not pathlib.Path("/dev/zero").exists(), reason="devices of POSIX")
def test_a_device_is_not_read_without_end() -> None:
    assert "device" in refusal("/dev/zero").message


@pytest.mark.parametrize(
    "uri", ["http://example.org/a.png", "HTTPS://example.org/a.png", "s3://bucket/a.png", "file://host/a"]
)
def test_nothing_is_fetched(uri: str) -> None:
    assert "never fetched" in refusal(uri).message
    assert "Download" in refusal(uri).hint


def test_damaged_data_uris() -> None:
    assert "comma" in refusal("data:image/png;base64").message
    assert "base64" in refusal("data:image/png;base64,@@@@").message
    assert "base64" in refusal("data:image/png;base64,A").message
    assert "empty" in refusal("data:image/png;base64,").message
    assert "web page" in refusal("data:text/html,<html>hello</html>").message


def test_files_are_limited_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("internvl_gguf.images.sources.MAX_FILE_BYTES", 2**20)
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(2**20 + 1)
    assert "limit" in refusal(path).message
    assert "limit" in refusal(bytes(2**20 + 1)).message
    assert "limit" in refusal("data:," + "a" * 2**21).message


def test_names_in_messages_are_one_printable_line() -> None:
    assert describe_source("a\nb\x1b[31m.png") == r"a b\x1b[31m.png"
    assert describe_source("schön.png") == "schön.png"
    assert describe_source(os.fsdecode(b"\xff.png")).isprintable()
    assert describe_source(pathlib.PurePath("x") / "y.png") == str(pathlib.PurePath("x/y.png"))
    assert "RGB, 37 x 23" in describe_source(random_picture())
    assert "2 x 3 x 3, uint8" in describe_source(np.zeros((2, 3, 3), dtype=np.uint8))
    assert "\n" not in refusal("no\nsuch.png").message


def test_a_closed_pillow_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(random_picture(), "PNG"))
    source = Image.open(path)
    source.close()
    assert "closed" in refusal(source).message
