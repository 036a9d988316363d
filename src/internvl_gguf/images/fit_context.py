"""Plan how the pictures of a prompt are cut so that the prompt fits the context, and suggest what else would help."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from internvl_gguf.errors import ContextOverflowError
from internvl_gguf.images.tile_limits import TileLimits
from internvl_gguf.tiling import Grid

ANSWER_ROOM = 1
"""Fewest positions that an answer needs."""

ANSWER_ALLOWANCE = 256
"""Positions kept for the answer when pictures are cut into fewer tiles: a few paragraphs."""

_LARGE_PART: Final = 0.25
"""Least part of the context from which on the form of the answer, or the tools, are named in an error."""
_LESS_FORM: Final = "give a smaller one, or leave it out of the prompt (format_in_prompt=False)"
BEGIN_ANEW: Final = "begin anew with session.clear() (/clear); for separate pictures use session.each() or batch()"
"""Advice where earlier questions fill the context."""


@dataclass(frozen=True)
class ContextBudget:
    """A context and the positions already taken of it.

    Attributes:
        n_ctx: positions of the context.
        n_ctx_train: positions the model was trained for; None if unknown.
        text_tokens: the prompt without the tiles of its new pictures: earlier messages, template and question.
        answer_tokens: positions kept for the answer when pictures are cut into fewer tiles, ANSWER_ROOM or more.
        tile_size: side of a tile in pixels.
        tokens_per_tile: visual tokens of a tile.
        earlier_questions: questions of the conversation that are in the context, too.
        form_tokens: what of `text_tokens` says the form of the answer: a schema, or choices.
        tool_tokens: what of `text_tokens` lists the tools.
        frames: number of the new pictures that are frames of clips.
        frame_tokens: what of `text_tokens` is the label of one of them and the marks around it, at most.
    """

    n_ctx: int
    n_ctx_train: int | None
    text_tokens: int
    answer_tokens: int
    tile_size: int
    tokens_per_tile: int
    earlier_questions: int = 0
    form_tokens: int = 0
    tool_tokens: int = 0
    frames: int = 0
    frame_tokens: int = 0


@dataclass(frozen=True)
class PictureToCut:
    """A picture with its size and tile limits.

    Attributes:
        size: (width, height) in pixels.
        limits: how it may be cut.
    """

    size: tuple[int, int]
    limits: TileLimits

    def capped(self, cap: int) -> PictureToCut:
        """Return the same picture with at most `cap` tiles, but never fewer than its min_tiles."""
        return replace(self, limits=self.limits.capped(cap))


@dataclass(frozen=True)
class CutPlan:
    """How the new pictures of a prompt are cut.

    Attributes:
        budget: the context they are for.
        asked: the pictures with the requested limits.
        pictures: the pictures with the limits they are to be cut by.
        cap: value that max_tiles was lowered to; None if it was not lowered.
    """

    budget: ContextBudget
    asked: tuple[PictureToCut, ...]
    pictures: tuple[PictureToCut, ...]
    cap: int | None = None

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The grid of each picture."""
        return tuple(picture.limits.grid(picture.size, self.budget.tile_size) for picture in self.pictures)

    @property
    def tiles(self) -> int:
        """Number of tiles of all pictures, thumbnails included."""
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

    @property
    def noun(self) -> str:
        """The word for one of the pictures: "frame" if all are frames of clips."""
        return "frame" if self.pictures and self.budget.frames == len(self.pictures) else "picture"


def largest_cap(pictures: Sequence[PictureToCut], room: int, *, tile_size: int, tokens_per_tile: int) -> int | None:
    """Return the largest cap on max_tiles with which the pictures take at most `room` positions; None if none does.

    The cap is the same for every picture. A picture with a smaller max_tiles keeps it, and none is cut into fewer tiles
    than its min_tiles. The result is at most the largest max_tiles, which changes nothing.
    """

    def positions(cap: int) -> int:
        capped = (picture.capped(cap) for picture in pictures)
        return sum(picture.limits.grid(picture.size, tile_size).tiles for picture in capped) * tokens_per_tile

    # The card tries grids in the order of their tiles, and a grid replaces another only if it comes later. A larger cap
    # only adds grids at the end, so the tiles never become fewer, and the caps can be bisected.
    most = max((picture.limits.max_tiles for picture in pictures), default=0)
    return bisect_right(range(1, most + 1), room, key=positions) or None


def plan_cut(pictures: Sequence[PictureToCut], budget: ContextBudget, *, fit: bool) -> CutPlan:
    """Plan how to cut the new pictures of a prompt: as asked, or into fewer tiles if they do not fit and `fit` is set.

    Args:
        pictures: the new pictures in order.
        budget: the context, and what is taken of it.
        fit: whether max_tiles may be lowered. It becomes the largest cap, the same for every picture, that leaves
            `budget.answer_tokens` free; if none does, as low as possible.

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
    """Return what users should know of a plan, one line each: nothing if pictures are cut as asked."""
    if plan.cap is None:
        return ()
    asked = CutPlan(plan.budget, plan.asked, plan.asked)
    several = len(plan.asked) > 1
    pictures = f"The {len(plan.asked)} {plan.noun}s are" if several else f"The {plan.noun} is"
    most = max(picture.limits.max_tiles for picture in plan.asked)
    whole = _whole(asked, "them" if several else "it")
    return (
        f"{pictures} cut into {count_tiles(plan.tiles)} instead of {asked.tiles} "
        f"(max_tiles {plan.cap} instead of {most}), "
        f"so that {'they fit' if several else 'it fits'} the context of {plan.budget.n_ctx:,} tokens{whole}."
        f"{_earlier(plan.budget)}",
    )


def _large_parts(budget: ContextBudget) -> str:
    """Return the sentences about the form of the answer and the tools, where they take a good part of the context."""
    form = f" The form of the answer takes {budget.form_tokens:,} tokens: {_LESS_FORM}."
    tools = f" The tools take {budget.tool_tokens:,} tokens: give fewer of them, or shorter descriptions."
    least = budget.n_ctx * _LARGE_PART
    return form * (budget.form_tokens >= least) + tools * (budget.tool_tokens >= least)


def _earlier(budget: ContextBudget) -> str:
    """Return the sentence about the questions that the new one comes after; nothing where it is the first."""
    count = budget.earlier_questions
    if not count:
        return ""
    holds = f"{count:,} earlier questions" if count > 1 else "an earlier question"
    return f" The context holds {holds}, too: {BEGIN_ANEW}."


def _whole(asked: CutPlan, them: str) -> str:
    """Return the words for the contexts that take pictures uncut: the least, and one with room for the answer."""
    budget = asked.budget
    most = budget.n_ctx_train or asked.needed + budget.answer_tokens
    if asked.needed > most:
        return ""
    roomy = asked.needed - ANSWER_ROOM + budget.answer_tokens
    answer = f", {roomy:,} with {budget.answer_tokens} tokens for the answer" if asked.needed < roomy <= most else ""
    return f"; {_context(asked.needed)} would take {them} whole{answer}"


def check_fits(plan: CutPlan) -> None:
    """Refuse a prompt that leaves no position for an answer; the error says what would fit.

    Raises:
        ContextOverflowError: it does not fit.
    """
    if plan.fits:
        return
    share = f", {plan.visual_tokens:,} of them for the new {plan.noun}s" if plan.pictures else ""
    start = f"Even with the {plan.noun}s cut into as few tiles as allowed, the" if plan.cap else "The"
    cap, larger = _sufficient_cap(plan), _sufficient_context(plan)
    ways = _ways_to_fit(plan, cap, larger)
    more = f"{_large_parts(plan.budget)}{_earlier(plan.budget)}"
    raise ContextOverflowError(
        f"{start} prompt takes {plan.needed:,} tokens{share}; the context has {plan.budget.n_ctx:,}.",
        f"What would fit: {_either(ways)}.{more}" if ways else f"Ask with fewer pictures or less text.{more}",
        needed=plan.needed,
        available=plan.budget.n_ctx,
        max_tiles=cap,
        n_ctx=larger,
    )


def _sufficient_cap(plan: CutPlan) -> int | None:
    """Return the largest cap on tiles, the same for every picture, with which a plan fits; None if none does."""
    budget = plan.budget
    room = budget.n_ctx - budget.text_tokens - ANSWER_ROOM
    return largest_cap(plan.pictures, room, tile_size=budget.tile_size, tokens_per_tile=budget.tokens_per_tile)


def _ways_to_fit(plan: CutPlan, cap: int | None, larger: int | None) -> list[str]:
    budget, count = plan.budget, len(plan.pictures)
    room = budget.n_ctx - budget.text_tokens - ANSWER_ROOM
    ways = []
    if cap:
        ways.append(f"at most {count_tiles(cap)}{' each' if count > 1 else ''} (max_tiles)")
    if plan.noun == "frame":
        return [*ways, *_fewer_frames(plan), *([_context(larger)] if larger else [])]
    largest = max((grid.tiles for grid in plan.grids), default=1) * budget.tokens_per_tile
    fewer = room // largest  # pictures that fit, whichever they are; their markers in the text are ignored
    if 0 < fewer < count:
        ways.append(f"{fewer} of the {count} pictures")
    if larger:
        ways.append(_context(larger))
    return ways


def _fewer_frames(plan: CutPlan) -> list[str]:
    """Return the words for as many frames as fit with the answer; nothing if none does."""
    budget = plan.budget
    of_frame = max(grid.tiles for grid in plan.grids) * budget.tokens_per_tile + budget.frame_tokens
    text = budget.text_tokens - budget.frames * budget.frame_tokens
    fewer = (budget.n_ctx - text - budget.answer_tokens) // of_frame
    if not 0 < fewer < budget.frames:
        return []
    return [f"{fewer} of the {budget.frames} frames (frames)"]


def _sufficient_context(plan: CutPlan) -> int | None:
    """Return the context that holds a plan and its answer; None if the model was not trained for so many positions."""
    budget = plan.budget
    comfortable = plan.needed - ANSWER_ROOM + budget.answer_tokens
    if budget.n_ctx_train is None:
        return comfortable
    return min(comfortable, budget.n_ctx_train) if plan.needed <= budget.n_ctx_train else None


def _context(positions: int) -> str:
    return f"a context of {positions:,} (n_ctx)"


def _either(ways: Sequence[str]) -> str:
    """Join alternatives as "a", "a or b", "a, b or c"."""
    *others, last = ways
    return f"{', '.join(others)} or {last}" if others else last


def count_tiles(tiles: int) -> str:
    return "1 tile" if tiles == 1 else f"{tiles} tiles"
