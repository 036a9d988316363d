"""Frames of clips as the history keeps them: the one tile that the model sees, with the size that the frame had."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from math import isqrt
from typing import TYPE_CHECKING, Any

from internvl_gguf.session.prompt_template import check_places
from internvl_gguf.types import Frames, Message, Picture, ShownClip, Video
from internvl_gguf.utils import arguments

if TYPE_CHECKING:
    from internvl_gguf.config import AskOptions
    from internvl_gguf.session.contract import AnySession


def frames_of(
    session: AnySession, prompt: str, images: Sequence[Any], options: AskOptions
) -> tuple[str, Sequence[Any], tuple[ShownClip, ...], tuple[str, ...]]:
    """Return a question whose clips are their frames, with their labels.

    Args:
        session: the session that is asked.
        prompt, images, options: the question.

    Returns:
        Its text and pictures, its clips with the frames that are shown, and what users should know of them.

    Raises:
        VideoError: a clip that cannot be read.
        InvalidRequestError: a prompt whose places do not fit, or a layout that has no place for clips.
    """
    if not any(isinstance(image, Video | Frames) for image in images):
        return prompt, images, (), ()
    from internvl_gguf.session.asked import Asked
    from internvl_gguf.session.clips import with_frames

    layout = options.get("layout", "separate")
    check_places(arguments.text("prompt", prompt), len(images), layout)
    asked = Asked(Message("user", prompt, layout=layout), tuple(images))
    n_before = sum(len(message.pictures) for message in session.messages)

    def most() -> int:
        return session.frame_room(prompt, images, **options)

    (found,), clips, notices = with_frames([asked], options, most, n_before)
    return found.message.text, found.images, clips, notices


def as_tile(session: AnySession, picture: Picture) -> Picture:
    """Return a picture of one tile with the pixels of this tile, which are cut to themselves again.

    A picture that has no more pixels than its tile stays, and so does one that a server cuts. Eight frames of a 4K clip
    take less than 5 MB as PNG; their pixels are 200 MB.
    """
    from PIL import Image

    cut = session.picture(picture)
    if len(cut.tiles) != 1:
        return picture
    (tile,) = cut.tiles
    side = isqrt(len(tile.pixels) // 3)
    if cut.source_size[0] * cut.source_size[1] <= side**2:
        return picture
    return replace(picture, source=Image.frombytes("RGB", (side, side), tile.pixels), source_size=cut.source_size)


def in_shape(data: bytes, size: tuple[int, int]) -> bytes:
    """Return the file of a frame in the size that the frame had, so that nothing in it is distorted.

    Args:
        data: the file that is kept; one of this size is returned as it is.
        size: (width, height) of the frame.

    Raises:
        PictureError: the file cannot be read.
    """
    from internvl_gguf.images.load import load_image

    image = load_image(data)
    if image.size == size:
        return data
    file = io.BytesIO()
    image.resize(size).save(file, "PNG", compress_level=1)
    return file.getvalue()
