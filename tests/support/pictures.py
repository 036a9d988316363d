"""Small pictures for tests, their files, and the check that a refusal is two clear lines."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from internvl_gguf.errors import PictureError
from internvl_gguf.images.load import load_image

PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])
"""The installed Pillow: what it can read, and what it says of damage, differs between the versions that are allowed."""


def random_picture(mode: str = "RGB", size: tuple[int, int] = (37, 23), seed: int = 5) -> Image.Image:
    """A picture of `mode` in which every pixel differs from its neighbours."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    picture = Image.frombytes(mode, size, random.Random(seed).randbytes(size[0] * size[1] * bands))
    if mode == "P":
        picture.putpalette(random.Random(seed).randbytes(768))
    return picture


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def refusal(source: Any, **options: Any) -> PictureError:
    """The error that load_image raises; both its parts are one line each."""
    with pytest.raises(PictureError) as caught:
        load_image(source, **options)
    for part in (caught.value.message, caught.value.hint):
        assert part
        assert part.isprintable()
    return caught.value


def noise(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A picture of random colours; another seed gives another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
