"""Pictures that are no files of their own: members of zip and tar files, and cells of Parquet files.

A line names them by paths that go on behind the file (`contained_paths`). They are read in place, when they are asked
about.
"""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Final, Protocol, TypeVar

from internvl_gguf.bulk.contained_paths import PARQUET_SUFFIXES, ZIP_SUFFIXES, split_contained
from internvl_gguf.errors import InvalidRequestError, PictureError
from internvl_gguf.images.sources import MAX_FILE_BYTES
from internvl_gguf.utils.safe_text import error_line
from internvl_gguf.video.animated import is_animation

_DAMAGE: Final = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error)
_OPEN_FILES: Final = 8
"""Containers that are kept open: a list of shards is read one after the other."""
_Found = TypeVar("_Found")


class Container(Protocol):
    """A file with pictures in it."""

    def names(self) -> list[str]:
        """Names of all its members that are files, in its order."""

    def size(self, name: str) -> int:
        """Bytes of a member. Raises KeyError if there is none."""

    def read(self, name: str) -> bytes:
        """Content of a member. Raises KeyError if there is none, and an error of `_DAMAGE`."""


class ContainedPicture(io.RawIOBase):
    """A picture within a container, as an open file that is read whole each time; no byte of it is kept.

    Args:
        path: the path of the container, with the member behind it; its name in messages, too.

    Attributes:
        is_animation: whether it is the first frame of an animation, known once it has been read.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.name = path
        self.is_animation = False

    def read(self, size: int = -1) -> bytes:
        """Return all its bytes.

        Args:
            size: not used: a picture is read whole or refused.

        Raises:
            PictureError: it cannot be read, or has more than `MAX_FILE_BYTES`.
        """
        data = contained_bytes(self.name)
        self.is_animation = is_animation(data)
        return data


def contained_bytes(path: str) -> bytes:
    """Return the bytes of a picture within a container.

    Raises:
        PictureError: there is none, or it cannot be read.
    """
    return _asked(path, lambda container, member: container.read(member))


def contained_size(path: str) -> int:
    """Return the number of bytes of a picture within a container. Raises as `contained_bytes`."""
    return _asked(path, lambda container, member: container.size(member))


def _asked(path: str, ask: Callable[[Container, str], _Found]) -> _Found:
    found = split_contained(path)
    if found is None:
        raise PictureError(f"Cannot use {path}: there is no such file.", "Check the path.", is_missing=True)
    file, member = found
    container = open_container(file)
    try:
        return ask(container, member)
    except KeyError:
        raise PictureError(
            f"Cannot use {path}: {Path(file).name} has no {member}.", "Check the name.", is_missing=True
        ) from None
    except _DAMAGE as error:
        raise PictureError(
            f"Cannot use {path}: reading it failed ({error_line(error)}).", "Pack it again, or unpack it there."
        ) from None


def open_container(path: str) -> Container:
    """Open a container, or return it as it was opened before, as long as the file is the same.

    Raises:
        InvalidRequestError: it cannot be read, or holds something else.
    """
    try:
        status = Path(path).stat()
        return _opened(path, (status.st_ino, status.st_size, status.st_mtime_ns))
    except _DAMAGE as error:
        reason = "" if isinstance(error, tarfile.TarError) else f": {error_line(error)}"  # of which each codec has one
        raise InvalidRequestError(
            f"{path} is no archive that can be read{reason}.", "Make it again, or name another file."
        ) from error


@lru_cache(_OPEN_FILES)
def _opened(path: str, identity: tuple[int, int, int]) -> Container:
    folded = path.lower()
    if folded.endswith(PARQUET_SUFFIXES):
        from internvl_gguf.bulk.sources.parquet_pictures import ParquetPictures

        return ParquetPictures(path)
    return ZipMembers(path) if folded.endswith(ZIP_SUFFIXES) else TarMembers(path)


class ZipMembers:
    """The members of a zip file.

    Args:
        path: the file, which stays open.
    """

    def __init__(self, path: str) -> None:
        self._file = zipfile.ZipFile(path)
        self._members = {each.filename: each for each in self._file.infolist() if not each.is_dir()}

    def names(self) -> list[str]:
        """Names of all members, see `Container`."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member, see `Container`."""
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        """Content of a member, see `Container`; several threads may read."""
        with self._file.open(self._members[name]) as member:
            return limited(member, name)


class TarMembers:
    """The members of a tar file. Of a compressed one, a member far behind the last one takes reading all between.

    Args:
        path: the file, which stays open.
    """

    def __init__(self, path: str) -> None:
        self._file = tarfile.open(path)  # noqa: SIM115
        self._members = {each.name: each for each in self._file if each.isfile()}
        self._one_reader = threading.Lock()

    def names(self) -> list[str]:
        """Names of all members, see `Container`."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member, see `Container`."""
        return self._members[name].size

    def read(self, name: str) -> bytes:
        """Content of a member, see `Container`; several threads may read."""
        with self._one_reader:
            member = self._file.extractfile(self._members[name])
            if member is None:
                raise KeyError(name)
            with member:
                return limited(member, name)


def limited(file: IO[bytes], name: str) -> bytes:
    """Return the content of an open member.

    Raises:
        PictureError: it has more than `MAX_FILE_BYTES`: a few bytes of an archive may unpack to any number.
    """
    data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise PictureError(f"Cannot use {name}: it is larger than any picture.", "Leave it out.")
    return data


def member_stem(name: str) -> str:
    """Return what the files of one sample have in common: its path up to the first dot, as in WebDataset."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.partition(".")[0])
