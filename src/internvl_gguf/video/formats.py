"""The kinds of files that are clips, told by their first bytes whatever their name says, and their readers.

Only what is listed here is read, and the reader is told which demuxer to use: no other one, no playlist and no list of
files is ever tried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from internvl_gguf.errors import VideoError

HEAD_BYTES: Final = 4096
"""Bytes of a file that tell what it is."""

REFUSED_ENDINGS: Final = "flv|wmv|mpe?g|m2ts|ogv|m3u8"
"""Endings of the names of clips in formats that are not read."""
ENDINGS: Final = f"mp4|m4v|mov|3gp|mkv|webm|avi|{REFUSED_ENDINGS}"
"""Endings of the names of clips, in formats that are read or not, as a regular expression. A .ts is TypeScript, too."""

FORMATS: Final = "MP4, MOV, 3GP, MKV, WebM, AVI, GIF, WebP or APNG"


@dataclass(frozen=True)
class ClipFormat:
    """A kind of file that is read.

    Attributes:
        container: its name.
        demuxer: FFmpeg's name of what reads it; "" for an animation, which Pillow reads.
    """

    container: str
    demuxer: str = ""


_MP4, _AGAIN = ClipFormat("mp4", "mov"), "Convert it to MP4 first, for example with ffmpeg."
_KNOWN: Final = (
    (rb".{4}ftyp(?!avi[fs]|hei|hev|mif1|msf1)|.{4}(moov|mdat|wide|free|skip|pnot)", _MP4),
    (rb"\x1a\x45\xdf\xa3", ClipFormat("matroska", "matroska")),
    (rb"RIFF.{4}AVI ", ClipFormat("avi", "avi")),
    (rb"GIF8[79]a", ClipFormat("GIF")),
    (rb"RIFF.{4}WEBP", ClipFormat("WebP")),
    (rb"\x89PNG\r\n\x1a\n", ClipFormat("APNG")),
)
_PICTURES: Final = rb"\xff\xd8\xff|BM.{8}|II[*+]\0|MM\0[*+]|P[1-6f]\s|.{4}ftyp"
_OTHER_CLIPS: Final = rb"\x47.{187}\x47|.{4}\x47.{191}\x47|FLV\x01|OggS|\x30\x26\xb2\x75|\0\0\x01\xba|\.RMF"
_LISTS: Final = rb"(\xef\xbb\xbf)?\s*(#EXTM3U|ffconcat|\[playlist\]|\[Reference\]|<MPD|<asx|<smil)"
_NAMED_CLIP: Final = re.compile(rf"[^\s./\\]\.({ENDINGS})$", re.IGNORECASE)
_REFUSED: Final = (
    (rb"(\xef\xbb\xbf)?\s*(#EXTM3U|ffconcat|\[playlist\]|\[Reference\]|<\?xml|<MPD|<asx|<smil|file\s+['\"])",
     "a list of other files, which is never followed", "Give the path of one of those files."),
    (_PICTURES, "a picture, not a clip", "Give it without Video."),
    (rb"ID3|fLaC|RIFF.{4}WAVE|FORM.{4}AIF|\xff[\xf2-\xfb]", "a sound, not a clip", "Give a clip with pictures."),
    (_OTHER_CLIPS,
     "a clip of a format that is not read", _AGAIN),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive", "Extract the clip first."),
    (rb"GGUF", "a model file", "Give the model to --mmproj or as the model, and a clip here."),
)  # fmt: skip


def identify(head: bytes, name: str) -> ClipFormat:
    """Return what a file is by its first bytes.

    Args:
        head: HEAD_BYTES of the file, or all of a smaller one.
        name: its name in errors.

    Raises:
        VideoError: it is of no kind that is read; the message says what it looks like.
    """
    for pattern, known in _KNOWN:
        if re.match(pattern, head, re.DOTALL):
            return known
    for pattern, what, hint in _REFUSED:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            raise VideoError(f"Cannot use {name}: it is {what}.", hint)
    raise VideoError(f"Cannot use {name}: it is not a clip of a known format.", f"Use {FORMATS}.")


def is_clip(head: bytes) -> bool:
    """Return whether a file that is given as a picture is a clip. An animation is not: as a picture it is a still.

    Args:
        head: its first bytes, as `identify` takes them.
    """
    return any(known.demuxer and re.match(pattern, head, re.DOTALL) for pattern, known in _KNOWN)


def is_meant_as_clip(head: bytes, name: str) -> bool:
    """Return whether a file that is given as a picture is a clip, or would be one: then `identify` says what is wrong.

    Args:
        head: its first bytes, as `identify` takes them.
        name: of the file; one like that of a clip counts where the content is not that of a picture.
    """
    if is_clip(head) or re.match(rb"(?:%b)|(?:%b)" % (_OTHER_CLIPS, _LISTS), head, re.DOTALL | re.IGNORECASE):
        return True
    is_still = any(not known.demuxer and re.match(pattern, head, re.DOTALL) for pattern, known in _KNOWN)
    return bool(_NAMED_CLIP.search(name)) and not is_still and not re.match(_PICTURES, head, re.DOTALL)


def is_clip_file(path: Path) -> bool:
    """Return whether a path is that of a file meant as a clip, see `is_meant_as_clip`; what cannot be read is none."""
    try:
        if not path.is_file():  # a pipe gives its bytes once
            return False
        with path.open("rb") as file:
            return is_meant_as_clip(file.read(HEAD_BYTES), path.name)
    except (OSError, ValueError):
        return False
