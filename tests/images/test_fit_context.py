"""The plan that makes pictures fit: the largest common cap on tiles, the real cut, and hints that are true."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from internvl_gguf.errors import ContextOverflowError
from internvl_gguf.images.fit_context import (
    ANSWER_ROOM,
    ContextBudget,
    PictureToCut,
    check_fits,
    cut_notices,
    largest_cap,
    plan_cut,
)
from internvl_gguf.images.tile_limits import TileLimits

TILE = {"tile_size": 28, "tokens_per_tile": 4}
CARD = ContextBudget(
    n_ctx=8192, n_ctx_train=32768, text_tokens=160, answer_tokens=256, tile_size=448, tokens_per_tile=256
)
PHOTO = PictureToCut((4000, 3000), TileLimits())

limits = st.tuples(st.integers(1, 20), st.integers(1, 20), st.booleans()).map(
    lambda drawn: TileLimits(max(drawn[:2]), min(drawn[:2]), drawn[2])
)
sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))
pictures_of_all_kinds = st.lists(st.builds(PictureToCut, sizes, limits), min_size=1, max_size=6)
"""From single pixels to pictures larger than their largest grid, each with limits of its own."""


def positions(pictures: list[PictureToCut], cap: int) -> int:
    return sum(p.capped(cap).limits.grid(p.size, TILE["tile_size"]).tiles for p in pictures) * TILE["tokens_per_tile"]


@settings(max_examples=300, deadline=None)
@given(pictures=pictures_of_all_kinds)
def test_more_tiles_allowed_are_never_fewer_tiles(pictures: list[PictureToCut]) -> None:
    """What bisecting the caps rests on; true of every grid choice with one min_tiles, thumbnail or not."""
    taken = [positions(pictures, cap) for cap in range(1, 21)]
    assert taken == sorted(taken)


@settings(max_examples=300, deadline=None)
@given(pictures=pictures_of_all_kinds, room=st.integers(0, 500))
def test_the_cap_fits_and_the_next_one_does_not(pictures: list[PictureToCut], room: int) -> None:
    most = max(picture.limits.max_tiles for picture in pictures)
    cap = largest_cap(pictures, room, **TILE)
    fitting = [candidate for candidate in range(1, most + 1) if positions(pictures, candidate) <= room]
    assert cap == (max(fitting) if fitting else None)


@settings(max_examples=50, deadline=None)
@given(pictures=pictures_of_all_kinds, room=st.integers(1, 300))
def test_cutting_by_the_plan_gives_exactly_its_tiles(pictures: list[PictureToCut], room: int) -> None:
    plan = plan_cut(pictures, replace(CARD, n_ctx=room + 40, text_tokens=20, answer_tokens=20, **TILE), fit=True)
    cuts = [picture.limits.cut(Image.new("RGB", picture.size), TILE["tile_size"]) for picture in plan.pictures]
    assert [cut.grid for cut in cuts] == [(grid.columns, grid.rows) for grid in plan.grids]
    assert sum(len(cut.tiles) for cut in cuts) == plan.tiles
    for asked, planned in zip(pictures, plan.pictures, strict=True):
        assert asked.limits.min_tiles == planned.limits.min_tiles <= planned.limits.max_tiles <= asked.limits.max_tiles


@settings(max_examples=200, deadline=None)
@given(pictures=pictures_of_all_kinds, n_ctx=st.integers(1, 600), answer=st.integers(1, 100), fit=st.booleans())
def test_pictures_that_fit_are_cut_as_asked_and_others_leave_room_for_the_answer(
    pictures: list[PictureToCut], n_ctx: int, answer: int, fit: bool
) -> None:
    plan = plan_cut(pictures, replace(CARD, n_ctx=n_ctx, text_tokens=30, answer_tokens=answer, **TILE), fit=fit)
    most = max(picture.limits.max_tiles for picture in pictures)
    whole = 30 + positions(pictures, most) + ANSWER_ROOM
    if whole <= n_ctx or not fit:
        assert plan.pictures == plan.asked == tuple(pictures)
        assert plan.cap is None
        assert cut_notices(plan) == ()
    elif plan.cap not in (None, 1):
        assert plan.needed - ANSWER_ROOM + answer <= n_ctx
        assert plan.pictures != plan.asked
    assert plan.needed == 30 + plan.visual_tokens + ANSWER_ROOM
    assert plan.fits == (plan.needed <= n_ctx)


@settings(max_examples=200, deadline=None)
@given(pictures=pictures_of_all_kinds, n_ctx=st.integers(31, 600), fit=st.booleans())
def test_what_the_error_says_would_fit_does(pictures: list[PictureToCut], n_ctx: int, fit: bool) -> None:
    budget = replace(CARD, n_ctx=n_ctx, text_tokens=30, answer_tokens=50, **TILE)
    plan = plan_cut(pictures, budget, fit=fit)
    if plan.fits:
        check_fits(plan)
        return
    with pytest.raises(ContextOverflowError) as caught:
        check_fits(plan)
    assert (caught.value.needed, caught.value.available) == (plan.needed, n_ctx)
    hint = caught.value.hint
    larger = re.search(r"a context of ([\d,]+) \(n_ctx\)", hint)
    assert larger
    with_larger = replace(budget, n_ctx=int(larger[1].replace(",", "")))
    assert plan_cut(pictures, with_larger, fit=fit).fits
    fewer = re.search(r"(\d+) of the (\d+) pictures", hint)
    if fewer:
        assert int(fewer[2]) == len(pictures)
        for first in range(len(pictures) - int(fewer[1]) + 1):
            assert plan_cut(pictures[first : first + int(fewer[1])], budget, fit=fit).fits
    cap = re.search(r"(\d+) tiles?\b.* \(max_tiles\)", hint)
    if fit:
        assert cap is None
    elif cap:
        assert 30 + positions(pictures, int(cap[1])) + ANSWER_ROOM <= n_ctx


def test_the_cap_is_one_for_all_and_limits_of_a_picture_hold() -> None:
    small = PictureToCut((4000, 3000), TileLimits(max_tiles=2))
    dense = PictureToCut((4000, 3000), TileLimits(min_tiles=6))
    plan = plan_cut([PHOTO, small, dense, PHOTO], CARD, fit=True)
    assert plan.cap is not None
    assert [picture.limits.max_tiles for picture in plan.pictures] == [plan.cap, 2, max(6, plan.cap), plan.cap]
    tight = plan_cut([PHOTO, small, dense, PHOTO], replace(CARD, n_ctx=3072), fit=True)
    assert tight.cap == 3
    assert [picture.limits.max_tiles for picture in tight.pictures] == [3, 2, 6, 3]
    assert [grid.tiles for grid in tight.grids] == [1, 1, 7, 1]


def test_the_notice_says_what_was_done_and_what_would_take_them_whole() -> None:
    assert cut_notices(plan_cut([PHOTO] * 4, CARD, fit=True)) == (
        "The 4 pictures are cut into 28 tiles instead of 52 (max_tiles 11 instead of 12), so that they fit the context "
        "of 8,192 tokens; a context of 13,473 (n_ctx) would take them whole, 13,728 with 256 tokens for the answer.",
    )
    assert cut_notices(plan_cut([PHOTO], replace(CARD, n_ctx=1024), fit=True)) == (
        "The picture is cut into 1 tile instead of 13 (max_tiles 3 instead of 12), so that it fits the context of "
        "1,024 tokens; a context of 3,489 (n_ctx) would take it whole, 3,744 with 256 tokens for the answer.",
    )
    (beyond,) = cut_notices(plan_cut([PHOTO] * 4, replace(CARD, n_ctx_train=8192), fit=True))
    assert beyond.endswith("fit the context of 8,192 tokens.")


def test_where_nothing_leaves_room_for_a_whole_answer_the_least_is_taken() -> None:
    """A short answer is worth more than none: these leave 90 positions."""
    plan = plan_cut([PHOTO] * 2, replace(CARD, n_ctx=160 + 2 * 256 + 90), fit=True)
    assert (plan.cap, plan.tiles, plan.fits) == (1, 2, True)


def test_frames_too_many_say_how_many_would_fit() -> None:
    frame = PictureToCut((1920, 1080), TileLimits(max_tiles=1))
    with pytest.raises(ContextOverflowError) as caught:
        check_fits(plan_cut([frame] * 30, replace(CARD, n_ctx=4096), fit=True))
    assert caught.value.message == (
        "The prompt takes 7,841 tokens, 7,680 of them for the new pictures; the context has 4,096."
    )
    assert caught.value.hint == "What would fit: 15 of the 30 pictures or a context of 8,096 (n_ctx)."


def hint_of(**taken: int) -> str:
    """The hint of the error where text alone does not fit."""
    with pytest.raises(ContextOverflowError) as caught:
        check_fits(plan_cut([], replace(CARD, **taken), fit=True))
    return caught.value.hint


def test_a_form_and_tools_that_take_a_quarter_of_the_context_are_named() -> None:
    """A schema of thousands of tokens was only told of as a prompt that is too long."""
    assert hint_of(text_tokens=9000, form_tokens=7000) == (
        "What would fit: a context of 9,256 (n_ctx). The form of the answer takes 7,000 tokens: give a smaller one, or "
        "leave it out of the prompt (format_in_prompt=False)."
    )
    both = hint_of(text_tokens=40000, form_tokens=2048, tool_tokens=9000, earlier_questions=1)
    assert both.startswith("Ask with fewer pictures or less text. The form of the answer takes 2,048 tokens: ")
    assert " The tools take 9,000 tokens: give fewer of them, or shorter descriptions. The context holds" in both


def test_text_alone_that_is_too_long_is_not_blamed_on_pictures() -> None:
    with pytest.raises(ContextOverflowError) as caught:
        check_fits(plan_cut([], replace(CARD, text_tokens=9000), fit=True))
    assert caught.value.message == "The prompt takes 9,001 tokens; the context has 8,192."
    assert caught.value.hint == "What would fit: a context of 9,256 (n_ctx)."
    assert hint_of(text_tokens=9000, form_tokens=2047, tool_tokens=2047) == caught.value.hint
    with pytest.raises(ContextOverflowError, match="less text"):
        check_fits(plan_cut([], replace(CARD, text_tokens=40000), fit=True))
