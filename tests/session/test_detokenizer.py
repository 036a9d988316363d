"""Streaming text: characters and stop strings are never cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.session.detokenizer import TextStream


def stream(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    text = TextStream(stop)
    shown = [text.feed(piece) for piece in pieces]
    return [*shown, text.finish()], text.stopped


@given(st.text(), st.lists(st.integers(0, 40), max_size=8))
def test_any_cut_of_the_bytes_gives_the_same_text(text: str, cuts: list[int]) -> None:
    data = text.encode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(edges)]
    shown, stopped = stream(pieces)
    assert "".join(shown) == text
    assert not stopped


def test_a_character_over_three_tokens_appears_when_it_is_complete() -> None:
    """llama-cpp-python detokenises token by token and shows two replacement characters before this one."""
    shown, _ = stream([b"\xe4", b"\xb9", b"\xa6 book"])
    assert shown == ["", "", "书 book", ""]


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    shown, _ = stream([b"a\xff", b"b\xe4", b"c"])
    assert "".join(shown) == "a\ufffdb\ufffdc"


def test_an_answer_cut_inside_a_character_ends_before_it() -> None:
    """With max_tokens reached between the bytes of a character, a replacement character would be shown."""
    shown, _ = stream([b"a\xe4\xb9"])
    assert "".join(shown) == "a"


@given(st.text("ab.", max_size=20), st.text("ab.", min_size=1, max_size=3))
def test_a_stop_string_ends_the_text_before_it_wherever_tokens_end(text: str, stop: str) -> None:
    shown, stopped = stream([char.encode() for char in text], (stop,))
    assert "".join(shown) == text.split(stop)[0]
    assert stopped == (stop in text)


def test_the_first_of_several_stop_strings_counts() -> None:
    shown, stopped = stream([b"one two three"], ("three", "two"))
    assert "".join(shown) == "one "
    assert stopped


def test_text_that_only_began_like_a_stop_string_is_shown_in_the_end() -> None:
    shown, stopped = stream([b"the en"], ("end",))
    assert shown == ["the ", "en"]
    assert not stopped
