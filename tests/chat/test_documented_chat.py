"""The conversation that docs/chat.md shows, typed into a real terminal: what it shows is what stands on the screen."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from internvl_gguf.demo.__main__ import EXAMPLE
from tests.support.chat_terminal import CTRL_D, CTRL_U, ENTER, PROMPT, ChatTerminal

DOCUMENT = Path(__file__).parents[2] / "docs" / "chat.md"
STAR = EXAMPLE.parents[1] / "bench" / "data" / "exam" / "colours-027.png"
TRANSCRIPT = re.compile(r"^```\n(\$ internvl chat.*?)^```$", re.DOTALL | re.MULTILINE)
CHANGES = re.compile(r"[\d,.]+ (?=s\b|tokens/s)|(?<=--resume )\w+|(?<=Going on with )\w+")
"""What is another in every run: times, speeds, and the names of conversations."""
SHOWN_AGAIN = re.compile(r"^Going on with .*\nIts pictures: .*\n> .*\n", re.MULTILINE)
START = "$ internvl chat "
EDIT = "/edit"


def documented() -> list[str]:
    """The parts of the transcript, one for each start of the chat, with the line that starts it."""
    block = re.search(
        r"^```\n(\$ internvl chat.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert block
    return [START + part.strip() for part in block[1].split(START)[1:]]


def replay(part: str, folder: Path) -> str:
    """The screen of a chat that is started and answered as a part of the transcript says."""
    start, *lines = SHOWN_AGAIN.sub("", part).splitlines()
    typed = [line[2:] for line in lines if line.startswith("> ")]
    with ChatTerminal(*shlex.split(start.removeprefix(START)), "--no-preview", folder=folder) as terminal:
        terminal.wait(PROMPT)
        for before, line in zip(["", *typed], typed, strict=False):
            if before == EDIT:
                terminal.wait(r"^(\[\d+ pictures?\] )?> \S.*\Z")
                terminal.type(CTRL_U)
            terminal.type(line, ENTER)
            if line != EDIT:
                terminal.wait(re.escape(line) + r"[^>]*\n" + PROMPT.removeprefix("^"))
        assert terminal.leave(CTRL_D) == 0
        return f"{start}\n{terminal.text}"


def lasting(text: str) -> str:
    """A transcript without what changes from run to run, nor the line breaks that follow from it."""
    return " ".join(CHANGES.sub("N ", text).replace("·", " ").split())


def test_the_documented_conversation_is_what_the_terminal_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERNVL_DATA", str(tmp_path / "data"))
    (tmp_path / "holiday pictures").mkdir()
    shutil.copy(EXAMPLE, tmp_path / "example.png")
    shutil.copy(STAR, tmp_path / "holiday pictures" / "star.png")
    for part in documented():
        assert lasting(replay(part, tmp_path)) == lasting(part)
