"""Limits on the number of tiles of a picture, set by the picture, the question or the session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from internvl_gguf.config import AskOptions, PictureOptions
from internvl_gguf.tiling import (
    CARD_RANGE,
    Grid,
    TiledPicture,
    TileRange,
    choose_grid,
    tile_image,
    validate_tile_limits,
)
from internvl_gguf.types import Picture
from internvl_gguf.utils import arguments

if TYPE_CHECKING:
    from PIL.Image import Image

_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class TileLimits:
    """Limits on how a picture may be cut. Session limits are the default; a question or a picture may override them.

    Raises:
        InvalidRequestError: limits that no grid satisfies.
    """

    max_tiles: int = CARD_RANGE.most
    min_tiles: int = CARD_RANGE.least
    thumbnail: bool = PictureOptions.thumbnail

    def __post_init__(self) -> None:
        for name in ("max_tiles", "min_tiles"):
            object.__setattr__(self, name, arguments.whole(name, getattr(self, name)))
        object.__setattr__(self, "thumbnail", arguments.switch("thumbnail", self.thumbnail))
        validate_tile_limits(self.min_tiles, self.max_tiles)

    @classmethod
    def of(cls, options: PictureOptions, own: TileRange = CARD_RANGE) -> TileLimits:
        """The limits that options of pictures mean for a model whose file says `own`."""
        asked = options.tiles(own)
        return cls(asked.most, asked.least, options.thumbnail)

    def narrowed(self, picture: Picture, options: AskOptions) -> TileLimits:
        """Return the limits of one picture: its own, else the question's, else these; a video frame is one tile."""
        frames = options.get("layout") == "frames"
        max_tiles = _first_given(picture.max_tiles, options.get("max_tiles"), 1 if frames else self.max_tiles)
        most = arguments.whole("max_tiles", max_tiles)
        min_tiles = _first_given(picture.min_tiles, options.get("min_tiles"), min(self.min_tiles, most))
        thumbnail = _first_given(picture.thumbnail, options.get("thumbnail"), self.thumbnail)
        return TileLimits(max_tiles, min_tiles, thumbnail)

    def capped(self, cap: int) -> TileLimits:
        """Return these limits with at most `cap` tiles, but never fewer than the requested min_tiles."""
        return replace(self, max_tiles=max(self.min_tiles, min(self.max_tiles, cap)))

    def grid(self, size: tuple[int, int], tile_size: int) -> Grid:
        """Return how a picture of size (width, height) in pixels is cut into tiles of `tile_size` pixels."""
        return choose_grid(
            *size,
            max_tiles=self.max_tiles,
            min_tiles=self.min_tiles,
            tile_size=tile_size,
            thumbnail=self.thumbnail,
        )

    def cut(self, image: Image, tile_size: int) -> TiledPicture:
        """Cut an RGB picture into tiles of `tile_size` pixels; the grid is that of `grid`."""
        return tile_image(image, self.max_tiles, self.min_tiles, tile_size, self.thumbnail)


def _first_given(*choices: _Choice | None) -> _Choice:
    """Return the first value that is not None; the last one never is."""
    return next(choice for choice in choices if choice is not None)
