"""The pictures of a question: read, cut for a model's encoder, and told apart by hashes of their tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from internvl_gguf.config import AskOptions
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.images.fit_context import PictureToCut
from internvl_gguf.images.load import describe_source, load_image
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.session.model_runtime import ModelRuntime
from internvl_gguf.session.question_options import checked_options
from internvl_gguf.tiling import Grid, TiledPicture, cut_by_grid
from internvl_gguf.types import MessagePicture, Picture, Tile

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class DecodedPicture:
    """A picture that is decoded, but not cut yet.

    Attributes:
        name: its name in messages.
        image: its pixels, RGB and upright.
        limits: its tile limits.
        label: text before it in the prompt.
        source_size: the size in which boxes are meant; None for that of `image`.
    """

    name: str
    image: Image
    limits: TileLimits
    label: str = ""
    source_size: tuple[int, int] | None = None


def read_picture(
    runtime: ModelRuntime, limits: TileLimits, image: Any, options: AskOptions
) -> DecodedPicture | MessagePicture:
    """Return a picture decoded, with its own tile limits; one of an earlier message stays cut.

    Raises:
        PictureError: a picture that cannot be read.
        InvalidRequestError: tile limits that no grid satisfies.
    """
    return rekey_picture(runtime, image) if isinstance(image, MessagePicture) else _decode(limits, image, options)


def cut_as_planned(
    runtime: ModelRuntime, picture: DecodedPicture | MessagePicture, planned: Iterator[PictureToCut]
) -> MessagePicture:
    """Return a picture cut; one that is decoded takes the next of the limits that were planned."""
    return picture if isinstance(picture, MessagePicture) else _cut(runtime, picture, next(planned).limits)


def without_tiles(picture: DecodedPicture | MessagePicture) -> MessagePicture:
    """Return the stand-in of a picture while the prompt around it is measured: no tiles, unless it is cut already."""
    if isinstance(picture, MessagePicture):
        return picture
    size = picture.source_size or picture.image.size
    return MessagePicture(picture.name, (1, 1), has_thumbnail=False, source_size=size, tiles=(), label=picture.label)


def prepare_picture(
    runtime: ModelRuntime, limits: TileLimits, image: Any, options: Mapping[str, Any]
) -> MessagePicture:
    """Read one picture and cut it for the model's encoder.

    Raises:
        PictureError: a picture that cannot be read.
        InvalidRequestError: tile limits that no grid satisfies.
    """
    if isinstance(image, MessagePicture):
        return rekey_picture(runtime, image)
    decoded = _decode(limits, image, checked_options(options))
    return _cut(runtime, decoded, decoded.limits)


def rekey_picture(runtime: ModelRuntime, picture: MessagePicture) -> MessagePicture:
    """Return a cut picture for this model's encoder: its tiles stay, and get the keys of this encoder.

    Raises:
        InvalidRequestError: it was cut for an encoder with another tile size.
    """
    size = runtime.vision.image_size
    if any(len(tile.pixels) != 3 * size**2 for tile in picture.tiles):
        raise InvalidRequestError(
            f"{picture.name} is cut into tiles of another size than the {size} pixels of this model.",
            "Give the picture itself.",
        )
    return replace(picture, tiles=tuple(rekey_tile(runtime, tile) for tile in picture.tiles))


def rekey_tile(runtime: ModelRuntime, tile: Tile) -> Tile:
    """Return a tile with the same pixels, under the key of their embeddings by this model's encoder."""
    return _tile(runtime, tile.pixels)


def recut_picture(runtime: ModelRuntime, source: Any, grid: tuple[int, int], has_thumbnail: bool) -> MessagePicture:
    """Read one picture and cut it by a grid that was chosen before; see `cut_as_before`.

    Raises:
        PictureError: a picture that cannot be read.
    """
    picture = source if isinstance(source, Picture) else Picture(source)
    name = describe_source(picture.source if picture.name is None else picture.name)
    cut = cut_as_before(runtime, load_image(picture.source, name=name), name, grid, has_thumbnail)
    return replace(cut, label=picture.label, source_size=picture.source_size or cut.source_size)


def cut_as_before(
    runtime: ModelRuntime, image: Image, name: str, grid: tuple[int, int], has_thumbnail: bool
) -> MessagePicture:
    """Cut a picture by a grid that was chosen before, perhaps for another model.

    Args:
        image: RGB and upright.
        name: its name in messages.
        grid: (columns, rows).
        has_thumbnail: whether the whole picture follows in one more tile.
    """
    return _message_picture(runtime, name, cut_by_grid(image, Grid(*grid, has_thumbnail), runtime.vision.image_size))


def _decode(limits: TileLimits, source: Any, options: AskOptions) -> DecodedPicture:
    picture = source if isinstance(source, Picture) else Picture(source)
    narrowed = limits.narrowed(picture, options)
    name = describe_source(picture.source if picture.name is None else picture.name)
    image = load_image(picture.source, name=name)
    return DecodedPicture(name, image, narrowed, picture.label, picture.source_size)


def _cut(runtime: ModelRuntime, picture: DecodedPicture, limits: TileLimits) -> MessagePicture:
    cut = _message_picture(runtime, picture.name, limits.cut(picture.image, runtime.vision.image_size))
    return replace(cut, label=picture.label, source_size=picture.source_size or cut.source_size)


def _message_picture(runtime: ModelRuntime, name: str, tiled: TiledPicture) -> MessagePicture:
    return MessagePicture(
        name=name,
        grid=tiled.grid,
        has_thumbnail=tiled.has_thumbnail,
        source_size=tiled.source_size,
        tiles=tuple(_tile(runtime, tile.tobytes()) for tile in tiled.tiles),
    )


def _tile(runtime: ModelRuntime, pixels: bytes) -> Tile:
    return Tile(tile_key(runtime.encoder_identity, pixels), pixels)


def tile_key(encoder_identity: bytes, pixels: bytes) -> bytes:
    """Return the key of a tile's embeddings: a hash of its pixels and the encoder, 16 bytes."""
    return hashlib.blake2b(pixels, key=encoder_identity, digest_size=16).digest()
