"""The official InternVL tiling: a grid close to the picture's aspect ratio, the picture stretched to it, a thumbnail.

Source: `dynamic_preprocess` and `find_closest_aspect_ratio` of the InternVL3 model card. The model was trained on
exactly these tiles; llama.cpp's own preprocessor chooses other grids and letterboxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.utils import arguments

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_TILES = 12
MAX_TILES_LIMIT = 64
TILE_SIZE = 448


class SaysTiles(Protocol):
    """A vision encoder whose file may say how pictures are cut for it."""

    @property
    def min_tiles(self) -> int | None:
        """Fewest tiles of a picture; None if the file does not say."""
        ...

    @property
    def max_tiles(self) -> int | None:
        """Most tiles of a picture, the thumbnail not counted; None if the file does not say."""
        ...


@dataclass(frozen=True)
class TileRange:
    """How many tiles a picture is cut into where nobody says otherwise, the thumbnail not counted.

    Attributes:
        least: fewest tiles.
        most: most tiles.
    """

    least: int = 1
    most: int = MAX_TILES

    @classmethod
    def of(cls, encoder: SaysTiles) -> TileRange:
        """Return the range that an encoder's file says; the model card's for what it does not say."""
        least = cls.least if encoder.min_tiles is None else encoder.min_tiles
        return cls(least, max(cls.most, least) if encoder.max_tiles is None else encoder.max_tiles)


CARD_RANGE: Final = TileRange()
"""The range of the model card."""


@dataclass(frozen=True)
class Grid:
    """The grid that a picture is cut by: `columns` x `rows` tiles, and whether a thumbnail of the whole follows."""

    columns: int
    rows: int
    thumbnail: bool

    @property
    def tiles(self) -> int:
        """Number of tiles, the thumbnail included."""
        return self.columns * self.rows + self.thumbnail


@dataclass(frozen=True)
class TiledPicture:
    """One picture cut into tiles, as PIL images.

    Attributes:
        grid: (columns, rows) of the cut, the thumbnail not counted.
        tiles: RGB pictures of tile_size x tile_size, row by row, the thumbnail (if any) last.
        has_thumbnail: whether the last tile shows the whole picture.
        source_size: (width, height) of the picture before the cut.
    """

    grid: tuple[int, int]
    tiles: tuple[Image, ...]
    has_thumbnail: bool
    source_size: tuple[int, int]


@lru_cache(maxsize=64)
def candidate_grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return all (columns, rows) with min_tiles <= columns*rows <= max_tiles, fewest tiles first.

    The model card collects the pairs in a set and sorts by tile count alone, so grids of the same count are in the
    set's order. With min_tiles above 1 that order can decide (1.25 is as far from 1x2 as from 2x1), so it is kept.
    """
    grids = {
        (columns, rows)
        for total in range(min_tiles, max_tiles + 1)
        for columns in range(1, total + 1)
        for rows in range(1, total + 1)
        if min_tiles <= columns * rows <= max_tiles
    }
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def validate_tile_limits(min_tiles: int, max_tiles: int) -> None:
    """Refuse tile limits that no grid satisfies.

    Raises:
        InvalidRequestError: unless 1 <= min_tiles <= max_tiles <= MAX_TILES_LIMIT.
    """
    arguments.whole("min_tiles", min_tiles)
    arguments.whole("max_tiles", max_tiles)
    if not 1 <= min_tiles <= max_tiles <= MAX_TILES_LIMIT:
        raise InvalidRequestError(
            f"A picture cannot be cut into at least {min_tiles} and at most {max_tiles} tiles.",
            f"Use 1 <= min_tiles <= max_tiles <= {MAX_TILES_LIMIT}; InternVL3 was trained with 1 and {MAX_TILES}.",
        )


def has_thumbnail(tiles: int) -> bool:
    """Whether the whole picture follows the tiles that it is cut into: where there are more than one of them."""
    return tiles > 1


def choose_grid(
    width: int,
    height: int,
    *,
    max_tiles: int = MAX_TILES,
    min_tiles: int = 1,
    tile_size: int = TILE_SIZE,
    thumbnail: bool = True,
) -> Grid:
    """Return the grid that the model card chooses for a picture of width x height pixels.

    The columns/rows nearest to width/height wins; among equally near grids a later (larger) one replaces an earlier
    one if the picture has more than half the pixels of the larger grid.

    Raises:
        InvalidRequestError: tile limits that no grid satisfies.
    """
    validate_tile_limits(min_tiles, max_tiles)
    aspect = width / height
    best, best_distance = (1, 1), float("inf")
    for columns, rows in candidate_grids(min_tiles, max_tiles):
        distance = abs(aspect - columns / rows)
        large_enough = width * height > 0.5 * tile_size * tile_size * columns * rows
        if distance < best_distance or (distance == best_distance and large_enough):
            best, best_distance = (columns, rows), distance
    return Grid(*best, thumbnail=thumbnail and has_thumbnail(best[0] * best[1]))


def tile_image(
    image: Image,
    max_tiles: int = MAX_TILES,
    min_tiles: int = 1,
    tile_size: int = TILE_SIZE,
    thumbnail: bool = True,
) -> TiledPicture:
    """Cut an RGB picture as the model card does: stretch to the grid (bicubic), crop row by row, add the thumbnail.

    Args:
        image: an RGB Pillow picture, already oriented (see `internvl_gguf.images.load.load_image`).
        max_tiles: most tiles of the grid, the thumbnail not counted.
        min_tiles: fewest tiles of the grid.
        tile_size: side of a tile in pixels, as the mmproj says (448 for InternVL3).
        thumbnail: whether the whole picture follows in one more tile if it has more than one.

    Raises:
        InvalidRequestError: tile limits that no grid satisfies, or another kind of argument.
    """
    if not (hasattr(image, "resize") and hasattr(image, "crop")):
        raise arguments.wrong("image", image, "Give a Pillow picture; internvl_gguf.images.load.load_image makes one.")
    if arguments.whole("tile_size", tile_size) < 1:
        raise arguments.wrong("tile_size", tile_size, f"Use a number of pixels, {TILE_SIZE} for InternVL3.")
    thumbnail = arguments.switch("thumbnail", thumbnail)
    grid = choose_grid(*image.size, max_tiles=max_tiles, min_tiles=min_tiles, tile_size=tile_size, thumbnail=thumbnail)
    return cut_by_grid(image, grid, tile_size)


def cut_by_grid(image: Image, grid: Grid, tile_size: int = TILE_SIZE) -> TiledPicture:
    """Cut an RGB picture by a given grid; see `tile_image`."""
    stretched = image.resize((tile_size * grid.columns, tile_size * grid.rows))
    tiles = [
        stretched.crop((left, top, left + tile_size, top + tile_size))
        for top in range(0, stretched.height, tile_size)
        for left in range(0, stretched.width, tile_size)
    ]
    if grid.thumbnail:
        tiles.append(image.resize((tile_size, tile_size)))
    return TiledPicture(
        grid=(grid.columns, grid.rows), tiles=tuple(tiles), has_thumbnail=grid.thumbnail, source_size=image.size
    )
