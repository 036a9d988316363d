"""The ledger of the KV cache: prefixes over text and pictures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.engine.kv_ledger import SequenceLedger, drop_prefix, total_length
from internvl_gguf.types import Span, Tile, TileSpan, TokenSpan

token_spans = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(lambda ids: TokenSpan(tuple(ids)))
tile_spans = st.sampled_from(b"ab").map(lambda key: TileSpan(Tile(bytes([key]), b""), 4))
prompts = st.lists(st.one_of(token_spans, tile_spans), max_size=8)


def positions(spans: list[Span]) -> list[object]:
    """One item for each position: token ids, and (tile, index) inside tiles."""
    flat: list[object] = []
    for span in spans:
        flat += span.ids if isinstance(span, TokenSpan) else [(span.tile.key, index) for index in range(span.length)]
    return flat


def ledger_of(spans: list[Span]) -> SequenceLedger:
    ledger = SequenceLedger()
    for span in spans:
        ledger.append(span)
    return ledger


@given(prompts, prompts)
def test_the_common_prefix_is_the_longest_one_that_ends_outside_tiles(held: list[Span], asked: list[Span]) -> None:
    shared = ledger_of(held).common_prefix(asked)
    left, right = positions(held), positions(asked)
    assert left[:shared] == right[:shared]
    longest = next(
        (index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    start = longest
    while 0 < start < len(left):
        unit = left[start]
        if not isinstance(unit, tuple) or unit[1] == 0:
            break
        start -= 1
    assert shared in (longest, start)


@given(prompts, st.integers(0, 40))
def test_truncating_keeps_whole_tiles_and_what_it_says(held: list[Span], length: int) -> None:
    ledger = ledger_of(held)
    kept = ledger.truncate(length)
    assert kept == ledger.length <= min(length, total_length(held))
    assert positions(ledger.spans) == positions(held)[:kept]
    assert min(length, total_length(held)) - kept < 4
    ledger.check_integrity(kept - 1)


@given(prompts, prompts)
def test_prefix_and_rest_make_the_whole(held: list[Span], asked: list[Span]) -> None:
    shared = ledger_of(held).common_prefix(asked)
    assert positions(asked)[:shared] + positions(drop_prefix(asked, shared)) == positions(asked)


def test_two_pictures_of_one_size_are_not_taken_for_each_other() -> None:
    """A cache that matches token ids alone sees the same 256 context tokens twice and answers about the wrong one."""
    first, second = (TileSpan(Tile(key, b""), 256) for key in (b"cat", b"dog"))
    ledger = ledger_of([TokenSpan((1, 2)), first, TokenSpan((3,))])
    assert ledger.common_prefix([TokenSpan((1, 2)), second, TokenSpan((3,))]) == 2


def test_a_copy_does_not_share_what_is_appended_later() -> None:
    ledger = ledger_of([TokenSpan((1, 2, 3))])
    copy = SequenceLedger()
    copy.copy_prefix(ledger, 2)
    copy.append_token(9)
    assert positions(ledger.spans) == [1, 2, 3]
    assert positions(copy.spans) == [1, 2, 9]


def test_a_prefix_that_ends_inside_a_tile_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="into a tile"):
        drop_prefix([TileSpan(Tile(b"x", b""), 4)], 2)


def test_integrity_is_told_from_the_librarys_view() -> None:
    ledger = ledger_of([TokenSpan((1, 2))])
    ledger.check_integrity(1)
    with pytest.raises(RuntimeError, match="2 positions"):
        ledger.check_integrity(5)
