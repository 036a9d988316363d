"""Bytes of the pictures and clips of a request, from the sources that the owner of the server allows."""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from internvl_gguf.errors import PictureError, VideoError
from internvl_gguf.images.load import DEFAULT_MAX_PIXELS
from internvl_gguf.images.raster_formats import stored_size
from internvl_gguf.images.sources import data_uri_bytes, file_bytes, is_data_uri, local_path
from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.chat_request import ClipPart, FramesPart, Part, PicturePart, Turn
from internvl_gguf.server.remote_pictures import RemotePictures

_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_ALL_SECONDS: Final = 60.0  # for all pictures of a request that are fetched
_ALL_PIXELS: Final = 2 * DEFAULT_MAX_PIXELS  # of one request: all its pictures are decoded before they are cut


_SMALLER: Final = "Send it in a compressed format, or scale it down."


@dataclass(frozen=True)
class _File:
    """A file of a request.

    Attributes:
        source: as the client gave it.
        name: its name in errors.
        is_clip: whether it is a clip, not a picture.
        clip: of a frame in a list, the name of its clip.
    """

    source: str | bytes
    name: str
    is_clip: bool = False
    clip: str = ""


@dataclass(frozen=True)
class PictureSources:
    """Where pictures and clips may come from, and how many.

    Attributes:
        most: most pictures of a request; a clip counts as one, and each frame of a list.
        most_bytes: most bytes of one picture's file.
        clip_bytes: most bytes of a clip's file.
        all_bytes: most bytes of all files of a request.
        remote: fetches addresses; None refuses them.
        media_root: folder whose files `file://` may name; None refuses them.
    """

    most: int
    most_bytes: int
    clip_bytes: int
    all_bytes: int
    remote: RemotePictures | None = None
    media_root: Path | None = None

    async def with_bytes(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
        """Return turns whose pictures and clips are bytes of files; pictures are checked as far as their headers tell.

        Raises:
            PictureError: a picture or clip that cannot be read or fetched, or is too large.
            RefusedRequestError: too many, or from a source that is not allowed.
        """
        files = list(_files(turns))
        if len(files) > self.most:
            raise RefusedRequestError(
                f"The request has {len(files)} pictures, more than the limit of {self.most}.",
                "Send fewer; the server's owner can raise the bound with --max-pictures.",
                code="too_many_images",
                param="messages",
            )
        if not files:
            return tuple(turns)
        try:
            async with asyncio.timeout(_ALL_SECONDS), asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._bytes(file)) for file in files]
        except TimeoutError:
            raise PictureError("The pictures took too long to fetch.", "Send them as data URIs.") from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        found = [(file, task.result()) for file, task in zip(files, tasks, strict=True)]
        await asyncio.to_thread(self._check_together, found)
        left = iter(found)
        return tuple(replace(turn, parts=tuple(_with_bytes(part, left) for part in turn.parts)) for turn in turns)

    def _check_together(self, files: Sequence[tuple[_File, bytes]]) -> None:
        """Refuse what is too much together: all pictures are decoded before they are cut."""
        if sum(len(data) for _, data in files) > self.all_bytes:
            raise PictureError(
                f"The pictures of the request have more than {self.all_bytes >> 20} MiB together.",
                "Send fewer, or smaller ones.",
            )
        if sum(_pixels(data, file.name) for file, data in files if not file.is_clip) > _ALL_PIXELS:
            raise PictureError(
                f"The pictures of the request have more than {_ALL_PIXELS // 10**6} megapixels together.",
                "Send fewer, or smaller ones: the model sees at most 2.4 megapixels of each.",
            )

    async def _bytes(self, file: _File) -> bytes:
        """Return the bytes of a file; an error of a clip is one of a clip. Raises as `with_bytes`."""
        try:
            return await self._read(file)
        except PictureError as error:
            if file.is_clip and not isinstance(error, VideoError):
                raise VideoError(error.message, error.hint, is_missing=error.is_missing) from None
            raise

    async def _read(self, file: _File) -> bytes:
        source, name = file.source, file.name
        if isinstance(source, bytes):
            return source
        scheme = "data" if is_data_uri(source) else _scheme(source)
        if scheme in ("http", "https"):
            if self.remote is None:
                raise RefusedRequestError(
                    f"{name} is an address, and this server fetches none.",
                    "Send the file itself as a data URI; the server's owner can allow it with --allow-remote-images.",
                    code="remote_images_not_allowed",
                    param="messages",
                )
            data = await self.remote.fetch(source.strip(), is_clip=file.is_clip)
        elif scheme == "file":
            data = await asyncio.to_thread(self._file, source.strip(), file)
        elif scheme in ("data", ""):
            data = await asyncio.to_thread(data_uri_bytes if scheme else _base64, source, name)
        else:
            raise PictureError(f"Cannot use {name}: its scheme is not known.", "Send it as a data URI.")
        if not data:
            raise PictureError(f"Cannot use {name}: it is empty (0 bytes).", "Send it again.")
        if len(data) > self._most_of(file):
            hint = "Send a part of it, or save it at a lower rate." if file.is_clip else _SMALLER
            raise PictureError(f"Cannot use {name}: it has more than {self._most_of(file) >> 20} MiB.", hint)
        return data

    def _most_of(self, file: _File) -> int:
        return self.clip_bytes if file.is_clip else self.most_bytes

    def _file(self, uri: str, file: _File) -> bytes:
        """Read a file under the media root, its links resolved first; every other one is as good as missing."""
        name = file.name
        if self.media_root is None:
            raise RefusedRequestError(
                f"{name} is a file on the server, and this server reads none.",
                "Send the file itself as a data URI; the server's owner can allow a folder with --media-root.",
                code="local_images_not_allowed",
                param="messages",
            )
        missing = PictureError(f"Cannot use {name}: there is no such file.", "Name one below the media root.")
        try:
            root = self.media_root.resolve(strict=True)
            path = Path(local_path(uri, name)).resolve(strict=True)
            if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > self._most_of(file):
                raise missing
            return file_bytes(str(path), name)
        except (OSError, ValueError, PictureError):
            raise missing from None


def _files(turns: Sequence[Turn]) -> Iterator[_File]:
    """Yield the files of turns in order, named by their numbers."""
    pictures, clips = itertools.count(1), itertools.count(1)
    for part in (part for turn in turns for part in turn.shown):
        if isinstance(part, PicturePart):
            yield _File(part.source, f"picture {next(pictures)}")
        elif isinstance(part, ClipPart):
            yield _File(part.video.source, f"clip {next(clips)}", is_clip=True)
        else:
            clip = f"clip {next(clips)}"
            for number, source in enumerate(part.sources, 1):
                yield _File(source, f"frame {number} of {clip}", clip=clip)


def _with_bytes(part: Part, files: Iterator[tuple[_File, bytes]]) -> Part:
    """Return a part with its name and the bytes of its files, which are the next ones."""
    if isinstance(part, PicturePart):
        file, data = next(files)
        return replace(part, source=data, name=file.name)
    if isinstance(part, ClipPart):
        file, data = next(files)
        return ClipPart(replace(part.video, source=data, name=file.name))
    if isinstance(part, FramesPart):
        found = [next(files) for _ in part.sources]
        return replace(part, sources=tuple(data for _, data in found), name=found[0][0].clip)
    return part


def _scheme(source: str) -> str:
    found = _SCHEME.match(source[:64])
    return found[1].lower() if found else ""


def _base64(source: str, name: str) -> bytes:
    """Decode base64 that no `data:` stands before, as some clients send it."""
    try:
        return base64.b64decode(source, validate=True)
    except (binascii.Error, ValueError):
        raise PictureError(
            f"Cannot use {name}: it is neither a data URI nor base64.",
            "Send data:image/png;base64,DATA or data:video/mp4;base64,DATA.",
        ) from None


def _pixels(data: bytes, name: str) -> int:
    width, height = stored_size(data, DEFAULT_MAX_PIXELS, name)
    return width * height
