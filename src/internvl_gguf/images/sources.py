"""Read the bytes of a path, a pipe, or a `file://` or `data:` URI, within limits."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import stat
import threading
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote_to_bytes

from internvl_gguf.errors import PictureError
from internvl_gguf.utils.safe_text import error_line

MAX_FILE_BYTES = 512 * 2**20
"""Most bytes a picture file may have; an uncompressed 16-bit RGB TIFF of 89 megapixels fits."""

_one_reader: Final = threading.Lock()
"""Held to read an open file: several questions of a batch may have it, and are prepared in threads."""


def local_path(source: str | os.PathLike[str], name: str) -> str:
    """Return the path that a str, PathLike or `file://` URI names; network URIs are refused."""
    path = os.fsdecode(source)
    if not path:
        raise PictureError(f"Cannot use {name}: there is no file without a name.", "Give the path of a picture.")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", path) if isinstance(source, str) else None
    if scheme is None:
        # A shell expands only a ~ that begins a word: not the one in --image=~/photo.jpg, and none in a file.
        return os.path.expanduser(path) if path.startswith("~/") and not Path(path).exists() else path  # noqa: PTH111
    host, slash, rest = path[scheme.end() :].partition("/")
    if scheme[1].lower() != "file" or host.lower() not in ("", "localhost"):
        raise PictureError(
            f"Cannot use {name}: it is not on this machine, and pictures are never fetched from a network.",
            "Download it and give the path of the file.",
        )
    from urllib.request import url2pathname  # imported here because it imports an HTTP client

    return url2pathname(slash + rest)


def is_data_uri(source: str | os.PathLike[str]) -> bool:
    """Return whether a source is a `data:` URI and no path."""
    return isinstance(source, str) and source[:5].lower() == "data:"


def is_pipe(path: str) -> bool:
    """Return whether a path is a named pipe or one made by a shell: its bytes can be read only once."""
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):  # the error is raised where it is opened
        return False


def file_bytes(path: str, name: str) -> bytes:
    """Read the content of a file or named pipe, within MAX_FILE_BYTES."""
    try:
        with open_picture(path, name) as file:
            return file.read(MAX_FILE_BYTES + 1 if is_pipe(path) else -1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        raise unreadable_error(error, path, name) from None


def stream_bytes(file: BinaryIO, name: str) -> bytes:
    """Read the content of an open file, from its beginning where it can be read again, within MAX_FILE_BYTES."""
    try:
        with _one_reader:
            if file.seekable():
                file.seek(0)
            data = file.read(MAX_FILE_BYTES + 1)
        if isinstance(data, bytes):
            return data
    except UnicodeDecodeError:
        pass
    except (OSError, ValueError, AttributeError) as error:  # ValueError: a closed file
        raise PictureError(
            f"Cannot use {name}: reading it failed ({error_line(error)}).", "Give the path of the picture."
        ) from None
    raise PictureError(f"Cannot use {name}: it is open as text.", 'Open it with open(path, "rb").')


def open_picture(path: str, name: str) -> BinaryIO:
    """Open a file or named pipe that may be a picture.

    Raises:
        PictureError: it is something else, or too large.
        OSError, ValueError: it cannot be opened.
    """
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        raise PictureError(f"Cannot use {name}: it is a folder.", "Name a picture file in it.")
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
        raise PictureError(f"Cannot use {name}: it is a device or socket, not a file.", "Name a picture file.")
    check_file_size(status.st_size, name)
    return Path(path).open("rb")


def unreadable_error(error: OSError | ValueError, path: str, name: str) -> PictureError:
    """Return the error for a file that the operating system cannot read."""
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG) or isinstance(error, ValueError):
        hint = "Check the path; a relative one starts at the current folder."
        if len(path) > 250 and re.fullmatch(r"[A-Za-z0-9+/=_\s-]+", path):
            hint = "If it is base64, put data:image/png;base64, before it."
        return PictureError(f"Cannot use {name}: there is no such file.", hint, is_missing=True)
    if isinstance(error, PermissionError):
        return PictureError(
            f"Cannot use {name}: you have no permission to read it.",
            "Change its permissions, or copy it to where you can read it.",
        )
    return PictureError(
        f"Cannot use {name}: reading it failed ({error_line(error)}).",
        "Copy it to a local disk and try that copy.",
    )


def data_uri_bytes(uri: str, name: str) -> bytes:
    """Decode a `data:` URI (RFC 2397); white space and missing padding in base64 are accepted."""
    header, comma, payload = uri.partition(",")
    if not comma:
        raise PictureError(f"Cannot use {name}: it has no comma before the data.", "Write data:image/png;base64,DATA.")
    check_file_size(len(payload) * 3 // 4, name)
    raw = unquote_to_bytes(payload)
    if not re.search(r";\s*base64\s*$", header, re.IGNORECASE):
        return raw
    compact = b"".join(raw.split()).rstrip(b"=")
    try:
        return base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except binascii.Error as error:
        raise PictureError(
            f"Cannot use {name}: its base64 is damaged or cut short ({error_line(error)}).",
            "Encode the file again, for example with base64.b64encode.",
        ) from None


def check_file_size(size: int, name: str) -> None:
    """Refuse a file of more than MAX_FILE_BYTES."""
    if size > MAX_FILE_BYTES:
        raise PictureError(
            f"Cannot use {name}: it has {size / 2**20:,.0f} MiB, more than the limit of {MAX_FILE_BYTES >> 20} MiB.",
            "Save it in a compressed format, or scale it down.",
        )


def check_bytes(data: bytes, name: str) -> None:
    """Refuse an empty or too large content."""
    if not data:
        raise PictureError(f"Cannot use {name}: it is empty (0 bytes).", "Export or download it again.")
    check_file_size(len(data), name)
