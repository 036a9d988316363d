"""Decoders of clips that strangers send: their bounds, and their end when the client leaves."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from internvl_gguf.errors import VideoError
from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.session.clips import OpenClip
from internvl_gguf.types import ShownClip, Video
from internvl_gguf.video import ClipLimits, open_clip
from internvl_gguf.video.reader import ClipReader
from internvl_gguf.video.stop import ClipStop

AT_ONCE: Final = 2
"""Clips that are decoded at the same time; others wait. Each has a process of its own."""
LIMITS: Final = ClipLimits(seconds=60.0, frames=256, all_pixels=2**29, file_bytes=2**32)
"""32 frames of 4K are held in 0.8 GB until they are cut. The bytes of a file are bounded before."""


def opener(stop: ClipStop) -> OpenClip:
    """Return what opens the clips of a request, until `stop` ends it."""
    return partial(_opened, stop)


def clips_field(clips: Sequence[ShownClip]) -> dict[str, Any]:
    """Return the field `clips` of an answer: the frames that the model saw; no field without a clip."""
    return {"clips": [clip.to_dict() for clip in clips]} if clips else {}


def has_decoder() -> bool:
    """Return whether clips other than animations can be read."""
    return importlib.util.find_spec("av") is not None


def _opened(stop: ClipStop, video: Video) -> ClipReader:
    try:
        return open_clip(video, limits=LIMITS, stop=stop)
    except VideoError as error:
        if has_decoder() or "PyAV" not in error.message:
            raise
        raise RefusedRequestError(
            "This server cannot read clips: it lacks PyAV.",
            "Its owner can install it: pip install 'internvl-gguf[video]'. Or send frames as pictures.",
            status=501,
            code="not_supported",
        ) from None
