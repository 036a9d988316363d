"""Answers with calls: bound to the tools, and read while they are being written, however they are cut into pieces."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_gguf.errors import InvalidAnswerError, InvalidRequestError
from internvl_gguf.structured import Tool, ToolStream, format_of, parse_calls, tool_format, tools_of
from internvl_gguf.structured.constraint import byte_tokenizer, byte_tokens, matches, new_matcher
from internvl_gguf.structured.tool_stream import ArgumentsPiece, CallBegun, CallEnded, TextPiece, ToolEvent
from internvl_gguf.types import ToolCall

NOTHING = Tool("nothing")
ADD = Tool("add", "Adds.", {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]})
SAY = Tool("say", "Says.", {"properties": {"text": {"type": "string"}}, "required": ["text"]})


def call(tool: str, /, **arguments: Any) -> str:
    written = json.dumps({"name": tool, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{written}\n</tool_call>"


TAGS = ("<tool_call>", "</tool_call>")
ONE = call("add", a=1)
TWO = f"{call('add', a=1, b=-2)}\n{call('nothing')}"


@pytest.mark.parametrize(
    ("choice", "parallel", "fits", "fits_not"),
    [
        ("auto", True, ["", "hello", ONE, TWO, f"so\n{TWO}", "a < b </tool_call"], [f"{ONE} more", ONE + ONE]),
        ("auto", False, ["hello", ONE, f"so\n{ONE}"], [TWO]),
        ("required", True, [ONE, TWO, call("say", text="<tool_call> } \" \\")], ["", "hello", f"so\n{ONE}"]),
        ("required", False, [ONE], [TWO, ""]),
        ("none", True, ["", "hello <tool"], [ONE, "<tool_call>"]),
        ("add", True, [ONE, f"{ONE}\n{ONE}"], [TWO, call("nothing"), "", "hello"]),
        ("nothing", False, [call("nothing")], [ONE, call("nothing", a=1)]),
    ],
)  # fmt: skip
def test_an_answer_has_the_calls_that_it_may_have(
    choice: str, parallel: bool, fits: list[str], fits_not: list[str]
) -> None:
    made = tool_format([NOTHING, ADD, SAY], choice, parallel)
    assert [text for text in fits if not matches_spelled(made.grammar, text)] == []
    assert [text for text in fits_not if matches_spelled(made.grammar, text)] == []
    assert (made.kind, made.note) == ("tools", "")


def matches_spelled(grammar: str, text: str) -> bool:
    """As `matches`, with `<tool_call>` inside a JSON string in letters, as a model would write it."""
    whole = text.replace('"<tool_call> }', '"\0 }')
    tokens: list[int] = []
    for index, part in enumerate(whole.split("\0")):
        tokens += byte_tokens(part) if not index else [*b"<tool_call>", *byte_tokens(part)]
    matcher = new_matcher(byte_tokenizer(), grammar)
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


@pytest.mark.parametrize(
    "wrong",
    [
        call("unknown"),
        call("add"),
        call("add", a="1"),
        call("add", a=1, c=2),
        call("nothing", a=1),
        ONE.replace("\n", ""),
        ONE.replace('", "arguments', '","arguments'),
        ONE.replace("</tool_call>", ""),
    ],
)
def test_a_call_that_fits_no_tool_cannot_be_written(wrong: str) -> None:
    assert not matches(tool_format([NOTHING, ADD]).grammar, wrong)


@pytest.mark.parametrize("choice", ["auto", "none"])
@pytest.mark.parametrize("tokens", [TAGS, (*TAGS, "<box>", "</box>")])
def test_the_token_of_a_call_cannot_be_written_in_letters(choice: str, tokens: tuple[str, ...]) -> None:
    """What reads an answer sees letters, so text would have been taken for a call."""
    made = tool_format([ADD], choice, tokens=tokens)
    matcher = new_matcher(byte_tokenizer(), made.grammar)
    letters = list(b"see <tool_call> <tool_call>")
    assert matcher.try_consume_tokens(letters) == len(b"see <tool_call")


def test_text_points_at_things_and_calls_follow() -> None:
    pointing = "<ref>a cat</ref><box>[[1, 2, 3, 4]]</box>"
    assert matches(tool_format([ADD]).grammar, f"{pointing}\n{ONE}")
    assert not matches(tool_format([ADD], tokens=TAGS).grammar, pointing)


def test_a_model_without_the_tokens_writes_the_tags_in_letters() -> None:
    made = tool_format([ADD], tokens=())
    letters = f"Well\n{ONE}".encode()
    matcher = new_matcher(byte_tokenizer(), made.grammar)
    assert matcher.try_consume_tokens(list(letters)) == len(letters)
    assert matcher.is_accepting()


def test_an_answer_without_calls_may_be_bound_to_a_schema() -> None:
    otherwise = format_of(schema={"type": "integer"})
    made = tool_format([ADD], otherwise=otherwise)
    assert made.note == otherwise.note
    assert [matches(made.grammar, text) for text in ("12", ONE, "hello", f"12\n{ONE}")] == [True, True, False, False]
    with pytest.raises(InvalidRequestError, match="bound to regex, too"):
        tool_format([ADD], otherwise=format_of(regex="a"))


def test_without_tools_an_answer_is_free() -> None:
    assert tool_format([]) is None
    assert tool_format([], "none") is None
    with pytest.raises(InvalidRequestError, match="there are no tools"):
        tool_format([], "required")
    with pytest.raises(InvalidRequestError, match="which no tool is called"):
        tool_format([ADD], "subtract")


def test_functions_in_all_their_types_bind_their_calls() -> None:
    def book(name: str, nights: int = 1, options: dict[str, bool] | None = None) -> None: ...

    made = tool_format(tools_of([book]), "required")
    assert matches(made.grammar, call("book", name="é", options={"quiet": True}))
    assert not matches(made.grammar, call("book", nights=2))
    text, calls = made.parse(call("book", name="x"))
    assert (text, calls[0].name, calls[0].arguments) == ("", "book", {"name": "x"})
    assert calls[0].id.startswith("call_")


def test_a_hundred_tools_are_bound() -> None:
    many = [Tool(f"tool_{number}", "", ADD.parameters) for number in range(128)]
    made = tool_format(many)
    assert matches(made.grammar, call("tool_77", a=1))


def numbered() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"call_{next(numbers)}"


def joined(events: list[ToolEvent]) -> tuple[Any, ...]:
    """Return what happened, whatever the pieces were."""
    text = "".join(event.text for event in events if isinstance(event, TextPiece))
    begun = [(event.index, event.id, event.name) for event in events if isinstance(event, CallBegun)]
    arguments: dict[int, str] = {}
    for event in events:
        if isinstance(event, ArgumentsPiece):
            arguments[event.index] = arguments.get(event.index, "") + event.text
    return text, begun, arguments, [event for event in events if isinstance(event, CallEnded)]


def read(pieces: list[str]) -> list[ToolEvent]:
    stream = ToolStream(numbered())
    events = [event for piece in pieces for event in stream.feed(piece)]
    return events + stream.finish()


VALUES = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
ARGUMENTS = st.dictionaries(st.text(), VALUES, max_size=3)
TEXTS = st.text().filter(lambda text: "<tool_call>" not in text)
ANSWERS = st.tuples(TEXTS, st.lists(st.tuples(st.sampled_from(["f", "get_it", "a-1"]), ARGUMENTS), max_size=3))


def written(text: str, calls: list[tuple[str, dict[str, Any]]]) -> str:
    blocks = "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>" for name, arguments in calls
    )
    return f"{text}\n{blocks}" if text and blocks else text + blocks


@given(ANSWERS, st.data())
def test_pieces_say_what_the_whole_says(answer: tuple[str, list[Any]], data: st.DataObject) -> None:
    whole = written(*answer)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]
    events = joined(read(pieces))
    assert events == joined(read([whole])) == joined(read(list(whole)))
    text, calls = parse_calls(whole, numbered())
    assert text == events[0] == answer[0]
    assert [(made.name, made.arguments) for made in calls] == answer[1]
    assert tuple(event.call for event in events[3]) == calls
    assert [json.loads(raw) for raw in events[2].values()] == [arguments for _, arguments in answer[1]]


@given(ANSWERS, st.integers(0))
def test_an_answer_that_is_cut_off_says_which_call_is_not_whole(answer: tuple[str, list[Any]], place: int) -> None:
    whole = written(*answer)
    part = whole[: place % (len(whole) + 1)]
    _, begun, arguments, ended = joined(read(list(part)))
    assert [event.index for event in ended] == [index for index, _, _ in begun]
    assert [event.call is None for event in ended[:-1]] == [False] * (len(ended) - 1 if ended else 0)
    for event in ended:
        made = answer[1][event.index]
        if event.call:
            assert (event.call.name, event.call.arguments) == made
        else:
            assert json.dumps(made[1]).startswith(arguments.get(event.index, ""))
    if ended and ended[-1].call is None:
        with pytest.raises(InvalidAnswerError, match="ends inside a call"):
            parse_calls(part)


def test_events_come_as_soon_as_they_can() -> None:
    stream = ToolStream(numbered())
    assert stream.feed("Well") == [TextPiece("Well")]
    assert stream.feed("\n<tool_") == []
    assert stream.feed("box> no\n") == [TextPiece("\n<tool_box> no")]
    assert stream.feed("<tool_call>") == []
    assert stream.is_inside_call
    assert stream.feed('\n{"name": "say') == []
    assert stream.feed('", ') == [CallBegun(0, "call_0", "say")]
    assert stream.feed('"arguments": {"text"') == [ArgumentsPiece(0, '{"text"')]
    assert stream.feed(': "a}\\') == [ArgumentsPiece(0, ': "a}')]
    assert stream.feed('""}') == [ArgumentsPiece(0, '\\""}')]
    assert stream.feed("}\n</tool_call>") == [CallEnded(0, ToolCall("call_0", "say", {"text": 'a}"'}, 0))]
    assert not stream.is_inside_call
    assert stream.finish() == []
    assert stream.finish() == []


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>x",
        '<tool_call>\n{"name": "f", "x',
        f"{ONE} and",
        f"{ONE}\nand",
        '<tool_call>\n{"name": "f", "arguments": [',
    ],
)
def test_a_frame_that_is_left_is_no_call(text: str) -> None:
    with pytest.raises(InvalidAnswerError, match="written wrongly"):
        parse_calls(text)


def test_a_constant_in_a_call_is_there_once_no_other_can_follow() -> None:
    made = tool_format([Tool("turn", "", {"properties": {"way": {"enum": ["left", "leap"]}}})])
    whole = call("turn", way="left")
    for end, arguments in (("le", {}), ("lef", {"way": "left"})):
        _, calls = made.parse_partial(whole[: whole.index("left") + len(end)])
        assert [(each.name, each.arguments) for each in calls] == [("turn", arguments)]


def test_an_answer_with_calls_is_read_while_it_is_being_written() -> None:
    made = tool_format([ADD, SAY])
    whole = f"Well\n{call('say', text='hello')}\n{ONE}"
    assert made.parse_partial("") is None
    assert made.parse_partial("We") == ("We", ())
    text, calls = made.parse_partial(whole[: whole.index("llo")])
    assert (text, [(each.name, each.arguments) for each in calls]) == ("Well", [("say", {"text": "he"})])
    assert [each.name for each in made.parse_partial(whole)[1]] == ["say", "add"]
    assert made.parse_partial("<tool_call>what") is None
    with pytest.raises(InvalidAnswerError):
        made.parse(whole[:-3])
