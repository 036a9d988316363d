"""Pictures as a server gets them: the bytes of their files, in data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from internvl_gguf.chat.attachments import pixel_digest
from internvl_gguf.images.load import describe_source, load_image, picture_bytes
from internvl_gguf.types import MessagePicture, Picture

if TYPE_CHECKING:
    from PIL.Image import Image

_SIGNATURES: Final = (
    ("image/jpeg", b"\xff\xd8\xff", 0, b""),
    ("image/png", b"\x89PNG\r\n\x1a\n", 0, b""),
    ("image/gif", b"GIF8", 0, b""),
    ("image/webp", b"RIFF", 8, b"WEBP"),
)
"""Formats that every server reads: media type, first bytes, and further bytes at a place."""


@dataclass(frozen=True, kw_only=True)
class SentPicture(MessagePicture):
    """A picture of a message whose server cuts it.

    Attributes:
        data: the bytes that are sent: those of its file if every server reads its format, else a PNG of its pixels.
        media_type: their format.
        digest: hash of its pixels, as `Attachment.digest`.
        tokens: positions that it takes; None where the server has not said it.
        is_one_tile: whether it is to be one tile, as frames of clips are.
    """

    data: bytes = field(repr=False)
    media_type: str
    digest: bytes = field(repr=False)
    tokens: int | None = None
    is_one_tile: bool = False

    @property
    def uri(self) -> str:
        """It as a data URI."""
        return data_uri(self.media_type, self.data)


def sent_picture(source: Any) -> SentPicture:
    """Read a picture, and return it as a server gets it.

    Raises:
        PictureError: a picture that cannot be read.
    """
    if isinstance(source, SentPicture):
        return source
    picture = source if isinstance(source, Picture) else Picture(source)
    name = describe_source(picture.source if picture.name is None else picture.name)
    data = picture_bytes(picture.source)
    image = load_image(data, name=name)
    data, media_type = sendable(data, image)
    return SentPicture(
        name,
        grid=(0, 0),
        has_thumbnail=False,
        source_size=picture.source_size or image.size,
        tiles=(),
        data=data,
        media_type=media_type,
        digest=pixel_digest(image),
        label=picture.label,
        is_one_tile=bool(picture.label) and picture.max_tiles == 1,
    )


def sendable(data: bytes, image: Image) -> tuple[bytes, str]:
    """Return the bytes to send of a picture, and their media type.

    Args:
        data: the bytes of its file.
        image: its pixels.
    """
    for media_type, first, place, further in _SIGNATURES:
        if data.startswith(first) and data[place : place + len(further)] == further:
            return data, media_type
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue(), "image/png"


def data_uri(media_type: str, data: bytes) -> str:
    """Return bytes as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"
