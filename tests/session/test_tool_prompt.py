"""Tools in the prompt, compared with what the chat template of Qwen2.5-Instruct writes."""

from __future__ import annotations

import pytest

from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.session.prompt_template import check_turns
from internvl_gguf.session.tool_prompt import with_tools
from internvl_gguf.structured import Tool, tools_of
from internvl_gguf.types import Message, MessagePicture, Tile
from tests.session.test_prompt_template import written

WEATHER = (
    '{"type": "function", "function": {"name": "weather", "description": "The weather of a town.", "parameters": '
    '{"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}}}'
)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"town": "Köln"}}\n</tool_call>'


def tools() -> tuple[Tool, ...]:
    parameters = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
    named = {"name": "weather", "description": "The weather of a town.", "parameters": parameters}
    return tools_of([{"type": "function", "function": named}])


def listed(*lines: str) -> str:
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        + "\n".join(lines)
        + "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n<tool_call>\n"
        '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


def picture(name: str) -> MessagePicture:
    return MessagePicture(name, (1, 1), False, (10, 10), (Tile(name.encode(), b""),))


def test_the_system_message_lists_the_tools() -> None:
    asked = [Message("system", "Be brief."), Message("user", "And in Köln?")]
    assert written(with_tools(asked, tools())) == (
        f"<|im_start|>system\nBe brief.\n\n{listed(WEATHER)}<|im_end|>\n"
        "<|im_start|>user\nAnd in Köln?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_a_system_message_the_tools_are_one() -> None:
    assert written(with_tools([Message("user", "Hi")], tools())).startswith(
        f"<|im_start|>system\n{listed(WEATHER)}<|im_end|>\n<|im_start|>user\nHi"
    )


def test_results_come_from_the_user_and_those_of_one_answer_in_one_turn() -> None:
    asked = [
        Message("user", "And in Köln?"),
        Message("assistant", f"I look.\n{CALL}\n{CALL}"),
        Message("tool", "rain"),
        Message("tool", '{"degrees": 4}'),
    ]
    assert written(with_tools(asked, ())) == (
        "<|im_start|>user\nAnd in Köln?<|im_end|>\n"
        f"<|im_start|>assistant\nI look.\n{CALL}\n{CALL}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n"
        '<tool_response>\n{"degrees": 4}\n</tool_response><|im_end|>\n<|im_start|>assistant\n'
    )


def test_pictures_of_results_stand_inside_them_and_are_counted_on() -> None:
    asked = [
        Message("user", "Compare.", (picture("a"),)),
        Message("assistant", CALL),
        Message("tool", "before", (picture("b"),)),
        Message("tool", "two of them", (picture("c"), picture("d"))),
        Message("tool", "see <image> here", (picture("e"),)),
    ]
    assert written(with_tools(asked, ())).split("<|im_start|>")[-2] == (
        "user\n<tool_response>\n<img><tile></img>\nbefore\n</tool_response>\n"
        "<tool_response>\nImage-3: <img><tile></img>\nImage-4: <img><tile></img>\ntwo of them\n</tool_response>\n"
        "<tool_response>\nsee <img><tile></img> here\n</tool_response><|im_end|>\n"
    )


def test_a_conversation_without_tools_is_laid_out_as_ever() -> None:
    asked = [Message("system", ""), Message("user", "Hi", (picture("a"),)), Message("assistant", "Hello")]
    assert with_tools(asked, ()) == asked


@pytest.mark.parametrize(
    "roles",
    ["user tool", "tool", "user assistant tool user", "user assistant tool", "user assistant assistant", "assistant"],
)
def test_results_stand_between_two_answers(roles: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_turns([Message(role, "x") for role in roles.split()])  # type: ignore[arg-type]


def test_a_conversation_with_results_may_be_continued() -> None:
    roles = ("system", "user", "assistant", "tool", "tool", "assistant", "user", "assistant")
    messages = [Message(role, "x") for role in roles]  # type: ignore[arg-type]
    assert check_turns(messages) == messages
