"""Does a prompt with its pictures fit the context, how must they be cut so that it does, and what else would help?"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from internvl_gguf.errors import ContextOverflowError
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.tiling import Grid

ANSWER_ROOM = 1
"""Positions without which there is no answer at all."""

ANSWER_ALLOWANCE = 256
"""Positions kept for the answer where pictures are cut smaller: a few paragraphs."""

_CONTEXT_STEP = 256  # llama.cpp rounds contexts up to this, so a suggestion may as well


@dataclass(frozen=True)
class Budget:
    """A context and what is already taken of it, in positions.

    Attributes:
        n_ctx: positions of the context.
        n_ctx_train: positions the model was trained for; None where that is not known.
        text_tokens: the prompt without the tiles of its new pictures: earlier messages, template and question.
        answer_tokens: what an answer should find free where pictures are cut smaller, ANSWER_ROOM or more.
        tile_size: side of a tile in pixels.
        tokens_per_tile: visual tokens of a tile.
    """

    n_ctx: int
    n_ctx_train: int | None
    text_tokens: int
    answer_tokens: int
    tile_size: int
    tokens_per_tile: int


@dataclass(frozen=True)
class PictureToCut:
    """What a plan has to know of a picture.

    Attributes:
        size: (width, height) in pixels.
        limits: how it may be cut.
    """

    size: tuple[int, int]
    limits: TileLimits

    def capped(self, cap: int) -> PictureToCut:
        """The same picture with at most `cap` tiles, but never below its min_tiles."""
        return replace(self, limits=self.limits.capped(cap))


@dataclass(frozen=True)
class CutPlan:
    """How the new pictures of a prompt are cut.

    Attributes:
        budget: the context they are for.
        asked: the pictures with the limits that were asked for.
        pictures: the same with the limits they are to be cut by.
        cap: what max_tiles was lowered to so that they fit; None where nothing was lowered.
    """

    budget: Budget
    asked: tuple[PictureToCut, ...]
    pictures: tuple[PictureToCut, ...]
    cap: int | None = None

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The cut of each picture."""
        return tuple(picture.limits.grid(picture.size, self.budget.tile_size) for picture in self.pictures)

    @property
    def tiles(self) -> int:
        """Tiles of all pictures, thumbnails included."""
        return sum(grid.tiles for grid in self.grids)

    @property
    def visual_tokens(self) -> int:
        """Positions of all tiles."""
        return self.tiles * self.budget.tokens_per_tile

    @property
    def needed(self) -> int:
        """Positions of the whole prompt and of the shortest answer."""
        return self.budget.text_tokens + self.visual_tokens + ANSWER_ROOM

    @property
    def fits(self) -> bool:
        return self.needed <= self.budget.n_ctx


def largest_cap(pictures: Sequence[PictureToCut], room: int, *, tile_size: int, tokens_per_tile: int) -> int | None:
    """The largest even cap on max_tiles with which pictures take at most `room` positions; None where none does.

    The cap is the same for all pictures. One whose own max_tiles is smaller keeps it, and none is cut into fewer tiles
    than its min_tiles. It is at most the largest max_tiles, which changes nothing.
    """

    def positions(cap: int) -> int:
        capped = (picture.capped(cap) for picture in pictures)
        return sum(picture.limits.grid(picture.size, tile_size).tiles for picture in capped) * tokens_per_tile

    # A larger cap only adds grids at the end of those the card goes through, fewest tiles first, and one replaces
    # another only if it comes later: with the cap the tiles never become fewer, so the caps can be bisected.
    most = max((picture.limits.max_tiles for picture in pictures), default=0)
    return bisect_right(range(1, most + 1), room, key=positions) or None


def plan_cut(pictures: Sequence[PictureToCut], budget: Budget, *, fit: bool) -> CutPlan:
    """How to cut the new pictures of a prompt: as asked, or into fewer tiles if they would not fit and may be fitted.

    Args:
        pictures: the new pictures in order.
        budget: the context, and what is taken of it.
        fit: whether max_tiles may be lowered. It becomes the largest even cap that leaves `budget.answer_tokens`
            free; where none does, as low as it goes.

    Returns:
        A plan that may still not fit; see `check_fits`.
    """
    asked = tuple(pictures)
    plan = CutPlan(budget, asked, asked)
    if plan.fits or not fit:
        return plan
    room = budget.n_ctx - budget.text_tokens - budget.answer_tokens
    cap = largest_cap(asked, room, tile_size=budget.tile_size, tokens_per_tile=budget.tokens_per_tile) or 1
    capped = tuple(picture.capped(cap) for picture in asked)
    return plan if capped == asked else CutPlan(budget, asked, capped, cap)


def cut_notices(plan: CutPlan) -> tuple[str, ...]:
    """What people have to know of a plan, one line each: nothing where pictures are cut as asked."""
    if plan.cap is None:
        return ()
    asked = CutPlan(plan.budget, plan.asked, plan.asked)
    several = len(plan.asked) > 1
    pictures = f"The {len(plan.asked)} pictures are" if several else "The picture is"
    most = max(picture.limits.max_tiles for picture in plan.asked)
    larger = _sufficient_context(asked)
    whole = f"; {_context(larger)} would take {'them' if several else 'it'} whole" if larger else ""
    return (
        f"{pictures} cut into {count_tiles(plan.tiles)} instead of {asked.tiles} "
        f"(max_tiles {plan.cap} instead of {most}), "
        f"so that {'they fit' if several else 'it fits'} the context of {plan.budget.n_ctx:,} positions{whole}.",
    )


def check_fits(plan: CutPlan) -> None:
    """Refuse a prompt that does not leave room for an answer, saying what would fit.

    Raises:
        ContextOverflowError: it does not fit.
    """
    if plan.fits:
        return
    share = f", {plan.visual_tokens:,} of them for the new pictures" if plan.pictures else ""
    even = "Even with the pictures cut into as few tiles as allowed, the" if plan.cap else "The"
    cap, larger = _sufficient_cap(plan), _sufficient_context(plan)
    ways = _ways_to_fit(plan, cap, larger)
    raise ContextOverflowError(
        f"{even} prompt takes {plan.needed:,} positions{share}; the context has {plan.budget.n_ctx:,}.",
        f"What would fit: {_either(ways)}." if ways else "Ask with fewer pictures or less text, or begin anew.",
        needed=plan.needed,
        available=plan.budget.n_ctx,
        max_tiles=cap,
        n_ctx=larger,
    )


def _sufficient_cap(plan: CutPlan) -> int | None:
    """Most tiles of each picture with which a plan fits; None where none does."""
    budget = plan.budget
    room = budget.n_ctx - budget.text_tokens - ANSWER_ROOM
    return largest_cap(plan.pictures, room, tile_size=budget.tile_size, tokens_per_tile=budget.tokens_per_tile)


def _ways_to_fit(plan: CutPlan, cap: int | None, larger: int | None) -> list[str]:
    budget, count = plan.budget, len(plan.pictures)
    room = budget.n_ctx - budget.text_tokens - ANSWER_ROOM
    ways = []
    if cap:
        ways.append(f"at most {count_tiles(cap)}{' each' if count > 1 else ''} (--max-tiles, max_tiles)")
    largest = max((grid.tiles for grid in plan.grids), default=1) * budget.tokens_per_tile
    fewer = room // largest  # of any of them, their places in the text not even counted
    if 0 < fewer < count:
        ways.append(f"{fewer} of the {count} pictures")
    if larger:
        ways.append(_context(larger))
    return ways


def _sufficient_context(plan: CutPlan) -> int | None:
    """Positions that hold a plan and, if the model was trained for so many, its answer; None where it was not."""
    budget = plan.budget
    comfortable = plan.needed - ANSWER_ROOM + budget.answer_tokens
    comfortable += -comfortable % _CONTEXT_STEP
    if budget.n_ctx_train is None:
        return comfortable
    return min(comfortable, budget.n_ctx_train) if plan.needed <= budget.n_ctx_train else None


def _context(positions: int) -> str:
    return f"a context of {positions:,} (--n-ctx, n_ctx)"


def _either(ways: Sequence[str]) -> str:
    """The ways as "a", "a or b", "a, b or c"."""
    *others, last = ways
    return f"{', '.join(others)} or {last}" if others else last


def count_tiles(tiles: int) -> str:
    return "1 tile" if tiles == 1 else f"{tiles} tiles"
