"""Calls of tools in answers, and `Session.run`, which makes them."""

from __future__ import annotations

import json
import re
import threading
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from internvl_gguf import InternVLError, InvalidRequestError, Picture, Session
from internvl_gguf.errors import ContextOverflowError
from internvl_gguf.session.tool_loop import as_result
from internvl_gguf.types import Message, ToolCall, ToolResult
from tests.support.pictures import noise

Town = Literal["Oslo", "Rome"]


def weather(town: Town, days: Literal[1, 2] = 1) -> str:
    """Tell the weather of a town.

    Args:
        town: its name.
        days: how many days ahead.
    """
    return f"rain in {town} for {days}"


def forecast(town: Town) -> dict[str, Any]:
    return {"town": town, "degrees": 4}


LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"key": {"enum": ["a", "b"]}}, "required": ["key"]},
    },
}


def test_a_call_is_no_text_and_its_arguments_fit(session: Session) -> None:
    reply = session.ask("And in Oslo?", [noise(1)], tools=[weather], tool_choice="required")
    assert reply.text == ""
    assert reply.finish_reason == "stop"
    for call in reply.tool_calls:
        assert call.name == "weather"
        assert call.id.startswith("call_")
        assert call.arguments["town"] in ("Oslo", "Rome")
        assert call.arguments.get("days", 1) in (1, 2)
    assert len({call.id for call in reply.tool_calls}) == len(reply.tool_calls) >= 1
    found = json.loads(json.dumps(reply.to_dict()))["tool_calls"]
    assert [each["arguments"] for each in found] == [call.arguments for call in reply.tool_calls]


def test_the_conversation_holds_calls_as_the_model_wrote_them_and_results_follow(session: Session) -> None:
    reply = session.ask("And in Oslo?", tools=[LOOK_UP], tool_choice="look_up", parallel_tool_calls=False)
    (call,) = reply.tool_calls
    written = json.dumps({"name": "look_up", "arguments": call.arguments})
    assert session.messages[-1].text == f"<tool_call>\n{written}\n</tool_call>"
    after = session.ask([ToolResult({"value": 5})], tools=[LOOK_UP], tool_choice="none", max_tokens=4)
    assert [message.role for message in session.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert session.messages[-2].text == '{"value": 5}'
    assert after.tool_calls == ()
    # The tools are the same, so what was read and sampled is there.
    assert after.usage.cached_tokens >= reply.usage.prompt_tokens


def test_one_tool_of_several_and_none(session: Session) -> None:
    tools = [forecast, LOOK_UP]
    reply = session.ask("What?", tools=tools, tool_choice="forecast")
    assert {call.name for call in reply.tool_calls} == {"forecast"}
    session.clear()
    reply = session.ask("What?", tools=tools, tool_choice="none", max_tokens=20)
    assert reply.tool_calls == ()
    session.clear()
    assert session.ask("What?", tools=tools, parallel_tool_calls=False, tool_choice="required").tool_calls


def test_a_stream_tells_calls_as_they_come(session: Session) -> None:
    chunks = list(session.stream("What?", tools=[weather], tool_choice="required"))
    reply = chunks[-1].reply
    assert reply is not None
    deltas = [chunk.tool_call for chunk in chunks if chunk.tool_call]
    for call in reply.tool_calls:
        of_call = [delta for delta in deltas if delta.index == call.index]
        assert (of_call[0].id, of_call[0].name, of_call[0].arguments) == (call.id, call.name, "")
        assert {(delta.id, delta.name) for delta in of_call[1:]} == {("", "")}
        assert json.loads("".join(delta.arguments for delta in of_call)) == call.arguments
    assert "".join(chunk.text for chunk in chunks) == reply.text == ""


def test_a_call_that_was_cut_off_is_none(session: Session) -> None:
    reply = session.ask("What?", tools=[weather], tool_choice="required", max_tokens=30)
    assert reply.finish_reason == "length"
    assert reply.tool_calls == ()
    assert session.messages[-1].text.startswith("<tool_call>\n")  # nothing is lost
    assert reply.text == ""
    assert "inside a call" in reply.notices[0]


def test_a_schema_beside_tools(session: Session) -> None:
    schema = {"type": "object", "properties": {"word": {"enum": ["tea", "cake"]}}, "required": ["word"]}
    reply = session.ask("What?", tools=[weather], schema=schema)
    assert reply.tool_calls or reply.parsed["word"] in ("tea", "cake")
    assert session.ask("What?", tools=[weather], schema=schema, tool_choice="none").parsed["word"] in ("tea", "cake")
    with pytest.raises(InvalidRequestError, match="choices"):
        session.ask("What?", tools=[weather], choices=["a"])


def test_run_calls_tools_and_gives_back_what_they_return(session: Session) -> None:
    told: list[tuple[ToolCall, ToolResult]] = []
    reply = session.run(
        "And in Oslo?",
        tools=[weather],
        tool_choice="required",
        max_steps=2,
        max_tokens=150,
        on_call=lambda call, result: told.append((call, result)),
    )
    assert told
    for call, result in told:
        assert result.content == f"rain in {call.arguments['town']} for {call.arguments.get('days', 1)}"
    results = [message.text for message in session.messages if message.role == "tool"]
    assert results == [result.content for _, result in told]
    assert session.messages[-1].role == "assistant"
    assert reply.usage.completion_tokens > 0


def test_run_stops_after_its_steps(session: Session) -> None:
    reply = session.run("What?", tools=[weather], tool_choice="required", max_steps=1)
    assert reply.tool_calls
    assert [message.role for message in session.messages] == ["system", "user", "assistant"]


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def failing(kind: Literal["error", "exit", "wrong"]) -> object:
    if kind == "error":
        raise OSError(5, "the disk is full")
    if kind == "exit":
        raise SystemExit(3)
    raise AssertionError


def results_of(session: Session, tool: Any, **options: Any) -> list[str]:
    found: list[str] = []
    session.run(
        "What?",
        tools=[tool],
        tool_choice="required",
        max_steps=2,
        max_tokens=100,
        on_call=lambda call, result: found.append(str(result.content)),
        **options,
    )
    return found


def test_a_tool_that_fails_tells_the_model(session: Session) -> None:
    found = results_of(session, failing)
    assert found
    assert all(each.startswith("Error: ") for each in found)
    assert "\n" not in "".join(found)


def test_a_tool_whose_picture_cannot_be_read_tells_the_model(session: Session) -> None:
    def camera(place: Literal["door"]) -> Picture:
        return Picture("gone.jpg")

    found = results_of(session, camera)
    assert found
    assert all(each.startswith("Error: ") and "gone.jpg" in each for each in found)


def test_a_tool_that_hangs_is_not_waited_for(session: Session) -> None:
    released = threading.Event()

    def slow(key: Literal["a"]) -> str:
        released.wait(60)
        return key

    try:
        found = results_of(session, slow, tool_timeout=0.05)
    finally:
        released.set()
    assert set(found) == {"Error: slow took longer than 0.05 seconds."}


def holding_itself() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


@pytest.mark.parametrize(
    "result",
    [
        holding_itself(),
        {"x": b"\x89"},
        "\ud800",
        ["\ud800"],
        object(),
        {"at": object()},
        float("nan"),
        np.array([1.0, np.inf]),
        ["the yard", Picture("yard.png")],
        {"photo": noise(1)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_that_json_cannot_hold_is_a_fault_of_the_tool(session: Session, result: Any) -> None:
    """The model is told which tool it was, in one line, and the conversation goes on."""

    def look(place: Literal["door"]) -> Any:
        return result

    found = results_of(session, look)
    assert found
    assert all(each.startswith("Error: What the tool look returned cannot be used: ") for each in found)
    assert "\n" not in "".join(found)
    session.clear()
    session.ask("What?", tools=[look], tool_choice="look", parallel_tool_calls=False)
    with pytest.raises(InvalidRequestError, match="result of a tool"):
        session.ask([ToolResult(result)])


def test_a_list_of_pictures_is_shown_as_pictures(session: Session) -> None:
    def cameras(place: Literal["door"]) -> list[Any]:
        return [noise(1), Picture(noise(2), max_tiles=1)]

    session.run("Who?", tools=[cameras], tool_choice="cameras", parallel_tool_calls=False, max_steps=2, max_tiles=1)
    (shown,) = [message for message in session.messages if message.role == "tool"]
    assert (shown.text, len(shown.pictures)) == ("", 2)


def test_an_error_of_the_question_leaves_the_conversation_as_it_was(session: Session) -> None:
    session.ask("Before.", max_tokens=2)
    before = session.messages

    def impossible(key: Literal["a"]) -> ToolResult:
        return ToolResult("x" * 20_000)

    with pytest.raises(InternVLError, match="context"):
        session.run("What?", tools=[impossible], tool_choice="required")
    assert session.messages == before


def test_pictures_that_a_tool_returns_are_seen(session: Session) -> None:
    def camera(place: Literal["door", "yard"]) -> Image.Image:
        return noise(2)

    reply = session.run("Who is there?", tools=[camera], tool_choice="required", max_steps=2, max_tiles=1)
    shown = [message for message in session.messages if message.role == "tool"]
    assert all(len(message.pictures) == 1 for message in shown)
    assert reply.usage.images == len(shown) >= 1


def test_what_a_function_returns_becomes_a_result() -> None:
    assert as_result("text") == ToolResult("text")
    assert as_result(None) == ToolResult(None)
    assert as_result(b"picture").images == [b"picture"]
    assert as_result([1, 2]) == ToolResult([1, 2])
    assert as_result([]) == ToolResult([])
    assert as_result((b"one", b"two")).images == [b"one", b"two"]
    assert as_result(ToolResult("x", ["a.png"])) == ToolResult("x", ["a.png"])
    assert as_result(np.zeros((4, 4, 3), np.uint8)).content == ""
    assert as_result(np.zeros(3)).images == ()
    assert as_result(Picture("a.png")).images == [Picture("a.png")]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "no tools to run"),
        ({"tools": []}, "no tools to run"),
        ({"tools": [LOOK_UP]}, "has no function"),
        ({"tools": [weather, weather]}, "Two tools"),
        ({"tools": [lambda: 1]}, "lambda"),
        ({"tools": "weather"}, "tools is"),
        ({"tools": [weather], "tool_choice": "nothing"}, "nothing"),
        ({"tools": [weather], "max_steps": 0}, "max_steps"),
        ({"tools": [weather], "tool_choice": 5}, "tool_choice"),
        ({"tools": [weather], "tool_timeout": -1}, "tool_timeout"),
        ({"tools": [weather], "on_call": 5}, "on_call is 5"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_tools_that_cannot_be_used(session: Session, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told) as caught:
        session.run("What?", **options)
    assert "\n" not in str(caught.value)
    assert [message.role for message in session.messages] == ["system"]


def test_results_without_a_call_are_refused(session: Session) -> None:
    with pytest.raises(InvalidRequestError, match="no call"):
        session.ask([ToolResult("5")])
    session.ask("What?", max_tokens=2)
    with pytest.raises(InvalidRequestError, match="no call"):
        session.ask([ToolResult("5")])
    reply = session.ask("What?", tools=[weather], tool_choice="weather", parallel_tool_calls=False)
    assert len(reply.tool_calls) == 1
    with pytest.raises(InvalidRequestError, match="2 results"):
        session.ask([ToolResult("5"), ToolResult("6")])
    assert session.ask([ToolResult("5")], max_tokens=2).text is not None


def test_tools_that_fill_the_context_are_named(session: Session) -> None:
    def look_up(word: str) -> str:
        return word

    look_up.__doc__ = "Look up a word. " * 200
    with pytest.raises(ContextOverflowError) as caught:
        session.ask("What is it?", tools=[look_up])
    found = re.search(r"The tools take ([\d,]+) tokens", caught.value.hint)
    assert found
    assert 1024 < int(found[1].replace(",", "")) < caught.value.needed


def test_a_conversation_with_tools_is_saved_and_forked(session: Session, tmp_path: Any) -> None:
    session.ask("What?", tools=[weather], tool_choice="weather", parallel_tool_calls=False)
    session.ask([ToolResult("rain", [noise(2)])], tools=[weather], tool_choice="none", max_tokens=3)
    session.save(tmp_path / "saved")
    fork = session.fork()
    assert fork.messages == session.messages
    fork.close()
    with Session.restore(tmp_path / "saved", recompute=True, n_threads=1) as restored:
        assert restored.messages == session.messages
        usage = restored.ask("And now?", tools=[weather], tool_choice="none", max_tokens=2).usage
        assert usage.tiles_encoded == 0
        assert usage.cached_tokens > 200
    session.continue_with(
        [Message("user", "a"), Message("assistant", "b"), Message("tool", "c"), Message("assistant", "d")]
    )
