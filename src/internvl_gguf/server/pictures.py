"""Bytes of the pictures of a request, from the sources that the owner of the server allows."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from internvl_gguf.errors import PictureError
from internvl_gguf.images.load import DEFAULT_MAX_PIXELS
from internvl_gguf.images.raster_formats import stored_size
from internvl_gguf.images.sources import data_uri_bytes, file_bytes, is_data_uri, local_path
from internvl_gguf.server.api_errors import RefusedRequestError
from internvl_gguf.server.chat_request import PicturePart, Turn
from internvl_gguf.server.remote_pictures import RemotePictures

_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_ALL_SECONDS: Final = 60.0  # for all pictures of a request that are fetched
_ALL_PIXELS: Final = 2 * DEFAULT_MAX_PIXELS  # of one request: all its pictures are decoded before they are cut


@dataclass(frozen=True)
class PictureSources:
    """Where pictures may come from, and how many.

    Attributes:
        most: most pictures of a request.
        most_bytes: most bytes of one picture's file.
        all_bytes: most bytes of all pictures of a request.
        remote: fetches addresses; None refuses them.
        media_root: folder whose files `file://` may name; None refuses them.
    """

    most: int
    most_bytes: int
    all_bytes: int
    remote: RemotePictures | None = None
    media_root: Path | None = None

    async def with_bytes(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
        """Return turns whose pictures are bytes of files; they are checked as far as their headers tell.

        Raises:
            PictureError: a picture that cannot be read or fetched, or is too large.
            RefusedRequestError: too many, or from a source that is not allowed.
        """
        count = sum(len(turn.pictures) for turn in turns)
        if count > self.most:
            raise RefusedRequestError(
                f"The request has {count} pictures, more than the limit of {self.most}.",
                "Send fewer; the server's owner can raise the bound with --max-pictures.",
                code="too_many_images",
                param="messages",
            )
        if not count:
            return tuple(turns)
        sources = [picture.source for turn in turns for picture in turn.pictures]
        try:
            async with asyncio.timeout(_ALL_SECONDS), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._bytes(source, f"picture {number}"))
                    for number, source in enumerate(sources, 1)
                ]
        except TimeoutError:
            raise PictureError("The pictures took too long to fetch.", "Send them as data URIs.") from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        files = [task.result() for task in tasks]
        await asyncio.to_thread(self._check_together, files)
        left = iter(files)
        return tuple(
            replace(
                turn,
                parts=tuple(
                    replace(part, source=next(left)) if isinstance(part, PicturePart) else part for part in turn.parts
                ),
            )
            for turn in turns
        )

    def _check_together(self, files: Sequence[bytes]) -> None:
        """Refuse pictures that are too much together: all are decoded before they are cut."""
        if sum(map(len, files)) > self.all_bytes:
            raise PictureError(
                f"The pictures of the request have more than {self.all_bytes >> 20} MiB together.",
                "Send fewer, or smaller ones.",
            )
        if sum(_pixels(data, f"picture {number}") for number, data in enumerate(files, 1)) > _ALL_PIXELS:
            raise PictureError(
                f"The pictures of the request have more than {_ALL_PIXELS // 10**6} megapixels together.",
                "Send fewer, or smaller ones: the model sees at most 2.4 megapixels of each.",
            )

    async def _bytes(self, source: str | bytes, name: str) -> bytes:
        if isinstance(source, bytes):
            return source
        scheme = "data" if is_data_uri(source) else _scheme(source)
        if scheme in ("http", "https"):
            if self.remote is None:
                raise RefusedRequestError(
                    f"{name} is an address, and this server fetches none.",
                    "Send the picture itself as a data URI; the server's owner can allow it with "
                    "--allow-remote-images.",
                    code="remote_images_not_allowed",
                    param="messages",
                )
            data = await self.remote.fetch(source.strip())
        elif scheme == "file":
            data = await asyncio.to_thread(self._file, source.strip(), name)
        elif scheme in ("data", ""):
            data = await asyncio.to_thread(data_uri_bytes if scheme else _base64, source, name)
        else:
            raise PictureError(f"Cannot use {name}: its scheme is not known.", "Send it as a data URI.")
        if not data:
            raise PictureError(f"Cannot use {name}: it is empty (0 bytes).", "Send it again.")
        if len(data) > self.most_bytes:
            raise PictureError(
                f"Cannot use {name}: it has more than {self.most_bytes >> 20} MiB.",
                "Send it in a compressed format, or scale it down.",
            )
        return data

    def _file(self, uri: str, name: str) -> bytes:
        """Read a file under the media root, its links resolved first; every other one is as good as missing."""
        if self.media_root is None:
            raise RefusedRequestError(
                f"{name} is a file on the server, and this server reads none.",
                "Send the picture itself as a data URI; the server's owner can allow a folder with --media-root.",
                code="local_images_not_allowed",
                param="messages",
            )
        missing = PictureError(f"Cannot use {name}: there is no such file.", "Name one below the media root.")
        try:
            root = self.media_root.resolve(strict=True)
            path = Path(local_path(uri, name)).resolve(strict=True)
            if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > self.most_bytes:
                raise missing
            return file_bytes(str(path), name)
        except (OSError, ValueError, PictureError):
            raise missing from None


def _scheme(source: str) -> str:
    found = _SCHEME.match(source[:64])
    return found[1].lower() if found else ""


def _base64(source: str, name: str) -> bytes:
    """Decode base64 that no `data:` stands before, as some clients send it."""
    try:
        return base64.b64decode(source, validate=True)
    except (binascii.Error, ValueError):
        raise PictureError(
            f"Cannot use {name}: it is neither a data URI nor base64.", "Send data:image/png;base64,DATA."
        ) from None


def _pixels(data: bytes, name: str) -> int:
    width, height = stored_size(data, DEFAULT_MAX_PIXELS, name)
    return width * height
