"""Which frames of clips are shown, said once for several clips; and what of the given is a clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from internvl_gguf.errors import PictureError
from internvl_gguf.images.sources import data_uri_bytes, is_data_uri, local_path
from internvl_gguf.types import Video
from internvl_gguf.video.formats import HEAD_BYTES, is_clip_file, is_meant_as_clip


@dataclass(frozen=True)
class ClipWishes:
    """Which frames of clips are shown; see `Video`.

    Raises:
        InvalidRequestError: values that `Video` refuses.
    """

    frames: int | Literal["auto"] | None = None
    fps: float | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        self.video(b"")

    @property
    def given(self) -> Mapping[str, Any]:
        """The fields that are not left out, by their names."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def video(self, source: Any, name: str | None = None) -> Video:
        """Return a clip of which these frames are wanted."""
        return Video(source, name=name, **self.given)


def is_clip_source(name: str) -> bool:
    """Return whether what is given as a picture is meant as a clip, see `is_meant_as_clip`; a pipe is not looked at.

    Args:
        name: a path, or a `data:` or `file://` URI. What cannot be read is no clip.
    """
    try:
        if is_data_uri(name):
            return is_meant_as_clip(data_uri_bytes(name, name)[:HEAD_BYTES], "")
        return is_clip_file(Path(local_path(name, name)))
    except (ValueError, PictureError):
        return False
