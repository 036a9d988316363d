"""Decode the user's text from files and pipes: UTF-8, or UTF-16 or UTF-32 with a byte order mark."""

from __future__ import annotations

import codecs
import re
from typing import Final

from internvl_gguf.errors import InvalidRequestError

_MARKS = (
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF32_LE, "UTF-32LE"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "UTF-32BE"),
    (codecs.BOM_UTF16_LE, "UTF-16LE"),
    (codecs.BOM_UTF16_BE, "UTF-16BE"),
)
"""Byte order marks and the encodings that they begin (the Unicode Standard, section 23.8)."""
_OTHER_FILES: Final = (
    (rb"\x89PNG|\xff\xd8\xff|GIF8|BM|II\*\0|MM\0\*|RIFF.{4}WEBP|.{4}ftyp(?:avi[fs]|hei|hev|mif1|msf1)", "a picture"),
    (rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", "a clip"),
    (rb"GGUF", "a model file"),
    (rb"%PDF-", "a PDF document"),
    (rb"PK\x03\x04|\x1f\x8b", "an archive"),
)
"""How files begin that were named in place of text, and what they are."""


def decode_text(data: bytes, name: str) -> str:
    """Decode the text of a file, and remove its byte order mark.

    Args:
        data: the whole file.
        name: its name at the beginning of an error message.

    Raises:
        InvalidRequestError: the encoding is another one, or the data is no text: UTF-16 without a mark is full of NULs.
    """
    mark, encoding = next((each for each in _MARKS if data.startswith(each[0])), (b"", "UTF-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        _refuse_other_file(data, name)
        at = len(mark) + error.start
        raise InvalidRequestError(
            f"{name} is not {encoding}: byte {at} is 0x{data[at]:02x}.",
            "Convert it, for instance with iconv -f LATIN1 -t UTF-8.",
        ) from None
    if "\0" in text:
        _refuse_other_file(data, name)
        raise InvalidRequestError(
            f"{name} is not text: it has a NUL.",
            "If it is UTF-16, convert it, for instance with iconv -f UTF-16LE -t UTF-8.",
        )
    return text


def _refuse_other_file(data: bytes, name: str) -> None:
    """Say of data that is no text what it is, where that is known.

    Raises:
        InvalidRequestError: it is known.
    """
    for beginning, what in _OTHER_FILES:
        if re.match(beginning, data[:32], re.DOTALL):
            raise InvalidRequestError(f"{name} is {what}, not text.", "Give text.")


def as_utf8(data: bytes, name: str) -> bytes:
    """Convert text to UTF-8 if a byte order mark says that it is UTF-16 or UTF-32; else return it unchanged.

    Args:
        data: the whole file, or its beginning; UTF-8 is not checked here, since each line may have faults of its own.
        name: its name in error messages.

    Raises:
        InvalidRequestError: the data has a mark, but cannot be decoded accordingly.
    """
    return decode_text(data, name).encode() if has_wide_mark(data) else data.removeprefix(codecs.BOM_UTF8)


def has_wide_mark(data: bytes) -> bool:
    """Return whether text begins with the byte order mark of UTF-16 or UTF-32."""
    return any(data.startswith(mark) for mark, _ in _MARKS[1:])
