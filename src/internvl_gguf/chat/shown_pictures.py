"""Recognises pictures that are in the conversation already, by their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from internvl_gguf.chat.attachments import Attachment
from internvl_gguf.images.load import load_image
from internvl_gguf.session.prepare import cut_as_before
from internvl_gguf.tiling import Grid

if TYPE_CHECKING:
    from internvl_gguf.images.tile_limits import TileLimits
    from internvl_gguf.session.model_runtime import ModelRuntime
    from internvl_gguf.types import MessagePicture


def number_of(attachment: Attachment, shown: Sequence[MessagePicture | Attachment], runtime: ModelRuntime) -> int:
    """Return the number, from 1, of the last picture that is the same as an added one; 0 if there is none."""
    return next((at + 1 for at in reversed(range(len(shown))) if _is_same(attachment, shown[at], runtime)), 0)


def count_repeated(
    named: Sequence[Attachment],
    shown: Sequence[MessagePicture | Attachment],
    runtime: ModelRuntime,
    limits: TileLimits,
) -> int:
    """Return how many of the pictures that a line names the conversation ends with, in the same order and cut alike.

    A question about them needs no copy. A picture that others came after does: a question about "it" means the last.
    """
    for many in range(min(len(named), len(shown)), 0, -1):
        pairs = zip(named[:many], shown[-many:], strict=True)
        if all(_is_cut_alike(one, other, runtime, limits) and _is_same(one, other, runtime) for one, other in pairs):
            return many
    return 0


def _is_cut_alike(
    one: Attachment, other: MessagePicture | Attachment, runtime: ModelRuntime, limits: TileLimits
) -> bool:
    tile_size = runtime.vision.image_size
    if isinstance(other, Attachment):
        return one.grid(limits, tile_size) == other.grid(limits, tile_size)
    return one.grid(limits, tile_size) == Grid(*other.grid, other.has_thumbnail)


def _is_same(one: Attachment, other: MessagePicture | Attachment, runtime: ModelRuntime) -> bool:
    if isinstance(other, Attachment):
        return one.digest == other.digest
    if one.size != other.source_size:  # most are told apart by this, without reading the file again
        return False
    image = load_image(one.picture.source, name=one.picture.name)
    return cut_as_before(runtime, image, other.name, other.grid, other.has_thumbnail).tiles == other.tiles
