"""The line editor of a terminal: history of typed lines, several lines, completion."""

from __future__ import annotations

import contextlib
import os
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.shortcuts import CompleteStyle

from internvl_gguf.chat.reader import Reader, is_complete
from internvl_gguf.chat.suggestions import Sources, suggestions

if TYPE_CHECKING:
    from prompt_toolkit.document import Document

HISTORY_FILE = "chat_input"
_LONGEST_ABOUT = 60


class _Suggested(Completer):
    """Completes the text before the cursor with `suggestions`, on Tab only."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for found in suggestions(document.text_before_cursor, self._sources):
            yield Completion(
                found.text,
                -found.replaces,
                display_meta=textwrap.shorten(found.about, _LONGEST_ABOUT, placeholder="..."),
            )


class LineEditor(Reader):
    """Reads lines with prompt_toolkit.

    Args:
        sources: names from the chat for completion.
        folder: folder that keeps typed lines for the next run; None keeps none.
        terminal: file that keys are read from; None for stdin.
    """

    def __init__(self, sources: Sources, folder: Path | None, terminal: Any = None) -> None:
        arguments: dict[str, Any] = {}
        if terminal is not None:
            from prompt_toolkit.input import create_input

            arguments["input"] = create_input(terminal)
        self._session: PromptSession[str] = PromptSession(
            history=_history(folder),
            completer=_Suggested(sources),
            complete_style=CompleteStyle.COLUMN,
            complete_while_typing=False,
            key_bindings=_keys(),
            multiline=True,
            prompt_continuation=lambda width, number, wrapped: "" if wrapped else ". ".rjust(width),
            enable_suspend=True,
            enable_open_in_editor=True,
            tempfile_suffix=".md",
            **arguments,
        )

    def read(self, text: str, waiting: int) -> str:
        prompt = f"[{waiting} picture{'s' * (waiting > 1)}] > " if waiting else "> "
        try:
            return self._session.prompt(prompt, default=text)
        except KeyboardInterrupt:
            if not self._session.default_buffer.text:
                raise
            return ""  # as in a shell: Ctrl-C clears the line and does not leave

    def choose(self, question: str) -> str:
        try:
            return str(PromptSession(history=InMemoryHistory(), input=self._session.input).prompt(f"{question} "))
        except (EOFError, KeyboardInterrupt):
            return ""


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @Condition
    def is_whole() -> bool:
        from prompt_toolkit.application import get_app

        return is_complete(get_app().current_buffer.text)

    @keys.add(Keys.Enter, filter=is_whole)
    def accept(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add(Keys.Escape, Keys.Enter)
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


def _history(folder: Path | None) -> History:
    """Return the history of typed lines, in the folder; only in memory if that cannot be written."""
    if folder is None:
        return InMemoryHistory()
    path = folder / HISTORY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # typed lines are private
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with path.open("ab"):
            pass
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))
