"""Tell an animation from a still picture by the structure of its file; nothing is decoded."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

from internvl_gguf.errors import PictureError
from internvl_gguf.images.sources import data_uri_bytes, is_data_uri, is_pipe, local_path

_GIF_BEGINNINGS: Final = (b"GIF87a", b"GIF89a")
_GIF_PICTURE: Final = b","
_GIF_EXTENSION: Final = b"!"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_WEBP_ANIMATION: Final = 2  # a bit of the flags of VP8X
_MOST_BLOCKS: Final = 100_000


def is_animated(file: BinaryIO) -> bool:
    """Return whether a GIF, WebP or PNG has more than one picture; of another file, False.

    Args:
        file: the file, at its beginning; it is searched.
    """
    head = file.read(21)
    if head[:6] in _GIF_BEGINNINGS:
        return _gif_pictures(file) > 1
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
        return bool(head[20] & _WEBP_ANIMATION) if len(head) > 20 else False
    return head[:8] == _PNG and _has_animation_chunk(file)


def is_animation(source: Any) -> bool:
    """Return whether the source of a picture is an animation, of which a picture is the first frame.

    Args:
        source: a path, a `data:` or `file://` URI, or the bytes of a file. What is something else, a pipe, or cannot be
            read is none.
    """
    try:
        if isinstance(source, str) and is_data_uri(source):
            source = data_uri_bytes(source, "it")
        if isinstance(source, bytes):
            return is_animated(BytesIO(source))
        if not isinstance(source, (str, os.PathLike)) or is_pipe(path := local_path(source, "it")):
            return False
        with Path(path).open("rb") as file:
            return is_animated(file)
    except (OSError, ValueError, PictureError):
        return False


def _has_animation_chunk(file: BinaryIO) -> bool:
    """Return whether a PNG has the chunk acTL, which stands before the pixels."""
    file.seek(len(_PNG))
    for _ in range(_MOST_BLOCKS):
        header = file.read(8)
        if len(header) < 8 or header[4:] == b"IDAT":
            return False
        if header[4:] == b"acTL":
            return True
        file.seek(int.from_bytes(header[:4]) + 4, os.SEEK_CUR)
    return False


def _gif_pictures(file: BinaryIO) -> int:
    """Return the pictures of a GIF, 2 for more of them; see the specification of GIF89a, section 18 and on."""
    file.seek(10)
    flags = file.read(3)
    file.seek(_colours(flags[:1]), os.SEEK_CUR)
    found = 0
    for _ in range(_MOST_BLOCKS):
        kind = file.read(1)
        if kind == _GIF_PICTURE:
            found += 1
            if found > 1:
                break
            place = file.read(9)
            file.seek(_colours(place[8:]) + 1, os.SEEK_CUR)
        elif kind == _GIF_EXTENSION:
            file.seek(1, os.SEEK_CUR)
        else:
            break
        while size := file.read(1)[:1].rjust(1, b"\0")[0]:
            file.seek(size, os.SEEK_CUR)
    return found


def _colours(flags: bytes) -> int:
    """Return the bytes of the table of colours that flags announce."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0
