"""The frames of a clip, as upright RGB pictures with their times.

recipe      which frames the model sees, by the model card
limits      bounds on what a clip may cost
clip        facts of a clip, and its frames, as values
choice      which frames of a clip a `Video` asks for
clip_file   the bytes of a clip: a path, a pipe, a URI, bytes
formats     what a file is by its first bytes, and how it is read
reader      the parent's side of the process that decodes
decoder     what the child asks of what decodes
wire        messages between the two processes
child_main  the process that decodes
served_file a file whose bytes the parent has
confinement limits of the system on the process that decodes
containers  clips that FFmpeg decodes, by PyAV
decoding    frames from a keyframe on
damage      which of them damage may reach
decoder_log what FFmpeg logs
stated_bytes how long a file says it is
timeline    numbers and times of the frames of a container
animated    whether a GIF, WebP or PNG is one
animations  GIF, WebP and APNG, by Pillow

Names are imported on first use: neither Pillow nor PyAV is needed to choose frames.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from internvl_gguf.types import Video
    from internvl_gguf.video.choice import FrameChoice, choose_frames
    from internvl_gguf.video.clip import Clip, ClipFrame, ClipInfo
    from internvl_gguf.video.limits import ClipLimits
    from internvl_gguf.video.reader import ClipReader, open_clip, probe_clip, read_clip
    from internvl_gguf.video.recipe import frame_indices

__all__ = [
    "Clip",
    "ClipFrame",
    "ClipInfo",
    "ClipLimits",
    "ClipReader",
    "FrameChoice",
    "Video",
    "choose_frames",
    "frame_indices",
    "open_clip",
    "probe_clip",
    "read_clip",
]

_HOMES: Final = {
    "Clip": "video.clip",
    "ClipFrame": "video.clip",
    "ClipInfo": "video.clip",
    "ClipLimits": "video.limits",
    "ClipReader": "video.reader",
    "FrameChoice": "video.choice",
    "Video": "types",
    "choose_frames": "video.choice",
    "frame_indices": "video.recipe",
    "open_clip": "video.reader",
    "probe_clip": "video.reader",
    "read_clip": "video.reader",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"internvl_gguf.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
