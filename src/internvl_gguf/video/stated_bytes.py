"""How many bytes a file of Matroska or AVI says it has, by its outermost element. A shorter one is cut off."""

from __future__ import annotations

import io
import struct
from typing import Final

_HEAD_BYTES: Final = 4096
_SEGMENT: Final = b"\x18\x53\x80\x67"


def stated_bytes(file: io.IOBase, demuxer: str) -> int | None:
    """Return the size that a file states; None where it states none, as one that was streamed. The place is kept.

    Args:
        file: its bytes.
        demuxer: FFmpeg's name of what reads it: "matroska", "avi" or another one, for which None is returned.
    """
    at = file.tell()
    head = file.read(_HEAD_BYTES)
    file.seek(at)
    if demuxer == "avi" and len(head) >= 8:
        (size,) = struct.unpack_from("<I", head, 4)
        return 8 + int(size) if size else None
    if demuxer == "matroska" and len(head) > 12:
        begin, header = _number(head, 4)
        if header is not None and head[begin + header : begin + header + 4] == _SEGMENT:
            begin, segment = _number(head, begin + header + 4)
            return None if segment is None else begin + segment
    return None


def _number(data: bytes, at: int) -> tuple[int, int | None]:
    """Return where an EBML number (RFC 8794, section 4) ends, and its value; None where it says that it is unknown."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length()
    digits = data[at : at + length]
    if length > 8 or len(digits) < length:
        return at, None
    value = int.from_bytes(digits) & ((1 << 7 * length) - 1)
    return at + length, None if value == (1 << 7 * length) - 1 else value
