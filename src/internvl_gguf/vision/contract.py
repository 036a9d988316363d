"""The protocol of a vision encoder as the engine uses it, for any library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TileEncoder(Protocol):
    """Encodes tiles. One thread at a time uses it; it is closed before the text model.

    Attributes:
        tile_size: side of a tile in pixels.
        tokens_per_tile: visual tokens of a tile.
        n_embd: width of an embedding, which is that of the text model.
        tiles_per_batch: most tiles of one call; may fall after a failure.
    """

    tile_size: int
    tokens_per_tile: int
    n_embd: int
    tiles_per_batch: int

    def encode(self, tiles: Sequence[bytes]) -> NDArray[np.float32]:
        """Return the embeddings of tiles, float32 [tiles, tokens_per_tile, n_embd].

        Args:
            tiles: 1 to `tiles_per_batch` of tile_size * tile_size * 3 RGB bytes each.

        Raises:
            LibraryError: the library refused, or gave something that is not a number.
        """
        ...

    def close(self) -> None:
        """Free what the encoder holds. Closing twice is harmless."""
        ...
