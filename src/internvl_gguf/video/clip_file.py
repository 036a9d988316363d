"""The bytes of a clip, wherever they are: this process opens the file and reads it, the one that decodes never does."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from internvl_gguf.errors import PictureError, VideoError
from internvl_gguf.images.sources import data_uri_bytes, is_data_uri, is_pipe, local_path, unreadable_error
from internvl_gguf.types import Video
from internvl_gguf.utils.paths import making_temporary
from internvl_gguf.utils.safe_text import error_line, safe_name
from internvl_gguf.video.limits import ClipLimits

_LONGEST_NAME = 200  # characters of a path in a message
_PIECE = 2**20


class ClipFile(Protocol):
    """The bytes of a clip.

    Attributes:
        size: their number.
    """

    size: int

    def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return up to `size` bytes from `offset` on; none at the end."""
        ...

    def close(self) -> None:
        """Close it. Closing twice is harmless."""
        ...


def describe_clip(video: Video) -> str:
    """Return a short one-line name of a clip for messages: its own, its path, or the kind of source."""
    source = video.source
    if video.name is not None:
        return safe_name(video.name, _LONGEST_NAME)
    if isinstance(source, str) and is_data_uri(source):
        return "the clip in the data URI"
    if isinstance(source, (str, os.PathLike)):
        return safe_name(os.fsdecode(source), _LONGEST_NAME) or "the clip with an empty path"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the clip given as bytes"
    if hasattr(source, "read"):
        named = getattr(source, "name", None)
        return safe_name(named, _LONGEST_NAME) if isinstance(named, str) and named else "the clip in the open file"
    return f"the object of type {type(source).__name__}"


def open_clip_file(video: Video, limits: ClipLimits, name: str) -> ClipFile:
    """Open the file of a clip.

    Args:
        video: the clip.
        limits: bounds on its bytes.
        name: its name in errors.

    Raises:
        VideoError: no such file, a folder, a device, a network address, not readable, empty, or too large.
    """
    source = video.source
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _Held(bytes(source), limits, name)
    if isinstance(source, str) and is_data_uri(source):
        return _Held(_data_uri(source, limits, name), limits, name)
    if hasattr(source, "read"):
        return _given_file(source, limits, name)
    if not isinstance(source, (str, os.PathLike)):
        raise VideoError(
            f"Cannot use {name}: it is not a kind of clip source.", "Give a path, the bytes of a file, or a data URI."
        )
    path = _path(source, name)
    try:
        return _copied_pipe(path, limits, name) if is_pipe(path) else _OpenFile(_opened(path, name), limits, name)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        found = unreadable_error(error, path, name)
        raise VideoError(found.message, found.hint, is_missing=found.is_missing) from None


class _OpenFile:
    """A clip in a file of a disk."""

    def __init__(self, file: IO[bytes], limits: ClipLimits, name: str) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        try:
            _check_size(self.size, limits.file_bytes, name)
        except VideoError:
            file.close()
            raise

    def read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


class _GivenFile:
    """A clip in a file that the caller has opened, and closes."""

    def __init__(self, file: BinaryIO, limits: ClipLimits, name: str) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        _check_size(self.size, limits.file_bytes, name)

    def read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        """Leave it open."""


def _given_file(file: BinaryIO, limits: ClipLimits, name: str) -> ClipFile:
    """Take a file that was opened in binary; one that cannot be searched is read and held."""
    try:
        if not isinstance(file.read(0), bytes):
            raise VideoError(f"Cannot use {name}: it is open as text.", 'Open it with open(path, "rb").')
        if file.seekable():
            return _GivenFile(file, limits, name)
        return _Held(file.read(limits.held_bytes + 1), limits, name)
    except (OSError, ValueError, AttributeError) as error:  # ValueError: a closed file
        reason = error_line(error)
        raise VideoError(f"Cannot use {name}: reading it failed ({reason}).", "Give the path of the clip.") from None


class _Held:
    """A clip in memory."""

    def __init__(self, data: bytes, limits: ClipLimits, name: str) -> None:
        self.size = len(data)
        self._data = memoryview(data)
        _check_size(self.size, limits.held_bytes, name)

    def read(self, offset: int, size: int) -> memoryview:
        return self._data[offset : offset + size]

    def close(self) -> None:
        self._data.release()


def _check_size(size: int, most: int, name: str) -> None:
    if size < 1:
        raise VideoError(f"Cannot use {name}: it is empty (0 bytes).", "Export or download it again.")
    if size > most:
        raise VideoError(
            f"Cannot use {name}: it has {size / 2**20:,.0f} MiB, more than the limit of {most / 2**20:,.0f} MiB.",
            "Cut out the part that matters, or save it at a lower rate.",
        )


def _data_uri(uri: str, limits: ClipLimits, name: str) -> bytes:
    _check_size(max(1, len(uri) * 3 // 4), limits.held_bytes, name)
    try:
        return data_uri_bytes(uri, name)
    except PictureError as error:
        raise VideoError(error.message, "Write data:video/mp4;base64,DATA, or give the path of the file.") from None


def _path(source: str | os.PathLike[str], name: str) -> str:
    """Return the path of a source; `file://` is one, other schemes are not."""
    text = os.fsdecode(source)
    if not text:
        raise VideoError(f"Cannot use {name}: there is no file without a name.", "Give the path of a clip.")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", text) if isinstance(source, str) else None
    try:
        if scheme is None or scheme[1].lower() == "file":
            return local_path(source, name)
    except PictureError:
        pass  # a host other than this machine
    raise VideoError(
        f"Cannot use {name}: it is not on this machine, and clips are never fetched from a network.",
        "Download it and give the path of the file.",
    )


def _opened(path: str, name: str) -> IO[bytes]:
    """Open a file; what it is was asked before, since opening a device may do something."""
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise VideoError(f"Cannot use {name}: it is a folder.", "Name a clip in it.")
    if not stat.S_ISREG(mode):
        raise VideoError(f"Cannot use {name}: it is a device or socket, not a file.", "Name a file.")
    return Path(path).open("rb")


def _copied_pipe(path: str, limits: ClipLimits, name: str) -> ClipFile:
    """Copy a pipe, whose bytes come once and in order, to a temporary file."""
    with contextlib.ExitStack() as opened:
        with making_temporary():
            copy = opened.enter_context(tempfile.TemporaryFile())
        with Path(path).open("rb") as pipe:
            while piece := pipe.read(_PIECE):
                copy.write(piece)
                _check_size(copy.tell(), limits.held_bytes, name)
        copy.flush()
        clip = _OpenFile(copy, limits, name)
        opened.pop_all()
    return clip
