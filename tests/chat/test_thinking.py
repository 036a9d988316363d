"""Thoughts in the chat: folded while they come, shown when they are asked for, kept in the history."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from internvl_gguf.chat.remote.received import ReceivedAnswer
from internvl_gguf.chat.remote.wire import request_fields, request_messages
from internvl_gguf.types import Message
from tests.support.chain_model import THINKING, write_chain_model
from tests.support.chat_terminal import ENTER, PROMPT, ChatTerminal

THOUGHT, ANSWER = "Hm, red? No.", "Blue."


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[ChatTerminal]:
    """A chat with a model that thinks."""
    chain = ("<think>", "\t", THOUGHT, "\r", "</think>", " ", "Blue", ".")
    files = write_chain_model(tmp_path, chain, **THINKING)
    options = ["--mmproj", files.mmproj, "-t", 1, "-c", 1024, "--temp", 0]
    data = str(tmp_path / "data")
    with ChatTerminal(files.text, *options, folder=tmp_path, columns=100, INTERNVL_DATA=data) as opened:
        yield opened


def test_a_thought_is_folded_and_shown_on_demand(terminal: ChatTerminal) -> None:
    terminal.do("/thought", "Nothing was asked yet")
    terminal.do("/think on", "The model thinks before it answers")
    terminal.do("What color?", rf"^\s*{ANSWER}")
    terminal.wait(r"6 of them a thought \(/thought\)")
    assert THOUGHT not in terminal.text
    terminal.do("/thought", rf"^{re.escape(THOUGHT)}")
    terminal.do("/think 12", "at most 12 tokens")
    terminal.do("/think drop", "Earlier thoughts are left out")
    terminal.do("/think off", "kept from thinking")
    terminal.do("/think auto", "left to the model")
    terminal.do("/think maybe", "takes no 'maybe'")
    terminal.do("/set", r"thinking_budget")
    assert terminal.leave() == 0


def test_a_conversation_that_goes_on_has_its_thoughts(terminal: ChatTerminal, tmp_path: Path) -> None:
    terminal.do("What color?", rf"^\s*{ANSWER}")
    terminal.do("/save talk.json", "talk.json")
    terminal.do("/export talk.md", "talk.md")
    terminal.do("/clear", "A new conversation")
    terminal.do("/thought", "Nothing was asked yet")
    terminal.do("/load talk.json", "What color")
    terminal.do("/thought", rf"^{re.escape(THOUGHT)}")
    terminal.wait(PROMPT)
    terminal.type("And now?", ENTER)
    terminal.wait(rf"^\s*{ANSWER}", times=2)
    assert f"<details><summary>Thought</summary>\n\n> {THOUGHT}\n\n</details>" in (tmp_path / "talk.md").read_text()


def test_thinking_is_refused_at_once_where_the_model_cannot(tmp_path: Path) -> None:
    """It said "The model thinks", and then every question failed with a hint that named no command."""
    with ChatTerminal("demo", folder=tmp_path, columns=100, INTERNVL_DATA=str(tmp_path / "data")) as terminal:
        for number, line in enumerate(("/think on", "/think 50", "/set thinking on", "/set thinking_budget 5"), 1):
            terminal.do(line, "demo cannot think: there is no <think>", times=number)
            terminal.wait("/think auto leaves it to the model", times=number)
        terminal.do("/think off", "kept from thinking")
        terminal.do("/think auto", "left to the model")
        terminal.do("What is red?", r"tokens/s")
        assert terminal.leave() == 0


def test_another_model_that_cannot_think_is_told_with_the_change(tmp_path: Path) -> None:
    files = write_chain_model(tmp_path, ("<think>", THOUGHT, "</think>", " ", "Blue", "."), **THINKING)
    data = str(tmp_path / "data")
    with ChatTerminal(files.text, folder=tmp_path, columns=100, INTERNVL_DATA=data) as terminal:
        terminal.do("/think 12", "at most 12 tokens")
        terminal.do("/model demo", r"demo cannot think: it answers at once \(/think auto\)")
        terminal.do("/think", "left to the model")
        assert terminal.leave() == 0


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_server_may_call_thoughts_either_name(name: str) -> None:
    answer = ReceivedAnswer()
    pieces = [answer.take({"choices": [{"delta": delta}]}) for delta in ({name: "Hm"}, {"content": "Yes"}, {})]
    assert [(piece.thinking, piece.text) for piece in pieces if piece] == [("Hm", ""), ("", "Yes")]
    assert answer.reply().thinking == "Hm"


def test_only_our_server_gets_thoughts_back() -> None:
    messages = [Message("user", "Why?"), Message("assistant", "So.", thinking="Hm")]
    assert "reasoning_content" not in request_messages(messages, is_ours=False)[1]
    assert request_messages(messages, is_ours=True)[1]["reasoning_content"] == "Hm"
    assert request_fields({"thinking": True}, is_ours=False) == {"chat_template_kwargs": {"enable_thinking": True}}
    assert request_fields({"max_tokens": 3}, is_ours=True) == {"max_tokens": 3}
