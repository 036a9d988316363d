"""The file of a saved conversation: messages, tiles and the KV cache, so that nothing is computed again.

The format (docs/caches.md), numbers little-endian:

    8 bytes   "IVLSESS" and a newline
    uint32    version of the format, 3
    uint64    bytes of the head
    head      JSON in UTF-8, see `_head`
    32 bytes  BLAKE2b of everything before
    sections  "tiles" and "kv", in this order; their lengths and BLAKE2b stand in the head

A checksum covers every byte, so damage is found before llama.cpp reads anything. A checksum does not show who made the
file: restore only files you trust.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from internvl_gguf._version import __version__
from internvl_gguf.config import EncoderKind, FlashAttention, KVType
from internvl_gguf.errors import SavedSessionError
from internvl_gguf.types import Message, MessagePicture, Span, Tile, TileSpan, TokenSpan
from internvl_gguf.utils.atomic_write import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC: Final = b"IVLSESS\n"
_VERSION: Final = 3
_FIXED: Final = struct.Struct("<IQ")
_DIGEST: Final = 32
_LARGEST_HEAD: Final = 256 * 1024**2
_LEVEL: Final = 1  # tiles are photographs: a higher level saves little
NO_KV: Final = np.empty(0, np.uint8)
"""KV of a conversation of which the cache holds nothing."""

_AGAIN: Final = "Save the session again, or restore it from a copy."


@dataclass(frozen=True)
class ModelIdentity:
    """Identity of a KV cache: a saved cache is used only if all of it is equal.

    Attributes:
        text: fingerprint of the text model's files.
        encoder: identity of the vision encoder: its file and the correction, regardless of the device.
        build: build of llama.cpp.
        kv_type: element type of the cache.
        flash_attn: whether values are stored in the layout of flash attention.
    """

    text: str
    encoder: str
    build: str
    kv_type: KVType
    flash_attn: FlashAttention

    def differences(self, other: ModelIdentity) -> list[str]:
        """Return the parts that differ from another identity, in words."""
        names = {
            "text": "text model",
            "encoder": "vision encoder",
            "build": "build of llama.cpp",
            "kv_type": "KV type",
            "flash_attn": "flash attention",
        }
        return [names[name] for name, value in asdict(self).items() if asdict(other)[name] != value]


@dataclass(frozen=True)
class SavedSession:
    """Content of a saved file.

    Attributes:
        text_path, mmproj_path: files of the model it was held with.
        identity: identity of the KV cache.
        encoder: what had encoded its pictures: llama.cpp, or OpenVINO in a precision.
        n_ctx: positions of its context.
        limits: tile limits of the session: max_tiles, min_tiles, thumbnail.
        messages: the conversation.
        spans: spans that the KV cache holds, from the beginning; empty if no KV was saved.
        kv: llama.cpp's bytes of the KV, uint8 [bytes].
    """

    text_path: str
    mmproj_path: str
    identity: ModelIdentity
    encoder: EncoderKind
    n_ctx: int
    limits: tuple[int, int, bool]
    messages: tuple[Message, ...]
    spans: tuple[Span, ...]
    kv: NDArray[np.uint8]


def write_saved(path: Path, saved: SavedSession) -> None:
    """Write a conversation atomically: readers see the old file or the new one, never a part.

    Raises:
        SavedSessionError: it cannot be written.
    """
    tiles = _Tiles()
    head = _head(saved, tiles)
    blobs: list[Any] = [b"".join(tiles.packed), saved.kv.data]
    head["sections"] = [
        {"name": name, "bytes": len(blob), "blake2b": _digest(blob).hex()}
        for name, blob in zip(("tiles", "kv"), blobs, strict=True)
    ]
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    start = _MAGIC + _FIXED.pack(_VERSION, len(text)) + text
    try:
        write_atomically(path, start, _digest(start), *blobs)
    except OSError as error:
        raise SavedSessionError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose another place, or free some space."
        ) from error


def read_saved(path: Path) -> SavedSession:
    """Read a saved conversation.

    Raises:
        SavedSessionError: the file is missing, not a saved session, of a later format, or damaged.
    """
    with _reading(path):
        with path.open("rb") as file:
            head = _read_head(file, path)
            blobs = [_read_section(file, path, section) for section in _sections(head)]
            if file.read(1):
                raise _damaged(path, "it goes on behind its end")
        return _saved(head, *blobs)


def read_identity(path: Path) -> ModelIdentity:
    """Return the identity of a saved KV cache, from the head of its file.

    Raises:
        SavedSessionError: as in `read_saved`.
    """
    with _reading(path), path.open("rb") as file:
        return ModelIdentity(**_read_head(file, path)["identity"])


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Translate the errors of reading a file into `SavedSessionError`."""
    try:
        yield
    except OSError as error:
        raise SavedSessionError(f"{path} cannot be read: {error.strerror or error}.", "Check the path.") from error
    except (KeyError, TypeError, ValueError, IndexError, zlib.error, AttributeError) as error:
        raise _damaged(path, "its parts do not belong together") from error


class _Tiles:
    """The tiles of a conversation, each stored once, compressed without loss."""

    def __init__(self) -> None:
        self.index: dict[bytes, int] = {}
        self.packed: list[bytes] = []
        self.sizes: list[int] = []

    def add(self, tile: Tile) -> int:
        if tile.key not in self.index:
            self.index[tile.key] = len(self.packed)
            self.packed.append(zlib.compress(tile.pixels, _LEVEL))
            self.sizes.append(len(tile.pixels))
        return self.index[tile.key]


def _head(saved: SavedSession, tiles: _Tiles) -> dict[str, Any]:
    """Return the head: everything but pixels and KV; tiles are named by their index in the section of tiles."""
    messages = [
        {
            "role": message.role,
            "text": message.text,
            "thinking": message.thinking,
            "layout": message.layout,
            "tokens": message.tokens,
            "pictures": [
                {
                    "name": picture.name,
                    "grid": picture.grid,
                    "has_thumbnail": picture.has_thumbnail,
                    "source_size": picture.source_size,
                    "label": picture.label,
                    "tiles": [tiles.add(tile) for tile in picture.tiles],
                }
                for picture in message.pictures
            ],
        }
        for message in saved.messages
    ]
    spans = [
        {"tile": tiles.add(span.tile), "length": span.length} if isinstance(span, TileSpan) else {"tokens": span.ids}
        for span in saved.spans
    ]
    return {
        "package": __version__,
        "text_path": saved.text_path,
        "mmproj_path": saved.mmproj_path,
        "identity": asdict(saved.identity),
        "encoder": saved.encoder,
        "n_ctx": saved.n_ctx,
        "limits": saved.limits,
        "messages": messages,
        "spans": spans,
        "tiles": [
            {"key": key.hex(), "packed": len(packed), "bytes": size}
            for key, packed, size in zip(tiles.index, tiles.packed, tiles.sizes, strict=True)
        ],
    }


def _read_head(file: BinaryIO, path: Path) -> dict[str, Any]:
    start = file.read(len(_MAGIC) + _FIXED.size)
    if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + _FIXED.size:
        raise SavedSessionError(f"{path} is no saved session.", "Give a file that Session.save wrote.")
    version, length = _FIXED.unpack(start[len(_MAGIC) :])
    if length > min(_LARGEST_HEAD, os.fstat(file.fileno()).st_size):
        raise _damaged(path, "its head is longer than the file")
    text = file.read(length)
    if _digest(start + text) != file.read(_DIGEST):
        raise _damaged(path, "the checksum of its head does not hold")
    if version != _VERSION:  # told apart from damage by the checksum
        raise SavedSessionError(
            f"{path} is of format {version}; this version of the package reads {_VERSION}.", "Use the one it is from."
        )
    head: dict[str, Any] = json.loads(text)
    return head


def _sections(head: dict[str, Any]) -> list[dict[str, Any]]:
    sections: list[dict[str, Any]] = head["sections"]
    return sections


def _read_section(file: BinaryIO, path: Path, section: dict[str, Any]) -> NDArray[np.uint8]:
    size = int(section["bytes"])
    if size > os.fstat(file.fileno()).st_size - file.tell():
        raise _damaged(path, f"its {section['name']} are cut off")
    data = np.empty(size, np.uint8)
    if file.readinto(data.data) != size or _digest(data.data).hex() != section["blake2b"]:  # type: ignore[attr-defined]
        raise _damaged(path, f"the checksum of its {section['name']} does not hold")
    return data


def _saved(head: dict[str, Any], packed: NDArray[np.uint8], kv: NDArray[np.uint8]) -> SavedSession:
    tiles = _unpacked(head["tiles"], packed.tobytes())
    messages = tuple(
        Message(
            message["role"],
            message["text"],
            tuple(
                MessagePicture(
                    picture["name"],
                    tuple(picture["grid"]),
                    picture["has_thumbnail"],
                    tuple(picture["source_size"]),
                    tuple(tiles[index] for index in picture["tiles"]),
                    picture["label"],
                )
                for picture in message["pictures"]
            ),
            message["layout"],
            None if message["tokens"] is None else tuple(message["tokens"]),
            message["thinking"],
        )
        for message in head["messages"]
    )
    spans = tuple(
        TileSpan(tiles[span["tile"]], span["length"]) if "tile" in span else TokenSpan(tuple(span["tokens"]))
        for span in head["spans"]
    )
    return SavedSession(
        head["text_path"],
        head["mmproj_path"],
        ModelIdentity(**head["identity"]),
        head["encoder"],
        head["n_ctx"],
        tuple(head["limits"]),
        messages,
        spans,
        kv,
    )


def _unpacked(entries: Sequence[dict[str, Any]], packed: bytes) -> list[Tile]:
    tiles = []
    position = 0
    for entry in entries:
        unpacker = zlib.decompressobj()
        # At most as many bytes as the head says, whatever the compressed data is.
        pixels = unpacker.decompress(packed[position : position + entry["packed"]], entry["bytes"])
        if len(pixels) != entry["bytes"]:
            raise ValueError("a tile of another size than the head says")
        tiles.append(Tile(bytes.fromhex(entry["key"]), pixels))
        position += entry["packed"]
    return tiles


def _digest(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


def _damaged(path: Path, what: str) -> SavedSessionError:
    return SavedSessionError(f"{path} is damaged: {what}.", _AGAIN)
