"""Parts of messages as a question takes them, and as keys tell them apart."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from internvl_gguf.config import AskOptions
from internvl_gguf.server.chat_request import ClipPart, FramesPart, Part, PicturePart, TextPart
from internvl_gguf.tiling import TileRange
from internvl_gguf.types import Frames, Picture, Video


def image_of(
    part: PicturePart | ClipPart | FramesPart, options: AskOptions, own: TileRange
) -> Picture | Video | Frames:
    """Return a part as a question takes it; frames of a clip are one tile unless the request says otherwise.

    Args:
        part: the part.
        options: of the request.
        own: how many tiles the model's file says, which `detail` "high" means.
    """
    if isinstance(part, ClipPart):
        return replace(part.video, max_tiles=part.video.max_tiles or 1)
    if isinstance(part, FramesPart):
        frames = [
            Picture(source, max_tiles=part.max_tiles or 1, name=f"frame {number} of {part.name}")
            for number, source in enumerate(part.sources, 1)
        ]
        times = tuple(at / part.fps for at in range(len(frames))) if part.fps else ()
        return Frames(tuple(frames), times, part.name)
    if part.detail == "low":
        return Picture(part.source, max_tiles=1, min_tiles=1, name=part.name)
    if part.detail == "high":
        return Picture(part.source, max_tiles=max(own.most, options.get("min_tiles", 1)), name=part.name)
    return Picture(part.source, name=part.name)


def content_of(part: Part) -> bytes:
    """Return bytes that are other ones for every other content."""
    if isinstance(part, TextPart):
        return b"text" + part.text.encode()
    if isinstance(part, ClipPart):
        return b"clip" + repr(replace(part.video, source=None)).encode() + _digest(part.video.source)
    if isinstance(part, FramesPart):
        return b"frames" + repr((part.fps, part.max_tiles)).encode() + b"".join(map(_digest, part.sources))
    return b"picture" + part.detail.encode() + _digest(part.source)


def _digest(source: str | bytes) -> bytes:
    return hashlib.blake2b(source if isinstance(source, bytes) else source.encode(), digest_size=16).digest()
