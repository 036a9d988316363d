"""Animations among the pictures of a batch: a picture is their first frame, and its record says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from internvl_gguf.bulk.contained import ContainedPicture
from internvl_gguf.images.load import describe_source
from internvl_gguf.types import Video
from internvl_gguf.video.animated import is_animation

SAID: Final = "is animated, and its first frame is shown"
"""The words by which the notice of an animated picture is known."""


def animation_notices(images: Iterable[Any]) -> tuple[str, ...]:
    """Return a line for each picture of a question that was answered that is the first frame of an animation.

    Args:
        images: its pictures and clips. Of a file the first bytes are read; of one in a container nothing is read again.
    """
    return tuple(
        f'{image.name if isinstance(image, ContainedPicture) else describe_source(image)} {SAID}; "video" in a line of '
        "JSON shows its frames."
        for image in images
        if not isinstance(image, Video) and _is_animation(image)
    )


def count_animations(notices: Iterable[str]) -> int:
    """Return how many of the notices of an answer are of animations."""
    return sum(SAID in notice for notice in notices)


def _is_animation(image: Any) -> bool:
    return image.is_animation if isinstance(image, ContainedPicture) else is_animation(image)
