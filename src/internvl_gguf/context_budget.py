"""Does a prompt with its pictures fit the context, and if not, what would?"""

from __future__ import annotations

from collections.abc import Sequence

from internvl_gguf.errors import ContextOverflowError
from internvl_gguf.tiling import choose_grid
from internvl_gguf.types import PreparedPicture

ANSWER_ROOM = 1
_CONTEXT_STEP = 256  # llama.cpp rounds contexts up to this, so a suggestion may as well


def check_fits(
    prompt_tokens: int,
    n_ctx: int,
    n_ctx_train: int,
    pictures: Sequence[PreparedPicture],
    *,
    tile_size: int,
    tokens_per_tile: int,
) -> None:
    """Refuse a prompt that does not leave room for an answer, saying what would fit.

    Args:
        prompt_tokens: positions of the whole prompt, earlier messages and visual tokens included.
        n_ctx: positions of the context.
        n_ctx_train: positions the model was trained for.
        pictures: the pictures of the new message.
        tile_size: side of a tile in pixels.
        tokens_per_tile: visual tokens of a tile.

    Raises:
        ContextOverflowError: it does not fit.
    """
    needed = prompt_tokens + ANSWER_ROOM
    if needed <= n_ctx:
        return
    visual = sum(len(picture.tiles) for picture in pictures) * tokens_per_tile
    ways = []
    fewer = _fitting_max_tiles(n_ctx - (needed - visual), pictures, tile_size, tokens_per_tile)
    if fewer:
        ways.append(f"max_tiles={fewer}")
    larger = needed + -needed % _CONTEXT_STEP
    if larger <= n_ctx_train:
        ways.append(f"a context of n_ctx={larger}")
    hint = f"What would fit: {' or '.join(ways)}." if ways else "Ask with fewer pictures or less text, or clear()."
    share = f", {visual:,} of them for the new pictures" if visual else ""
    raise ContextOverflowError(
        f"The prompt takes {needed:,} positions{share}; the context has {n_ctx:,}.",
        hint,
        needed=needed,
        available=n_ctx,
    )


def _fitting_max_tiles(
    room: int, pictures: Sequence[PreparedPicture], tile_size: int, tokens_per_tile: int
) -> int | None:
    """The largest max_tiles with which the pictures take at most `room` positions; None when none does."""
    most = max((picture.grid[0] * picture.grid[1] for picture in pictures), default=1)
    for max_tiles in range(most - 1, 0, -1):
        grids = (choose_grid(*picture.source_size, max_tiles=max_tiles, tile_size=tile_size) for picture in pictures)
        if sum(grid.tiles for grid in grids) * tokens_per_tile <= room:
            return max_tiles
    return None
